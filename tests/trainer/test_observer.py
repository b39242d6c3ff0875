"""Looking changes nothing: everything of the process and the trainer is as it was after each of our hooks, also where one fails."""

import json
import subprocess
import sys

import pytest
import torch
from grid import KINDS, LORA, TRAINERS, Draws, differing, starts
from interrupts import interrupted
from places import HELPERS
from processes import end, found, start
from runs import guard, sft
from runs import lines as audits
from tiny import tiny_rows, tiny_tokenizer
from trainers import toxicity
from transformers import TrainerCallback
from transformers.models.llama.modeling_llama import LlamaMLP
from watched import HOOKS, Watched

import alignguard.auditing.answers as answers_module
import alignguard.auditing.audit as audit_module
import alignguard.auditing.drifts as drifts_module
import alignguard.trainer.shown as shown_module
from alignguard import Schedule
from alignguard.model.stopping import Budgets
from alignguard.trainer.pace import PULSE, Pace

THAWED = True  # how many objects are frozen is among what is watched

# how trainer, model and callback are set up: the trainer's settings, and ours
SETUPS = {
    "plain": ({}, {}),
    "evaluation": ({"eval_strategy": "steps", "eval_steps": 1, "metric_for_best_model": "alignguard/kl/raw"}, {}),
    "checkpointing": ({"gradient_checkpointing": True}, {}),
    "bf16": ({"bf16": True}, {}),
    "compiled": ({"torch_compile": True, "torch_compile_backend": "eager"}, {}),
    "adapters": ({"peft_config": LORA}, {}),
    "a cache": ({}, {"reference": "cache"}),
    "offloaded": ({}, {"reference": "offload"}),
    "the built-in scorer": ({}, {"toxicity": None}),
}


@pytest.fixture(scope="module")
def begin(tmp_path_factory):
    return starts(tiny_tokenizer(), tmp_path_factory.mktemp("starts"))


def most_slow(names):
    """All but the first are left out by `make test-quick`."""
    first, *others = names
    return [first, *(pytest.param(name, marks=pytest.mark.slow) for name in others)]


def watched(output_dir, memory=False, **settings):
    """Our callback, which asks at step 2 and whose scorer draws from every generator, and who looks at it."""
    callback = guard(**{"toxicity": toxicity, **settings})
    return callback, Watched(callback, output_dir, memory=memory)


@pytest.mark.parametrize("name", most_slow(SETUPS))
def test_after_each_hook_everything_is_as_it_was(name, tokenizer, tmp_path):
    trainers, ours = SETUPS[name]
    callback, looked = watched(tmp_path, memory=True, **ours)
    evaluated = tiny_rows() if name == "evaluation" else None
    sft(tokenizer, tmp_path, [callback], max_steps=3, eval_dataset=evaluated, **trainers).train()
    assert looked.told == []
    assert looked.hooks == {*HOOKS} - ({"on_evaluate"} if name != "evaluation" else set())
    # at an evaluation too, where the trainer chooses by a figure of ours
    assert [line["step"] for line in audits(tmp_path)] == ([0, 1, 2, 3] if name == "evaluation" else [0, 2, 3])


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINERS)
def test_in_every_main_trainer(name, tokenizer, begin, tmp_path):
    callback, looked = watched(tmp_path)
    TRAINERS[name].build(tokenizer, begin["dropout"], tmp_path, [callback]).train()
    assert looked.told == []
    assert looked.hooks == {*HOOKS} - {"on_evaluate"}


