"""What was due in a run that is resumed, and is not on record."""

from __future__ import annotations

from collections.abc import Sequence

from ..auditing.audit import Audit
from .pace import AUDIT, Pace
from .schedule import Schedule


def missed(schedule: Schedule, pace: Pace | None, audits: Sequence[Audit], step: int, last: int) -> list[int]:
    """
    The steps of audits that a record lacks.

    Args:
        schedule ([`Schedule`]), pace ([`Pace`], *optional*):
            When audits are due; what a pace has decided, where there is one.
        audits (`Sequence[Audit]`):
            Those on record.
        step (`int`), last (`int`):
            Where the run is resumed, and its last step.
    """
    there = {audit.step for audit in audits}
    lost = [at for at in schedule.planned(last) if at <= step and at not in there]
    return [at for at in lost if (schedule.due(at, last) if pace is None else pace.decided.get(at) == AUDIT)]
