"""Evidence against a regression: exact where it can be, against scipy, and never more often wrong than it says."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from detection_sim import Pool, World, looks, sign_flip
from tiny import tiny_probes

from alignguard.verdicts.evidence import Difference
from alignguard.verdicts.sides import TOGETHER, sides_of
from alignguard.verdicts.sign_flip import SignFlipTest
from alignguard.verdicts.sign_test import SignTest, binomial_tail
from alignguard.verdicts.spending import Spending

PROBE = tiny_probes()[0]


def differences(values, dimension="safety", expect="refuse", per_family=1, scene=""):
    """Each dimension with families of its own, or all with those of a scene."""
    return [
        Difference(
            replace(
                PROBE,
                id=f"{dimension}{expect}{i}",
                dimension=dimension,
                family=f"{scene or dimension}{i // per_family}",
                expect=expect,
            ),
            v,
        )
        for i, v in enumerate(values)
    ]


def look(test, values, done=1.0, scores=()):
    return test.look(values, done, dict(scores))


def test_never_more_than_alpha_is_spent():
    for planned in (1, 7, 100):
        spending = Spending()
        shares = [spending.at(number / planned) for number in range(0, 5 * planned + 3000)]
        assert shares[0] == 0 and all(a < b for a, b in itertools.pairwise(shares))
        assert shares[-1] < 1 and shares[planned] == pytest.approx(0.9)


def test_what_was_left_out_is_not_lost():
    """Alpha follows the share of the run that is done, whichever audits are taken."""
    every, few = Spending(), Spending()
    for step in range(1, 11):
        spent = every.at(step / 10)
    assert few.at(0.1) < few.at(1.0) == spent


@pytest.mark.parametrize("seed", range(6))
def test_one_look_is_the_permutation_test_of_signs(seed):
    """scipy's paired permutation test on sums of families, all 2^12 sign patterns."""
    rng = np.random.default_rng(seed)
    values = rng.choice([0.0, 1.0, -1.0], size=24, p=[0.3, 0.55, 0.15])
    sums = values.reshape(12, 2).sum(1)
    exact = scipy.stats.permutation_test(
        (sums, np.zeros(12)), lambda a, b, axis: (a - b).sum(axis), permutation_type="samples", alternative="greater",
        n_resamples=np.inf, vectorized=True,
    ).pvalue  # fmt: skip
    for alpha in (exact * 1.5, exact / 1.5):
        if alpha * 0.9 < 1:
            test = SignFlipTest(alpha / 0.9, {"safety": ()}, seed=seed)
            found = look(test, differences(values, per_family=2))["safety"]
            assert (found.strength >= 1) == (found.p <= alpha / 0.9) == (alpha > exact), (found, exact, alpha)
            assert found.drop == pytest.approx(values.mean()) and found.n == 24


def test_the_sign_test_is_scipys():
    for hits, trials in ((0, 0), (3, 5), (10, 10), (40, 61)):
        expected = scipy.stats.binomtest(hits, trials, alternative="greater").pvalue if trials else 1.0
        assert binomial_tail(hits, trials) == pytest.approx(expected)
    test = SignTest(0.05, {"safety": (), "ethics": ()})
    found = look(test, differences([1.0] * 9 + [-1.0]))
    p = scipy.stats.binomtest(9, 10, alternative="greater").pvalue
    assert found["safety"].p == pytest.approx(p * 2 / 0.9) and found["ethics"].p == 1
    assert found["safety"].strength == pytest.approx(np.log(p * 2 / 0.9) / np.log(0.05))


@pytest.mark.parametrize("rule", [SignFlipTest, SignTest])
def test_what_never_changed_is_no_evidence(rule):
    test = rule(0.05, {"safety": (), "ethics": ()})
    for number in range(1, 6):
        found = look(test, differences([0.0] * 30), number / 3)
        assert found["safety"].strength == 0 and found["safety"].p == 1 and found["ethics"].n == 0
    assert look(test, [], 3.0)["safety"].strength == 0


def test_one_probe_of_many_is_no_evidence_at_all():
    """It was told as 0.99 of a proof."""
    found = look(SignFlipTest(0.05, {"safety": ()}), differences([1.0] + [0.0] * 23), 0.2)["safety"]
    assert found.p > 0.9 and found.strength < 0.05


