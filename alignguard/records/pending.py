"""What a run has found and is not on record yet: of a full disk, say. It goes there, in its order, as soon as it can."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..auditing.audit import Audit
from ..auditing.result import Result
from .about import About
from .store import Store

_WITH_ANSWERS = 50  # audits: of those before only the figures are kept
_LINES = 10_000


@dataclass
class Pending:
    """
    What waits.

    Args:
        store ([`Store`]):
            Where it goes.
        audits (`list[Audit]`, *optional*):
            The earliest first.
        baseline (`bool`, *optional*, defaults to `False`):
            Whether the start has said something that is not on record.
        lines (`list[tuple[str, dict[str, Any]]]`, *optional*):
            For other files of lines, each with its file's name.
    """

    store: Store
    audits: list[Audit] = field(default_factory=list)
    baseline: bool = False
    lines: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def add(self, audit: Audit, baseline: bool) -> None:
        """One more audit, and whether the start was asked something new for it."""
        self.audits.append(audit)
        self.baseline |= baseline
        for earlier in self.audits[:-_WITH_ANSWERS]:
            earlier.results = {}

    def save(self, about: About, baseline: dict[str, Result]) -> int:
        """
        Write all of it; how many audits that was.

        Raises:
            OSError: It cannot be written now, and waits on.
        """
        if self.baseline:
            self.store.write_baseline(about, baseline)
            self.baseline = False
        count = len(self.audits)
        while self.audits:
            self.store.append(self.audits[0])
            del self.audits[0]
        return count

    def line(self, name: str, line: dict[str, Any]) -> None:
        """
        One more line of another file; those that wait are written before it.

        Raises:
            OSError: It cannot be written now, and waits on.
        """
        self.lines = [*self.lines, (name, line)][-_LINES:]
        self.save_lines()

    def save_lines(self) -> None:
        """
        Write the lines that wait.

        Raises:
            OSError: They cannot be written now, and wait on.
        """
        while self.lines:
            self.store.add(*self.lines[0])
            del self.lines[0]

    def holds(self, audit: Audit) -> bool:
        """Whether an audit waits: its answers are nowhere else."""
        return any(audit is waiting for waiting in self.audits)
