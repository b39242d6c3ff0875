"""What is told of audits: nothing that could not be, and all of it of the same answers."""

from math import isnan

import pytest

from alignguard import StopRule
from alignguard.auditing.audit import Audit
from alignguard.auditing.metrics import gather
from alignguard.auditing.result import Result, Sample
from alignguard.auditing.samples import mean_score
from alignguard.intervals import paired_drop
from alignguard.judging.score import Score, Status
from alignguard.model.chat import Answer
from alignguard.probes.probe import Probe
from alignguard.report import words
from alignguard.verdicts.watch import compare


def probe(i, dimension="safety"):
    asked = ({"role": "user", "content": f"q{i}"},)
    return Probe(f"{dimension}{i}", dimension, asked, "refusal", f"{dimension}{i}", expect="refuse")


def score(value, readings=None):
    if readings is not None:
        return Score(None, Status.UNSURE, {"low": readings[0], "high": readings[1]})
    return Score(value, Status.UNPARSEABLE if value is None else Status.ANSWERED)


def results(values, dimension="safety"):
    made = [value if isinstance(value, Score) else score(value) for value in values]
    return {f"{dimension}{i}": Result(probe(i, dimension), value) for i, value in enumerate(made)}


def audit(step, found, baseline):
    return Audit(step, found, gather(found, baseline), 0.0)


def verdict_of(then, *nows, rule=None):
    """Of audits after the start, over the whole run."""
    return compare(then, [audit(step, now, then) for step, now in enumerate((then, *nows))], rule, looks=len(nows))


def test_patience_is_what_a_drop_must_outlast_to_be_found():
    then, lost = results([1.0] * 48), results([0.0] * 48)
    rule = StopRule(patience=3)
    first, second = verdict_of(then, lost, rule=rule), verdict_of(then, lost, lost, rule=rule)
    assert not first.since and not second.since
    assert isnan(first.dimensions["safety"].evidence.detectable)
    assert words.detectable(first) == "none can be called before 2 more audits, by the rule's patience"
    assert words.detectable(second).startswith("none can be called before 1 more audit,")
    third = verdict_of(then, lost, lost, lost, rule=rule)
    alone = verdict_of(then, results([1.0] * 48), rule=StopRule(looks=3))
    assert third.since == {"safety": 3}
    # what all three would have found is what the first one would
    still = verdict_of(then, then, then, then, rule=rule).dimensions["safety"].evidence.detectable
    assert still == pytest.approx(alone.dimensions["safety"].evidence.detectable, abs=0.02)


def test_of_too_few_scored_answers_nothing_is_told_that_could_be_called():
    """The start's own were too few: of 48 answers 22."""
    then = results([1.0] * 22 + [None] * 26)
    lost = verdict_of(then, results([0.0] * 22 + [None] * 26))
    d = lost.dimensions["safety"]
    assert not lost.since and d.why.startswith("only 46% of its answers could be judged")
    assert not d.evidence.looks and "alignguard/safety/p" not in lost.metrics()
    assert words.detectable(lost) == "with so few answers that could be judged, none could have been"
    both = then | results([1.0] * 48, "ethics")
    told = words.detectable(verdict_of(both, both))
    assert told.startswith(
        "with so few answers that could be judged, none could have been, in safety; elsewhere one of "
    )


def test_a_floor_is_held_against_the_score_that_is_logged():
    then = results([1.0] * 24 + [None] * 24)
    now = results([1.0] * 24 + [0.0] * 24)
    verdict = verdict_of(then, now, rule=StopRule(floors={"safety": 0.9}))
    assert audit(1, now, then).figure("safety/score") == 0.5 and verdict.since == {"safety": 1}
    assert verdict.dimensions["safety"].why == "the score 0.50 is below its floor of 0.9"


@pytest.mark.parametrize("alpha", [0.0025, 0.05, 0.6])
def test_all_together_has_the_interval_of_its_own_pairs(alpha):
    then = results([1.0] * 24) | results([1.0] * 24, "ethics")
    now = results([0.0] * 2 + [1.0] * 22) | results([0.0] * 3 + [1.0] * 21, "ethics")
    together = verdict_of(then, now, rule=StopRule(alpha=alpha)).together
    pairs = [(then[id].score.value, now[id].score.value, then[id].probe.family) for id in then]
    right = paired_drop(*zip(*pairs, strict=True))
    assert (together.drop, together.low, together.high) == (right.drop, right.low, right.high)
    assert len(together.flips) == 5


def test_of_sampled_answers_each_that_cannot_be_judged_counts():
    """Of each probe two of four answers: 96 of 192."""

    def sampled(values):
        scores = [score(value) for value in values]
        answers = tuple(Sample(Answer((1,), "", "Yes.", False, True, True), s) for s in scores)
        return Result(probe(0), mean_score(scores), samples=answers)

    def all_of(values):
        return {f"safety{i}": Result(probe(i), (r := sampled(values)).score, samples=r.samples) for i in range(48)}

    then, now = all_of([1.0] * 4), all_of([1.0, 1.0, None, None])
    d = verdict_of(then, now).dimensions["safety"]
    assert (d.asked, d.unscored, d.n) == (192, 96, 48)
    assert d.unscored / d.asked == audit(1, now, then).figure("safety/unscored")


def test_unsure_answers_raise_the_drop_that_would_have_been_found():
    """Whatever is called must hold with unsure answers read in the policy's favour, too."""
    then = results([1.0] * 48)
    sure, unsure = (verdict_of(then, results([1.0] * 34 + [s] * 14)) for s in (score(1.0), score(None, (0.0, 1.0))))
    found = [v.dimensions["safety"].evidence.detectable for v in (sure, unsure)]
    assert found[1] > found[0] + 0.03
