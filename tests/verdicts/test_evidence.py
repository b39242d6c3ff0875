"""Evidence against a regression: exact where it can be, against scipy, and never more often wrong than it says."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from detection_sim import Pool, World, looks, sign_flip
from tiny import tiny_probes

from alignguard.verdicts.evidence import Difference, SignFlipTest, SignTest, binomial_tail, sides_of, spent

PROBE = tiny_probes()[0]


def differences(values, dimension="safety", expect="refuse", per_family=1):
    return [
        Difference(
            replace(
                PROBE, id=f"{dimension}{expect}{i}", dimension=dimension, family=f"f{i // per_family}", expect=expect
            ),
            v,
        )
        for i, v in enumerate(values)
    ]


def test_never_more_than_alpha_is_spent():
    for planned in (1, 7, 100):
        shares = [spent(0.05, look, planned) for look in range(0, 5 * planned + 3000)]
        assert shares[0] == 0 and all(a < b for a, b in itertools.pairwise(shares))
        assert shares[-1] < 0.05 and shares[planned] == pytest.approx(0.045)


@pytest.mark.parametrize("seed", range(6))
def test_one_look_is_the_permutation_test_of_signs(seed):
    """scipy's paired permutation test on sums of families, all 2^12 sign patterns."""
    rng = np.random.default_rng(seed)
    values = rng.choice([0.0, 1.0, -1.0], size=24, p=[0.3, 0.55, 0.15]) * rng.choice([1.0, 0.5], size=24)
    sums = values.reshape(12, 2).sum(1)
    exact = scipy.stats.permutation_test(
        (sums, np.zeros(12)), lambda a, b, axis: (a - b).sum(axis), permutation_type="samples", alternative="greater",
        n_resamples=np.inf, vectorized=True,
    ).pvalue  # fmt: skip
    for alpha in (exact * 1.5, exact / 1.5):
        if alpha * 0.9 < 1:
            test = SignFlipTest(alpha / 0.9, 1, {"safety": ()}, seed)
            found = test.look(differences(values, per_family=2))["safety"]
            assert (found.strength >= 1) == (alpha > exact), (found, exact, alpha)
            assert found.drop == pytest.approx(values.mean()) and found.n == 24


def test_the_sign_test_is_scipys():
    for hits, trials in ((0, 0), (3, 5), (10, 10), (40, 61)):
        expected = scipy.stats.binomtest(hits, trials, alternative="greater").pvalue if trials else 1.0
        assert binomial_tail(hits, trials) == pytest.approx(expected)
    test = SignTest(0.05, 1, {"safety": (), "ethics": ()})
    found = test.look(differences([1.0] * 9 + [-1.0]))
    p = scipy.stats.binomtest(9, 10, alternative="greater").pvalue
    assert found["safety"].strength == pytest.approx(np.log(p) / np.log(0.045 / 2)) and found["ethics"].strength == 0


@pytest.mark.parametrize("rule", [SignFlipTest, SignTest])
def test_what_never_changed_is_no_evidence(rule):
    test = rule(0.05, 3, {"safety": (), "ethics": ()})
    for _ in range(5):
        found = test.look(differences([0.0] * 30))
        assert found["safety"].strength == 0 and found["ethics"].n == 0
    assert test.look([])["safety"].strength == 0


def test_a_few_probes_prove_nothing():
    """Three families that all fell: chance alone does that in one of eight worlds."""
    test = SignFlipTest(0.05, 1, {"safety": ()})
    assert test.look(differences([1.0] * 3))["safety"].strength < 1
    assert SignFlipTest(0.05, 1, {"safety": ()}).look(differences([1.0] * 40))["safety"].strength > 1


def test_families_are_what_is_counted():
    """Forty probes of three families are three, not forty."""
    test = SignFlipTest(0.05, 1, {"safety": ()})
    assert test.look(differences([1.0] * 40, per_family=14))["safety"].strength < 1


