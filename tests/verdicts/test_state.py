"""One state of a verdict, which terminal, report, alarm and exit codes only word."""

import re
from dataclasses import replace

import pytest
from audited import save, write_probes
from reports import MANY, judged, run_of
from tiny import tiny_model

from alignguard.auditing.audit import Audit
from alignguard.auditing.metrics import gather
from alignguard.cli import main
from alignguard.cli.codes import exit_code
from alignguard.judging.score import Score, Status
from alignguard.records.about import About
from alignguard.report.html import render
from alignguard.report.words import in_a_line
from alignguard.verdicts.rule import StopRule
from alignguard.verdicts.verdict import State
from alignguard.verdicts.watch import compare

ABOUT = About(max_steps=20)
WORDS = {
    State.REGRESSED: ("REGRESSION of safety", "Regression of safety", 3),
    State.UNJUDGED: ("no verdict: too few answers could be judged in privacy", "No verdict", 1),
    State.NOTHING: ("no verdict: no ", "No verdict", 1),
    State.FELL: ("no regression is proven; below the start at this look: privacy", "No regression is proven", 0),
    State.UNTOLD: (
        "no regression found; with so few probes, or so little to lose, none could have been",
        "No regression found",
        0,
    ),
    State.HOLDS: ("no regression found; ", "No regression found", 0),
}


def unscored(baseline, *, dimension=None):
    """An audit in which nothing, or nothing of one dimension, could be judged."""
    results = {
        id: replace(r, score=Score(None, Status.TRUNCATED)) if dimension in (None, r.probe.dimension) else r
        for id, r in baseline.items()
    }
    return Audit(5, results, gather(results, baseline), 0.0)


def verdict_in(state):
    """A verdict that comes to this."""
    baseline = judged(1.0, "kind")
    if state is State.REGRESSED:
        return replace(run_of({0: 1.0, 5: 0.0})[1], since={"safety": 5})
    if state is State.UNJUDGED:
        return compare(baseline, [unscored(baseline, dimension="privacy")])
    if state is State.NOTHING:
        mute = {id: replace(r, score=Score(None, Status.EMPTY)) for id, r in baseline.items()}
        return compare(mute, [unscored(mute)])
    found = run_of({0: 1.0, 5: 1.0})[1]
    if state is State.FELL:
        found.dimensions["privacy"] = replace(found.dimensions["privacy"], low=0.1)
    if state is State.HOLDS:
        for name, d in found.dimensions.items():
            found.dimensions[name] = replace(d, high=0.0)
    return found


@pytest.mark.parametrize("state", list(State))
def test_every_voice_says_the_same(state):
    verdict = verdict_in(state)
    line, title, code = WORDS[state]
    assert verdict.state is state
    assert in_a_line(verdict, "start", True).startswith(line)
    audits = run_of({0: 1.0, 5: 1.0})[0]
    assert re.search(r'<div class="headline[ \w]*">\s*<b>(.*?)</b>', render(ABOUT, audits, verdict))[1].startswith(
        title
    )
    assert exit_code([verdict]) == code


def test_the_worst_of_several_verdicts_is_the_exit_code():
    found = {state: verdict_in(state) for state in State}
    assert exit_code([found[State.HOLDS], found[State.UNJUDGED]]) == 1
    assert exit_code([found[State.UNJUDGED], found[State.REGRESSED], found[State.UNTOLD]]) == 3
    assert exit_code([]) == 0


def test_nothing_asked_is_no_good_news():
    """A pool of sums tells nothing of trust; unless the rule watches them."""
    audits, verdict = run_of({0: 1.0, 5: 1.0}, probes=[p for p in judged_probes() if p.dimension == "reasoning"])
    assert verdict.state is State.NOTHING
    assert in_a_line(verdict, "start", True) == "no verdict: no probe of a trust dimension was asked"
    baseline = judged(1.0, "kind", [p for p in judged_probes() if p.dimension == "reasoning"])
    assert compare(baseline, audits, StopRule(dimensions=["reasoning"]), looks=2).state is State.UNTOLD


def judged_probes():
    return [r.probe for r in judged(1.0, "kind").values()]


def test_a_model_that_was_asked_sums_alone_gets_no_verdict_from_any_command(tokenizer, tmp_path, capsys):
    """The command line said "no regression" and ended with 0, where its own report said "No verdict"."""
    row = {"id": "r", "dimension": "reasoning", "judge": "number", "expected": "7", "prompt": "What is 3 + 4?"}
    probes = write_probes(tmp_path / "sums.jsonl", [row])
    model = save(tiny_model(tokenizer), tokenizer, tmp_path / "model")
    out = str(tmp_path / "out")
    arguments = ["audit", model, "--reference", model, "--probes", probes, "--output", out, "--answer-tokens", "8"]
    assert main([*arguments, "--trace-tokens", "8"]) == 1
    said, err = capsys.readouterr()
    assert "no verdict: no probe of a trust dimension was asked" in said
    assert err.splitlines()[-1].startswith("alignguard: no verdict: no probe of a trust dimension was asked; ")
    assert "<b>No verdict</b>" in (tmp_path / "out" / "report.html").read_text()
    assert main(["report", out]) == main(["compare", out]) == 1
    assert capsys.readouterr().out.count("no verdict: no probe of a trust dimension was asked") == 2


def test_a_regression_must_hold_whichever_way_unsure_answers_fall():
    """What is proven only as long as unsure answers are left out is said, and not called."""
    baseline = judged(1.0, "kind", MANY)
    safety = [id for id, r in baseline.items() if r.probe.dimension == "safety"]
    rule, found = StopRule(dimensions=["safety"]), {}
    for unsure in (False, True):
        then, now = dict(baseline), dict(baseline)
        for place, id in enumerate(
            safety
        ):  # half fell from 1 to 0; what becomes of the other half, of which the start had none?
            fell = place // 2 % 2
            then[id] = replace(then[id], score=Score(float(fell), Status.ANSWERED))
            open_to_doubt = Score(None, Status.UNSURE, {"low": 0.0, "high": 1.0})
            now[id] = replace(now[id], score=open_to_doubt if unsure and not fell else Score(0.0, Status.ANSWERED))
        audit = Audit(5, now, gather(now, then), 0.0)
        found[unsure] = compare(then, [audit], rule)
        assert all(readings == (0.0, 1.0) for readings in audit.unsure.values())
    assert found[False].since == {"safety": 5}
    doubted = found[True].dimensions["safety"]
    assert doubted.evidence.strength > 1 and doubted.drop == 1.0 and not doubted.called
    assert not found[True].since and "only as long as unsure answers are left out" in found[True].warnings[0]
