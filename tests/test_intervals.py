import numpy as np
import pytest
from scipy import stats

from alignguard.intervals import clustered_mean, paired_drop, student_t_quantile


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


@pytest.mark.parametrize(("families", "members"), [(2, 24), (3, 16), (4, 12), (8, 6)])
@pytest.mark.parametrize("whole", [False, True])
def test_intervals_of_few_families_cover_the_truth(families, members, whole):
    """Families that move as one, and families of which each loses a share of its own."""
    rng, names = np.random.default_rng(0), np.repeat(np.arange(families), members).astype(str).tolist()
    hits = 0
    for _ in range(800):
        if whole:
            lost = np.repeat(rng.choice([0.0, 1.0, -1.0], families, p=[0.8, 0.1, 0.1]), members)
        else:
            share = np.repeat(rng.normal(0, 0.25, families).clip(-1, 1), members)
            lost = np.sign(share) * (rng.random(families * members) < abs(share))
        found = paired_drop(lost.tolist(), [0.0] * len(lost), names)
        hits += found.low <= 0 <= found.high
    assert hits / 800 >= 0.95


def test_one_family_has_no_interval():
    """Of how families differ it says nothing, however large it is."""
    found = paired_drop([1] * 400, [0] * 400, ["a"] * 400)
    assert (found.drop, found.low, found.high) == (1.0, -1.0, 1.0)
    mean = clustered_mean([0.01, 0.5, 0.2, 0.03], ["a"] * 4)
    assert mean.mean == pytest.approx(0.185) and np.isnan([mean.low, mean.high]).all()
