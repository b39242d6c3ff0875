"""When to audit: densely at first, since refusals can go within ten steps, then evenly, and at the end."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from ..given import is_flag, is_number, is_whole, need

_AT, _EVERY, _OVERHEAD = (5, 10, 20, 40, 80), 100, 0.05
_UNSAID = "unsaid"  # None says something: take all
_need = partial(need, where="Schedule")


@dataclass(frozen=True)
class Schedule:
    """
    When to audit, and how many probes.

    Step 0 and the last step are always audited. Where you name no steps, those that are planned are held to an overhead, see
    `pace.py`; steps that you name are taken as you wrote them, unless you give an overhead too.

    Args:
        at (`Sequence[int]`, *optional*):
            Early steps; by default 5, 10, 20, 40 and 80.
        every (`int`, *optional*):
            After that, every so many steps; 0 for never, and by default 100.
        draw (`int`, *optional*, defaults to `48`):
            Probes a dimension and audit.
        rotate (`bool`, *optional*, defaults to `True`):
            Ask other probes at each audit until the pool is used up, so that audits prove more together than each by itself.
            `False` asks the same probes each time: it costs the start less, and ten audits find no more than one (8 audits of 48
            probes drops of 22 points instead of 12, of 6 probes none, however large).
        overhead (`float` or `None`, *optional*):
            Share of the run's time that audits between step 0 and the last step may take: planned ones that do not fit are
            left out, and a pulse (see `auditing/pulse.py`) stands in for them; what is left when the run ends goes into its last
            audit, which asks the whole pool if that fits. `None` takes all of them, as runs want that must be the same twice. By
            default 0.05 where neither `at` nor `every` is given, else `None`.

    Example:
    ```python
    >>> Schedule().overhead, Schedule(at=(8, 16), every=0).overhead
    (0.05, None)
    ```
    """

    at: Sequence[int] = None  # type: ignore[assignment]  # what was not given is filled in below
    every: int = None  # type: ignore[assignment]
    draw: int = 48
    rotate: bool = True
    overhead: float | None = _UNSAID  # type: ignore[assignment]

    def __post_init__(self) -> None:
        named = self.at is not None or self.every is not None
        steps = "'at' is a list of steps from 1 on, e.g. (5, 10, 20)"
        _need(self.at is None or (isinstance(self.at, Iterable) and not isinstance(self.at, str)), steps, self.at)
        values = {
            "at": _AT if self.at is None else tuple(self.at),
            "every": _EVERY if self.every is None else self.every,
            "overhead": (None if named else _OVERHEAD) if self.overhead == _UNSAID else self.overhead,
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)
        share = self.overhead
        right = share is None or (is_number(share) and 0 < share < 1)
        _need(right, "'overhead' is a share between 0 and 1, or None", share)
        _need(all(is_whole(step, 1) for step in self.at), steps, self.at)
        _need(is_whole(self.every, 0), "'every' is 0 or more steps", self.every)
        _need(is_whole(self.draw, 1), "'draw' is 1 or more probes a dimension", self.draw)
        _need(is_flag(self.rotate), "'rotate' is True or False", self.rotate)

    def due(self, step: int, last: int) -> bool:
        """Whether to audit after `step` optimizer steps of `last`."""
        return step in (0, last) or step in self.at or (self.every > 0 and step % self.every == 0)

    def number(self, step: int, last: int) -> int:
        """Which audit of those that are planned one at a step is, from 0 on; one that is not planned is the next."""
        return bisect_left(self.planned(last), step)

    def beyond(self, last: int) -> list[int]:
        """Steps that were named and lie beyond the last, at which no audit can be."""
        return [] if self.at == _AT else sorted(step for step in self.at if step > last)

    def joined(self, steps: Iterable[int], last: int) -> Schedule:
        """The same, with audits at further steps of a run of `last` steps."""
        named = self.at if self.at != _AT else [step for step in _AT if step <= last]
        return replace(self, at=tuple(sorted({*named, *steps})))

    def planned(self, last: int) -> list[int]:
        """All steps of a run of `last` steps at which an audit is due."""
        every = range(self.every, last + 1, self.every) if self.every else ()
        return sorted({0, last, *every, *(int(step) for step in self.at if step <= last)})
