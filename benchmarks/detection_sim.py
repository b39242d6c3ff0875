"""Simulated runs: how often the rule stops one in which nothing happened, and how soon it sees what did.

Six dimensions, baseline scores right with probability 0.8. Churn: a probe's judgement differs from the baseline's with
probability `churn`, as often for the better as for the worse, growing to that over the first 20 looks (drift); between looks
it stays with probability 0.7. Members of a family share their fate with probability 0.3. A regression of d points makes right
answers wrong, in one dimension (or in all), from its onset on. Draws are without replacement until a pool is used up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import cycle, islice
from math import ceil, lgamma, log, pi, sqrt

import numpy as np

from alignguard import load_probes
from alignguard.probes.probe import TRUST_DIMENSIONS
from alignguard.verdicts.sides import parts_of, sides_of
from alignguard.verdicts.sign_flip import WINDOWS
from alignguard.verdicts.spending import Spending

ALPHA, MIN_DROP, RIGHT, STAY, SHARED = 0.05, 0.03, 0.8, 0.7, 0.3


@dataclass(frozen=True)
class Pool:
    """One dimension: family and side of each probe."""

    family: np.ndarray  # (probes,)
    sides: np.ndarray  # (parts, probes), 1 where a probe belongs to the part; the first part is all of it

    @property
    def onehot(self) -> np.ndarray:
        """(probes, families)."""
        return np.eye(self.family.max() + 1, dtype=np.float32)[self.family]


def shipped() -> list[Pool]:
    """The core pool, with its families and sides."""
    pool, found = load_probes("core"), []
    sides = sides_of(pool)
    for dimension in TRUST_DIMENSIONS:
        part = [probe for probe in pool if probe.dimension == dimension]
        _, family = np.unique([probe.family for probe in part], return_inverse=True)
        groups = [[side in parts_of(probe, sides) for probe in part] for side in sides[dimension]]
        found.append(Pool(family, np.array([[True] * len(part), *groups], dtype=np.float32)))
    return found


def even(size: int, members: int = 4) -> list[Pool]:
    """Six pools of one size, in families of so many."""
    return [Pool(np.arange(size) // members, np.ones((1, size), dtype=np.float32)) for _ in TRUST_DIMENSIONS]


@dataclass(frozen=True)
class World:
    """What happens in a run, and how it is looked at."""

    looks: int  # as far as it is looked
    planned: int = 100
    churn: float = 0.06
    drop: float = 0.0
    falls: int = 1  # dimensions that fall by it
    onset: int = 1  # the first look that shows it
    waver: float = (
        0.0  # instead of churn: this share of probes is right with probability 0.8 at each look, the start too
    )
    right: float = RIGHT
    as_one: bool = False  # families are right or wrong as a whole, and move so
    unscored: tuple[float, float] = (0.0, 0.0)  # share of answers left unscored, of wrong and of right ones
    improved: float = 0.0  # the same of answers that became right
    tamed: tuple[float, float] = (
        0.0,
        0.0,
    )  # share of answers that become better by so much, while all others get worse by as
    # much in the mean: scores in between, whose mean stands still
    rotate: bool = True
    whole: bool = False  # the last look asks the whole pool


class Runs:
    """Many runs of one dimension, look by look."""

    def __init__(self, pool: Pool, world: World, runs: int, draw: int, falls: bool, rng: np.random.Generator) -> None:
        self.pool, self.world, self.runs, self.draw, self.falls, self.rng = pool, world, runs, draw, falls, rng
        self.size, self.families = len(pool.family), int(pool.family.max()) + 1
        units = self.families if world.as_one else self.size
        self.unit = pool.family if world.as_one else np.arange(self.size)
        self.right = (rng.random((runs, units), dtype=np.float32) < world.right)[:, self.unit]
        self.shares = (rng.random((runs, self.size), dtype=np.float32) < SHARED) | world.as_one
        self.fate, self.hit = self._uniform(), self._uniform()
        self.tamed = (rng.random((runs, units), dtype=np.float32) < world.tamed[0])[:, self.unit]
        self.wavers = rng.random((runs, self.size), dtype=np.float32) < world.waver
        self.order = rng.permutation(self.size)

    def _uniform(self) -> np.ndarray:
        """Of each probe, or of its family where it shares the family's fate."""
        own = self.rng.random((self.runs, self.size), dtype=np.float32)
        family = self.rng.random((self.runs, self.families), dtype=np.float32)[:, self.pool.family]
        return np.where(self.shares, family, own)

    def look(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Which probes are drawn, (draw,), and their differences, (runs, draw): NaN where an answer is not scored."""
        world, grown = self.world, min(1.0, (number + 4) / 24)
        units = self.rng.random((self.runs, self.families if world.as_one else self.size), dtype=np.float32)
        self.fate = np.where((units >= STAY)[:, self.unit], self._uniform(), self.fate)
        rate = world.churn * grown
        fell = self.right & (self.fate < rate / 2 / world.right)
        rose = ~self.right & (self.fate < rate / 2 / (1 - world.right))
        if self.falls and number >= world.onset:
            fell |= self.right & (self.hit < world.drop / (world.right - rate / 2))
        if world.waver:
            now = self.rng.random((self.runs, self.size), dtype=np.float32) < RIGHT
            fell, rose = self.wavers & self.right & ~now, self.wavers & ~self.right & now
        differences = fell.astype(np.float32) - rose
        if world.tamed[0]:
            share, much = world.tamed
            moved = np.where(self.tamed, -much, share * much / (1 - share)) * grown
            differences = (moved + self.rng.normal(0, 0.01, moved.shape)).astype(np.float32)
        bad, good = world.unscored
        lost = np.where((self.right & ~fell) | rose, good, bad) + world.improved * rose
        if lost.any():
            differences[self.rng.random(lost.shape) < lost] = np.nan
        drawn = self._drawn(number)
        return drawn, differences[:, drawn]

    def _drawn(self, number: int) -> np.ndarray:
        world = self.world
        taken = self.size if world.whole and number == world.looks else min(self.draw, self.size)
        place = (number - 1) % ceil(self.size / taken) if world.rotate else 0
        if place == 0 and number > 1 and world.rotate:
            self.order = self.rng.permutation(self.size)
        return np.array(list(islice(cycle(self.order), place * taken, (place + 1) * taken)))


def looks(pools: list[Pool], world: World, runs: int, draw: int, seed: int) -> Iterator[list[tuple[np.ndarray, ...]]]:
    """Of each look, for each dimension, what is drawn and how it differs. The first dimensions are those that fall."""
    rng = np.random.default_rng(seed)
    parts = [Runs(pool, world, runs, draw, world.drop > 0 and k < world.falls, rng) for k, pool in enumerate(pools)]
    for number in range(1, world.looks + 1):
        yield [part.look(number) for part in parts]


@dataclass
class Called:
    """Of each run: the look at which a regression is called, 0 for never; in which dimension; and the interval told then."""

    at: np.ndarray
    dimension: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass
class _Candidate:
    dimension: int
    window: int
    sums: np.ndarray  # (runs, families)
    sizes: np.ndarray  # (families,), the same in every run
    unmet: np.ndarray  # (runs,)
    signs: np.ndarray  # (flips, families); empty of all dimensions together
    whole: bool

    def z(self, against: np.ndarray | float, runs: np.ndarray | slice = slice(None)) -> np.ndarray:
        """(runs,)."""
        x = self.sums[runs] - np.reshape(against, (-1, 1)) * self.sizes
        unmet = -self.unmet[runs] - against
        norm = np.sqrt(np.square(x).sum(1) + unmet**2)
        return (x.sum(1) + unmet) / np.where(norm > 0, norm, 1)

    def flipped(self, against: float) -> np.ndarray:
        """The sums in every world, (flips, runs)."""
        return self.signs @ (self.sums - against * self.sizes).T

    def norm(self, against: float) -> np.ndarray:
        """(runs,)."""
        found = np.sqrt(np.square(self.sums - against * self.sizes).sum(1))
        return np.where(found > 0, found, 1)


class _Line:
    """The line of many runs, look by look, see `spending.Lines`."""

    def __init__(self, worlds: int, runs: int) -> None:
        self.alive, self.crossed = np.ones((worlds, runs), dtype=bool), np.zeros(runs, dtype=int)

    def cross(self, reached: np.ndarray, spent: float) -> np.ndarray:
        allowed = (int(len(reached) * ALPHA * spent) - self.crossed).clip(0)
        left = np.where(self.alive, reached, -np.inf)
        most = int(allowed.max())
        top = -np.sort(np.partition(-left, most, axis=0)[: most + 1], axis=0)  # (most + 1, runs), largest first
        line = top[allowed, np.arange(left.shape[1])] + 1e-5
        crosses = left > line
        self.crossed += crosses.sum(0)
        self.alive &= ~crosses
        return line


def sign_flip(pools: list[Pool], world: World, runs: int, draw: int, seed: int, flips: int = 1999) -> Called:
    """What the default rule calls, see `evidence.py`, in many runs at once."""
    rng = np.random.default_rng(seed + 1)
    signs = [
        rng.integers(0, 2, (flips, int(p.family.max()) + 1), dtype=np.int8).astype(np.float32) * 2 - 1 for p in pools
    ]
    together, history, spending = len(pools), [], Spending()
    everywhere, own = _Line(1 + flips, runs), [_Line(1 + flips, runs) for _ in (*pools, 0)]
    called = Called(np.zeros(runs, dtype=int), np.full(runs, -1), np.full(runs, np.nan), np.full(runs, np.nan))
    for number, look in enumerate(looks(pools, world, runs, draw, seed), 1):
        history = [*history[1 - max(WINDOWS) :], look]
        spent = spending.at(number / world.planned)
        candidates = [
            c
            for window in sorted({min(w, len(history)) for w in WINDOWS})
            for c in _candidates(pools, history[-window:], window, signs, runs)
        ]
        top = np.zeros((1 + flips, runs), dtype=np.float32)
        lines, wholes = [], {}
        for k in range(together + 1):
            part = [c for c in candidates if c.dimension == k]
            tested = np.full((1 + flips, runs), -np.inf, dtype=np.float32)
            for c in part:
                for against, reached in ((0.0, top), (MIN_DROP, tested)):
                    sums = c.flipped(against) if k < together else wholes.pop((c.window, against))
                    if c.whole and k < together:
                        wholes[c.window, against] = wholes.get((c.window, against), 0.0) + sums
                    np.maximum(reached[0], c.z(against), out=reached[0])
                    np.maximum(reached[1:], sums / c.norm(against), out=reached[1:])
            lines.append(own[k].cross(tested, spent))
        line = everywhere.cross(top, spent)
        for c in candidates:  # the shortest windows first
            proven = (c.z(0.0) > line) & (c.z(MIN_DROP) > lines[c.dimension]) & (called.at == 0)
            if proven.any():
                called.at[proven], called.dimension[proven] = number, c.dimension
                called.low[proven] = _reach(c, lines[c.dimension], proven, 1)
                called.high[proven] = _reach(c, lines[c.dimension], proven, -1)
    return called


def _reach(c: _Candidate, line: np.ndarray, runs: np.ndarray, way: int) -> np.ndarray:
    """The lower end of the interval, or the upper."""
    low, high = np.full(runs.sum(), -1.0), np.full(runs.sum(), 1.0)
    unmet = c.unmet if way > 0 else np.ones_like(c.unmet)
    mirrored = replace(c, sums=way * c.sums, unmet=unmet)
    for _ in range(30):
        middle = (low + high) / 2
        above = mirrored.z(middle, runs) > line[runs]
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return way * low


def _candidates(
    pools: list[Pool],
    history: list[list[tuple[np.ndarray, ...]]],
    window: int,
    signs: list[np.ndarray],
    runs: int,
) -> Iterator[_Candidate]:
    wholes = []
    for k, pool in enumerate(pools):
        latest, known = np.zeros((runs, len(pool.family)), dtype=np.float32), np.zeros(len(pool.family))
        for drawn, d in (then[k] for then in history):
            latest[:, drawn], known[drawn] = np.nan_to_num(d), 1
        for part, side in enumerate(pool.sides):
            sums, sizes = (latest * side) @ pool.onehot, (known * side) @ pool.onehot
            between = ((np.abs(latest) > 0) & (np.abs(latest) < 1) & (side > 0)).any(1).astype(np.float32)
            found = _Candidate(k, window, sums, sizes, between, signs[k], part == 0)
            if part == 0:
                wholes.append(found)
            yield found
    sums, sizes = (np.concatenate(values, -1) for values in zip(*((c.sums, c.sizes) for c in wholes), strict=True))
    yield _Candidate(len(pools), window, sums, sizes, np.max([c.unmet for c in wholes], 0), np.zeros((0, 0)), True)


def _first(called: np.ndarray, at: np.ndarray, number: int) -> None:
    at[called & (at == 0)] = number


def simple_rules(pools: list[Pool], world: World, runs: int, draw: int, seed: int) -> dict[str, np.ndarray]:
    """The look at which each of the simpler rules calls one, 0 for never, (runs,)."""
    names = ("sign test", "e-process, tolerance 0.03", "latest, McNemar", "p < 0.05 each look", "drop of 5 points")
    at = {name: np.zeros(runs, dtype=int) for name in names}
    latest = [np.full((8, runs, len(p.family)), np.nan, dtype=np.float32) for p in pools]
    bets = np.array([0.05, 0.1, 0.2, 0.35, 0.5, 0.7], dtype=np.float32)
    wealth = [np.zeros((runs, len(bets))) for _ in pools]
    share = 0.0
    recent: list[list[np.ndarray]] = [[] for _ in pools]
    for number, look in enumerate(looks(pools, world, runs, draw, seed), 1):
        weight = 6 / pi**2 / number**2
        share += weight
        now = ALPHA * 0.9 * (sqrt(number / world.planned) - sqrt((number - 1) / world.planned))
        for k, (pool, (drawn, d)) in enumerate(zip(pools, look, strict=True)):
            mean = d.mean(1)
            fell, rose = (d > 0).sum(1), (d < 0).sum(1)
            _first(mean >= 0.05, at["drop of 5 points"], number)
            _first(log_tail(fell, fell + rose) < log(0.05), at["p < 0.05 each look"], number)
            latest[k] = np.roll(latest[k], -1, 0)
            latest[k][-1] = np.nan
            latest[k][-1][:, drawn] = d
            known = ~np.isnan(latest[k][:, 0])  # (8, probes), the same in every run
            which = np.where(known.any(0), 7 - known[::-1].argmax(0), 0)
            newest = np.nan_to_num(latest[k][which, :, np.arange(len(pool.family))].T)  # (runs, probes)
            drop = newest.sum(1) / known.any(0).sum()
            fell, rose = (newest > 0).sum(1), (newest < 0).sum(1)
            called = log_tail(fell, fell + rose) < log(ALPHA / len(pools) / world.planned)
            _first(called & (drop >= MIN_DROP), at["latest, McNemar"], number)
            families = newest @ pool.onehot
            fell, rose = (families > 0).sum(1), (families < 0).sum(1)
            called = log_tail(fell, fell + rose) <= log(now / len(pools))
            _first(called & (drop >= MIN_DROP), at["sign test"], number)
            growth = np.log1p(bets * (d[..., None] - 0.03)).sum(1)  # (runs, bets)
            wealth[k] = np.logaddexp(wealth[k], log(weight)) + growth if number > 1 else log(weight) + growth
            value = np.exp(wealth[k]).mean(1) + 1 - share
            recent[k] = [*recent[k][-3:], mean]
            called = (value >= len(pools) / ALPHA) & (np.mean(recent[k], 0) >= MIN_DROP)
            _first(called, at["e-process, tolerance 0.03"], number)
    return at


_LOG_FACTORIALS = np.array([lgamma(n + 1) for n in range(1200)])
_TAILS: dict[int, np.ndarray] = {}


def log_tail(hits: np.ndarray, trials: np.ndarray) -> np.ndarray:
    """log P(X >= hits) of a fair coin."""
    found = np.zeros(hits.shape)
    for n in np.unique(trials):
        if n not in _TAILS:
            terms = _LOG_FACTORIALS[n] - _LOG_FACTORIALS[: n + 1] - _LOG_FACTORIALS[n::-1] - n * log(2)
            _TAILS[n] = np.logaddexp.accumulate(terms[::-1])[::-1]
        found[trials == n] = _TAILS[n][hits[trials == n]]
    return np.minimum(found, 0.0)
