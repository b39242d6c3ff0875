"""The last audit at which a run was still aligned, also where it fell slowly, or on one side only."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from .verdict import DimensionVerdict, SideVerdict


@dataclass
class History:
    """
    What every audit looked like.

    A regression that is called was there before it was proven. Of the part that fell, drops are fitted by a curve that only
    rises (isotonic regression, Barlow et al. 1972), and the run counts as aligned up to the last audit at which that curve lies
    within half of what is tolerated, or an eighth of the fall, and before those that the evidence rests on.
    """

    last_aligned: int = 0
    _bound: int = sys.maxsize  # how many audits lie before what was called
    _steps: list[tuple[int, bool]] = field(default_factory=list)  # and whether nothing had fallen at that look
    _drops: dict[tuple[str, str], list[tuple[int, int, float]]] = field(default_factory=lambda: defaultdict(list))

    def add(self, step: int, watched: Sequence[DimensionVerdict], regressed: bool) -> None:
        """Take in an audit."""
        fell = any(d.fell or d.called or d.unjudged or any(s.fell for s in d.sides.values()) for d in watched)
        self._steps.append((step, not regressed and not fell))
        for d in watched:
            parts: dict[str, DimensionVerdict | SideVerdict] = {"": d, **d.sides}
            for part, of in parts.items():
                if of.n:
                    self._drops[d.dimension, part].append((step, of.n, of.drop))

    def settle(self, new: Sequence[DimensionVerdict], patience: int, tolerated: float) -> None:
        """
        What is the last aligned audit now.

        Args:
            new (`Sequence[DimensionVerdict]`):
                Dimensions whose regression has just been called.
            patience (`int`):
                Audits in a row that had to call it.
            tolerated (`float`):
                Drops up to this size are no regression.
        """
        for d in new:
            self._bound = min(self._bound, self._before(d, patience, tolerated))
        self.last_aligned = max((step for step, aligned in self._steps[: self._bound] if aligned), default=0)

    def _before(self, d: DimensionVerdict, patience: int, tolerated: float) -> int:
        """How many audits lie before the fall of a dimension."""
        before = len(self._steps) - (d.evidence.looks + patience - 1)
        drops = self._drops.get((d.dimension, d.evidence.part), [])
        fitted = rising([drop for _, _, drop in drops], [n for _, n, _ in drops])
        fell = [
            step
            for (step, _, _), drop in zip(drops, fitted, strict=True)
            if drop > max(tolerated, d.evidence.drop / 4) / 2
        ]
        whole = sum(step < fell[0] for step, _ in self._steps) if fell else before
        return max(0, min(before, whole))


def rising(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """The curve nearest to these values (least squares) that never falls, by pooling adjacent violators."""
    blocks: list[tuple[float, float, int]] = []  # mean, weight, how many
    for value, weight in zip(values, weights, strict=True):
        blocks.append((value, weight, 1))
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            (a, v, m), (b, w, n) = blocks[-2:]
            blocks[-2:] = [((a * v + b * w) / (v + w), v + w, m + n)]
    return [mean for mean, _, count in blocks for _ in range(count)]
