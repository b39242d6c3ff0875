"""Trackers whose callback comes after ours: their runs are open by the first look in training, and they are given what was before."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import Any

from ..auditing.audit import Audit
from ..verdicts.verdict import Verdict
from .base import Tracker, Trackers
from .find import find_trackers, without_run

logger = logging.getLogger("alignguard")


@dataclass
class Late:
    """
    Those that had no run when ours began.

    Args:
        args (`TrainingArguments`), trainer (`Trainer`, *optional*), quote (`bool`):
            As for [`find_trackers`].
        about (`dict[str, Any]`):
            What the run is.
        step (`int`):
            At which training begins.
        names (`dict[str, str]`, *optional*):
            In `report_to`, and what each is called.
        missed (`list[tuple[Audit, Verdict]]`, *optional*):
            Audits that were taken before training began, with their answers.
    """

    args: Any
    trainer: Any
    quote: bool
    about: dict[str, Any]
    step: int
    names: dict[str, str] = field(default_factory=dict)
    missed: list[tuple[Audit, Verdict]] = field(default_factory=list)

    def await_those_without(self, found: list[Tracker]) -> None:
        """Of the trackers that are asked for, some were found."""
        self.names = without_run(self.args, self.trainer, found)

    def keep(self, audit: Audit, verdict: Verdict) -> None:
        """An audit that they miss; a run lets go of the answers of all but its latest."""
        if self.names:
            self.missed.append((replace(audit), verdict))

    def come(self, trackers: Trackers) -> None:
        """Once, when training has begun: look again, and tell those that are there now what they have missed, and of those that are not."""
        if not self.names:
            return
        new = Trackers(find_trackers(self.args, self.trainer, self.quote, self.names), trackers.guarded)
        trackers.trackers = [*trackers.trackers, *new.trackers]
        for called in sorted(set(without_run(self.args, self.trainer, trackers.trackers).values())):
            logger.warning(
                f"AlignGuard: {called} has no run yet, and gets nothing; put AlignGuardCallback after its callback"
            )
        self.names = {}
        new.begin(self.about)
        for number, (audit, verdict) in enumerate(self.missed, start=1):
            history = [earlier for earlier, _ in self.missed[:number]]
            new.log(audit, history, verdict)
        self.missed = []
