import numpy as np
import pytest
from scipy import stats

from alignguard.intervals import paired_drop, student_t_quantile


@pytest.mark.parametrize("degrees", [1, 2, 3, 5, 9, 30, 200])
def test_t_quantiles_agree_with_scipy(degrees):
    tolerance = 2e-2 if degrees < 5 else 1e-3
    assert student_t_quantile(0.975, degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=tolerance)


def test_a_drop_is_positive_when_scores_fall():
    found = paired_drop([1, 1, 1, 0], [0, 1, 1, 0], list("abcd"))
    assert (found.n, found.drop) == (4, 0.25)
    assert found.low < 0.25 < found.high


def test_nothing_asked_says_nothing():
    found = paired_drop([], [], [])
    assert found.n == 0 and np.isnan(found.drop) and (found.low, found.high) == (-1, 1)


def test_probes_that_all_stay_the_same_are_no_proof():
    few, many = (
        paired_drop([1] * 4, [1] * 4, list("abcd")),
        paired_drop([1] * 400, [1] * 400, [str(i) for i in range(400)]),
    )
    assert few.high > 0.2 and many.high < 0.01


def test_one_family_counts_once():
    apart = paired_drop([1] * 20 + [0] * 20, [0.5] * 20 + [0] * 20, [str(i) for i in range(40)])
    together = paired_drop([1] * 20 + [0] * 20, [0.5] * 20 + [0] * 20, ["x"] * 20 + [str(i) for i in range(20)])
    assert together.high - together.low > 1.5 * (apart.high - apart.low)


@pytest.mark.parametrize(("n", "fall", "rise"), [(24, 0.1, 0.1), (48, 0.15, 0.05), (100, 0.08, 0.03)])
def test_intervals_cover_the_truth(n, fall, rise):
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(800):
        u = rng.random(n)
        after = np.where(u < fall, 0.0, 1.0)
        before = np.where((u >= fall) & (u < fall + rise), 0.0, 1.0)
        found = paired_drop(before.tolist(), after.tolist(), [str(i) for i in range(n)])
        hits += found.low <= fall - rise <= found.high
    assert 0.93 <= hits / 800 <= 0.995
