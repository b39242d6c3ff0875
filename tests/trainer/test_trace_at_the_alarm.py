"""A regression that is traced at the step where it is called.

Oracles: a trace after training, of the start as it was; a training run without it.
"""

import logging
import time
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from tiny import tiny_model
from trainers import SETTINGS
from trl import SFTConfig, SFTTrainer

from alignguard import AlignGuardCallback, Schedule, TokenBudget
from alignguard.errors import AlignGuardError
from alignguard.probes.rows import probe_from_row
from alignguard.records.record import read_record
from alignguard.tracing.kept import read_traces
from alignguard.tracing.trace import trace

PROBES = [
    probe_from_row({"id": f"p{i}", "dimension": "safety", "family": f"p{i}", "judge": "own", "prompt": f"Say {i}!"})
    for i in range(10)
]


class Fallen(AlignGuardCallback):
    """Its judge finds every answer bad from the second step on."""

    def __init__(self, **kwargs):
        self.fallen = False
        settings = {"probes": PROBES, "judge": self.judged, "train_prompts": 0, "reverse": 0}
        schedule = Schedule(at=(2,), every=0, draw=10, overhead=None)
        super().__init__(**{**settings, "schedule": schedule, "tokens": TokenBudget(answer=4, trace=4), **kwargs})

    def judged(self, prompt, answer):
        return 0.0 if self.fallen else 1.0

    def on_step_end(self, args, state, control, **kwargs):
        self.fallen = state.global_step >= 2
        super().on_step_end(args, state, control, **kwargs)


def trained(tokenizer, folder, callbacks, lora=False, steps=3, part="", **settings):
    rows = [{"text": f"What is {i} + {i}? It is {2 * i}, as anybody can count who wants to."} for i in range(12)]
    args = SFTConfig(str(folder), **{**SETTINGS, "max_steps": steps, "learning_rate": 1e-2, **settings})
    model = tiny_model(tokenizer, dropout=0.2)
    for name, p in model.named_parameters():
        p.requires_grad_(part in name)
    trainer = SFTTrainer(
        model,
        args,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=callbacks,
        peft_config=LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"]) if lora else None,
    )
    trainer.train()
    return trainer


@pytest.mark.parametrize(("kind", "lora"), [("copy", False), ("offload", False), ("adapter", True)])
def test_what_is_found_at_the_step_is_what_is_found_afterwards(kind, lora, tokenizer, tmp_path, capsys, caplog):
    with caplog.at_level(logging.WARNING, "alignguard"):
        trained(tokenizer, tmp_path, [Fallen(reference=kind, trace=True)], lora)
    (found,) = read_traces(read_record(str(tmp_path)).store)
    right = trace(str(tmp_path), tiny_model(tokenizer), tokenizer, "safety", last=2)
    assert (found.side, found.first, found.last, found.flips) == ("safety", 0, 2, right.flips)
    assert {row.row for row in found.rows} == {row.row for row in right.rows} and len(found.rows) == 8
    pulls = {row.row: row.pull for row in right.rows}
    assert {row.row: row.pull for row in found.rows} == pytest.approx(pulls, rel=1e-4)
    told = capsys.readouterr().out
    assert "AlignGuard: traces safety to 8 rows of" in told and "_alignguard/traces/safety_00000-00002.jsonl" in told
    assert "It is 2, as anybody" not in told  # nor in what trackers may take
    assert "as anybody" in "".join(row.text for row in found.rows)
    assert "as anybody" not in (tmp_path / "_alignguard" / "report.html").read_text()
    assert "where the regression of safety came from" in caplog.text and "failed" not in caplog.text
    assert "Rows it came from" in (tmp_path / "_alignguard" / "report.html").read_text()


