"""The sign-flip test over whole families; see `evidence.py` for what it claims."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil, log2, sqrt

import numpy as np

from .detectable import Noise, chances, detectable_drop
from .evidence import Difference, Evidence, latest, strength_of
from .sides import TOGETHER, parts_of
from .spending import Lines, Spending

RESAMPLES = 20_000
WINDOWS = (1, 5, 15)  # looks
_LEVELS = np.geomspace(1e-4, 0.99, 40)  # of which p is told as one
_LEAST = 0.01  # drop at which lines for intervals are drawn: at none, answers that all stayed the same would have none
_CLOSE = 1.08  # levels nearer to alpha than this are left out, so that p tells at a glance on which side of it


@dataclass(frozen=True)
class _Candidate:
    """One part in one window."""

    dimension: str
    part: str
    window: int
    pairs: list[Difference]
    families: list[str]
    sums: np.ndarray  # (families,) of differences
    sizes: np.ndarray  # (families,)
    unmet: float  # the difference of the family that no draw has met: -1 where scores lie in between, else 0

    def summed(self) -> np.ndarray:
        """Of each family the differences of its pairs, (families,)."""
        sums = dict.fromkeys(self.families, 0.0)
        for d in self.pairs:
            sums[d.probe.family] += d.value
        return np.array(list(sums.values()))

    def of(self, difference: Difference) -> bool:
        """Whether a difference is of this dimension."""
        return self.dimension in (difference.probe.dimension, TOGETHER)

    def z(self, against: float) -> float:
        """The statistic of the real world."""
        s = np.append(self.sums - against * self.sizes, self.unmet - against)
        norm = sqrt(float(s @ s))
        return float(s.sum()) / norm if norm > 0 else 0.0

    def least(self, line: float) -> float:
        """The lower end of its interval. Below zero it says what may have been gained: there the family that was not met has risen."""
        return (self if self.z(0.0) > line else replace(self, unmet=-1.0)).reach(line)

    def reach(self, line: float) -> float:
        """The drop d, in [-1, 1], at which z(d) comes down to a line."""
        low, high = -1.0, 1.0
        for _ in range(30):
            middle = (low + high) / 2
            low, high = (middle, high) if self.z(middle) > line else (low, middle)
        return low


@dataclass
class SignFlipTest:
    """
    The sign-flip test.

    Args:
        alpha (`float`):
            Chance of ever finding a fall where there is none, over all dimensions.
        sides (`dict[str, tuple[str, ...]]`):
            Of each dimension that is watched, see [`sides_of`].
        min_drop (`float`, *optional*, defaults to `0.0`):
            Drops that are not to be called.
        seed (`int`, *optional*, defaults to `0`):
            Of the random signs.
        resamples (`int`, *optional*, defaults to `20000`):
            Worlds.
        robust (`bool`, *optional*, defaults to `True`):
            Whether scores in between are guarded against answers that became much better and were not drawn.
    """

    alpha: float
    sides: dict[str, tuple[str, ...]]
    min_drop: float = 0.0
    seed: int = 0
    resamples: int = RESAMPLES
    robust: bool = True
    _looks: list[list[Difference]] = field(default_factory=list)
    _count: int = 0
    _spent: float = 0.0
    _spending: Spending = field(default_factory=Spending)
    # of each dimension: the row of each family, and its signs in all worlds, (families, resamples); a family that several dimensions
    # ask has one sign in all of them, since it may have moved in all of them at once
    _places: dict[str, dict[str, int]] = field(default_factory=lambda: defaultdict(dict))
    _signs: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        far = _LEVELS[(self.alpha / _CLOSE > _LEVELS) | (self.alpha * _CLOSE < _LEVELS)]
        self._all = Lines(np.sort(np.append(far, self.alpha)), 1 + self.resamples)
        # a dimension's own lines, at alpha: for its interval
        self._own = {name: Lines(np.array([self.alpha]), 1 + self.resamples) for name in (*self.sides, TOGETHER)}

    def look(
        self, differences: Sequence[Difference], done: float, scores: Mapping[tuple[str, str], float]
    ) -> dict[str, Evidence]:
        """Take in a look, as [`Test.look`] says."""
        self._looks = [*self._looks[1 - max(WINDOWS) :], [d for d in differences if d.probe.dimension in self.sides]]
        self._count += 1
        self._spent = spent = self._spending.at(done)
        found: dict[str, list[_Candidate]] = defaultdict(list)
        for candidate in self._candidates():
            found[candidate.dimension].append(candidate)
        everywhere, own = np.zeros(1 + self.resamples, dtype=np.float32), {}
        for dimension, (plain, tested) in self._worlds(found).items():
            np.maximum(everywhere, plain, out=everywhere)
            own[dimension] = float(self._own[dimension].cross(tested, spent)[0])
        lines = self._all.cross(everywhere, spent)
        told = {}
        for dimension in (*self.sides, TOGETHER):
            candidates = found.get(dimension, [])
            parts = {
                part: self._evidence([c for c in candidates if c.part == part], lines, own[dimension], scores)
                for part in dict.fromkeys(c.part for c in candidates)
            }
            told[dimension] = self._strongest(parts)
        return told

    def _candidates(self) -> Iterator[_Candidate]:
        """Every part of a dimension, and all together, in every window."""
        for window in sorted({min(window, len(self._looks)) for window in WINDOWS}):
            members: dict[tuple[str, str], list[Difference]] = defaultdict(list)
            for difference in latest(self._looks[-window:]):
                for part in parts_of(difference.probe, self.sides):
                    members[difference.probe.dimension, part].append(difference)
            if len(self.sides) > 1:
                members[TOGETHER, ""] = [d for (_, part), pairs in members.items() if not part for d in pairs]
            for (dimension, part), pairs in ((where, pairs) for where, pairs in members.items() if pairs):
                families: dict[str, list[float]] = defaultdict(list)
                for d in pairs:
                    families[d.probe.family].append(d.value)
                between = self.robust and any(0 < abs(d.value) < 1 for d in pairs)
                sums, sizes = (np.array([float(f(values)) for values in families.values()]) for f in (sum, len))
                yield _Candidate(dimension, part, window, pairs, list(families), sums, sizes, -float(between))

    def _worlds(self, found: Mapping[str, Sequence[_Candidate]]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """
        Of each dimension what each world reaches at most: the largest z(0), and the largest z(min_drop), (1 + resamples,) each; the
        real one first.
        """
        shifts = (0.0, max(self.min_drop, _LEAST))
        reached: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        wholes: dict[tuple[int, float], np.ndarray] = defaultdict(lambda: np.zeros(self.resamples, dtype=np.float32))
        for dimension in sorted(found, key=lambda name: name == TOGETHER):  # which is made of the others
            candidates = found[dimension]
            largest = []
            for shift in shifts:
                shifted = [c.sums - shift * c.sizes for c in candidates]
                if dimension == TOGETHER:
                    flipped = np.stack([wholes[c.window, shift] for c in candidates])
                else:
                    flipped = self._flipped(dimension, candidates, shifted)  # (candidates, resamples)
                    for c, sums in zip(candidates, flipped, strict=True):
                        if not c.part:
                            wholes[c.window, shift] += sums
                norm = np.array([sqrt(float(s @ s)) or 1.0 for s in shifted], dtype=np.float32)
                flipped /= norm[:, None]
                largest.append(np.append(np.float32(max(c.z(shift) for c in candidates)), flipped.max(0)))
            reached[dimension] = largest[0], largest[1]
        return reached

    def _flipped(self, dimension: str, candidates: Sequence[_Candidate], shifted: Sequence[np.ndarray]) -> np.ndarray:
        """The sums of candidates in every world, (candidates, resamples)."""
        places = self._places[dimension]
        new = [f for f in dict.fromkeys(f for c in candidates for f in c.families) if f not in places]
        if new:
            places |= {family: len(places) + i for i, family in enumerate(new)}
            rows = np.stack([self._sign(family) for family in new]).astype(np.float32)
            known = self._signs.get(dimension)
            self._signs[dimension] = rows if known is None else np.concatenate([known, rows])
        by_family = np.zeros((len(candidates), len(places)), dtype=np.float32)
        for k, (c, sums) in enumerate(zip(candidates, shifted, strict=True)):
            by_family[k, [places[family] for family in c.families]] = sums
        return by_family @ self._signs[dimension]

    def _sign(self, family: str) -> np.ndarray:
        """The family's sign in every world: of its name and the seed alone, so that a resumed run has the same."""
        rng = np.random.default_rng([self.seed, zlib.crc32(family.encode("utf-8", "surrogatepass"))])
        return rng.integers(0, 2, self.resamples, dtype=np.int8) * 2 - 1

    def _evidence(
        self,
        candidates: Sequence[_Candidate],
        lines: np.ndarray,
        own: float,
        scores: Mapping[tuple[str, str], float],
    ) -> Evidence:
        """Of one part, in the window that tells most."""
        at_alpha = float(lines[list(self._all.levels).index(self.alpha)])
        significant = [c for c in candidates if c.z(0.0) > at_alpha]
        proven = [c for c in significant if c.z(self.min_drop) > own]
        # of what is proven the most recent looks tell best when it began; else what is nearest to it
        if proven:
            best = min(proven, key=lambda c: c.window)
        else:
            best = max(significant or candidates, key=lambda c: c.z(self.min_drop if significant else 0.0))
        p = self._p(best.z(0.0), lines, at_alpha)
        return Evidence(
            p=p,
            strength=strength_of(p, self.alpha),
            part=best.part,
            looks=best.window,
            n=len(best.pairs),
            unscored=sum(not d.scored for d in best.pairs),
            drop=float(best.sums.sum() / max(1.0, best.sizes.sum())),
            low=best.least(own),
            high=-replace(best, sums=-best.sums, unmet=-1.0).reach(own),
            detectable=self._detectable(candidates, at_alpha, own, scores),
        )

    def _p(self, z: float, lines: np.ndarray, at_alpha: float) -> float:
        levels = self._all.levels
        crossed = levels[z > np.maximum.accumulate(lines[::-1])[::-1]]  # at that level, and at all above it
        p = float(crossed[0]) if len(crossed) else 1.0
        return min(p, self.alpha) if z > at_alpha else max(p, float(levels[levels > self.alpha][0]))

    def _detectable(
        self, candidates: Sequence[_Candidate], line: float, own: float, scores: Mapping[tuple[str, str], float]
    ) -> float:
        found, tests = [], ((0.0, line), (self.min_drop, own))
        fewest = ceil(log2(1 / (self.alpha * self._spent))) + 1 if self._spent else 0
        for c in candidates:
            scored = [d for d in c.pairs if d.scored]
            # what is not scored and yet counts as risen, as an unsure answer does that is read in the policy's favour, is no churn
            lifted = sum(max(0.0, -d.value) for d in c.pairs if not d.scored)
            of_scored = replace(c, pairs=scored).summed() if lifted else c.sums
            noise = Noise.of([d.value if d.scored else 0.0 for d in c.pairs], of_scored, c.sizes)
            most = scores.get((c.dimension, c.part), 1.0)
            looks = self._looks[-c.window :]
            asked = sum(c.part in parts_of(d.probe, self.sides) for look in looks for d in look if c.of(d))
            again = chances(self._count, asked / len(looks), len(c.pairs))
            found.append(
                detectable_drop(
                    c.sizes, noise, tests, lifted - c.unmet, most, again, fewest, len(scored) / len(c.pairs)
                )
            )
        return float(np.nanmin(found)) if not np.all(np.isnan(found)) else float("nan")

    @staticmethod
    def _strongest(parts: Mapping[str, Evidence]) -> Evidence:
        """Of all parts of a dimension, with what all of it could have shown, and every side."""
        if not parts:
            return Evidence()
        best = min(parts.values(), key=lambda e: (e.p, -e.low))
        sides = {part: e for part, e in parts.items() if part}
        return replace(best, detectable=parts[""].detectable, sides=sides)
