"""Exit codes, made for CI."""

from __future__ import annotations

from collections.abc import Sequence

from ..verdicts.verdict import State, Verdict

MISTAKE, REGRESSION = 1, 3  # 2 is argparse's own, for wrong options
_OF = {State.REGRESSED: REGRESSION, State.UNJUDGED: MISTAKE, State.NOTHING: MISTAKE, State.FELL: 0, State.FINE: 0}


def exit_code(verdicts: Sequence[Verdict]) -> int:
    """3 where one has a regression; 1 where of one nothing could be said, which a gate must not pass; else 0."""
    return max((_OF[verdict.state] for verdict in verdicts), default=0)