def test_a_pulse(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(Pace, "decide", lambda self, step, must=False: self.decided.setdefault(step, PULSE))
    callback, looked = watched(tmp_path, schedule=Schedule(at=(), every=0, draw=2, overhead=0.5))
    sft(tokenizer, tmp_path, [callback], max_steps=3).train()
    assert looked.told == []
    assert [line["step"] for line in audits(tmp_path, "pulses.jsonl")] == [1, 2]


def test_a_tokenizer_stays_as_it_was_told_to_pad_and_to_cut_off(tmp_path):
    """As GRPO leaves it behind; a checkpoint is written with that. And what is told once is told to whoever trains."""
    tokenizer = tiny_tokenizer()

    class Pads(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            tokenizer("Tell me of the fox.", padding="max_length", truncation=True, max_length=8)
            tokenizer.model_max_length = 2

    callback, looked = watched(tmp_path, schedule=Schedule(at=(1, 2), every=0, draw=2, rotate=True))
    sft(tokenizer, tmp_path, [Pads(), callback], max_steps=3).train()
    assert looked.told == []
    backend = tokenizer.backend_tokenizer
    assert backend.padding["length"] == backend.truncation["max_length"] == 8


class OnlyAt(TrainerCallback):
    """Something is broken for the time of a step's hooks; it comes before ours."""

    def __init__(self, step):
        self.at, self.on = step, False

    def on_train_begin(self, args, state, control, **kwargs):
        self.on = self.at == 0

    def on_step_end(self, args, state, control, **kwargs):
        self.on = state.global_step == self.at

    def on_step_begin(self, args, state, control, **kwargs):
        self.on = False


def breaking(monkeypatch, when, owner, name, error, calls=1):
    """From its n-th call on a function fails, once it has done what it does; how often it has is in what is given back."""
    whole, left, failed = getattr(owner, name), [calls], []

    def broken(*args, **kwargs):
        found = whole(*args, **kwargs)
        if when.on:
            left[0] -= 1
            if left[0] <= 0:
                failed.append(name)
                raise error("no luck")
        return found

    monkeypatch.setattr(owner, name, broken)
    return failed


STAGES = {
    "generation": (Budgets, "__call__", 2),
    "a forward": (LlamaMLP, "forward", 3),
    "a later forward": (LlamaMLP, "forward", 20),
    "drift": (drifts_module, "kl_tokens", 1),
    "likelihoods": (answers_module, "ask_choices", 1),
    "reading as told": (audit_module, "read_as_told", 1),
    "reverse drift": (audit_module, "measure_reverse", 1),
    "judging": (answers_module, "judged", 1),
    "figures": (audit_module, "gather", 1),
    "the report": (shown_module, "write_report", 1),
    "the table": (shown_module, "format_table", 1),
}


@pytest.mark.parametrize("error", [OSError, torch.OutOfMemoryError, KeyboardInterrupt])
@pytest.mark.parametrize("stage", most_slow(STAGES))
def test_what_fails_midway_is_put_back(stage, error, tokenizer, tmp_path, monkeypatch):
    when = OnlyAt(2)
    failed = breaking(monkeypatch, when, *STAGES[stage][:2], error, STAGES[stage][2])
    callback, looked = watched(tmp_path)
    trainer = sft(tokenizer, tmp_path, [when, callback], max_steps=3)
    if error is KeyboardInterrupt:
        with pytest.raises(KeyboardInterrupt):
            trainer.train()
        assert looked.found[-1][:2] == ("on_step_end", 2)
    else:
        trainer.train()
    assert failed and looked.told == []


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_what_fails_before_the_first_step_is_put_back(error, tokenizer, tmp_path, monkeypatch):
    when = OnlyAt(0)
    breaking(monkeypatch, when, LlamaMLP, "forward", error, 20)
    callback, looked = watched(tmp_path)
    with pytest.raises(error):
        sft(tokenizer, tmp_path, [when, callback]).train()
    assert looked.found[-1][0] == "on_train_begin" and looked.told == []


@pytest.mark.slow
def test_an_interrupt_at_any_forward_is_put_back(tokenizer, tmp_path, monkeypatch):
    """Each of an audit's forwards in turn."""
    when, callback = OnlyAt(-1), None
    calls, whole = [], LlamaMLP.forward
    at = [0]

    def forward(self, x):
        if when.on:
            calls.append(1)
            if len(calls) == at[0]:
                raise KeyboardInterrupt
        return whole(self, x)

    class Interrupts(TrainerCallback):
        def on_step_end(self, args, state, control, optimizer=None, **kwargs):
            if state.global_step != 2:
                return
            when.on = True
            for at[0] in range(1, 1000):
                calls.clear()
                try:
                    with looked.looking("an audit", at[0]):
                        callback.run.look(2, optimizer)
                except KeyboardInterrupt:
                    continue
                break
            when.on = False

    monkeypatch.setattr(LlamaMLP, "forward", forward)
    callback, looked = watched(tmp_path)
    sft(tokenizer, tmp_path, [callback, Interrupts()], max_steps=3).train()
    assert at[0] > 20 and looked.told == []


@pytest.mark.slow
def test_in_a_process_that_has_imported_nothing_else(tmp_path):
    script = [sys.executable, HELPERS / "fresh_run.py", tmp_path / "out"]
    done = subprocess.run(script, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["audits"] == [0, 1, 2]
    assert found["told"] == []


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("Trainer", "dropout"),
        pytest.param("SFT", "torch.compile", marks=pytest.mark.slow),
        pytest.param("GRPO", "LoRA", marks=pytest.mark.slow),
        pytest.param("DPO", "bf16", marks=pytest.mark.slow),
        pytest.param("distillation", "gradient checkpointing", marks=pytest.mark.slow),
    ],
)
def test_a_run_is_the_same_to_the_bit(name, kind, tokenizer, begin, tmp_path):
    """A share of the grid of `make reliability SECTION=observer`: logs, weights, optimizer, generators, saved files."""
    how = KINDS[kind]
    assert differing(TRAINERS[name], how, tokenizer, begin[how.start], tmp_path) == []


@pytest.mark.slow
def test_a_run_of_two_processes_is_the_same_to_the_bit(tmp_path):
    end(start("Trainer,GRPO", tmp_path, 2, "grid_run.py"))
    assert found(tmp_path) == found(tmp_path, 1) == {"Trainer": [], "GRPO": []}


def test_a_callback_that_draws_a_number_is_told(tokenizer, begin, tmp_path):
    differs = differing(TRAINERS["Trainer"], KINDS["dropout"], tokenizer, begin["dropout"], tmp_path, Draws)
    assert "logs" in differs and "generators.torch" in differs and any(n.startswith("weights.") for n in differs)


@pytest.mark.slow
def test_ctrl_c_at_any_line_that_changes_something(tokenizer, tmp_path):
    """While adapters are switched off, hooks are set, modes are changed, and while all of it is put back."""
    tries = interrupted(tokenizer, tmp_path, 10**9, peft_config=LORA)
    assert len(tries) > 200
    assert [line for line, through, _ in tries if not through] == []
    assert [(line, left) for line, _, left in tries if left] == []
