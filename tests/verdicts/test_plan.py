"""What a run will be able to find, said before it begins."""

from dataclasses import replace
from math import isnan, nan

import numpy as np
import pytest
from detection_sim import World, even, sign_flip

from alignguard import Schedule, StopRule
from alignguard.model.generation import TokenBudget
from alignguard.probes.draw import draw
from alignguard.probes.pool import load_probes
from alignguard.trainer.outlook import outlook
from alignguard.trainer.settings import Settings
from alignguard.verdicts.detectable import Noise, detectable_drop
from alignguard.verdicts.plan import Plan, foreseen
from alignguard.verdicts.rule import StopRule as Rule

POOL = load_probes("core")


def planned(size, rotate=True, steps=(5, 10, 15, 20, 25)):
    found = foreseen(Plan(POOL, lambda n: draw(POOL, size, 0, n - 1 if rotate else 0), steps), Rule())
    return {name: e.detectable for name, e in found.items()}


def test_more_probes_find_less_of_a_drop_and_six_fixed_ones_next_to_none():
    found = {size: planned(size) for size in (6, 24, 48)}
    for name in found[6]:
        assert found[6][name] > found[24][name] > found[48][name] or isnan(found[6][name])
        assert found[48][name] < 0.2
    fixed = planned(6, rotate=False)
    assert set(fixed) == {"safety", "toxicity", "stereotype", "ethics", "privacy", "ood"}
    assert all(isnan(drop) or drop > 0.6 for drop in fixed.values())


def settings(**schedule):
    return Settings(POOL, Schedule(**schedule), TokenBudget(), None, None, None, None, None, 0, 0, 0)


def test_it_is_said_before_step_1():
    said = outlook(settings(at=(5, 10), every=0, draw=6, rotate=False), 20)
    assert said.startswith("\nAlignGuard: 3 audits with 6 fixed probes a dimension find ")
    assert "draw=24, rotate=True finds" in said or "draw=48, rotate=True finds" in said
    usual = outlook(settings(), 300)
    assert "AlignGuard: 8 audits with 48 probes a dimension find drops of 1" in usual and "the last alone" in usual
    assert "draw=" not in usual and "not watched" not in usual  # that is enough
    some = outlook(replace(settings(), stop=Rule(dimensions=["toxicity", "safety"])), 300)
    assert some.endswith("; not watched: stereotype, ethics, privacy, ood")


def test_what_is_stated_is_what_is_found():
    """One look at 200 probes in families of four: the drop that four simulated runs in five call."""
    pools, world = even(200), World(1, 1, churn=0.06 * 24 / 5)  # so that the first look churns by 6 %
    low, high = 0.03, 0.5
    for _ in range(7):
        middle = (low + high) / 2
        found = (sign_flip(pools, replace(world, drop=middle), 200, 200, 1, 1500).at > 0).mean()
        low, high = (low, middle) if found >= 0.8 else (middle, high)
    pool = [replace(p, id=f"{d}{i}", dimension=d, family=f"{i // 4}", judge="own", expect="", condition="")
            for d in ("safety", "toxicity", "stereotype", "ethics", "privacy", "ood")
            for i, p in enumerate([POOL[0]] * 200)]  # fmt: skip
    stated = foreseen(Plan(pool, lambda n: pool, [1]), StopRule())["safety"].detectable
    assert stated == pytest.approx(high, rel=0.2)


def test_what_cannot_be_found_is_told_so():
    sizes = np.ones(6)
    assert isnan(detectable_drop(sizes, Noise(), ((0.0, 2.6),)))  # six of six lost have z = sqrt(6)
    assert isnan(detectable_drop(np.ones(200), Noise(), ((0.0, 2.6),), most=0.02))  # there is no more to lose
    assert detectable_drop(np.ones(200), Noise(), ((0.0, 2.6),)) < detectable_drop(np.ones(50), Noise(), ((0.0, 2.6),))
    assert isnan(detectable_drop(np.zeros(0), Noise(), ((0.0, 2.6),))) and isnan(nan)


def test_noise_is_what_was_seen_beside_what_is_assumed():
    quiet = Noise.of([0.0] * 400, np.zeros(400), np.ones(400))
    restless = Noise.of([-1.0, 1.0] * 200, np.zeros(200), np.full(200, 2.0))
    assert quiet.churn < 0.004 and 0.9 < restless.churn <= 1.0 and restless.correlation == 0
    as_one = Noise.of(([1.0] * 4 + [-1.0] * 4) * 50, np.array([4.0, -4.0] * 50), np.full(100, 4.0))
    assert as_one.correlation > 0.9