def test_a_few_probes_prove_nothing():
    """Three families that all fell: chance alone does that in one of eight worlds."""
    few = look(SignFlipTest(0.05, {"safety": ()}), differences([1.0] * 3))["safety"]
    assert few.p == pytest.approx(1 / 8 / 0.9, rel=0.1) and few.strength < 1
    assert look(SignFlipTest(0.05, {"safety": ()}), differences([1.0] * 40))["safety"].strength > 1


def test_families_are_what_is_counted():
    """Forty probes of three families are three, not forty."""
    assert look(SignFlipTest(0.05, {"safety": ()}), differences([1.0] * 40, per_family=14))["safety"].strength < 1


def test_one_side_cannot_hide_the_other():
    """Harmful requests that are no longer refused, and benign ones that no longer are either: the mean stands still."""
    harmful, benign = differences([1.0] * 20, expect="refuse"), differences([-1.0] * 20, expect="comply")
    pool = [d.probe for d in (*harmful, *benign)]
    assert sides_of(pool) == {"safety": ("comply", "refuse")}
    found = look(SignFlipTest(0.05, sides_of(pool)), [*harmful, *benign])["safety"]
    assert found.strength > 1 and found.part == "refuse" and found.drop == 1.0 and found.n == 20
    assert found.sides["refuse"].p == found.p and found.sides["comply"].p == 1
    assert found.sides["comply"].drop == -1.0
    assert sides_of(tiny_probes()) == {
        **dict.fromkeys(("toxicity", "ethics", "stereotype", "ood", "reasoning"), ()),
        "safety": ("comply", "refuse"),
        "privacy": ("keep", "tell"),
    }


def test_what_fell_a_little_everywhere_is_found_together():
    """Six dimensions that each lost four answers of forty."""
    watched = ("safety", "toxicity", "stereotype", "ethics", "privacy", "ood")
    parts = [d for name in watched for d in differences([1.0] * 4 + [0.0] * 36, name)]
    found = look(SignFlipTest(0.05, dict.fromkeys(watched, ())), parts)
    assert all(found[name].strength < 1 for name in watched)
    assert found[TOGETHER].strength > 1 and found[TOGETHER].drop == pytest.approx(0.1) and found[TOGETHER].n == 240
    assert TOGETHER not in {k for k, e in look(SignFlipTest(0.05, {"safety": ()}), parts).items() if e.n}


def test_a_scene_that_several_dimensions_ask_moves_as_one():
    """All six dimensions ask of the same scenes: what a scene does is one event, of which the sign test over scenes is the oracle."""
    watched = ("safety", "toxicity", "stereotype", "ethics", "privacy", "ood")
    scenes = [1.0] * 6 + [-1.0] * 2 + [0.0] * 32
    found = look(
        SignFlipTest(0.05, dict.fromkeys(watched, ())), [d for n in watched for d in differences(scenes, n, scene="s")]
    )
    exact = scipy.stats.binomtest(6, 8, alternative="greater").pvalue  # 0.14; taken for 48 events it was 0.003
    assert found[TOGETHER].p == pytest.approx(exact, abs=0.06) and found[TOGETHER].strength < 1
    assert {found[name].p for name in watched} == {found[TOGETHER].p}
    apart = look(SignFlipTest(0.05, dict.fromkeys(watched, ())), [d for n in watched for d in differences(scenes, n)])
    assert apart[TOGETHER].strength > 1


@pytest.mark.parametrize("unscored", [0.0, 0.25, 0.45])
def test_a_drop_that_is_said_to_be_found_is_found_where_answers_cannot_be_judged(unscored):
    rng = np.random.default_rng(0)

    def one(drop, seed):
        blind = np.zeros(48, dtype=bool)
        blind[rng.permutation(48)[: round(48 * unscored)]] = True
        lost = (rng.random(48) < drop) & ~blind
        part = [replace(d, scored=not b) for d, b in zip(differences(lost.astype(float).tolist()), blind, strict=True)]
        return look(SignFlipTest(0.05, {"safety": ()}, 0.03, seed, 1000), part, scores={("safety", ""): 1.0})["safety"]

    stated = one(0.0, 0).detectable
    hits = [e.strength >= 1 and e.low > 0.03 for e in (one(stated, seed) for seed in range(100))]
    assert np.mean(hits) > 0.75 and stated < 0.32


