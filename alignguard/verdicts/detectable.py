"""The smallest drop that audits could have found: what "no regression" is worth.

Had a share D of the answers been lost from the first audit on, the statistic z = S / sqrt(Q) (see `evidence.py`; S the sum of
the families' differences, Q that of their squares) would lie about

    E S = n (D - d) - u,    E Q = sum over families [m (v - D^2) (1 + r (m - 1)) + m^2 (D - d)^2] + u

with n probes in families of m, v = churn + D (an answer is lost or won as a whole, which is the hardest case), r the correlation
of lost and won answers within a family, d the drop it is tested against and u = 1 where scores lie in between. Of answers of which
a share s is scored now, the rest counting as unchanged, no more than s D is seen, which then stands for D. Its variance follows from the moments of S and Q by the delta method. Of the drops whose z lies above the line with a probability of 80 %, at
this look or at one before it that had asked as many probes, the smallest is the detectable drop. `benchmarks/detection.py` holds it against simulated runs (`mdd_error`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, comb, nan, sqrt
from statistics import NormalDist

import numpy as np

POWER = 0.8
_AGAIN = 0.25  # of a look at new probes, that one at the same ones is worth once churn has come and gone
_STAYS = 0.7  # of churn, from look to look
_PRIOR = 20  # pairs that the assumed churn is worth
ASSUMED_CHURN, _ASSUMED_CORRELATION = 0.06, 0.1


@dataclass(frozen=True)
class Noise:
    """
    How answers move without a cause.

    Args:
        churn (`float`):
            Share of answers lost or won, half of it each.
        correlation (`float`):
            Of that, within a family.
    """

    churn: float = ASSUMED_CHURN
    correlation: float = _ASSUMED_CORRELATION

    @classmethod
    def of(cls, values: Sequence[float], sums: np.ndarray, sizes: np.ndarray) -> Noise:
        """
        As it was seen, with what is assumed where little was.

        Args:
            values (`Sequence[float]`):
                Differences, one a probe. What rose is chance, and as much of what fell.
            sums, sizes (`np.ndarray`):
                Of the families: their differences summed, and their probes.
        """
        squares = np.square(values)
        rose = float(squares[np.asarray(values) < 0].sum())
        churn = (2 * rose + ASSUMED_CHURN * _PRIOR) / (len(values) + _PRIOR)
        mean = sums.sum() / max(1.0, sizes.sum())
        pairs = float((sizes * (sizes - 1)).sum()) * float(squares.mean() if len(values) else 0.0)
        shared = float((np.square(sums - mean * sizes)).sum() - (squares.sum() - len(values) * mean**2))
        correlation = (shared + _ASSUMED_CORRELATION * _PRIOR) / (pairs + _PRIOR)
        return cls(churn, min(1.0, max(0.0, correlation)))


def chances(looks: int, asked: float, distinct: int) -> float:
    """
    What looks beyond those that asked every probe once are worth.

    Args:
        looks (`int`):
            So far.
        asked (`float`):
            Probes at a look, in the mean.
        distinct (`int`):
            Different ones, in all.
    """
    round_of = ceil(distinct / asked)  # looks until a probe is asked again
    return max(0, looks - round_of) * (1 - _STAYS**round_of)


def detectable_drop(
    sizes: np.ndarray,
    noise: Noise,
    tests: Sequence[tuple[float, float]],
    unmet: float = 0.0,
    most: float = 1.0,
    again: float = 0.0,
    fewest: int = 0,
    scored: float = 1.0,
) -> float:
    """
    The smallest drop that is found with a probability of 80 %; NaN where there is none.

    Args:
        sizes (`np.ndarray`):
            Probes of each family.
        noise ([`Noise`]):
            How answers move without a cause.
        tests (`Sequence[tuple[float, float]]`):
            Drops that are tested against, each with its line; all must be passed.
        unmet (`float`, *optional*, defaults to `0.0`):
            1 where scores lie in between, see `evidence.py`.
        most (`float`, *optional*, defaults to `1.0`):
            What there is to lose: the start's score.
        again (`float`, *optional*, defaults to `0.0`):
            Further looks at the same probes, each of them a chance, see [`chances`].
        fewest (`int`, *optional*, defaults to `0`):
            Families that must have fallen to prove anything at all: k that fell, and none that rose, are chance in 2^-k of worlds.
        scored (`float`, *optional*, defaults to `1.0`):
            Share of the probes whose answers are scored now: of the others no drop is seen.
    """
    n = float(sizes.sum())
    power = 1 - (1 - POWER) ** (1 / (1 + _AGAIN * again))
    quantile = NormalDist().inv_cdf(power)

    def found(drop: float) -> bool:
        drop *= scored
        falls = 1 - (1 - drop) ** (n / len(sizes))  # a family, by one of its members at least
        fall = [
            comb(len(sizes), k) * falls**k * (1 - falls) ** (len(sizes) - k) for k in range(min(fewest, len(sizes) + 1))
        ]
        if 1 - sum(fall) < power:
            return False
        v = noise.churn + drop
        spread = 1 + noise.correlation * (float((sizes * sizes).sum()) / n - 1)
        for against, line in tests:
            s = n * (drop - against) - unmet
            q = n * (v - drop**2) * spread + float((sizes * sizes).sum()) * (drop - against) ** 2 + unmet
            of_s, both, of_q = n * (v - drop**2) * spread, n * drop * (1 - v) * spread**2, n * v * (1 - v) * spread**3
            variance = (of_s - s / q * both + (s / q) ** 2 / 4 * of_q) / q
            if s / sqrt(q) - quantile * sqrt(max(0.0, variance)) <= line:
                return False
        return True

    low, high = 0.0, min(most, 1 - noise.churn)
    if n == 0 or high <= 0 or not found(high):
        return nan
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (low, middle) if found(middle) else (middle, high)
    return high
