"""Which rows are most like what was said: n-grams of tokens, which cost no forward pass. A first look, and what to look at where
there are too many rows for gradients of all.

Of a row and of an answer each n-gram of one to three tokens counts as often as it is there, times log((1 + rows) / (1 + rows that have
it)) (Sparck Jones 1972); how alike they are is the cosine of the two. Likeness says nothing of cause: a row that says the same may be
there because all rows of its kind do.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from ..records.rows import TrainedRow
from .losses import Document

_LONGEST = 3  # tokens
_BUCKETS = 2**20  # that n-grams are counted in
_MIX = np.uint64(0x9E3779B97F4A7C15)


def likeness(
    rows: Callable[[], Iterable[TrainedRow]], groups: Sequence[Sequence[Document]]
) -> tuple[list[tuple[int, int]], np.ndarray]:
    """
    How like each row is to some answers, by what is learnt of it.

    Args:
        rows (`Callable[[], Iterable[TrainedRow]]`):
            Gives the rows, twice: they are read one by one, and none is kept.
        groups (`Sequence[Sequence[Document]]`):
            Answers, by groups.

    Returns:
        `tuple`: each row's place and part, and (rows, groups) the mean of its cosines with a group's answers, in [0, 1].
    """
    having, places = np.zeros(_BUCKETS), []
    for row in rows():
        having[_grams(row)[0]] += 1
        places.append((row.row, row.part))
    rarity = np.log((1 + len(places)) / (1 + having))

    def vector(document: TrainedRow | Document) -> tuple[np.ndarray, np.ndarray]:
        grams, counts = _grams(document)
        values = counts * rarity[grams]
        return grams, values / (np.linalg.norm(values) or 1.0)

    means = np.zeros((len(groups), _BUCKETS))
    for mean, group in zip(means, groups, strict=True):
        for document in group:
            grams, values = vector(document)
            mean[grams] += values / len(group)
    found = np.zeros((len(places), len(groups)))
    for cosines, row in zip(found, rows(), strict=True):
        grams, values = vector(row)
        cosines[:] = means[:, grams] @ values
    return places, found


def _grams(document: TrainedRow | Document) -> tuple[np.ndarray, np.ndarray]:
    """The n-grams of what is learnt, as numbers of buckets, and how often each is there."""
    ids = np.asarray(document.ids, dtype=np.uint64)[np.asarray(document.learnt, dtype=bool)]
    found, hashed = [], np.zeros(len(ids) + 1, dtype=np.uint64)
    for n in range(1, min(_LONGEST, len(ids)) + 1):
        hashed = (hashed[:-1] ^ (ids[n - 1 :] + np.uint64(n))) * _MIX  # wraps around
        found.append((hashed >> np.uint64(44)).astype(np.int64))
    return np.unique(np.concatenate(found), return_counts=True) if found else (np.zeros(0, np.int64), np.zeros(0))


def screened(alike: np.ndarray, size: int, seed: int) -> dict[int, float]:
    """
    Which rows to look at of many: half of them likest to what is said now, half likest to what was said before, since what holds a model
    up must be seen beside what pulls it down; and of the rest as many by chance, by which it is told how rows pull that have no part in it.

    Args:
        alike (`np.ndarray`):
            (rows, 2): with what is said now, and with what was said.
        size (`int`):
            How many by likeness, and how many by chance.
        seed (`int`):
            Of the draw.

    Returns:
        `dict[int, float]`: rows, and how many each stands for.
    """
    n = len(alike)
    if n <= 2 * size:
        return dict.fromkeys(range(n), 1.0)
    chosen: dict[int, float] = {}
    now, then = ([int(i) for i in np.argsort(-alike[:, column], kind="stable")] for column in (0, 1))
    for pair in zip(now, then, strict=True):
        for i in pair:
            if len(chosen) < size:
                chosen[i] = 1.0
    rest = [i for i in range(n) if i not in chosen]
    return chosen | dict.fromkeys(random.Random(seed).sample(rest, size), len(rest) / size)
