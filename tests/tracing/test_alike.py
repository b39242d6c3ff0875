"""Likeness by n-grams against one that counts tuples, and which rows are looked at of many."""

from collections import Counter
from math import log, sqrt

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from alignguard.records.rows import TrainedRow
from alignguard.tracing.alike import _BUCKETS, _grams, likeness, screened
from alignguard.tracing.pull import Document


def row(i, ids, learnt=None):
    return TrainedRow(i, ids, [True] * len(ids) if learnt is None else learnt)


def grams(d):
    ids = [t for t, learnt in zip(d.ids, d.learnt, strict=True) if learnt]
    return Counter(tuple(ids[i : i + n]) for n in (1, 2, 3) for i in range(len(ids) - n + 1))


def oracle(rows, groups):
    """Cosines of weighted counts, with dictionaries."""
    counts = [grams(r) for r in rows]

    def vector(found):
        weighed = {g: c * log((1 + len(rows)) / (1 + sum(g in other for other in counts))) for g, c in found.items()}
        size = sqrt(sum(v * v for v in weighed.values())) or 1.0
        return {g: v / size for g, v in weighed.items()}

    def cosine(a, b):
        return sum(v * b.get(g, 0.0) for g, v in a.items())

    return [[np.mean([cosine(vector(c), vector(grams(d))) for d in group]) for group in groups] for c in counts]


tokens = st.lists(st.integers(0, 150_000), min_size=1, max_size=12)


@given(
    st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=12), min_size=1, max_size=6),
    st.lists(tokens, min_size=2, max_size=4),
)
def test_likeness_is_that_of_weighed_ngrams(texts, said):
    rows = [row(i, ids) for i, ids in enumerate(texts)]
    answers = [Document(ids, [True] * len(ids)) for ids in [*said, texts[0]]]
    groups, documents = (answers[:1], answers[1:]), [*rows, *answers]
    buckets = {int(b) for d in documents for b in _grams(d)[0]}
    assume(len(buckets) == len({g for d in documents for g in grams(d)}))  # two n-grams share a bucket now and then
    places, found = likeness(lambda: iter(rows), groups)
    assert places == [(i, 0) for i in range(len(rows))]
    assert found == pytest.approx(np.array(oracle(rows, groups)), abs=1e-9)


def test_what_is_not_learnt_does_not_count():
    rows = [
        row(0, [7, 8, 1, 2], [False, False, True, True]),
        row(1, [1, 2, 7, 8], [False, False, True, True]),
        row(2, [5]),
    ]
    _, found = likeness(lambda: iter(rows), ([Document([9, 1, 2], [False, True, True])],))
    assert found[:, 0] == pytest.approx([1, 0, 0])


def test_of_many_rows_the_likest_are_looked_at_and_as_many_by_chance():
    rng = np.random.default_rng(0)
    alike = rng.random((1000, 2))
    chosen = screened(alike, 50, seed=0)
    likest = {i for i, stands_for in chosen.items() if stands_for == 1}
    assert len(likest) == 50 and len(chosen) == 100 and sum(chosen.values()) == pytest.approx(1000)
    assert {int(i) for column in (0, 1) for i in np.argsort(-alike[:, column])[:25]} <= likest
    assert chosen == screened(alike, 50, seed=0) != screened(alike, 50, seed=1)


def test_few_rows_are_all_looked_at():
    assert screened(np.zeros((100, 2)), 50, seed=0) == dict.fromkeys(range(100), 1.0)


def test_ngrams_seldom_share_a_bucket():
    """Oracle: how many buckets balls that are thrown at random hit; the hash may do better."""
    ids = np.random.default_rng(0).permutation(150_000)
    n = 3 * len(ids) - 3
    hit = len(_grams(Document(ids, np.ones(len(ids), bool)))[0])
    assert hit > 0.99 * _BUCKETS * (1 - (1 - 1 / _BUCKETS) ** n)
