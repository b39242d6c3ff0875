"""The exact sign test over families; see `evidence.py`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import comb
from statistics import NormalDist

import numpy as np

from ..intervals import paired_drop
from .detectable import Noise, detectable_drop
from .evidence import Difference, Evidence, latest, strength_of
from .spending import Spending

_WINDOW = 8  # looks
_MOVED = 1e-9  # a family's sum above this has moved


@dataclass
class SignTest:
    """The exact sign test over families. Arguments as for [`SignFlipTest`]."""

    alpha: float
    sides: dict[str, tuple[str, ...]]
    min_drop: float = 0.0
    _looks: list[list[Difference]] = field(default_factory=list)
    _spending: Spending = field(default_factory=Spending)
    _spent: float = 0.0

    def look(
        self, differences: Sequence[Difference], done: float, scores: Mapping[tuple[str, str], float]
    ) -> dict[str, Evidence]:
        """Take in a look, as [`Test.look`] says."""
        self._looks = [*self._looks[1 - _WINDOW :], list(differences)]
        before, self._spent = self._spent, self._spending.at(done)
        share = (self._spent - before) / len(self.sides)  # of alpha, for one dimension now
        return {name: self._evidence(name, share, scores.get((name, ""), 1.0)) for name in self.sides}

    def _evidence(self, dimension: str, share: float, most: float) -> Evidence:
        pairs = [d for d in latest(self._looks) if d.probe.dimension == dimension]
        if not pairs or share <= 0:
            return Evidence()
        families: dict[str, list[float]] = defaultdict(list)
        for d in pairs:
            families[d.probe.family].append(d.value)
        sums, sizes = (
            np.array([sum(f) for f in families.values()]),
            np.array([float(len(f)) for f in families.values()]),
        )
        fell, rose = int((sums > _MOVED).sum()), int((sums < -_MOVED).sum())
        p = min(1.0, binomial_tail(fell, fell + rose) / share)
        values = [d.value for d in pairs]
        paired = paired_drop(values, [0.0] * len(values), [d.probe.family for d in pairs], 1 - 2 * self.alpha * share)
        line = NormalDist().inv_cdf(1 - self.alpha * share)  # of the normal that the binomial comes near to
        tests = ((0.0, line), (self.min_drop, line))
        scored = sum(d.scored for d in pairs) / len(pairs)
        return Evidence(
            p=p,
            strength=strength_of(p, self.alpha),
            looks=len(self._looks),
            n=paired.n,
            unscored=sum(not d.scored for d in pairs),
            drop=paired.drop,
            low=paired.low,
            high=paired.high,
            detectable=detectable_drop(sizes, Noise.of(values, sums, sizes), tests, 0.0, most, scored=scored),
        )


def binomial_tail(hits: int, trials: int) -> float:
    """P(X >= hits) of a fair coin."""
    return sum(comb(trials, k) for k in range(hits, trials + 1)) / 2**trials