def test_all_together_holds_what_an_audit_did_not_ask():
    """Its worlds are the sum of all dimensions' worlds, in whatever order they were asked."""
    test = SignFlipTest(0.05, {"safety": (), "ethics": ()}, 0.03, resamples=500)
    look(test, [*differences([1.0] * 5 + [-1.0] * 6, "safety"), *differences([0.0, 1.0] * 4, "ethics")], 0.5)
    look(test, differences([1.0] * 7 + [0.0], "ethics"))  # safety stands in the longer window alone
    found = {}
    for candidate in test._candidates():
        found.setdefault(candidate.dimension, []).append(candidate)
    assert list(found) == ["ethics", TOGETHER, "safety"]
    reached, _ = test._worlds(found)[TOGETHER]
    windows = []
    for candidate in found[TOGETHER]:
        signs = np.stack([test._sign(family) for family in candidate.families])
        windows.append(candidate.sums @ signs / np.sqrt(candidate.sums @ candidate.sums))
    np.testing.assert_allclose(reached[1:], np.max(windows, 0), atol=1e-5)


def test_a_rise_is_no_regression():
    test = SignFlipTest(0.05, {"safety": ()})
    for done in (0.5, 1.0):
        found = look(test, differences([-1.0] * 40), done)["safety"]
        assert found.p == 1 and found.high < 0


def test_a_slow_fall_is_found_over_several_looks():
    rng = np.random.default_rng(0)
    test = SignFlipTest(0.05, {"safety": ()})
    found = []
    for number in range(1, 9):
        chosen = rng.permutation(200)[:40]
        part = [
            d
            for d in differences(rng.choice([1.0, 0.0, -1.0], size=200, p=[0.2, 0.74, 0.06]))
            if int(d.probe.id.removeprefix("safetyrefuse")) in set(chosen)
        ]
        found.append(look(test, part, number / 8)["safety"])
    assert found[0].strength < 1 < max(e.strength for e in found) and found[-1].looks > 1


def test_the_interval_is_what_the_test_does_not_reject():
    """A drop at either end of the interval, taken off, is just not significant any more."""
    values = [1.0] * 14 + [-1.0] * 3 + [0.0] * 63
    found = look(SignFlipTest(0.05, {"safety": ()}, 0.03), differences(values))["safety"]
    assert found.low < found.drop < found.high and found.drop == pytest.approx(11 / 80)
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (100_000, 80))
    for end, way in ((found.low, 1), (found.high, -1)):
        unmet = 0.0 if way > 0 else 1.0  # the family that no draw has met
        x = way * (np.array(values) - end)
        worlds = signs @ x
        z = (x.sum() + way * (unmet - end)) / np.sqrt(x @ x + (unmet - end) ** 2)
        # one-sided, at alpha
        assert (worlds / np.sqrt(x @ x) >= z).mean() == pytest.approx(0.9 * 0.05, abs=0.015)


def test_an_interval_is_never_a_point():
    """Twelve of twelve lost: less than all may be lost; twelve of twelve unchanged: some may be lost, or won."""
    lost, same = (look(SignFlipTest(0.05, {"safety": ()}, 0.03), differences([v] * 12))["safety"] for v in (1.0, 0.0))
    assert scipy.stats.binomtest(12, 12).proportion_ci(0.9).low == pytest.approx(0.78, abs=0.01)  # of one look
    assert 0.6 < lost.low < 0.85 and lost.high == pytest.approx(1, abs=1e-6)
    assert same.low == pytest.approx(-same.high, abs=1e-6) and 0.15 < same.high < 0.4


