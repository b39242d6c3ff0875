"""`alignguard rejudge`: a run whose answers are judged afterwards comes to what it would have come to with that judge."""

import json
from dataclasses import replace

import pytest
from runs import guard, sft, toxicity
from tiny import tiny_model

from alignguard import Schedule
from alignguard.__about__ import __version__
from alignguard.auditing.audit import Audit
from alignguard.auditing.metrics import gather
from alignguard.auditing.result import Result
from alignguard.cli import main, rejudge
from alignguard.judging.score import Score, Status
from alignguard.model.chat import Answer
from alignguard.probes.rows import probe_from_row
from alignguard.records.about import About
from alignguard.records.record import read_record
from alignguard.records.store import Store
from alignguard.tracing.trace import store_of
from alignguard.verdicts.watch import compare

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


def test_what_was_trained_on_goes_along_and_traces_do_not(tokenizer, tmp_path, scorer):
    """`alignguard trace` said of a record that was judged anew that the run had kept no rows."""
    trained(tokenizer, tmp_path / "run", toxicity=toxicity)
    before, after = (tmp_path / name / "_alignguard" for name in ("run", "judged"))
    for folder in ("said", "traces"):
        (before / folder).mkdir()
        (before / folder / "some.parquet").write_text("tokens")
    assert main(["rejudge", str(tmp_path / "run"), "--output", str(tmp_path / "judged")]) in (0, 1, 3)
    assert store_of(read_record(str(tmp_path / "judged"))).kept() == store_of(read_record(str(tmp_path / "run"))).kept()
    for folder in ("rows", "said"):
        kept, there = ({p.name: p.read_bytes() for p in (home / folder).iterdir()} for home in (before, after))
        assert kept == there != {}
    assert not (after / "traces").exists() and (after / "rows").stat().st_mode & 0o77 == 0


def test_an_audit_whose_answers_are_missing_is_told_of(tmp_path, scorer, capsys):
    run = recorded_by(tmp_path / "run", {0: 1.0, 4: 1.0})
    (tmp_path / "run" / "_alignguard" / "answers" / "step_00000.parquet").unlink()
    assert main(["rejudge", run, "--output", str(tmp_path / "judged")]) == 1
    assert (
        "step_00000.parquet: the answers of step 0 are missing; take the record from a copy" in capsys.readouterr().err
    )
    assert not (tmp_path / "judged").exists()


def test_nothing_that_scores_is_said(tokenizer, tmp_path, monkeypatch, capsys):
    trained(tokenizer, tmp_path / "run", toxicity=toxicity)
    monkeypatch.setattr(rejudge, "scorer_of", lambda name: None)
    assert main(["rejudge", str(tmp_path / "run")]) == 1
    assert "nothing here scores toxicity; pip install" in capsys.readouterr().err
    assert not (tmp_path / "run-rejudged").exists()


def recorded_by(output_dir, scores, **about):
    """A record of twelve probes with a judge of people's own and twelve that are toxic or not; by step the score of the first."""
    rows = [{"dimension": "safety", "judge": "own"}, {"dimension": "toxicity", "judge": "toxicity"}]
    probes = [
        probe_from_row({"id": f"{row['judge']}{i}", "family": f"{row['judge']}{i}", "prompt": f"say {i}", **row})
        for row in rows
        for i in range(12)
    ]

    def judged(own, kind=0.9):
        values = {"own": (own, None), "toxicity": (kind, {"toxicity": 1 - kind})}
        answer = Answer((1, 2), "", "it is a fine day", False, True, True)
        return {p.id: Result(p, Score(values[p.judge][0], Status.ANSWERED, values[p.judge][1]), answer) for p in probes}

    store, baseline, audits = Store.of_run(output_dir), judged(1.0), []
    store.prepare()
    known = About("0.0.1", "m", pool_hash="x", draw=40, max_steps=8, alpha_until=8, judge="mine 2", toxicity="other 1")
    store.write_baseline(replace(known, **about), baseline)
    for step, own in scores.items():
        results = judged(own)
        audits.append(Audit(step, results, gather(results, baseline), 1.7e9 + step))
        audits[-1].metrics |= compare(baseline, audits, looks=len(scores)).metrics()
        store.append(audits[-1])
    return str(output_dir)


