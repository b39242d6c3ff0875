"""Which rows are named, on pulls of which it is known what they are."""

import numpy as np
import pytest
from scipy.stats import median_abs_deviation, spearmanr

from alignguard.tracing.found import Trace, TracedRow, by_column
from alignguard.tracing.named import agreement, named, shares, standing_out


def halves(rng, n, planted=0, size=0.0, tail=5):
    """Pulls of two halves: heavy-tailed, alike in part, and of the planted rows larger in both."""
    own = rng.standard_t(tail, n)
    one, two = (own + 0.5 * rng.standard_t(tail, n) for _ in range(2))
    one[:planted] += size
    two[:planted] += size
    return one, two


def found(one, two):
    return named_of((one + two) / 2, one, two)


def named_of(whole, one, two, each=None):
    return naming_of(whole, one, two, each).rows


def naming_of(whole, one, two, each=None):
    return named(standing_out(whole, each), np.minimum(standing_out(one, each), standing_out(two, each)), each)


def test_how_far_a_row_stands_out_is_told_by_middle_and_spread():
    values = np.random.default_rng(0).standard_normal(99)
    right = (values - np.median(values)) / median_abs_deviation(values, scale="normal")
    assert standing_out(values) == pytest.approx(right, rel=1e-3)


def test_a_few_rows_that_stand_out_are_named_and_no_others():
    one, two = halves(np.random.default_rng(1), 400, planted=12, size=60.0)
    assert sorted(found(one, two)) == list(range(12))


def test_one_row_alone_can_be_named():
    one, two = halves(np.random.default_rng(2), 400, planted=1, size=90.0)
    assert found(one, two)[0] == 0 and len(found(one, two)) <= 2


def test_where_nothing_is_planted_hardly_a_row_is_named():
    rng = np.random.default_rng(3)
    blamed = [len(found(*halves(rng, 400))) for _ in range(200)]
    assert np.mean([count > 0 for count in blamed]) < 0.03 and np.mean(blamed) < 0.1


def test_where_as_many_stand_out_below_none_is_named():
    one, two = halves(np.random.default_rng(4), 400, planted=12, size=60.0)
    one[12:24] -= 60
    two[12:24] -= 60
    assert found(one, two) == []


def test_a_row_that_one_half_knows_nothing_of_is_not_named():
    one, two = halves(np.random.default_rng(5), 400)
    one[0] += 200
    assert 0 not in found(one, two)


def test_what_a_fifth_of_the_rows_does_is_no_small_set():
    one, two = halves(np.random.default_rng(6), 400, planted=120, size=90.0)
    assert found(one, two) == []


def test_agreement_is_the_rank_correlation():
    rng = np.random.default_rng(7)
    one, two = rng.integers(0, 9, 50), rng.integers(0, 9, 50)
    assert agreement(one, two) == pytest.approx(spearmanr(one, two).statistic)
    assert agreement([1, 1, 1], [1, 2, 3]) == 0 and agreement([1], [1]) == 0


def test_shares_are_reached_by_so_many_rows():
    told = shares(np.array([-5.0, 0.0, 5.0, 3.0, 1.0, 1.0]))
    assert (told.tenth, told.half, told.most) == (1, 1, 3)
    assert shares(np.zeros(4)) == shares(np.array([]))


def test_what_rows_moved_is_told_by_their_tokens_and_how_often_they_were_trained_on():
    """Of one pull a token a row of 60 tokens that was trained on twice moved 40 times as much as one of three, once."""
    long, short = (
        TracedRow(i, 0, steps, 1.0, 2.0, 2.0, 1.0, tokens)
        for i, (steps, tokens) in enumerate([((1, 3), 60), ((2,), 3)])
    )
    less = TracedRow(2, 0, (1,), -1.0, -2.0, -2.0, 1.0, 500)
    trace = Trace("safety", 0, 3, 3, 3, [long, short, less], 1, 1.0, shares([0.0]), 0, 0, 0, "m", 0.25, 1.0)
    assert trace.pulled == pytest.approx(40 / 41)
    by = by_column(trace, "source", {0: "long", 1: "short", 2: "less"}).values
    assert {value: share for value, _, _, share in by} == pytest.approx({"long": 40 / 41, "short": 1 / 41, "less": 0.0})


