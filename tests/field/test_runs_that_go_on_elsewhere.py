"""
People resume a run into another output_dir, on nodes that share no folder, or one that began without AlignGuard.

Oracle: the run that goes on in its own output_dir, on nodes that share one, or that had us from the beginning.
Before: 'holds no baseline.json of it', or the record that another run left in this output_dir was taken.
After: the same figures, to the bit.
"""

import json
import re
import shutil

import pytest
from processes import end, found, start
from runs import guard as any_guard
from runs import lines, sft
from tiny import tiny_model

from alignguard import DriftBudget, RunError, Schedule, StartError, TokenBudget

SAVED = {"save_strategy": "steps", "save_steps": 2, "lr_scheduler_type": "constant"}
WHEN = Schedule(at=(2, 4, 6), every=0, draw=1)


def guard(**settings):
    return any_guard(tokens=TokenBudget(answer=4, trace=6), schedule=WHEN, train_prompts=2, reverse=1, **settings)


def figures(output_dir, steps=(0, 2, 4, 6)):
    """All figures on record, but those of time."""
    return {
        line["step"]: {name: value for name, value in line["metrics"].items() if "/cost/" not in name}
        for line in lines(output_dir)
        if line["step"] in steps
    }


def of_one_audit(metrics):
    """Those that do not depend on the audits before."""
    return {name: v for name, v in metrics.items() if not re.search(r"[/_](p|evidence|detectable)$", name)}


def budget():
    return DriftBudget(max_kl=0.05, every=1, batch=2, answer_tokens=4, anchors=["Who is it?", "Where is it?", "When?"])


@pytest.mark.parametrize("kind", ["copy", "cache"])
def test_into_another_output_dir(kind, tokenizer, tmp_path, capsys):
    """Figures are those of the run that went on in its own; the record that was there before is kept aside."""
    for name in ("a", "b"):
        seed = {"a": 0, "b": 1}[name]  # another run's, of the same start
        sft(tokenizer, tmp_path / name, [guard(reference=kind, budget=budget(), seed=seed)], **SAVED).train()
    shutil.copytree(tmp_path / "a", tmp_path / "same")
    for name in ("b", "same"):
        callback = guard(reference=kind, budget=budget())
        at = tmp_path / ("a" if name == "b" else name) / "checkpoint-4"
        sft(tokenizer, tmp_path / name, [callback], max_steps=6, **SAVED).train(resume_from_checkpoint=str(at))
    assert figures(tmp_path / "b") == figures(tmp_path / "same") and len(lines(tmp_path / "b")) == 4
    assert lines(tmp_path / "b", "budget.jsonl")[-1] == lines(tmp_path / "same", "budget.jsonl")[-1]
    assert len(lines(tmp_path / "a")) == 3 and (tmp_path / "b" / "alignguard.1" / "audits.jsonl").exists()
    said = capsys.readouterr().out
    assert said.count(f"was copied from {tmp_path}/a/alignguard to {tmp_path}/b/alignguard") == 1


@pytest.mark.parametrize("given", ["path", "model"])
def test_a_run_that_began_without_us(given, tokenizer, tmp_path, capsys):
    """From where it is taken up its figures are those of the run that had us from the beginning."""
    begun, other = tiny_model(tokenizer, seed=1, dropout=0.3, scale=4.0), tiny_model(tokenizer, seed=1, scale=4.0)
    begun.save_pretrained(tmp_path / "start")
    tokenizer.save_pretrained(tmp_path / "start")
    reference = str(tmp_path / "start") if given == "path" else other
    sft(tokenizer, tmp_path / "with", [guard(reference=reference)], max_steps=6, **SAVED).train()
    sft(tokenizer, tmp_path / "late", **SAVED).train()
    trainer = sft(tokenizer, tmp_path / "late", max_steps=6, **SAVED)
    trainer.add_callback(guard(reference=reference))
    trainer.train(resume_from_checkpoint=True)
    late, others = figures(tmp_path / "late"), figures(tmp_path / "with", (4, 6))
    assert late.keys() == others.keys() and len(lines(tmp_path / "late")) == 2
    for step, metrics in late.items():  # up to rounding: what is read along with what depends on the audit before
        assert of_one_audit(metrics) == pytest.approx(of_one_audit(others[step]), rel=1e-4, abs=1e-6, nan_ok=True)
    assert "nothing is on record of the run before step 4; its start is asked now" in capsys.readouterr().out
    callback = guard(reference=reference)  # and goes on as any other
    sft(tokenizer, tmp_path / "late", [callback], max_steps=7, **SAVED).train(resume_from_checkpoint=True)
    assert [line["step"] for line in lines(tmp_path / "late")] == [4, 6, 7]


def test_a_run_that_began_without_us_whose_start_is_not_given(tokenizer, tmp_path):
    sft(tokenizer, tmp_path, **SAVED).train()
    with pytest.raises(RunError, match="if it began without AlignGuard, give reference= the model it began with"):
        sft(tokenizer, tmp_path, [guard()], max_steps=6).train(resume_from_checkpoint=True)
    trainer = sft(tokenizer, tmp_path, max_steps=6)
    trainer.add_callback(guard())
    with pytest.raises(StartError, match="its start was not seen"):
        trainer.train(resume_from_checkpoint=True)


@pytest.mark.slow
def test_nodes_that_share_no_folder(tmp_path):
    """Figures are those of nodes that share one: the first process reads, and tells the others."""
    for name in ("shared", "apart"):
        end(start(f"begin {name}", tmp_path / name, 2))
        if name == "apart":  # each node has its checkpoints
            shutil.copytree(
                tmp_path / name / "0",
                tmp_path / name / "1",
                ignore=shutil.ignore_patterns("*alignguard"),
                dirs_exist_ok=True,
            )
            assert not list((tmp_path / name / "1").rglob("baseline.json"))
        end(start(f"resume {name}", tmp_path / name, 2))
    for rank in (0, 1):
        one, two = (found(tmp_path / name, rank) for name in ("shared", "apart"))
        times = [json.dumps(run["metrics"]).count("cost") for run in (one, two)]
        assert times[0] == times[1] > 0 and list(one["metrics"]) == ["0", "2", "4", "6"]
        for step, metrics in one["metrics"].items():
            same = {name: value for name, value in metrics.items() if "/cost/" not in name}
            assert same == {k: v for k, v in two["metrics"][step].items() if "/cost/" not in k}
        assert one["weights"] == two["weights"] and one["baseline"] == two["baseline"]
