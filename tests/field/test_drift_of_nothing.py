"""
People train with Liger's kernels, which bind forwards to modules (a frozen copy without them rounds otherwise), with
accelerate's hooks, or with DeepSpeed, which casts the policy to bfloat16 after the start was kept. At step 0 the start is held
against itself all the same.

Oracle: a plain deepcopy, and both models' own logits.
Before: drift at step 0 9e-08 with norms in float16, 5e-06 cast to bfloat16; a continued adapter ended the run.
After: 0, and what rounding leaves is on record as `alignguard/kl/floor`.

Liger and DeepSpeed are stood in for: by functions bound to modules in its way (`module.forward = MethodType(function,
module)`), and by a callback that casts the model when training begins, as `deepspeed.initialize` does.
"""

import copy
from types import MethodType

import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from drifting import asking_of, told, train, truth
from peft import LoraConfig, get_peft_model
from runs import guard, lines, sft
from tiny import tiny_model
from transformers import TrainerCallback

from alignguard.drift.reference import freeze_start


def rms_norm(self, hidden):
    """A kernel that rounds otherwise than the module's own forward."""
    half = hidden.half()
    return (half * torch.rsqrt(half.float().pow(2).mean(-1, keepdim=True) + self.variance_epsilon)).to(
        hidden.dtype
    ) * self.weight


def whole_forward(self, *args, **kwargs):
    """Liger's `lce_forward` is a function of its module, too."""
    return type(self).forward(self, *args, **kwargs)


class Rounds(ModelHook):
    """An accelerate hook that does something to what its module says."""

    def post_forward(self, module, output):
        return output.half().float()


def liger(model):
    for module in model.modules():
        if type(module).__name__ == "LlamaRMSNorm":
            module.forward = MethodType(rms_norm, module)
    model.forward = MethodType(whole_forward, model)


def hooked(model):
    for layer in model.model.layers:
        add_hook_to_module(layer.mlp, Rounds())


@pytest.mark.parametrize("kind", ["copy", "offload"])
@pytest.mark.parametrize("patch", [liger, hooked])
def test_a_frozen_copy_keeps_what_is_bound_to_its_own_modules(patch, kind, tokenizer):
    model = tiny_model(tokenizer, scale=6.0)
    patch(model)
    start, asking = copy.deepcopy(model), asking_of(model, tokenizer)
    reference = freeze_start(model, kind)
    assert told(model, reference, asking) == 0.0
    train(model)
    assert told(model, reference, asking) == pytest.approx(truth(model, start), rel=1e-4, abs=1e-7)
    with reference.loaded() as frozen:
        assert all(getattr(m.forward, "__self__", m) is m for m in frozen.modules())


class Cast(TrainerCallback):
    """Before our `on_train_begin`: weights and buffers in bfloat16."""

    def on_train_begin(self, args, state, control, model, **kwargs):
        model.bfloat16()


@pytest.mark.parametrize("kind", ["copy", "offload", "path", "adapter", "adapter and more", "continued adapter"])
def test_a_policy_that_is_cast_after_its_start_was_kept(kind, tokenizer, tmp_path):
    model = tiny_model(tokenizer, seed=1, scale=4.0)
    model.save_pretrained(tmp_path / "start")
    tokenizer.save_pretrained(tmp_path / "start")
    if "adapter" in kind:
        model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"]))
        for name, p in model.named_parameters():
            if kind == "continued adapter" and "lora_B" in name:
                torch.nn.init.normal_(p, std=0.1)
            p.requires_grad_(p.requires_grad or ("norm" in name and kind == "adapter and more"))
    reference = {"path": str(tmp_path / "start")}.get(kind, kind.split()[-1] if kind.startswith("cont") else kind)
    ours = guard(reference=reference.removesuffix(" and more"))
    sft(tokenizer, tmp_path, [Cast(), ours], model=model).train()
    found = [line["metrics"]["alignguard/kl/raw"] for line in lines(tmp_path)]
    assert len(found) == 3 and abs(found[0]) < 1e-6 < found[-1]


