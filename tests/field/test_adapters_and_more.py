"""
People train LoRA adapters and more beside them: biases, norms and embeddings unfrozen by hand (LongLoRA's own script), the LM
head, everything; or what trains changes on the way (gradual unfreezing, BAdam). Switching the adapters off then gives the
policy's other weights and not the start.

Oracle: a plain deepcopy of the model before training, and both models' own logits.
Before: drift told of the true one: biases 0.043 of 0.179 and 0.057 of 0.096, norms 0.058 of 0.075, embeddings 0.017 of 0.132,
the head 0.044 of 0.174, everything 0.002 of 0.289; beside OFT, IA3 and the like at most 0.025 of 0.17.
After: the same, to 1e-3 of it.
"""

import copy
import math

import pytest
import torch
from drifting import asking_of, told, train, truth
from peft import (
    AdaLoraConfig,
    BOFTConfig,
    HRAConfig,
    IA3Config,
    LNTuningConfig,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    OFTConfig,
    VBLoRAConfig,
    VeraConfig,
    get_peft_model,
)
from runs import guard, lines, sft
from tiny import tiny_model
from transformers import TrainerCallback

from alignguard import DriftBudget
from alignguard.drift.reference import freeze_start

TARGETS = ["q_proj", "v_proj"]


def lora(tokenizer, **settings):
    base = tiny_model(tokenizer, scale=6.0, attention_bias=True, tie_word_embeddings=False)
    return get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", target_modules=TARGETS, r=4, **settings))


def unfreeze(model, *parts):
    for name, p in model.named_parameters():
        if any(part in name for part in parts):
            p.requires_grad_(True)


BESIDE = {
    "bias all": ({"bias": "all"}, ()),
    "bias lora_only": ({"bias": "lora_only"}, ()),
    "norms": ({}, ("norm",)),
    "embeddings": ({}, ("embed_tokens",)),
    "embeddings and norms": ({}, ("embed", "norm")),
    "head": ({}, ("lm_head",)),
    "everything": ({}, ("",)),
    "modules_to_save": ({"modules_to_save": ["embed_tokens"]}, ("norm",)),
    "tokens": ({"trainable_token_indices": list(range(30, 44))}, ("norm",)),
    "DoRA": ({"use_dora": True}, ("norm",)),
    "PiSSA": ({"init_lora_weights": "pissa"}, ("norm",)),
}


@pytest.mark.parametrize("kind", ["auto", "adapter"])
@pytest.mark.parametrize("name", BESIDE)
def test_drift_is_held_against_the_start_of_all_that_trains(name, kind, tokenizer):
    settings, parts = BESIDE[name]
    model = lora(tokenizer, **settings)
    unfreeze(model, *parts)
    start = copy.deepcopy(model)
    reference, asking = freeze_start(model, kind), asking_of(model, tokenizer)
    assert reference.kind == "adapter"
    assert abs(told(model, reference, asking)) < 1e-5
    train(model)
    assert truth(model, start) > 5e-3
    assert told(model, reference, asking) == pytest.approx(truth(model, start), rel=1e-3, abs=1e-6)


def test_only_what_survives_the_switching_is_kept(tokenizer):
    assert freeze_start(lora(tokenizer)).bytes == 0
    model = lora(tokenizer)
    unfreeze(model, "norm")
    norms = sum(p.numel() for name, p in model.named_parameters() if "norm" in name)
    assert freeze_start(model).bytes == 4 * norms


OTHERS = {
    "AdaLoRA": lambda: AdaLoraConfig(task_type="CAUSAL_LM", target_modules=TARGETS, total_step=10),
    "IA3": lambda: IA3Config(task_type="CAUSAL_LM", target_modules=TARGETS, feedforward_modules=[]),
    "LoHa": lambda: LoHaConfig(task_type="CAUSAL_LM", target_modules=TARGETS),
    "LoKr": lambda: LoKrConfig(task_type="CAUSAL_LM", target_modules=TARGETS),
    "OFT": lambda: OFTConfig(task_type="CAUSAL_LM", target_modules=TARGETS, oft_block_size=4),
    "BOFT": lambda: BOFTConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], boft_block_size=4),
    "HRA": lambda: HRAConfig(task_type="CAUSAL_LM", target_modules=TARGETS),
    "VeRA": lambda: VeraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"]),
    "VB-LoRA": lambda: VBLoRAConfig(task_type="CAUSAL_LM", target_modules=TARGETS, vector_length=4, num_vectors=16),
    "LN tuning": lambda: LNTuningConfig(task_type="CAUSAL_LM", target_modules=["input_layernorm"]),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_kinds_of_adapters(name, tokenizer):
    base = tiny_model(tokenizer, scale=6.0, hidden_size=32, num_key_value_heads=4)
    model = get_peft_model(base, OTHERS[name]())
    unfreeze(model, "mlp")
    start = copy.deepcopy(model)
    reference, asking = freeze_start(model), asking_of(model, tokenizer)
    assert abs(told(model, reference, asking)) < 1e-5
    train(model)
    assert truth(model, start) > 1e-3
    assert told(model, reference, asking) == pytest.approx(truth(model, start), rel=1e-3, abs=1e-6)