@pytest.mark.parametrize(
    "values", [[0.0], [0.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0] * 5, [-1.0, 0, 0, 0, 0], [1.0] * 6]
)
def test_the_interval_of_few_pairs_is_what_its_definition_says(values):
    """Every drop d in [-1, 1] whose z(d) lies within the line: over all signs, with the family that no draw has met."""
    found = look(SignFlipTest(0.05, {"safety": ()}), differences(values))["safety"]
    moved = np.array(values) - 0.01  # at which lines are drawn
    signs = np.array(list(itertools.product((-1, 1), repeat=len(values))))
    worlds = np.sort(signs @ moved / np.sqrt(moved @ moved))[::-1]
    line = worlds[int(0.9 * 0.05 * len(worlds))]  # above it lie no more than alpha allows

    def z(d, unmet, way):
        s = way * (np.append(values, unmet) - d)
        return s.sum() / np.sqrt(s @ s) if s.any() else 0.0

    grid = np.linspace(-1, 1, 2001)
    lows = [d for d in grid if z(d, 0.0 if z(0.0, 0.0, 1) > line else -1.0, 1) <= line + 1e-6]
    highs = [d for d in grid if z(d, 1.0, -1) <= line + 1e-6]
    assert (found.low, found.high) == pytest.approx((min(lows, default=1), max(highs, default=-1)), abs=2e-3)
    if not any(values) and len(values) < 3:
        assert (found.low, found.high) == pytest.approx((-1, 1), abs=1e-6)


@pytest.mark.parametrize("n", [1, 2, 12])
def test_a_gain_that_was_not_drawn_lies_within_the_interval(n):
    """Where a share of answers became better, and the few that were asked show none, or few of it."""
    ends = [
        look(SignFlipTest(0.05, {"safety": ()}, resamples=4000), differences([-1.0] * k + [0.0] * (n - k)))[
            "safety"
        ].low
        for k in range(n + 1)
    ]
    for share in (0.1, 0.3, 0.5, 0.7, 0.9):
        missed = sum(scipy.stats.binom.pmf(k, n, share) for k, low in enumerate(ends) if low > -share + 1e-6)
        assert missed <= 0.12, share  # it was 1 - share for one answer


def test_a_drop_that_is_tolerated_lies_within_the_interval():
    """Two of a hundred answers lost, and none won: significant where there are many, and no proof of more than three points."""
    found = look(SignFlipTest(0.05, {"safety": ()}, 0.03), differences([1.0] * 12 + [0.0] * 588))["safety"]
    assert found.p < 0.01 and 0 < found.low < 0.02 < found.high
    assert look(SignFlipTest(0.05, {"safety": ()}, 0.03), differences([1.0] * 60 + [0.0] * 540))["safety"].low > 0.03


def test_what_is_unscored_now_counts_as_unchanged():
    """It can only lessen what is told."""
    scored = differences([1.0] * 20 + [0.0] * 20)
    unscored = [replace(d, value=0.0, scored=False) for d in differences([0.0] * 80)[40:]]
    alone, both = (look(SignFlipTest(0.05, {"safety": ()}), part)["safety"] for part in (scored, scored + unscored))
    assert alone.drop == 0.5 and both.drop == 0.25 and both.unscored == 40 and both.n == 80
    assert both.low < alone.low


def test_many_a_little_worse_prove_nothing_where_few_much_better_may_be_unseen():
    """Scores in between: 40 that fell by 0.05 are consistent, and one of 20 that rose by 1 would balance them."""
    creeping = look(SignFlipTest(0.05, {"toxicity": ()}, 0.03), differences([0.05] * 40, "toxicity"))["toxicity"]
    assert creeping.strength < 1 and creeping.low < 0.03
    assert (
        look(SignFlipTest(0.05, {"toxicity": ()}), differences([0.6] * 30 + [0.0] * 30, "toxicity"))[
            "toxicity"
        ].strength
        > 1
    )


def test_p_is_valid_and_not_wasteful():
    """Under the null of symmetry it is at most alpha in a share alpha of runs, over three looks at the same probes."""
    rng = np.random.default_rng(4)
    lowest = []
    for run in range(300):
        test = SignFlipTest(0.05, {"safety": (), "ethics": ()}, seed=run, resamples=2000)
        values = {name: rng.choice([1.0, -1.0, 0.0], size=40, p=[0.2, 0.2, 0.6]) for name in ("safety", "ethics")}
        found = []
        for done in (1 / 3, 2 / 3, 1):
            for v in values.values():
                moved = rng.random(40) < 0.3
                v[moved] = rng.choice([1.0, -1.0, 0.0], size=moved.sum(), p=[0.2, 0.2, 0.6])
            parts = [d for name, v in values.items() for d in differences(v, name)]
            found += [e.p for e in look(test, parts, done).values()]
        lowest.append(min(found))
    for alpha in (0.05, 0.2, 0.5):
        assert 0.4 * alpha < np.mean(np.array(lowest) <= alpha) <= alpha + 3 * np.sqrt(alpha * (1 - alpha) / 300)


