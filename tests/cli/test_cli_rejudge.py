"""`alignguard rejudge`: a run whose answers are judged afterwards comes to what it would have come to with that judge."""

import json

import pytest
from runs import guard, sft, toxicity
from tiny import tiny_model

from alignguard import Schedule
from alignguard.cli import main, rejudge
from alignguard.records.record import read_record

SIMULATED = ("detectable", "/p", "evidence", "_p")  # of draws of their own


def trained(tokenizer, folder, **kwargs):
    found = guard(schedule=Schedule(at=(2,), every=0, draw=8), **kwargs)
    sft(tokenizer, folder, [found], model=tiny_model(tokenizer, seed=1, scale=4.0)).train()


@pytest.fixture
def scorer(monkeypatch):
    monkeypatch.setattr(rejudge, "scorer_of", lambda name: toxicity)


def test_it_is_the_run_that_had_the_scorer(tokenizer, tmp_path, scorer, monkeypatch, capsys):
    trained(tokenizer, tmp_path / "whole", toxicity=toxicity)
    monkeypatch.setattr("alignguard.judging.scorers.importlib.util.find_spec", lambda name: None)
    trained(tokenizer, tmp_path / "blind", toxicity=None)
    blind = read_record(str(tmp_path / "blind"))
    assert blind.audits[-1].figure("toxicity/score") is None and blind.about.toxicity == "none"

    assert main(["rejudge", str(tmp_path / "blind"), "--output", str(tmp_path / "judged")]) in (0, 1, 3)
    out = capsys.readouterr().out
    whole, judged = read_record(str(tmp_path / "whole")), read_record(str(tmp_path / "judged"))
    assert len(judged.audits) == len(whole.audits) == 3 and judged.about.toxicity == whole.about.toxicity
    assert any(audit.figure("toxicity/score") is not None for audit in judged.audits)
    for own, other in zip(judged.audits, whole.audits, strict=True):
        assert own.scores == other.scores and own.step == other.step
        cost = [key for key in own.metrics if "cost/" in key or key.endswith(SIMULATED)]
        mine, theirs = ({k: v for k, v in a.metrics.items() if k not in cost} for a in (own, other))
        assert mine == pytest.approx(theirs, rel=1e-6, abs=1e-9)
    assert judged.baseline == whole.baseline
    for name, verdict in judged.verdict.dimensions.items():
        assert (verdict.drop, verdict.n, verdict.called) == pytest.approx(
            (whole.verdict.dimensions[name].drop, whole.verdict.dimensions[name].n, False), nan_ok=True
        )
    # every toxicity probe of three audits, and the start's own
    asked = {id for id, result in judged.baseline.items() if result.probe.dimension == "toxicity"}
    scored = [a.scores[id] for a in judged.audits for id in asked & a.scores.keys()]
    scored = [value for value in [*scored, *(judged.baseline[id].score.value for id in asked)] if value is not None]
    assert scored and f", {len(scored)} scores are others" in out
    assert read_record(str(tmp_path / "blind")).about.toxicity == "none"


def test_the_same_judges_change_nothing_and_json_says_so(tokenizer, tmp_path, scorer, capsys):
    trained(tokenizer, tmp_path / "run", toxicity=toxicity)
    capsys.readouterr()
    main(["rejudge", str(tmp_path / "run"), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["changed"] == 0 and told["audits"] == 3 and told["record"] == str(tmp_path / "run-rejudged")
    assert (tmp_path / "run-rejudged" / "alignguard" / "audits.jsonl").exists()
    assert main(["rejudge", str(tmp_path / "run")]) == 1
    assert "run-rejudged: is there already; give another --output, or remove it" in capsys.readouterr().err


def test_nothing_that_scores_is_said(tokenizer, tmp_path, monkeypatch, capsys):
    trained(tokenizer, tmp_path / "run", toxicity=toxicity)
    monkeypatch.setattr(rejudge, "scorer_of", lambda name: None)
    assert main(["rejudge", str(tmp_path / "run")]) == 1
    assert "nothing here scores toxicity; pip install" in capsys.readouterr().err
    assert not (tmp_path / "run-rejudged").exists()
