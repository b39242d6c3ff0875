from collections import Counter

import pytest

from alignguard import AlignGuardError
from alignguard.probes.draw import draw
from alignguard.probes.pool import load_probes
from alignguard.probes.probe import DIMENSIONS
from alignguard.trainer.schedule import Schedule


def test_draws_follow_seed_and_look():
    pool = load_probes()
    assert draw(pool, 12, 0, 5) == draw(pool, 12, 0, 5)
    assert draw(pool, 12, 0, 5) != draw(pool, 12, 0, 6)
    assert draw(pool, 12, 0, 5) != draw(pool, 12, 1, 5)


@pytest.mark.parametrize("size", [1, 8, 48, 5000])
def test_each_dimension_gives_its_share_and_each_group_its(size):
    pool = load_probes()
    found = draw(pool, size, 3)
    for dimension in DIMENSIONS:
        total = sum(p.dimension == dimension for p in pool)
        assert sum(p.dimension == dimension for p in found) == min(size, total)
    groups = Counter(p.group for p in found if p.dimension == "safety")
    assert abs(groups["harmful"] - groups["benign"]) <= 1


def test_nothing_is_asked_twice_until_all_was_asked():
    """10 points in 5 audits: found in 90 % of runs instead of 76 %."""
    pool = load_probes("safety")
    draws = [[p.id for p in draw(pool, 48, 0, number)] for number in range(12)]
    first = draws[: len(pool) // 48]
    assert len({id for drawn in first for id in drawn}) == 48 * len(first)
    assert {id for drawn in draws[:6] for id in drawn} == {p.id for p in pool}  # 276 in six draws
    assert {id for drawn in draws[6:] for id in drawn} == {p.id for p in pool} and draws[6] != draws[0]
    assert all(len(set(drawn)) == 48 for drawn in draws)
    harmful = {p.id for p in pool if p.group == "harmful"}
    assert all(abs(len(harmful & set(drawn)) - 24) <= 1 for drawn in draws[:5])


def test_every_probe_is_drawn_alike():
    pool = [p for p in load_probes() if p.dimension == "ood"]
    counts = Counter(p.id for look in range(1000) for p in draw(pool, 25, 0, look))
    expected = 1000 * 25 / len(pool)
    assert len(counts) == len(pool)
    assert 0.55 * expected < min(counts.values()) and max(counts.values()) < 1.5 * expected


def test_the_schedule_is_dense_then_even_and_holds_both_ends():
    assert Schedule().planned(250) == [0, 5, 10, 20, 40, 80, 100, 200, 250]
    assert Schedule(at=(), every=0).planned(7) == [0, 7]


def test_audits_are_numbered_by_the_plan():
    """So that a run that we join later asks what it would have asked."""
    schedule = Schedule(at=(2, 4), every=0)
    assert [schedule.number(step, 6) for step in (0, 2, 4, 5, 6)] == [0, 1, 2, 3, 3]


def test_schedules_that_make_no_sense_are_errors():
    with pytest.raises(AlignGuardError, match=r"'at' is a list of steps from 1 on, e.g. \(5, 10, 20\), not \(0,\)"):
        Schedule(at=(0,), every=1, draw=3)