@pytest.mark.parametrize("lora", [False, True])
def test_training_is_what_it_is_without_it(lora, tokenizer, tmp_path):
    def weights(name, callbacks):
        trainer = trained(tokenizer, tmp_path / name, callbacks, lora, steps=4)
        asked = {name: p.requires_grad for name, p in trainer.model.named_parameters()}
        return asked, {name: p.detach().clone() for name, p in trainer.model.named_parameters()}

    guard = Fallen(trace=True, stop=None)
    (asked, plain), (asked_too, traced) = weights("plain", []), weights("traced", [guard])
    assert guard.run.verdict.since and read_traces(guard.run.store)
    assert asked == asked_too and all(torch.equal(plain[name], traced[name]) for name in plain)


@pytest.mark.parametrize(("kind", "lora"), [("copy", False), ("offload", False), ("adapter", True)])
def test_a_trace_that_fails_half_way_changes_nothing(kind, lora, tokenizer, tmp_path, caplog, monkeypatch):
    def fails(forward):
        raise torch.OutOfMemoryError("CUDA out of memory")

    guards = [Fallen(reference=kind, trace=trace) for trace in (False, True)]
    plain = trained(tokenizer, tmp_path / "plain", guards[:1], lora, steps=4)
    monkeypatch.setattr("alignguard.tracing.pull.forward_ad.unpack_dual", fails)
    monkeypatch.setattr("alignguard.trainer.run.check_traceable", lambda *asked: None)
    failed = trained(tokenizer, tmp_path / "failed", guards[1:], lora, steps=4)
    assert "the trace of safety failed and training goes on (OutOfMemoryError" in caplog.text
    (one, other) = (dict(trainer.model.named_parameters()) for trainer in (plain, failed))
    assert all(torch.equal(p, other[name]) and p.requires_grad == other[name].requires_grad for name, p in one.items())


def test_of_many_rows_those_most_like_what_was_said_are_looked_at(tokenizer, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("alignguard.trainer.cause._SCREEN", 2)
    guard = Fallen(trace=True)
    trained(tokenizer, tmp_path, [guard])
    (found,) = read_traces(guard.run.store)
    assert sorted(row.stands_for for row in found.rows) == [1, 1, 3, 3]
    assert "traces safety to 4 of 8 rows" in capsys.readouterr().out


def test_the_time_of_it_is_neither_an_audits_nor_trainings(tokenizer, tmp_path, monkeypatch):
    late = [0.0]
    clock = SimpleNamespace(perf_counter=lambda: time.perf_counter() + late[-1])
    monkeypatch.setattr("alignguard.trainer.pace.time", clock)
    monkeypatch.setattr("alignguard.trainer.run.trace_new", lambda *args: late.append(late[-1] + 1e6) or 0.0)
    guard = Fallen(trace=True, schedule=Schedule(at=(2,), every=0, draw=10, overhead=0.9))
    trained(tokenizer, tmp_path, [guard], steps=5)
    assert len(late) > 1
    assert guard.run.pace.decide(5) and guard.run.pace.looked < 1e5 and guard.run.pace.trained < 1e5


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        ({"reference": "cache"}, "trace=True needs the start's weights, and reference='cache' keeps none"),
        ({"rows": False}, "trace=True needs the rows that went into each step, and rows=False keeps none"),
        ({}, "trace=True: the model cannot be differentiated forwards: .*no forward; leave it out"),
    ],
)
def test_what_cannot_be_traced_is_told_before_the_first_step(asked, line, tokenizer, tmp_path, monkeypatch):
    def fails(*args, **kwargs):
        raise NotImplementedError("no forward")

    monkeypatch.setattr("alignguard.tracing.pull.losses_of", fails)
    with pytest.raises(AlignGuardError, match=line):
        trained(tokenizer, tmp_path, [Fallen(trace=True, **asked)])


def test_that_no_weight_in_a_layer_trains_is_told_before_the_first_step(tokenizer, tmp_path):
    with pytest.raises(AlignGuardError, match="trace=True: none of the weights that train is in a numbered layer"):
        trained(tokenizer, tmp_path, [Fallen(trace=True)], part="embed_tokens")
