"""Exit codes, made for CI."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import RunError
from ..records.record import Record
from ..verdicts.verdict import State, Verdict
from .said import tell

MISTAKE, REGRESSION = 1, 3  # 2 is argparse's own, for wrong options
_OF = {
    State.REGRESSED: REGRESSION,
    State.UNJUDGED: MISTAKE,
    State.NOTHING: MISTAKE,
    State.FELL: 0,
    State.UNTOLD: 0,
    State.HOLDS: 0,
}


def check_gate(records: Sequence[Record], max_missed_drop: float | None) -> None:
    """
    Whether there are drops that could have been missed.

    Raises:
        RunError: A record is held against nothing, so that no drop is told of, however many probes were asked.
    """
    alone = [record.name for record in records if record.about.is_alone]
    if alone and max_missed_drop is not None:
        raise RunError(
            f"--max-missed-drop: {', '.join(alone)} is held against nothing, and tells of no drop; leave it out"
        )


def exit_code(verdicts: Sequence[Verdict], max_missed_drop: float | None = None) -> int:
    """
    3 where one has a regression; 1 where of one nothing could be said, or a drop larger than `max_missed_drop` could have been
    missed, which a gate must not pass; else 0.
    """
    missed = [v for v in verdicts if max_missed_drop is not None and v.detectable > max_missed_drop]
    unwatched = dict.fromkeys(name for verdict in missed for name in verdict.unwatched)
    if missed:
        why = "ask more probes, or audit more often"
        if unwatched:
            why = f"StopRule(dimensions=...) left out {', '.join(unwatched)}, so that nothing tests it"
        tell(f"a drop of more than {max_missed_drop} could have been missed (--max-missed-drop): {why}")
    return max((_OF[verdict.state] for verdict in verdicts), default=0) or (MISTAKE if missed else 0)
