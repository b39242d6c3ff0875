"""Which rows are named, and whether any may be: a few that stand out, or none.

A pull is a product of two gradients, and every row has one. Most rows have no part in a regression, so that the middle of all pulls and
their spread are those of rows without one: z = (pull - median) / (1.4826 * MAD), and a row stands out from 3.5 on (Iglewicz & Hoaglin
1993, "How to detect and handle outliers"). Two halves of the flipped probes are traced each alone, and both must say so of a row.

Rows of one kind are many and alike, so that any other kind stands out of them a little: the rows named pull at least a third as much as
the strongest do (the third of them, which no single row is).

Tails are heavier than a normal's. Where pulls have no cause, rows stand out *below* as they do above. So the strongest row must stand out
three times as far as any does below (where all helpful rows together had cost refusals it was 1.7, where two rows had, 3.2, with planted
rows 13 and more: `docs/cause.md`), and of the rows named at most one for every ten may have its like on the other side (the mirror estimate
of a false discovery rate: Barber & Candes 2015, arXiv 1404.5609). And they are a small set or none: what a fifth of all rows does is no
matter of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LINE = 3.5  # robust standard deviations
HALF_LINE = 2.0  # of each half alone
LEAST = 1 / 3  # of the pull of the strongest
FURTHER = 3.0  # than any row stands out below
RATE = 0.1  # rows that stand out below, for each one above
SMALL = 0.2  # of all rows


def standing_out(pulls: Sequence[float] | np.ndarray, each: np.ndarray | None = None) -> np.ndarray:
    """
    How far each pull stands out, in robust standard deviations, (n,); 0 for all where more than half of them are the same, which tells
    nothing of how they spread.

    Args:
        pulls (`Sequence[float]` or `np.ndarray`):
            Of rows.
        each (`np.ndarray`, *optional*):
            How many rows each of them stands for, (n,); by default one.
    """
    values = np.asarray(pulls, dtype=np.float64)
    each = np.ones_like(values) if each is None else each
    middle = _median(values, each)
    spread = 1.4826 * _median(np.abs(values - middle), each)
    return (values - middle) / spread if spread > 0 else np.zeros_like(values)


def _median(values: np.ndarray, each: np.ndarray) -> float:
    """Of values that each stand for some: the mean of the two between which the half is reached."""
    if not len(values):
        return 0.0
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(each[order]) / each.sum()
    low, high = np.searchsorted(reached, (0.5 - 1e-12, 0.5 + 1e-12))
    return float(values[order[low]] + values[order[high]]) / 2


def named(whole: np.ndarray, least: np.ndarray, each: np.ndarray | None = None) -> list[int]:
    """
    The rows that stand out, the most first; none where as many would by chance, or where they are no small set.

    Args:
        whole (`np.ndarray`):
            How far each stands out, (n,).
        least (`np.ndarray`):
            The same of two halves of the flipped probes, each traced alone: the less of the two, (n,); NaN where that is not known.
        each (`np.ndarray`, *optional*):
            How many rows each of them stands for, (n,); by default one.
    """
    each = np.ones_like(whole) if each is None else each
    order = np.argsort(-whole, kind="stable")
    strongest = whole[order[:3]]
    if not len(order) or strongest[0] < FURTHER * -whole.min():
        return []
    line = max(LINE, LEAST * strongest[-1])
    above = [int(i) for i in order if whole[i] >= line and least[i] >= HALF_LINE]
    if each[above].sum() > SMALL * each.sum():
        return []
    while above and each[whole <= -whole[above[-1]]].sum() > RATE * each[above].sum():
        above.pop()
    return above


def agreement(one: Sequence[float] | np.ndarray, two: Sequence[float] | np.ndarray) -> float:
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


def shares(z: np.ndarray, each: np.ndarray | None = None) -> Shares:
    """Of all that pulls more than the middle row does, by how many rows, the strongest first, so much is reached."""
    each = np.ones_like(z) if each is None else each
    order = [i for i in np.argsort(-z, kind="stable") if z[i] > 0]
    if not order:
        return Shares(0, 0, 0)
    pulled, rows = np.cumsum(z[order] * each[order]), np.cumsum(each[order])
    at = (np.searchsorted(pulled, (share - 1e-12) * pulled[-1]) for share in (0.1, 0.5, 0.9))
    return Shares(*(round(rows[i]) for i in at))
