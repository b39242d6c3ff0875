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
    State.FINE: ("no regression", "No regression", 0),
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
    assert exit_code([found[State.FINE], found[State.UNJUDGED]]) == 1
    assert exit_code([found[State.UNJUDGED], found[State.REGRESSED], found[State.FINE]]) == 3
    assert exit_code([]) == 0


def test_nothing_asked_is_no_good_news():
    """A pool of sums tells nothing of trust; unless the rule watches them."""
    audits, verdict = run_of({0: 1.0, 5: 1.0}, probes=[p for p in judged_probes() if p.dimension == "reasoning"])
    assert verdict.state is State.NOTHING
    assert in_a_line(verdict, "start", True) == "no verdict: no probe of a trust dimension was asked"
    baseline = judged(1.0, "kind", [p for p in judged_probes() if p.dimension == "reasoning"])
    assert compare(baseline, audits, StopRule(dimensions=["reasoning"])).state is State.FINE


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
    audits = {}
    for share in (0.0, 0.5):
        results = judged(0.0, "rude", MANY)
        safety = [id for id, r in results.items() if r.probe.dimension == "safety"]
        kept = [id for id, r in results.items() if r.probe.dimension != "safety"]
        results |= {id: baseline[id] for id in kept}
        for id in safety[: int(len(safety) * share)]:
            results[id] = replace(results[id], score=Score(None, Status.UNSURE, {"low": 0.0, "high": 1.0}))
        audits[share] = Audit(5, results, gather(results, baseline), 0.0)
    sure = compare(baseline, [audits[0.0]], StopRule(dimensions=["safety"]))
    assert sure.since == {"safety": 5}
    unsure = compare(baseline, [audits[0.5]], StopRule(dimensions=["safety"], min_drop=0.6))
    assert unsure.dimensions["safety"].evidence.strength > 1 and unsure.dimensions["safety"].drop == 1.0
    assert not unsure.since and "only as long as unsure answers are left out" in unsure.warnings[0]
    assert audits[0.5].unsure and all(readings == (0.0, 1.0) for readings in audits[0.5].unsure.values())
