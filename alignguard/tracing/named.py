"""Which rows are named, and whether any may be: a few that stand out, or none.

A pull is a product of two gradients, and every row has one. Most rows have no part in a regression, so that the middle of all pulls and
their spread are those of rows without one: z = (pull - median) / (1.4826 * MAD), and a row stands out from 3.5 on (Iglewicz & Hoaglin
1993, "How to detect and handle outliers"). Two halves of the flipped probes are traced each alone, and both must say so of a row.

Rows of one kind are many and alike, so that any other kind stands out of them a little: the rows named pull at least a third as much as
the third strongest of those that stand out so, which no single row is.

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
LEAST = 1 / 3  # of the pull of the third strongest
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


@dataclass(frozen=True)
class Naming:
    """
    Which rows are named.

    Args:
        rows (`list[int]`):
            The most outstanding first.
        why (`str`, *optional*):
            Where none is, the rule that forbade it, as people are told.
    """

    rows: list[int]
    why: str = ""


def named(whole: np.ndarray, least: np.ndarray, each: np.ndarray | None = None) -> Naming:
    """
    The rows that stand out; none where as many would by chance, or where they are no small set, and then why.

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
    of = f"of {each.sum():,.0f} rows"
    if not whole.any():
        return Naming(
            [], f"more than half of {each.sum():,.0f} rows pull alike, and how far others stand out cannot be told"
        )
    far, below = whole >= LINE, float(-whole.min())
    if not far.any():
        return Naming([], f"{of} none stands out by more than chance does")
    above = [int(i) for i in order if far[i] and least[i] >= HALF_LINE]
    if not above:
        return Naming([], f"{of} {_many(each[far])} out, and none of them by both halves of the flipped probes")
    strongest = whole[above[:3]]
    if strongest[0] < FURTHER * below:
        return Naming(
            [],
            f"the strongest row by both halves stands out by {strongest[0]:.1f}, and one on the other side by {below:.1f}; it would have to be "
            f"{FURTHER:g} times as far",
        )
    above = [i for i in above if whole[i] >= LEAST * strongest[-1]]
    if each[above].sum() > SMALL * each.sum():
        return Naming(
            [], f"{of} {_many(each[above])} out, more than {SMALL:.0%}: what so many do is no matter of a few"
        )
    while each[whole <= -whole[above[-1]]].sum() > RATE * each[above].sum():  # never of the strongest
        above.pop()
    return Naming(above)


def _many(each: np.ndarray) -> str:
    """How many rows stand ..."""
    n = round(float(each.sum()))
    return f"{n:,} stand" + "s" * (n == 1)


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
    """How many rows moved how much: of all that was moved by pulls above the middle row's, the rows that give a tenth, a half and nine tenths."""

    tenth: int
    half: int
    most: int


def shares(moved: Sequence[float] | np.ndarray, each: Sequence[float] | np.ndarray | None = None) -> Shares:
    """
    By how many rows, those that moved most first, so much of all is reached.

    Args:
        moved (`Sequence[float]` or `np.ndarray`):
            By each, (n,); what moved nothing, or the other way, does not count.
        each (`Sequence[float]` or `np.ndarray`, *optional*):
            How many rows each of them stands for, (n,); by default one.
    """
    values = np.asarray(moved, dtype=np.float64)
    count = np.ones_like(values) if each is None else np.asarray(each, dtype=np.float64)
    order = [i for i in np.argsort(-values, kind="stable") if values[i] > 0]
    if not order:
        return Shares(0, 0, 0)
    reached, rows = np.cumsum(values[order] * count[order]), np.cumsum(count[order])
    at = (np.searchsorted(reached, (share - 1e-12) * reached[-1]) for share in (0.1, 0.5, 0.9))
    return Shares(*(round(rows[i]) for i in at))
