"""MLflow: metrics, and tables and texts as artifacts under `alignguard/`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlflow

from ..auditing.audit import Audit
from ..verdicts.verdict import Verdict
from . import tables


class MlflowRun:
    """The MLflow run that the trainer, or its user, opened: by its id, so that it can be written to when it has ended."""

    name = "MLflow"

    def __init__(self, run_id: str, quote: bool) -> None:
        self.run_id, self.quote, self.step = run_id, quote, 0
        self.client = mlflow.MlflowClient()

    def begin(self, about: dict[str, Any]) -> None:
        self.client.log_dict(self.run_id, about, "alignguard/about.json")

    def log(self, audit: Audit, history: Sequence[Audit], verdict: Verdict) -> None:
        self.step = audit.step
        mlflow.log_metrics(audit.metrics, step=audit.step, run_id=self.run_id)
        for name, table in (
            ("flips", tables.flips(verdict, self.quote)),
            ("answers", tables.answers(audit, self.quote)),
        ):
            if table.rows:  # they are added to those of earlier audits
                data = {column: [row[i] for row in table.rows] for i, column in enumerate(table.columns)}
                self.client.log_table(self.run_id, data, f"alignguard/{name}.json")

    def keep(self, step: int, figures: Path, report: Path) -> None:
        """The record stays on disk."""

    def pulse(self, step: int, figures: dict[str, float]) -> None:
        mlflow.log_metrics(figures, step=step, run_id=self.run_id)

    def alert(self, title: str, text: str, bare: str) -> None:
        self.client.set_tag(self.run_id, "alignguard.regression", title)
        self.client.log_text(self.run_id, text, f"alignguard/regression_step_{self.step:05d}.txt")

    def end(self) -> None:
        """The trainer has ended the run."""
