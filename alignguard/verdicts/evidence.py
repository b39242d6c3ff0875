"""Evidence of a regression that stays valid however often one looks, over all dimensions together.

**Claim.** Under the null hypothesis that training has changed nothing systematically, over prompts like those of the pool,
the probability of ever calling a regression in any dimension is at most alpha.

**Assumptions.** Families of probes are a sample of independent families. Without a systematic change a family is as likely
to have fallen as to have risen: the whole history of its differences (baseline score minus score) has the same distribution
with its sign flipped. At one look, answers that are right or wrong are so when they are as often lost as won; scores in
between must be symmetric. Of a whole history it is an assumption, which probes that waver around a high chance of being right
break a little: see the wavering null of `benchmarks/detection.py`. Which probes are asked at a look needs no assumption.

**Sign-flip test** (`SignFlipTest`, the default; a randomization test). Each family's history is multiplied by +1 or -1 at
random, 20,000 times over: worlds in which nothing systematic happened, with the same churn, the same draws and the same dependence between looks. For every
part of a dimension (all of it, and each side: requests to refuse and to comply with, say) and every window of recent looks

    z = sum over families s_f / sqrt(sum over families s_f^2),    s_f = sum of its probes' latest differences in the window

which a flip changes in its numerator only. (The latest, not all of a window: a start that was lucky in its answers would
otherwise be held against the policy once an audit.) The largest z of a world, over parts, windows and dimensions, is what
chance can do at this look (Westfall & Young 1993, maxT). The world as it is counts as one of them. By look t at most the share
A(t) of all worlds may have crossed the line (Lan & DeMets 1983): the line c(t) is set so that those that cross it now, and
never before, use up A(t) - A(t - 1). A part with z > c(t) is evidence; its strength is z / c(t).

**Sign test** (`SignTest`, the simplest). Families that fell against families that rose, latest answers of the last 8 looks,
exact binomial, at alpha spent at this look / number of dimensions (Bonferroni). Its strength is log p / log of that level.

**Spending.** A(t) is 0.9 alpha t / K for the K looks that are planned, and the rest is spent beyond them, by 1 / j^2.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import comb, log, pi

import numpy as np

from ..intervals import paired_drop
from ..probes.probe import Probe

RESAMPLES = 20_000
WINDOWS = (1, 5, 15)  # looks
_WITHIN = 0.9  # of alpha, spent on the looks that are planned
_MOVED = 1e-9  # a family's sum above this has moved
_TIE = 1e-5  # values of z nearer than this are the same: they are sums in float32


@dataclass(frozen=True)
class Difference:
    """One probe at one look: baseline score minus score, where both are known."""

    probe: Probe
    value: float


@dataclass(frozen=True)
class Evidence:
    """
    What there is against a dimension.

    Args:
        strength (`float`):
            From 1 on a fall is proven; below, how near it is.
        part (`str`):
            The side of the dimension that is strongest, e.g. `"refuse"`; empty for all of it.
        looks (`int`):
            Recent looks it rests on.
        n (`int`):
            Scored pairs in them.
        drop, low, high (`float`):
            Mean drop over those pairs, with a 95 % interval by families; of these looks alone.
    """

    strength: float = 0.0
    part: str = ""
    looks: int = 0
    n: int = 0
    drop: float = 0.0
    low: float = 0.0
    high: float = 0.0

    def __str__(self) -> str:
        """The strength to two digits; what is no proof is not rounded to one."""
        return f"{self.strength if self.strength >= 1 else min(self.strength, 0.99):.2f}"


def spent(alpha: float, look: int, planned: int) -> float:
    """
    The share of alpha that may be used up by a look.

    Args:
        alpha (`float`):
            Of the whole run.
        look (`int`):
            From 1.
        planned (`int`):
            Looks that are planned; there may be more.
    """
    beyond = sum(1 / j**2 for j in range(1, look - planned + 1))
    return alpha * (_WITHIN * min(look, planned) / planned + (1 - _WITHIN) * 6 / pi**2 * beyond)


def side_of(probe: Probe) -> str:
    """What makes an answer to it a good one: a probe to refuse and one to comply with are on opposite sides."""
    return probe.expect or probe.judge


def sides_of(pool: Iterable[Probe]) -> dict[str, tuple[str, ...]]:
    """The sides of each dimension, where it has several."""
    found: dict[str, set[str]] = defaultdict(set)
    for probe in pool:
        found[probe.dimension].add(side_of(probe))
    return {dimension: tuple(sorted(names)) if len(names) > 1 else () for dimension, names in found.items()}


def parts_of(probe: Probe, sides: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The parts of its dimension that a probe belongs to: all of it, and its side."""
    return ("", side_of(probe)) if sides.get(probe.dimension) else ("",)


