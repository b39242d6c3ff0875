"""Simulated runs: how often a rule stops one in which nothing happened, and how soon it sees what did.

Six dimensions, baseline scores right with probability 0.8. Churn: a probe's judgement differs from the baseline's with
probability `churn`, as often for the better as for the worse, growing to that over the first 20 looks (drift); between looks
it stays with probability 0.7. Members of a family share their fate with probability 0.3. A regression of d points makes right
answers wrong, in one dimension, from its onset on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import lgamma, log, pi

import numpy as np

from alignguard import load_probes
from alignguard.probes.probe import TRUST_DIMENSIONS
from alignguard.verdicts.evidence import WINDOWS, parts_of, sides_of, spent

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


def even(size: int) -> list[Pool]:
    """Six pools of one size, in families of four."""
    return [Pool(np.arange(size) // 4, np.ones((1, size), dtype=np.float32)) for _ in TRUST_DIMENSIONS]


@dataclass(frozen=True)
class World:
    """What happens in a run."""

    looks: int  # as far as it is looked
    planned: int = 100
    churn: float = 0.06
    drop: float = 0.0  # of one dimension
    onset: int = 1  # the first look that shows it
    waver: float = (
        0.0  # instead of churn: this share of probes is right with probability 0.8 at each look, the start too
    )


class Runs:
    """Many runs of one dimension, look by look."""

    def __init__(self, pool: Pool, world: World, runs: int, draw: int, falls: bool, rng: np.random.Generator) -> None:
        self.pool, self.world, self.runs, self.draw, self.falls, self.rng = pool, world, runs, draw, falls, rng
        self.size, self.families = len(pool.family), int(pool.family.max()) + 1
        self.right = rng.random((runs, self.size), dtype=np.float32) < RIGHT
        self.shares = rng.random((runs, self.size), dtype=np.float32) < SHARED
        self.fate, self.hit = self._uniform(), self._uniform()
        self.wavers = rng.random((runs, self.size), dtype=np.float32) < world.waver
        self.latest = np.zeros((runs, self.size), dtype=np.float32)

    def _uniform(self) -> np.ndarray:
        """Of each probe, or of its family where it shares the family's fate."""
        own = self.rng.random((self.runs, self.size), dtype=np.float32)
        family = self.rng.random((self.runs, self.families), dtype=np.float32)[:, self.pool.family]
        return np.where(self.shares, family, own)

    def look(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Which probes are drawn, (draw,), and their differences, (runs, draw)."""
        moves = self.rng.random((self.runs, self.size), dtype=np.float32) >= STAY
        self.fate = np.where(moves, self._uniform(), self.fate)
        rate = self.world.churn * min(1.0, (number + 4) / 24)
        fell = self.right & (self.fate < rate / 2 / RIGHT)
        rose = ~self.right & (self.fate < rate / 2 / (1 - RIGHT))
        if self.falls and number >= self.world.onset:
            fell |= self.right & (self.hit < self.world.drop / (RIGHT - rate / 2))
        if self.world.waver:
            now = self.rng.random((self.runs, self.size), dtype=np.float32) < RIGHT
            fell, rose = self.wavers & self.right & ~now, self.wavers & ~self.right & now
        drawn = self.rng.permutation(self.size)[: min(self.draw, self.size)]
        return drawn, (fell.astype(np.float32) - rose)[:, drawn]


def looks(pools: list[Pool], world: World, runs: int, draw: int, seed: int) -> Iterator[list[tuple[np.ndarray, ...]]]:
    """Of each look, for each dimension, what is drawn and how it differs. The first dimension is the one that falls."""
    rng = np.random.default_rng(seed)
    parts = [Runs(pool, world, runs, draw, world.drop > 0 and k == 0, rng) for k, pool in enumerate(pools)]
    for number in range(1, world.looks + 1):
        yield [part.look(number) for part in parts]


def _first(called: np.ndarray, at: np.ndarray, number: int) -> None:
    at[called & (at == 0)] = number


def sign_flip(pools: list[Pool], world: World, runs: int, draw: int, seed: int, flips: int = 4999) -> np.ndarray:
    """The look at which the default rule calls a regression, 0 for never, (runs,). The rule of `evidence.SignFlipTest`."""
    rng = np.random.default_rng(seed + 1)
    signs = [
        rng.integers(0, 2, (flips, int(p.family.max()) + 1), dtype=np.int8).astype(np.float32) * 2 - 1 for p in pools
    ]
    history: list[list[tuple[np.ndarray, np.ndarray]]] = []
    at, alive, crossed = np.zeros(runs, dtype=int), np.ones((1 + flips, runs), dtype=bool), np.zeros(runs, dtype=int)
    onehots = [p.onehot for p in pools]
    for number, look in enumerate(looks(pools, world, runs, draw, seed), 1):
        history = [*history[1 - max(WINDOWS) :], look]
        worlds = np.zeros((1 + flips, runs), dtype=np.float32)
        # of each dimension, for each part and window (window, z, drop), the last two (runs,)
        candidates: list[list[tuple[int, np.ndarray, np.ndarray]]] = [[] for _ in pools]
        for window in sorted({min(w, len(history)) for w in WINDOWS}):
            for k, pool in enumerate(pools):
                latest, known = np.zeros((runs, len(pool.family)), dtype=np.float32), np.zeros(len(pool.family))
                for drawn, d in (then[k] for then in history[-window:]):
                    latest[:, drawn], known[drawn] = d, 1
                for side in pool.sides:
                    s = (latest * side) @ onehots[k]  # (runs, families)
                    norm = np.sqrt(np.square(s).sum(1, keepdims=True))
                    s /= np.where(norm > 0, norm, 1)
                    z = s.sum(1)
                    np.maximum(worlds[1:], signs[k] @ s.T, out=worlds[1:])
                    np.maximum(worlds[0], z, out=worlds[0])
                    candidates[k].append((window, z, (latest * side).sum(1) / max(1.0, (known * side).sum())))
        allowed = (int(len(worlds) * spent(ALPHA, number, world.planned)) - crossed).clip(0)
        worlds[~alive] = -1.0
        most = int(allowed.max())
        top = -np.sort(np.partition(-worlds, most, axis=0)[: most + 1], axis=0)  # (most + 1, runs), largest first
        line = top[allowed, np.arange(runs)] + 1e-5
        crosses = worlds > line
        crossed += crosses.sum(0)
        alive &= ~crosses
        called = np.zeros(runs, dtype=bool)
        for part in candidates:  # the evidence of a dimension is what is most recent above the line
            called |= _evident(part, line)
        _first(called, at, number)
    return at


def _evident(candidates: list[tuple[int, np.ndarray, np.ndarray]], line: np.ndarray) -> np.ndarray:
    """Whether the most recent candidate above the line has fallen far enough, (runs,)."""
    best = np.full(len(line), -np.inf)
    enough = np.zeros(len(line), dtype=bool)
    for window, z, drop in candidates:
        rank = np.where(z > line, -1000.0 * window + z, -np.inf)
        better = rank > best
        best, enough = np.where(better, rank, best), np.where(better, drop >= MIN_DROP, enough)
    return enough


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
        now = spent(ALPHA, number, world.planned) - spent(ALPHA, number - 1, world.planned)
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
