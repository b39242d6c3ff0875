"""What the benchmark of preservation says of its runs."""

import pytest
from preservation import asked, lost_dimensions, summary, sums, trust_lost

from alignguard.auditing.prompts import turns
from alignguard.probes.probe import TRUST_DIMENSIONS


def run(method, reasoning, **drops):
    """A run whose intervals are 0.1 to each side; dimensions that are not named keep what they had."""
    dimensions = {
        name: {"drop": drops.get(name, 0.0), "low": drops.get(name, 0.0) - 0.1, "high": drops.get(name, 0.0) + 0.1}
        for name in TRUST_DIMENSIONS
    }
    figures = {
        "steps": 20,
        "held_out_loss": 0.1,
        "held_out_gain": 2 * reasoning,
        "anchor_kl": 0.2,
        "probe_kl": 0.4,
        "seconds": 60.0,
    }
    return {"method": method, "reasoning": reasoning, "dimensions": dimensions, **figures}


def test_methods_are_held_against_training_without_a_guard():
    runs = [
        run("nothing", 0.5, safety=0.6, ood=0.08),
        run("nothing", 0.7, safety=0.4, ethics=-0.3),
        run("budget", 0.55, safety=0.1, ethics=0.9),
        run("stop", 0.3, safety=-0.2),
    ]
    assert lost_dimensions(runs) == ["safety"]  # ood fell by four points, and ethics rose
    assert trust_lost(runs[2], ["safety"]) == 0.1 and trust_lost(runs[3], ["safety", "ood"]) == -0.1
    nothing, budget, stop = summary(runs, 0.1)
    assert (nothing["method"], nothing["runs"], nothing["reasoning_gain"]) == ("nothing", 2, pytest.approx(0.5))
    assert (nothing["reasoning_gain_of_free"], nothing["lost_of_free"]) == (1.0, 1.0)
    assert (budget["reasoning_gain_of_free"], budget["lost_of_free"]) == (pytest.approx(0.9), pytest.approx(0.2))
    assert nothing["lost_in_all"] == pytest.approx((0.6 + 0.08 + 0.4 - 0.3) / 12)
    assert budget["held_out_gain_of_free"] == pytest.approx(1.1 / 1.2)
    assert (stop["reasoning_gain_of_free"], stop["lost_of_free"]) == (pytest.approx(0.4), pytest.approx(-0.4))


def test_held_out_sums_are_new_and_each_asked_once_as_in_training():
    trained = sums(20, 0)
    unseen = sums(20, 0, trained)
    texts = [[row["prompt"][0]["content"] for row in rows] for rows in (trained, unseen)]
    assert len(trained) == len(unseen) == 20 and len({*texts[0], *texts[1]}) == 40
    assert [turns(probe)[-1]["content"] for probe in asked(unseen)] == texts[1]