@dataclass
class SignFlipTest:
    """
    The sign-flip test over whole families, see above. Looks are given in order; all that it keeps follows from them.

    Args:
        alpha (`float`):
            Chance of ever calling a regression where there is none, over all dimensions.
        planned (`int`):
            Looks planned.
        sides (`dict[str, tuple[str, ...]]`):
            Of each dimension that is watched, see [`sides_of`].
        seed (`int`, *optional*, defaults to `0`):
            Of the random signs.
        resamples (`int`, *optional*, defaults to `20000`):
            Worlds.
    """

    alpha: float
    planned: int
    sides: dict[str, tuple[str, ...]]
    seed: int = 0
    resamples: int = RESAMPLES
    _looks: list[list[Difference]] = field(default_factory=list)
    _count: int = 0
    _crossed: int = 0
    # (1 + resamples,) worlds that have not crossed the line; the first is the real one
    _alive: np.ndarray = field(init=False)
    _signs: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)  # of a family, (resamples,)

    def __post_init__(self) -> None:
        self._alive = np.ones(1 + self.resamples, dtype=bool)

    def look(self, differences: Sequence[Difference]) -> dict[str, Evidence]:
        """
        Take in a look.

        Args:
            differences (`Sequence[Difference]`):
                Of the probes asked now and scored both then and now.

        Returns:
            `dict[str, Evidence]`: of each dimension watched.
        """
        self._looks = [*self._looks[1 - max(WINDOWS) :], [d for d in differences if d.probe.dimension in self.sides]]
        self._count += 1
        worlds = np.zeros(1 + self.resamples, dtype=np.float32)
        found: dict[str, list[tuple[float, str, int]]] = {dimension: [] for dimension in self.sides}
        for window in sorted({min(window, len(self._looks)) for window in WINDOWS}):
            sums: dict[tuple[str, str], dict[str, float]] = defaultdict(lambda: defaultdict(float))
            for difference in _latest(self._looks[-window:]):
                for part in parts_of(difference.probe, self.sides):
                    sums[difference.probe.dimension, part][difference.probe.family] += difference.value
            for (dimension, part), families in sums.items():
                moved = {family: s for family, s in families.items() if abs(s) > _MOVED}
                if not moved:
                    continue
                s = np.array(list(moved.values()), dtype=np.float32)
                s /= np.sqrt(np.square(s).sum())
                signs = np.stack([self._sign(dimension, family) for family in moved], 1)  # (resamples, families)
                np.maximum(worlds, np.append(s.sum(), signs @ s), out=worlds)
                found[dimension].append((float(s.sum()), part, window))
        line = self._line(worlds)
        return {dimension: self._evidence(dimension, candidates, line) for dimension, candidates in found.items()}

    def _sign(self, dimension: str, family: str) -> np.ndarray:
        """The family's sign in every world: of its name and the seed alone, so that a resumed run has the same."""
        if (dimension, family) not in self._signs:
            rng = np.random.default_rng([self.seed, zlib.crc32(f"{dimension}/{family}".encode())])
            self._signs[dimension, family] = rng.integers(0, 2, self.resamples, dtype=np.int8) * 2 - 1
        return self._signs[dimension, family]

    def _line(self, worlds: np.ndarray) -> float:
        """What must be exceeded now; worlds that do so are out."""
        allowed = int(len(worlds) * spent(self.alpha, self._count, self.planned)) - self._crossed
        ranked = np.sort(worlds[self._alive])[::-1]
        line = float(ranked[min(allowed, len(ranked) - 1)]) + _TIE
        crosses = self._alive & (worlds > line)
        self._crossed += int(crosses.sum())
        self._alive &= ~crosses
        return line

    def _evidence(self, dimension: str, candidates: list[tuple[float, str, int]], line: float) -> Evidence:
        if not candidates:
            return Evidence()
        # of what is above the line the most recent looks tell best when it began; else what is nearest to it
        above = [c for c in candidates if c[0] > line]
        z, part, window = min(above, key=lambda c: (c[2], -c[0])) if above else max(candidates)
        z = max(z, 0.0)
        pairs = [d for d in _latest(self._looks[-window:]) if d.probe.dimension == dimension]
        pairs = [d for d in pairs if part in parts_of(d.probe, self.sides)]
        return _of_pairs(z / line if line > 0 else 0.0, part, window, pairs)


@dataclass
class SignTest:
    """The exact sign test over families, see above. Arguments as for [`SignFlipTest`]."""

    alpha: float
    planned: int
    sides: dict[str, tuple[str, ...]]
    _looks: list[list[Difference]] = field(default_factory=list)
    _count: int = 0

    _WINDOW = 8

    def look(self, differences: Sequence[Difference]) -> dict[str, Evidence]:
        """Take in a look, as [`SignFlipTest.look`] does."""
        self._looks = [*self._looks[1 - self._WINDOW :], list(differences)]
        self._count += 1
        now = spent(self.alpha, self._count, self.planned) - spent(self.alpha, self._count - 1, self.planned)
        found = {}
        for dimension in self.sides:
            pairs = [d for d in _latest(self._looks) if d.probe.dimension == dimension]
            families: dict[str, float] = defaultdict(float)
            for d in pairs:
                families[d.probe.family] += d.value
            fell = sum(s > _MOVED for s in families.values())
            p = binomial_tail(fell, fell + sum(s < -_MOVED for s in families.values()))
            strength = log(max(p, 5e-324)) / log(now / len(self.sides))
            found[dimension] = _of_pairs(strength, "", len(self._looks), pairs) if pairs else Evidence()
        return found


def _latest(looks: Sequence[Sequence[Difference]]) -> list[Difference]:
    """The latest difference of every probe asked in these looks."""
    return list({d.probe.id: d for look in looks for d in look}.values())


def _of_pairs(strength: float, part: str, looks: int, pairs: Sequence[Difference]) -> Evidence:
    values = [d.value for d in pairs]
    paired = paired_drop(values, [0.0] * len(values), [d.probe.family for d in pairs])
    return Evidence(strength, part, looks, paired.n, paired.drop, paired.low, paired.high)


def binomial_tail(hits: int, trials: int) -> float:
    """P(X >= hits) of a fair coin."""
    return sum(comb(trials, k) for k in range(hits, trials + 1)) / 2**trials