def test_rows_that_stand_for_others_count_as_so_many():
    """Oracle: the same rows, each written as often as it stands for others."""
    rng = np.random.default_rng(9)
    one, two = halves(rng, 60, planted=4, size=60.0)
    each = rng.integers(1, 5, 60)
    each[:4] = 1
    whole = (one + two) / 2
    z, right = standing_out(whole, each.astype(float)), standing_out(np.repeat(whole, each))
    assert np.repeat(z, each) == pytest.approx(right)
    told, exact = (vars(found) for found in (shares(z, each.astype(float)), shares(right)))
    assert all(exact[name] <= told[name] < exact[name] + 5 for name in exact)  # one row more, and those it stands for
    assert sorted(named_of(whole, one, two, each.astype(float))) == [0, 1, 2, 3]
    each[:4] = 40  # those four stand for most rows
    assert named_of(whole, one, two, each.astype(float)) == []


def planted(rows, below=0, size=60.0, halves_apart=False):
    """Pulls of 400 rows, some of which pull, by both halves or by one, and some as far the other way; the sentence on them."""
    one, two = halves(np.random.default_rng(4), 400, planted=rows, size=size)
    if halves_apart:
        two[:rows] -= size + 10
        one[:rows] += size
    for half in (one, two):
        half[rows : rows + below] -= size
    return naming_of((one + two) / 2, one, two)


@pytest.mark.parametrize(
    ("pulls", "why"),
    [
        ({"rows": 0}, "and one on the other side by"),
        ({"rows": 100}, "of 400 rows 100 stand out, more than 20%"),
        (
            {"rows": 12, "halves_apart": True},
            "the strongest row by both halves stands out by 6.0, and one on the other side by 4.9",
        ),
        ({"rows": 12, "below": 1}, "and one on the other side by"),
    ],
)
def test_where_no_row_is_named_the_rule_that_forbade_it_is_told(pulls, why):
    naming = planted(**pulls)
    assert naming.rows == [] and why in naming.why


def test_where_none_stands_out_by_both_halves_that_is_told():
    whole = np.array([60.0] * 3 + [0.1, -0.1] * 40)
    assert (
        named(whole, np.zeros(83)).why
        == "of 83 rows 3 stand out, and none of them by both halves of the flipped probes"
    )


def test_where_none_reaches_the_line_that_is_told():
    assert named(whole := np.linspace(-3, 3, 99), whole).why == "of 99 rows none stands out by more than chance does"


def test_where_rows_are_named_no_rule_forbade_it_and_where_most_pull_alike_that_is_told():
    assert planted(rows=12).why == ""
    assert "pull alike" in named(np.zeros(9), np.zeros(9)).why


def test_rows_that_have_as_many_as_far_on_the_other_side_are_not_named():
    whole = np.array([30.0] + [4.0] * 3 + [-9.9] * 4 + [0.1, -0.1] * 40)
    assert named(whole, whole).rows == [0]


def test_rows_that_one_half_alone_knows_hide_no_others():
    """Three pull three times as hard by one half, and stood for what the others are held against: none was named, "by both halves"."""
    one, two = halves(np.random.default_rng(4), 400, planted=23, size=60.0)
    one[:3], two[:3] = 700.0, 0.0
    naming = naming_of((one + two) / 2, one, two)
    assert sorted(naming.rows) == list(range(3, 23)) and naming.why == ""


@pytest.mark.parametrize("strong", [3, 4])
def test_rows_far_weaker_than_the_third_strongest_are_not_named(strong):
    one, two = halves(np.random.default_rng(1), 400, planted=strong + 8, size=60.0)
    for half in (one, two):
        half[:strong] += 600
    assert sorted(found(one, two)) == list(range(strong))