def test_the_floor_stands_beside_every_drift(tokenizer, tmp_path, capsys):
    saved = {"save_strategy": "steps", "save_steps": 2, "lr_scheduler_type": "constant"}
    trainer = sft(tokenizer, tmp_path, [guard()], max_steps=2, bf16=True, **saved)
    trainer.train()
    first = lines(tmp_path)[0]["metrics"]["alignguard/kl/answer"]
    sft(tokenizer, tmp_path, [guard()], max_steps=4, bf16=True, **saved).train(resume_from_checkpoint=True)
    floors = [line["metrics"]["alignguard/kl/floor"] for line in lines(tmp_path)]
    assert floors == [abs(first)] * 3
    trainer.train()  # again: step 0 is none of the start any more
    again = [line["metrics"] for line in lines(tmp_path)]
    assert abs(again[0]["alignguard/kl/answer"]) > 1e-3
    assert {metrics["alignguard/kl/floor"] for metrics in again} == {abs(first)}
    assert f"floor {abs(first):.1e}" in capsys.readouterr().out
    assert "floor" in (tmp_path / "_alignguard" / "report.html").read_text()


def test_a_reference_that_is_given_has_no_floor(tokenizer, tmp_path):
    other = tiny_model(tokenizer, seed=3, scale=4.0)
    sft(tokenizer, tmp_path, [guard(reference=other)], max_steps=2).train()
    assert not any("alignguard/kl/floor" in line["metrics"] for line in lines(tmp_path))


def moved(model, by=0.3):
    """Weights that somebody put in, or trained, after a callback was attached."""
    torch.manual_seed(5)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(by * torch.randn_like(p) * p.std())


def told_of(caplog):
    return [record.getMessage() for record in caplog.records if "the policy is not its start" in record.getMessage()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_weights_that_moved_before_training_are_no_floor(dtype, tokenizer, tmp_path, caplog):
    """As where two trainers of one model are built up front, each with its callback, and trained in turn."""
    model = tiny_model(tokenizer, seed=1, scale=4.0).to(dtype)
    trainer = sft(tokenizer, tmp_path, [guard()], model=model)
    moved(model)
    trainer.train()
    found = [line["metrics"] for line in lines(tmp_path)]
    assert found[0]["alignguard/kl/answer"] > 0.02
    assert not any("alignguard/kl/floor" in metrics for metrics in found)
    (line,) = told_of(caplog)
    assert f"drift is {found[0]['alignguard/kl/answer']:.4f} nats per token" in line
    assert ("at most 1e-05 in float32" if dtype == torch.float32 else "at most 0.01 in half precision") in line
    assert "attach it once they are final, or give reference=" in line
    caplog.clear()
    trainer.train()  # again: the distance is what was trained, too
    assert not told_of(caplog) and "alignguard/kl/floor" not in lines(tmp_path)[0]["metrics"]


@pytest.mark.parametrize(
    "case", ["a second trainer", "a model", "a path", "a continued adapter", "moved first", "cast", "resumed"]
)
def test_what_is_no_mistake_is_not_told_of(case, tokenizer, tmp_path, caplog):
    model, ours, first = tiny_model(tokenizer, seed=1, scale=4.0), {}, []
    if case == "a continued adapter":
        model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"]))
        for name, p in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(p, std=0.1)
    if case == "a model":
        ours["reference"] = tiny_model(tokenizer, seed=3, scale=4.0)
    if case == "a path":
        tiny_model(tokenizer, seed=3, scale=4.0).save_pretrained(tmp_path / "other")
        tokenizer.save_pretrained(tmp_path / "other")
        ours["reference"] = str(tmp_path / "other")
    if case == "cast":
        first = [Cast()]
    if case == "moved first":
        moved(model)
    callback = guard(**ours)
    saved = {"save_strategy": "steps", "save_steps": 2} if case == "resumed" else {}
    trainer = sft(tokenizer, tmp_path / "run", [*first, callback], model=model, max_steps=2, **saved)
    trainer.train()
    if case == "a second trainer":  # of the same callback: from where the model is now
        trainer = sft(tokenizer, tmp_path / "run", [callback], model=model, max_steps=2)
        trainer.train()
    if case == "resumed":
        sft(tokenizer, tmp_path / "run", [guard()], max_steps=4, **saved).train(resume_from_checkpoint=True)
    assert not told_of(caplog)
    floors = [line["metrics"].get("alignguard/kl/floor") for line in lines(tmp_path / "run")]
    assert all(floor is None for floor in floors) if ours else all(floor <= 1e-5 for floor in floors)