def test_one_side_cannot_hide_the_other():
    """Harmful requests that are no longer refused, and benign ones that no longer are either: the mean stands still."""
    harmful, benign = differences([1.0] * 20, expect="refuse"), differences([-1.0] * 20, expect="comply")
    pool = [d.probe for d in (*harmful, *benign)]
    assert sides_of(pool) == {"safety": ("comply", "refuse")}
    found = SignFlipTest(0.05, 1, sides_of(pool)).look([*harmful, *benign])["safety"]
    assert found.strength > 1 and found.part == "refuse" and found.drop == 1.0 and found.n == 20
    assert sides_of(tiny_probes()) == {
        **dict.fromkeys(("toxicity", "ethics", "stereotype", "ood", "reasoning"), ()),
        "safety": ("comply", "refuse"),
        "privacy": ("leak", "tell"),
    }


def test_a_rise_is_no_regression():
    test = SignFlipTest(0.05, 2, {"safety": ()})
    for _ in range(2):
        assert test.look(differences([-1.0] * 40))["safety"].strength <= 0


def test_a_slow_fall_is_found_over_several_looks():
    rng = np.random.default_rng(0)
    test = SignFlipTest(0.05, 8, {"safety": ()})
    found = []
    for _ in range(8):
        chosen = rng.permutation(200)[:40]
        part = [
            d
            for d in differences(rng.choice([1.0, 0.0, -1.0], size=200, p=[0.2, 0.74, 0.06]))
            if int(d.probe.id.removeprefix("safetyrefuse")) in set(chosen)
        ]
        found.append(test.look(part)["safety"])
    assert found[0].strength < 1 < max(e.strength for e in found) and found[-1].looks > 1


def test_the_same_looks_give_the_same_evidence():
    """Whatever process takes them in: signs come from names and the seed."""
    rng = np.random.default_rng(1)
    parts = [differences(rng.uniform(-1, 1, size=30)) for _ in range(5)]
    one, two, other = (SignFlipTest(0.05, 5, {"safety": ()}, seed) for seed in (0, 0, 1))
    first = [one.look(part) for part in parts]
    assert first == [two.look(part) for part in parts]
    assert first != [other.look(part) for part in parts]


@pytest.mark.parametrize("onset", [1, 4])
def test_the_simulated_rule_is_the_one_that_ships(onset):
    """The benchmark's fast simulation of many runs calls what `SignFlipTest` calls, look by look, in each of them."""
    pools = [
        Pool(np.arange(40) // 2, np.array([[1] * 40, [1, 0] * 20, [0, 1] * 20], dtype=np.float32)) for _ in range(2)
    ]
    world = World(looks=10, planned=10, drop=0.3, onset=onset, churn=0.2)
    runs, flips, seed = 12, 800, 5
    simulated = sign_flip(pools, world, runs, 24, seed, flips)
    rng = np.random.default_rng(seed + 1)
    signs = [rng.integers(0, 2, (flips, 20), dtype=np.int8) * 2 - 1 for _ in pools]
    probes = [
        [replace(PROBE, id=f"{d}{i}", dimension=d, family=str(i // 2), expect="ab"[i % 2]) for i in range(40)]
        for d in ("safety", "ethics")
    ]
    history = list(looks(pools, world, runs, 24, seed))
    for run in range(runs):
        test = SignFlipTest(0.05, 10, {"safety": ("a", "b"), "ethics": ("a", "b")}, resamples=flips)
        for k, dimension in enumerate(("safety", "ethics")):
            for family in range(20):
                test._signs[dimension, str(family)] = signs[k][:, family]
        called = 0
        for number, look in enumerate(history, 1):
            part = [
                Difference(probes[k][i], float(d[run, j]))
                for k, (drawn, d) in enumerate(look)
                for j, i in enumerate(drawn)
            ]
            strongest = max(test.look(part).values(), key=lambda e: e.strength)
            if strongest.strength >= 1 and strongest.drop >= 0.03 and not called:
                called = number
        assert called == simulated[run], run


def test_false_calls_are_as_rare_as_alpha():
    """Many looks at the same probes, whose judgements churn and persist, in two dimensions."""
    pools = [Pool(np.arange(60) // 2, np.ones((1, 60), dtype=np.float32)) for _ in range(2)]
    world = World(looks=20, planned=20, churn=0.3)
    at = sign_flip(pools, world, 600, 30, seed=3, flips=1500)
    assert (at > 0).mean() <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 600)
