"""Records of earlier versions are still read, reported, compared, and resumed."""

import json
import shutil

import pytest
from places import DATA
from runs import guard, lines, sft
from tiny import tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignguard import RunError, Schedule, StopRule
from alignguard.cli import main
from alignguard.records.record import read_record

EARLIER = DATA / "record_0.1.0"  # six steps, audited at 2 and 4, written by version 0.1.0 before its modules were rooms


@pytest.fixture
def run(tmp_path):
    shutil.copytree(EARLIER / "alignguard", tmp_path / "run" / "alignguard")
    return tmp_path / "run"


def start():
    return AutoModelForCausalLM.from_pretrained(EARLIER / "start"), AutoTokenizer.from_pretrained(EARLIER / "start")


def test_a_record_is_read(run):
    record = read_record(str(run))
    assert record.about.is_run and record.about.was == "start" and record.about.max_steps == 6
    assert record.about.alignguard == "0.1.0" and record.note == ""
    assert [audit.step for audit in record.audits] == [0, 2, 4, 6]
    assert record.about.stop_rule == StopRule(checkpoint=False, stop=False)
    told = json.loads((run / "alignguard" / "baseline.json").read_text())
    scores = told.pop("scores")
    assert record.about.to_dict() == told
    assert {id: r.score.value for id, r in record.baseline.items() if id in scores} == scores


def test_it_is_reported_and_compared(run, capsys):
    assert main(["report", str(run)]) == main(["compare", str(run)])
    out = capsys.readouterr().out
    assert "step 6, held against the model at step 0" in out
    said = lines(run)[-1]["metrics"]
    assert f"answer {said['alignguard/kl/answer']:.4f}, raw {said['alignguard/kl/raw']:.4f}" in out
    assert "held against the model at step 0" in (run / "alignguard" / "report.html").read_text()


def trained(run, steps, callback=None, **kwargs):
    model, tokenizer = start()
    settings = {"max_steps": steps, "save_strategy": "steps", "save_steps": 4, "lr_scheduler_type": "constant"}
    trainer = sft(tokenizer, run, [callback] if callback is not None else [], model=model, **settings)
    trainer.train(**kwargs)
    return trainer


def test_its_run_is_resumed(run):
    """The baseline is the one on record, audits after the checkpoint are taken anew, and those before are kept."""
    before = lines(run)
    trained(run, 4)  # the checkpoint that the run was left with
    callback = guard(schedule=Schedule(at=(2, 4), every=0, draw=2))
    trained(run, 6, callback, resume_from_checkpoint=str(run / "checkpoint-4"))
    after = lines(run)
    assert [line["step"] for line in after] == [0, 2, 4, 6] and after[:3] == before[:3]
    assert callback.run.state.about.looks == 3
    # the same steps on the same weights: what was measured then is measured now
    assert after[3]["scores"] == before[3]["scores"]
    for name in ("alignguard/kl/answer", "alignguard/kl/raw"):
        assert after[3]["metrics"][name] == pytest.approx(before[3]["metrics"][name], rel=1e-2)


def test_it_is_not_resumed_with_another_start(run, tokenizer):
    trained(run, 4)
    settings = {"max_steps": 6, "save_strategy": "no"}
    with pytest.raises(RunError, match="the model given is not the one this run began with"):
        other = tiny_model(tokenizer, seed=2)
        sft(tokenizer, run, [guard()], model=other, **settings).train(resume_from_checkpoint=str(run / "checkpoint-4"))


@pytest.mark.parametrize(("earlier", "rule"), [("flips", "sign-flip"), ("signs", "sign-test")])
def test_rules_may_be_called_as_they_were(earlier, rule):
    assert StopRule(rule=earlier) == StopRule(rule=rule) and StopRule(rule=earlier).rule == rule


@pytest.mark.parametrize("text", ["{}", "[]", '"x"', "{", '{"pool_hash": "x"}'])
def test_what_is_no_record_is_told_in_one_line(run, text, capsys):
    (run / "alignguard" / "baseline.json").write_text(text)
    assert main(["report", str(run)]) == 1
    err = capsys.readouterr().err
    assert "baseline.json: is no record of a run (" in err and err.count("\n") == 1
