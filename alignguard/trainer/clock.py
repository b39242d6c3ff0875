"""How long a run has taken since training began, and what of it looking took; one that is resumed goes on where its record ends."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ..auditing.audit import Audit


class Clock:
    """Begins as it is made."""

    def __init__(self) -> None:
        self._begun = time.perf_counter()
        self.spent = 0.0
        """Seconds that audits took, and what is kept of training."""
        self.latest = 0.0
        """Seconds of the latest audit."""

    @property
    def total(self) -> float:
        """Seconds since training began, of all processes that took it up again."""
        return time.perf_counter() - self._begun

    @contextmanager
    def auditing(self) -> Iterator[None]:
        """For the time of an audit."""
        begun = time.perf_counter()
        yield
        self.latest = time.perf_counter() - begun
        self.spent += self.latest

    def figures(self) -> dict[str, float]:
        """What the latest audit has cost, by key."""
        return {"cost/seconds": self.latest, "cost/share": self.spent / self.total}

    def line(self) -> dict[str, float]:
        """For the record."""
        return {"spent": self.spent, "total": self.total}

    def resume(self, audits: Sequence[Audit], lines: Sequence[Mapping[str, Any]], step: int) -> None:
        """
        Go on from what is on record. The time from there to the checkpoint is what so many steps took before, in the mean.

        Args:
            audits (`Sequence[Audit]`):
                All so far.
            lines (`Sequence[Mapping[str, Any]]`):
                Those that [`~Clock.line`] gave, each with its step.
            step (`int`):
                At which the run is resumed.
        """
        marks, spent = [], 0.0
        for audit in audits:
            spent += audit.figure("cost/seconds") or 0.0
            if share := audit.figure("cost/share"):
                marks.append((audit.step, spent, spent / share))
        marks += [(line["step"], line["spent"], line["total"]) for line in lines if {"spent", "total"} <= line.keys()]
        marks = [mark for mark in marks if mark[0] <= step]
        if not marks:
            return
        (first, *early), (at, self.spent, total) = marks[0], max(marks, key=lambda mark: (mark[0], mark[2]))
        if at > first:
            total += (step - at) * ((total - self.spent) - (early[1] - early[0])) / (at - first)
        self._begun -= total
