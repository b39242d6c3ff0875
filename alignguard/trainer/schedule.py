"""When to audit: densely at first, since refusals can go within ten steps, then evenly, and at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import AlignGuardError


@dataclass(frozen=True)
class Schedule:
    """
    When to audit, and how many probes.

    Step 0 and the last step are always audited.

    Args:
        at (`Sequence[int]`, *optional*, defaults to `(5, 10, 20, 40, 80)`):
            Early steps.
        every (`int`, *optional*, defaults to `100`):
            After that, every so many steps; 0 for never.
        draw (`int`, *optional*, defaults to `48`):
            Probes a dimension and audit.
        rotate (`bool`, *optional*, defaults to `True`):
            Draw afresh at each audit, so that over a run the whole pool is asked. `False` asks the same probes each
            time, which costs the reference less and suits short runs.
    """

    at: Sequence[int] = (5, 10, 20, 40, 80)
    every: int = 100
    draw: int = 48
    rotate: bool = True

    def __post_init__(self) -> None:
        if self.every < 0 or self.draw < 1 or any(step < 1 for step in self.at):
            raise AlignGuardError(
                f"Schedule: 'at' holds steps from 1 on, 'every' is 0 or more, 'draw' 1 or more; got at={self.at}, "
                f"every={self.every}, draw={self.draw}"
            )

    def due(self, step: int, last: int) -> bool:
        """Whether to audit after `step` optimizer steps of `last`."""
        return step in (0, last) or step in self.at or (self.every > 0 and step % self.every == 0)

    def planned(self, last: int) -> list[int]:
        """All steps of a run of `last` steps at which an audit is due."""
        return [step for step in range(last + 1) if self.due(step, last)]
