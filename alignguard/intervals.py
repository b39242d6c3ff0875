"""Paired comparisons of scores, with families of probes as clusters."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import nan, pi, sqrt, tan
from statistics import NormalDist


@dataclass(frozen=True)
class PairedDrop:
    """
    How much a score fell, on the same probes.

    Args:
        n (`int`):
            Pairs.
        drop (`float`):
            Mean of baseline score minus current score, in [-1, 1]; positive is worse.
        low, high (`float`):
            A 95 % interval of it.
    """

    n: int
    drop: float
    low: float
    high: float


@dataclass(frozen=True)
class Mean:
    """A mean, with a 95 % interval."""

    mean: float
    low: float
    high: float


def clustered_mean(values: Sequence[float], families: Sequence[str], level: float = 0.95) -> Mean:
    """
    Mean of values that are not below zero, with Student's t interval over family sums (Liang & Zeger 1986).

    Args:
        values (`Sequence[float]`):
            One a probe.
        families (`Sequence[str]`):
            Each probe's family: the independent units.
        level (`float`, *optional*, defaults to `0.95`):
            Coverage. Of a single family there is no interval: NaN.
    """
    mean, units = sum(values) / len(values), len(set(families))
    error = clustered_error(values, families)
    if error is None:
        return Mean(mean, nan, nan)
    t = student_t_quantile(0.5 + level / 2, units - 1)
    return Mean(mean, max(0.0, mean - t * error), mean + t * error)


def clustered_error(values: Sequence[float], families: Sequence[str]) -> float | None:
    """
    Standard error of a mean over family sums; where each value has a family of its own, the usual one.

    Args:
        values (`Sequence[float]`):
            One a probe.
        families (`Sequence[str]`):
            Each probe's family: the independent units.

    Returns:
        `float` or `None`: of a single family there is none.
    """
    n, mean = len(values), sum(values) / len(values)
    sums: dict[str, float] = defaultdict(float)
    for family, value in zip(families, values, strict=True):
        sums[family] += value - mean
    units = len(sums)
    return sqrt(sum(s * s for s in sums.values()) * units / (units - 1)) / n if units > 1 else None


def student_t_quantile(p: float, degrees: int) -> float:
    """
    Quantile of Student's t, by the Cornish-Fisher expansion of Abramowitz & Stegun 26.7.5 (exact for 1 and 2 degrees).

    Args:
        p (`float`):
            Probability, in (0, 1).
        degrees (`int`):
            Degrees of freedom, at least 1.
    """
    if degrees == 1:
        return tan(pi * (p - 0.5))
    if degrees == 2:
        return (2 * p - 1) / sqrt(2 * p * (1 - p))
    x, n = NormalDist().inv_cdf(p), degrees
    terms = (
        (x**3 + x) / 4,
        (5 * x**5 + 16 * x**3 + 3 * x) / 96,
        (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384,
        (79 * x**9 + 776 * x**7 + 1482 * x**5 - 1920 * x**3 - 945 * x) / 92160,
    )
    return x + sum(term / n ** (i + 1) for i, term in enumerate(terms))


def paired_drop(
    before: Sequence[float], after: Sequence[float], families: Sequence[str], level: float = 0.95
) -> PairedDrop:
    """
    Mean paired drop with an interval, clustered by family.

    The interval is Student's t over family sums (families, not probes, are the independent units), about the estimate
    of Agresti & Min (2005, Statistics in Medicine 24:729), who add half a pair to each cell of the paired table. Here it is
    half a pair's family, whose sum fell by the root of the mean number of pairs in a family, as that of pairs that move by
    themselves would, half one that rose by as much, and one that stayed. Without that, a handful of probes that all stayed the
    same would give an interval of width zero.

    Args:
        before, after (`Sequence[float]`):
            Scores of the same probes, in [0, 1].
        families (`Sequence[str]`):
            Each probe's family.
        level (`float`, *optional*, defaults to `0.95`):
            Coverage of the interval.

    Returns:
        [`PairedDrop`]; with no pair, NaN in [-1, 1], which is also the interval where all pairs are of one family.
    """
    differences = [b - a for b, a in zip(before, after, strict=True)]
    n = len(differences)
    if n == 0:
        return PairedDrop(0, float("nan"), -1.0, 1.0)
    drop = sum(differences) / n
    clusters: dict[str, list[float]] = defaultdict(list)
    for family, difference in zip(families, differences, strict=True):
        clusters[family].append(difference)
    if len(clusters) == 1 < n:  # of how families differ it tells nothing
        return PairedDrop(n, drop, -1.0, 1.0)
    size = sqrt(n / len(clusters))
    weight = n + 2 * size  # pairs, and those of pseudo-families
    centre = sum(differences) / weight
    spread = sum((sum(d - centre for d in members)) ** 2 for members in clusters.values())
    spread += 0.5 * size**2 * ((1 - centre) ** 2 + (-1 - centre) ** 2)
    units = len(clusters) + 2
    error = sqrt(spread * units / (units - 1)) / weight
    t = student_t_quantile(0.5 + level / 2, units - 1)
    return PairedDrop(n, drop, max(-1.0, centre - t * error), min(1.0, centre + t * error))
