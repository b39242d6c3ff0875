"""Which rows are named, and whether any may be: a few that stand out, or none.

A pull is a product of two gradients, and every row has one. Most rows have no part in a regression, so that the middle of all pulls and
their spread are those of rows without one: z = (pull - median) / (1.4826 * MAD), and a row stands out from 3.5 on (Iglewicz & Hoaglin
1993, "How to detect and handle outliers"). Two halves of the flipped probes are traced each alone, and both must say so of a row.

Tails are heavier than a normal's. As many rows as stand out *below* by as much are expected above by chance, where pulls have no cause:
the rows above are named only if those below are at most a tenth as many (the mirror estimate of a false discovery rate: Barber & Candes
2015, arXiv 1404.5609). And they are a small set or none: what a fifth of all rows does is no matter of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LINE = 3.5  # robust standard deviations
HALF_LINE = 2.0  # of each half alone
RATE = 0.1  # rows below the line on the other side, for each row above it
SMALL = 0.2  # of all rows


def standing_out(pulls: Sequence[float]) -> np.ndarray:
    """How far each pull stands out, in robust standard deviations, (n,)."""
    values = np.asarray(pulls, dtype=np.float64)
    middle = np.median(values)
    spread = 1.4826 * np.median(np.abs(values - middle))
    return (values - middle) / (spread if spread > 0 else 1.0)


def named(whole: np.ndarray, one: np.ndarray, two: np.ndarray) -> list[int]:
    """
    The rows that stand out, the most first; none where as many would by chance, or where they are no small set.

    Args:
        whole (`np.ndarray`):
            How far each stands out, (n,).
        one, two (`np.ndarray`):
            The same of two halves of the flipped probes, each traced alone.
    """
    above = (whole >= LINE) & (one >= HALF_LINE) & (two >= HALF_LINE)
    below = (whole <= -LINE) & (one <= -HALF_LINE) & (two <= -HALF_LINE)
    if below.sum() > RATE * above.sum() or above.sum() > SMALL * len(whole):
        return []
    order = np.argsort(-whole, kind="stable")
    return [int(i) for i in order if above[i]]


def agreement(one: Sequence[float], two: Sequence[float]) -> float:
    """Spearman's rank correlation of the pulls of two halves, in [-1, 1]; 0 where there is none."""
    if len(one) < 2:
        return 0.0
    first, second = (_ranks(np.asarray(values, dtype=np.float64)) for values in (one, two))
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    """With the mean rank for what is equal."""
    _, at, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[at]


@dataclass(frozen=True)
class Shares:
    """How much of the pull comes from how few rows: of all pull above the middle, the rows that give a tenth, a half and nine tenths."""

    tenth: int
    half: int
    most: int


def shares(z: np.ndarray) -> Shares:
    """Of all that pulls more than the middle row does, by how many rows, the strongest first, so much is reached."""
    above = np.sort(z[z > 0])[::-1]
    if not len(above):
        return Shares(0, 0, 0)
    reached = np.cumsum(above) / above.sum()
    return Shares(*(int(np.searchsorted(reached, share - 1e-12) + 1) for share in (0.1, 0.5, 0.9)))