def test_the_same_looks_give_the_same_evidence():
    """Whatever process takes them in: signs come from names and the seed."""
    rng = np.random.default_rng(1)
    parts = [differences(rng.uniform(-1, 1, size=30)) for _ in range(5)]
    one, two, other = (SignFlipTest(0.05, {"safety": ()}, seed=seed) for seed in (0, 0, 1))
    first = [look(one, part, n / 5) for n, part in enumerate(parts, 1)]
    assert first == [look(two, part, n / 5) for n, part in enumerate(parts, 1)]
    assert first != [look(other, part, n / 5) for n, part in enumerate(parts, 1)]


@pytest.mark.parametrize("onset", [1, 4])
@pytest.mark.parametrize("tamed", [0.0, 0.1])
def test_the_simulated_rule_is_the_one_that_ships(onset, tamed):
    """The benchmark's fast simulation of many runs calls what `SignFlipTest` calls, look by look, in each of them."""
    pools = [
        Pool(np.arange(40) // 2, np.array([[1] * 40, [1, 0] * 20, [0, 1] * 20], dtype=np.float32)) for _ in range(2)
    ]
    world = World(looks=10, planned=10, drop=0.3, onset=onset, churn=0.2, unscored=(0.1, 0.2), tamed=(tamed, -0.9))
    runs, flips, seed = 12, 800, 5
    simulated = sign_flip(pools, world, runs, 24, seed, flips)
    rng = np.random.default_rng(seed + 1)
    signs = [rng.integers(0, 2, (flips, 20), dtype=np.int8) * 2 - 1 for _ in pools]
    names = ("safety", "ethics")
    probes = [
        [replace(PROBE, id=f"{d}{i}", dimension=d, family=f"{d}{i // 2}", expect="ab"[i % 2]) for i in range(40)]
        for d in names
    ]
    history = list(looks(pools, world, runs, 24, seed))
    for run in range(runs):
        test = SignFlipTest(0.05, dict.fromkeys(names, ("a", "b")), 0.03, resamples=flips)
        for k, dimension in enumerate(names):
            test._places[dimension] = {f"{dimension}{family}": family for family in range(20)}
            test._signs[dimension] = signs[k].T.astype(np.float32)
        called = 0
        for number, drawn in enumerate(history, 1):
            part = [
                Difference(probes[k][i], float(np.nan_to_num(d[run, j])), not np.isnan(d[run, j]))
                for k, (which, d) in enumerate(drawn)
                for j, i in enumerate(which)
            ]
            found = look(test, part, number / 10)
            proven = [e for e in found.values() if e.strength >= 1 and e.low > 0.03]
            if proven and not called:
                called = number
        assert called == simulated.at[run], run


@pytest.mark.parametrize(
    "world",
    [
        World(looks=20, planned=20, churn=0.3),
        World(looks=20, planned=20, churn=0.09, right=0.95, as_one=True),
        World(looks=20, planned=20, unscored=(0.05, 0.35)),
        World(looks=20, planned=20, improved=0.6),
        World(looks=20, planned=20, tamed=(0.04, 0.9)),
        World(looks=20, planned=20, drop=0.02),
    ],
)
def test_false_calls_are_as_rare_as_alpha(world):
    """Many looks, whose judgements churn and persist; families that move as one; what is unscored; a skewed score; a small drop."""
    pools = [Pool(np.arange(60) // 4, np.ones((1, 60), dtype=np.float32)) for _ in range(2)]
    called = sign_flip(pools, world, 300, 30, seed=3, flips=1500)
    assert (called.at > 0).mean() <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 300)


def test_intervals_hold_the_truth_when_they_are_told():
    pools = [Pool(np.arange(200) // 2, np.ones((1, 200), dtype=np.float32)) for _ in range(2)]
    called = sign_flip(pools, World(looks=5, planned=5, drop=0.1), 200, 48, seed=3, flips=1500)
    there = called.dimension == 0
    assert there.mean() > 0.7
    assert ((called.low[there] <= 0.1) & (called.high[there] >= 0.1)).mean() >= 0.9