def test_an_adapter_that_wakes_at_certain_tokens(tokenizer):
    """A continued aLoRA: where its tokens are not said, the model is the base."""
    model = lora(tokenizer, alora_invocation_tokens=[30])
    for name, p in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.2)
    start = copy.deepcopy(model)
    reference, asking = freeze_start(model), asking_of(model, tokenizer)
    assert abs(told(model, reference, asking)) < 1e-5
    for p in model.parameters():
        p.data += 0.1 * p.requires_grad
    assert truth(model, start) > 1e-3
    assert told(model, reference, asking) == pytest.approx(truth(model, start), rel=1e-3, abs=1e-6)


class Unfreeze(TrainerCallback):
    """Gradual unfreezing: from a step on other weights train, and for a while only."""

    def __init__(self, part, first, last=99):
        self.part, self.first, self.last = part, first, last

    def on_step_begin(self, args, state, control, model, **kwargs):
        for name, p in model.named_parameters():
            if self.part in name and "lora" not in name:
                p.requires_grad_(self.first <= state.global_step < self.last)


@pytest.mark.parametrize("part", ["norm", "embed_tokens", "lm_head", "q_proj", ""])
@pytest.mark.parametrize("last", [2, 99])
def test_what_is_unfrozen_on_the_way_is_held_against_its_start(part, last, tokenizer, tmp_path):
    """All weights are in the optimizer from the beginning, as gradual unfreezing has them."""
    found = {}
    for kind in ("auto", "copy"):
        model = lora(tokenizer)
        unfreeze(model, "")  # so that TRL's optimizer takes them
        trainer = sft(tokenizer, tmp_path / kind, [Unfreeze(part, 1, last)], model=model)
        trainer.create_optimizer()
        for name, p in model.named_parameters():
            p.requires_grad_("lora" in name)
        trainer.add_callback(guard(trainer, reference=kind))
        trainer.train()
        found[kind] = [line["metrics"]["alignguard/kl/raw"] for line in lines(tmp_path / kind)]
    assert len(found["auto"]) == 3 and found["copy"][-1] > 1e-3
    assert found["auto"] == pytest.approx(found["copy"], rel=1e-3, abs=1e-6)


def test_weights_that_move_though_they_do_not_train_are_an_error(tokenizer, tmp_path, caplog):
    """An optimizer step of 1e-4 of a weight that no optimizer was seen to train, say in a layerwise backward pass."""

    class Move(TrainerCallback):
        def on_step_end(self, args, state, control, model, **kwargs):
            with torch.no_grad():
                model.get_parameter("base_model.model.model.norm.weight").add_(1e-4)

    sft(tokenizer, tmp_path, [Move(), guard()], model=lora(tokenizer)).train()
    assert len(lines(tmp_path)) == 1  # the start's own
    assert "model.norm.weight changed under the adapters" in caplog.text


@pytest.mark.parametrize("late", [False, True])
def test_a_budget_holds_an_unfrozen_head_to_its_start(late, tokenizer, tmp_path):
    """The head moves alone: drift on the anchors is the same for a start that is switched off and for a copy."""
    found = {}
    for kind in ("adapter", "copy"):
        model = lora(tokenizer)
        unfreeze(model, "lm_head")
        trainer = sft(tokenizer, tmp_path / kind, [Unfreeze("lm_head", 1 if late else 0)], model=model)
        trainer.create_optimizer()
        model.get_output_embeddings().requires_grad_(not late)
        budget = DriftBudget(max_kl=10.0, every=1, batch=4, answer_tokens=4)
        trainer.add_callback(guard(trainer, reference=kind, budget=budget))
        trainer.train()
        found[kind] = [line["kl"] for line in lines(tmp_path / kind, "budget.jsonl")]
    assert found["copy"][-1] > 1e-4 and all(map(math.isfinite, found["copy"]))
    assert found["adapter"] == pytest.approx(found["copy"], rel=1e-3, abs=1e-6)
