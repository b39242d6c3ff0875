"""MLflow: metrics, and tables and texts as artifacts under `alignguard/`.

Its server may be away for a while: what could not be sent waits, see `outbox.py`. All of it may arrive twice, since nobody knows
whether what failed has arrived: figures have the time of their audit, by which a server knows them again, and files are written
whole.
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Metric

from ..auditing.audit import Audit
from ..verdicts.verdict import Verdict
from . import tables
from .outbox import Outbox

logger = logging.getLogger("alignguard")


class MlflowRun:
    """The MLflow run that the trainer, or its user, opened: by its id, so that it can be written to when it has ended."""

    name = "MLflow"

    def __init__(self, run_id: str, quote: bool) -> None:
        self.run_id, self.quote, self.step, self.ended = run_id, quote, 0, False
        self.client = mlflow.MlflowClient()
        self.figures, self.files = Outbox(), Outbox()  # the second may go to another place, which may be shut for good
        self.rows: dict[str, list[dict[str, Any]]] = {"flips": [], "answers": []}
        self.grown: set[str] = set()  # since they were last to be sent
        self.read: set[str] = set()  # of which it is known what an earlier part of a resumed run has sent

    def begin(self, about: dict[str, Any]) -> None:
        self.client.log_dict(self.run_id, about, "alignguard/about.json")

    def log(self, audit: Audit, history: Sequence[Audit], verdict: Verdict) -> None:
        self.step = audit.step
        self._later("audit", audit.metrics, audit.step, audit.time)
        for name, table in (
            ("flips", tables.flips(verdict, self.quote)),
            ("answers", tables.answers(audit, self.quote)),
        ):
            self.rows[name] += [dict(zip(table.columns, row, strict=True)) for row in table.rows]
            self.grown |= {name} if table.rows else set()
        self._send(whole=self.ended or bool(verdict.new) or tables.shown_anew(len(history)))

    def keep(self, step: int, figures: Path, report: Path) -> None:
        """The record stays on disk."""

    def pulse(self, step: int, figures: dict[str, float]) -> None:
        self._later("pulse", figures, step, time.time())
        self._send()

    def alert(self, name: str, title: str, text: str, bare: str) -> None:
        path = f"alignguard/{name}_step_{self.step:05d}.txt"
        self.figures.waiting[f"tag {name}"] = partial(self.client.set_tag, self.run_id, f"alignguard.{name}", title)
        self.files.waiting[path] = partial(self.client.log_text, self.run_id, text, path)
        self._send()

    def end(self) -> None:
        """The trainer has ended the run."""
        self.ended, self.figures.not_before, self.files.not_before = True, 0.0, 0.0
        try:
            self._send(whole=True)
        except BaseException:  # one that takes too long is interrupted by what is no Exception
            lacks = f"the figures of {len(self.figures.waiting)} audits, and {len(self.files.waiting)} files"
            logger.warning(f"AlignGuard: MLflow lacks {lacks}; the record on disk has them")
            raise

    def _later(self, what: str, figures: dict[str, float], step: int, at: float) -> None:
        # by the client: mlflow.log_metrics reads the run before, which a store of files does by reading all that was logged so far
        metrics = [Metric(name, value, int(1000 * at), step) for name, value in figures.items()]
        self.figures.waiting[f"{what} {step}"] = partial(self.client.log_batch, self.run_id, metrics)

    def _send(self, whole: bool = False) -> None:
        """Figures and, where those could be sent, files; `whole`: tables that have grown, too."""
        for name in sorted(self.grown) if whole else ():
            self.files.waiting[name] = partial(self._write, name)
            self.grown.remove(name)
        if self.figures.send():
            self.files.send()

    def _write(self, name: str) -> None:
        """A table, as it is now; that a server is asked to add to one may be heard twice."""
        if name not in self.read:
            self.rows[name] = self._there(name) + self.rows[name]
            self.read.add(name)
        rows, path = self.rows[name], f"alignguard/{name}.json"
        columns = [*dict.fromkeys(column for row in rows for column in row)]
        if self._is_there(path):
            data = [[row.get(column) for column in columns] for row in rows]
            self.client.log_text(self.run_id, json.dumps({"columns": columns, "data": data}), path)
        else:  # so that MLflow knows it for a table
            self.client.log_table(self.run_id, {column: [row.get(column) for row in rows] for column in columns}, path)

    def _is_there(self, path: str) -> bool:
        return any(file.path == path for file in self.client.list_artifacts(self.run_id, "alignguard"))

    def _there(self, name: str) -> list[dict[str, Any]]:
        """The rows of a table that are on the server."""
        path = f"alignguard/{name}.json"
        if not self._is_there(path):
            return []
        with tempfile.TemporaryDirectory() as folder:
            table = json.loads(Path(self.client.download_artifacts(self.run_id, path, folder)).read_text("utf-8"))
        return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
