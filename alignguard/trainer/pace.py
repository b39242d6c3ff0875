"""Which of the planned audits are taken, so that looking keeps to its share of the run's time; a pulse stands in for the others.

Steps are timed as they come, and audits too. Step 0 and the last step are audited in any case, and not counted. Of the rest an
audit is taken where the time that it will take fits into what the whole run may spend, and what was spent so far does not run
ahead of the plan: so the first one is taken early, and the others follow as they are paid for. Which are taken depends on time
alone, never on what was found; what was decided is on record, and decided alike when the run is resumed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from .schedule import Schedule

AUDIT, PULSE, NOTHING = "audit", "pulse", "nothing"
_PULSES = 50  # of a run, beside those that stand in for audits
_PULSE_SHARE = 0.1  # of an audit's time, until a pulse was taken


@dataclass
class Pace:
    """
    Time that was taken, and what it allows.

    Args:
        overhead (`float`):
            Share of the run's time that audits and pulses may take.
        planned (`Sequence[int]`):
            Steps at which an audit is planned.
        last (`int`):
            The last step.
        audit (`float`, *optional*, defaults to `0.0`), pulse (`float`, *optional*, defaults to `0.0`):
            Seconds that one is expected to take.
        trained (`float`, *optional*, defaults to `0.0`), looked (`float`, *optional*, defaults to `0.0`):
            Seconds of the run so far, and of audits and pulses between step 0 and the last step, and of what is kept.
        decided (`dict[int, str]`, *optional*):
            By step, in this run or before it was resumed.
        failed (`dict[int, str]`, *optional*):
            The audits and pulses that were tried and failed, by step.
    """

    overhead: float
    planned: Sequence[int]
    last: int
    audit: float = 0.0
    pulse: float = 0.0
    trained: float = 0.0
    looked: float = 0.0
    decided: dict[int, str] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    _since: float = 0.0  # on the clock: when training would have begun if nobody had looked

    def __post_init__(self) -> None:
        self.planned = [step for step in self.planned if 0 < step < self.last]
        self.every = max(1, self.last // _PULSES)

    @classmethod
    def of(cls, schedule: Schedule, last: int) -> Pace | None:
        """That of a schedule; `None` where it takes all that is planned."""
        return None if schedule.overhead is None else cls(schedule.overhead, schedule.planned(last), last)

    def expect(self, seconds: float) -> None:
        """What an audit takes is known from the first one; what a pulse takes is guessed until there was one."""
        self.audit, self.pulse = seconds, _PULSE_SHARE * seconds

    def begin(self) -> None:
        """Training begins, or goes on: it is timed from here."""
        self._since = time.perf_counter() - self.trained

    @contextmanager
    def looking(self, step: int, what: str) -> Iterator[None]:
        """
        For the time of an audit or a pulse: what it takes is none of training's, and counted where it was decided here. One that
        has failed by the end of the block tells nothing of how long the next will take.
        """
        begun = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - begun
            self._since += seconds
            if step in self.failed and step in self.decided:
                self.looked += seconds
            elif step in self.decided:
                self.took(what, seconds)

    def also(self, step: int, seconds: float) -> None:
        """What is kept of training, such as its rows, has taken so long: none of training's time, and counted as audits are."""
        self._since += seconds
        if step < self.last:
            self.looked += seconds

    def asks(self, step: int) -> bool:
        """Whether there is anything to decide at a step."""
        return 0 < step < self.last and (step in self.planned or step % self.every == 0)

    def decide(self, step: int, must: bool = False) -> str:
        """
        What is done after a step: `"audit"`, `"pulse"` or `"nothing"`.

        Args:
            step (`int`):
                One at which [`~Pace.asks`] says so.
            must (`bool`, *optional*, defaults to `False`):
                Whether an audit is taken whatever it costs: the others make room for it.
        """
        self._read_clock()
        if must:
            self.decided[step] = AUDIT
        if step not in self.decided:
            self.decided[step] = self._decide(step)
        return self.decided[step]

    def _decide(self, step: int) -> str:
        allowed = self.overhead / (1 - self.overhead) * self.trained / step * self.last  # seconds, in the whole run
        before = sum(planned < step for planned in self.planned) / max(1, len(self.planned))
        if step in self.planned and self.looked + self.audit <= allowed and self.looked <= allowed * before:
            return AUDIT
        # of what is left for this part of the run: they must not eat the audits
        return PULSE if self.looked + self.pulse <= allowed * step / self.last else NOTHING

    def affords(self, seconds: float) -> bool:
        """Whether so much more may be taken of the run, which ends here."""
        self._read_clock()
        return self.looked + seconds <= self.overhead / (1 - self.overhead) * self.trained

    def _read_clock(self) -> None:
        if self._since:
            self.trained = time.perf_counter() - self._since

    def took(self, what: str, seconds: float) -> None:
        """An audit or a pulse between step 0 and the last step has taken so long."""
        self.looked += seconds
        if what == AUDIT:
            self.audit = seconds
        else:
            self.pulse = seconds

    @property
    def share(self) -> float:
        """Of the run's time so far that audits, pulses and what is kept took, those of step 0 and the last step left out."""
        return self.looked / (self.trained + self.looked) if self.looked else 0.0

    def told(self) -> str:
        """What came of it, in a few words."""
        done = {step: what for step, what in self.decided.items() if step not in self.failed}
        audits = [step for step in done if done[step] == AUDIT]
        planned = sum(step in self.planned for step in audits)
        more = f" and {len(audits) - planned} more" if len(audits) > planned else ""
        return (
            f", {planned} of {len(self.planned)} planned{more} between the first and the last, and {[*done.values()].count(PULSE)} pulses: "
            f"{self.share:.1%} of the run's time (overhead={self.overhead})"
        )

    def line(self, step: int) -> dict[str, Any]:
        """For the record: what was decided at a step, and the seconds that it rests on."""
        return {"step": step, "did": self.decided[step], "trained": self.trained, "looked": self.looked} | {
            "audit": self.audit,
            "pulse": self.pulse,
            **({"failed": True} if step in self.failed else {}),
        }

    def resume(self, lines: Sequence[dict[str, Any]], step: int) -> None:
        """Go on from what is on record, after `step`; what was decided beyond it is decided so again."""
        self.decided = {line["step"]: line["did"] for line in lines}
        for line in lines:
            if line["step"] <= step:
                # the steps from there to the checkpoint took as long as those before
                self.trained, self.looked = line["trained"] * step / line["step"], line["looked"]
                self.audit, self.pulse = line["audit"], line["pulse"]
                if line.get("failed"):
                    self.failed[line["step"]] = line["did"]
                else:
                    self.failed.pop(line["step"], None)


def told_failed(failed: Mapping[int, str]) -> str:
    """
    Which audits and pulses failed, in a few words; empty where none did.

    Args:
        failed (`Mapping[int, str]`):
            What was tried, by step.
    """
    text = ""
    for what in (AUDIT, PULSE):
        steps = sorted(step for step in failed if failed[step] == what)
        if steps:
            shown = ", ".join(map(str, steps[:8])) + (", ..." if len(steps) > 8 else "")
            text += f"; {len(steps)} {what}{'s' * (len(steps) > 1)} failed, at step{'s' * (len(steps) > 1)} {shown}"
    return text
