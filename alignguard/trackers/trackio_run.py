"""Trackio."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import trackio

from ..auditing.audit import Audit
from ..verdicts.verdict import Verdict
from . import tables


class TrackioRun:
    """
    The Trackio run that the trainer opened; without step=, which counts logs and would move the trainer's.

    After it has finished, which the trainer sees to, it still writes what it is given, at once: to its database or, where
    it logs to a Space, to a file that the next init sends.
    """

    name = "Trackio"

    def __init__(self, run: Any, quote: bool) -> None:
        self.run, self.quote = run, quote

    def begin(self, about: dict[str, Any]) -> None:
        self.run.config["alignguard"] = about  # goes on record with the first log

    def log(self, audit: Audit, history: Sequence[Audit], verdict: Verdict) -> None:
        shown: dict[str, Any] = {}
        for name, table in (
            ("flips", tables.flips(verdict, self.quote)),
            ("answers", tables.answers(audit, self.quote)),
        ):
            if table.rows:
                shown[f"alignguard/{name}"] = trackio.Table(columns=table.columns, data=table.rows)
        self.run.log({**audit.metrics, **shown, "train/global_step": audit.step})

    def keep(self, step: int, figures: Path, report: Path) -> None:
        """The record stays on disk."""

    def pulse(self, step: int, figures: dict[str, float]) -> None:
        self.run.log({**figures, "train/global_step": step})

    def alert(self, name: str, title: str, text: str, bare: str) -> None:
        self.run.alert(title=title, text=text, level=trackio.AlertLevel.WARN)

    def end(self) -> None:
        """The trainer has finished the run."""