def test_what_a_judge_of_ones_own_has_scored_stays_and_so_does_its_verdict(tmp_path, scorer, capsys):
    """Such a judge cannot be given here: its scores were wiped, and a proven regression with them."""
    run = recorded_by(tmp_path / "run", {0: 1.0, 4: 0.9, 8: 0.1})
    before = read_record(run)
    assert main(["rejudge", run]) == 3
    out = capsys.readouterr().out
    assert "REGRESSION of safety" in out and "12 probes keep their scores, by mine 2: a judge of your own" in out
    after = read_record(f"{run}-rejudged")
    assert after.about.judge == "mine 2" and after.about.alignguard == __version__ != before.about.alignguard
    assert f"toxicity by {after.about.toxicity}; before, by other 1" in out
    for then, now in zip(before.audits, after.audits, strict=True):
        assert {i: s for i, s in then.scores.items() if i[0] == "o"} == {
            i: s for i, s in now.scores.items() if i[0] == "o"
        }
    main(["rejudge", run, "--json", "--output", str(tmp_path / "json")])
    told = json.loads(capsys.readouterr().out)
    assert told["kept"] == 12 and told["answers"] == 4 * 12 and "REGRESSION" in told["verdict"]


def test_a_judge_that_is_given_judges_what_one_of_ones_own_has(tmp_path, scorer, monkeypatch, capsys):
    run = recorded_by(tmp_path / "run", {0: 1.0, 8: 0.1})
    monkeypatch.setattr(rejudge, "judge_of", lambda name: lambda prompt, answer: 0.5)
    assert main(["rejudge", run, "--judge", "kind"]) == 0
    assert "keep their scores" not in capsys.readouterr().out
    assert {s for i, s in read_record(f"{run}-rejudged").audits[-1].scores.items() if i[0] == "o"} == {0.5}


def test_no_figure_of_the_old_verdict_stays(tmp_path, monkeypatch):
    """Where nothing can be judged any more, nothing would have been found either."""
    run = recorded_by(tmp_path / "run", {0: 1.0, 8: 1.0})
    there = "alignguard/toxicity/detectable"
    assert there in read_record(run).audits[-1].metrics
    lines = (tmp_path / "run" / "alignguard" / "audits.jsonl").read_text().splitlines()
    odd = {
        "alignguard/kl/answer": 0.5,
        "alignguard/cost/seconds": 3.0,
        "alignguard/toxicity/of_an_earlier_version": 1.0,
    }
    told = [json.loads(line) for line in lines]
    text = "".join(json.dumps(line | {"metrics": line["metrics"] | odd}) + "\n" for line in told)
    (tmp_path / "run" / "alignguard" / "audits.jsonl").write_text(text)
    monkeypatch.setattr(rejudge, "scorer_of", lambda name: lambda texts: [0.7] * len(texts))
    monkeypatch.setattr(rejudge, "rejudged", _unscored)
    main(["rejudge", run])
    metrics = read_record(f"{run}-rejudged").audits[-1].metrics
    left = {name.rpartition("/")[2] for name in metrics if "toxicity" in name}
    assert left == {"n", "unscored"}
    assert metrics["alignguard/kl/answer"] == 0.5 and metrics["alignguard/cost/seconds"] == 3.0


def _unscored(results, scorers):
    lost = Score(None, Status.UNPARSEABLE)
    return {id: replace(r, score=lost) if r.probe.dimension == "toxicity" else r for id, r in results.items()}


def test_scores_that_are_held_against_nothing_stay_so(tmp_path, scorer, capsys):
    run = recorded_by(tmp_path / "run", {0: 1.0}, max_steps=None, alpha_until=None, engine={"server": "vllm"})
    assert main(["rejudge", run]) == 0
    out = capsys.readouterr().out
    assert "scores, held against nothing" in out and "nan" not in out and "drop" not in out
    metrics = read_record(f"{run}-rejudged").audits[-1].metrics
    assert "alignguard/safety/score" in metrics and not [name for name in metrics if "drop" in name or "/p" in name]


def test_one_that_was_interrupted_leaves_no_shorter_record(tmp_path, scorer, monkeypatch, capsys):
    run, whole, calls = recorded_by(tmp_path / "run", {0: 1.0, 4: 0.9, 8: 0.1}), rejudge.rejudged, []

    def interrupted(*given):
        calls.append(given)
        if len(calls) == 3:  # the start, the first audit, and no further
            raise KeyboardInterrupt
        return whole(*given)

    monkeypatch.setattr(rejudge, "rejudged", interrupted)
    assert main(["rejudge", run]) == 130
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    monkeypatch.undo()
    (tmp_path / "file").write_text("")
    assert main(["rejudge", run, "--output", str(tmp_path / "file")]) == 1
    assert "file: is there already; give another --output, or remove it" in capsys.readouterr().err
