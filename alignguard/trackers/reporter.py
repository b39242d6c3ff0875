"""Any other tracker of `report_to`, by what the trainer itself calls: its callback's `on_log`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl

from ..auditing.audit import Audit
from ..verdicts.verdict import Verdict

logger = logging.getLogger("alignguard")


class Reporter:
    """Figures only, under the names that the tracker's callback gives them: most put `train/` before."""

    def __init__(self, name: str, callback: TrainerCallback, args: Any, trainer: Any) -> None:
        self.name, self.callback, self.args, self.trainer, self.closed = name, callback, args, trainer, False

    def begin(self, about: dict[str, Any]) -> None:
        """It has been begun by the trainer, and has no place for more."""

    def log(self, audit: Audit, history: Sequence[Audit], verdict: Verdict) -> None:
        if self.closed:  # some would open a second run
            logger.warning(
                f"AlignGuard: {self.name} had closed before the last audit, at step {audit.step}: it is not there"
            )
            return
        self._log(audit.metrics)

    def keep(self, step: int, figures: Path, report: Path) -> None:
        """It takes figures alone."""

    def pulse(self, step: int, figures: dict[str, float]) -> None:
        if not self.closed:
            self._log(figures)

    def alert(self, name: str, title: str, text: str, bare: str) -> None:
        """No tracker's callback has any."""

    def end(self) -> None:
        self.closed = True

    def _log(self, figures: dict[str, float]) -> None:
        # a control of its own: the trainer's carries what is to be done at this step
        self.callback.on_log(
            self.args, self.trainer.state, TrainerControl(), logs=dict(figures), model=self.trainer.model
        )
