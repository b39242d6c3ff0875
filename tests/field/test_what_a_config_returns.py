"""
People train mixtures of experts (Mixtral, Qwen3-MoE, GPT-OSS) with `output_router_logits=True`, as TRL's documentation has it
for the balancing loss, and others with `output_hidden_states`, or `return_dict=False`, in the config.

Oracle: an audit of the same model without these flags.
Before: router logits ended the run in its first batch with padding ('The size of tensor a must match the size of tensor b').
After: the same figures; flags are off while we look, and on again afterwards.
"""

import pytest
import torch
from runs import guard, lines, sft
from tiny import tiny_model
from transformers import (
    GptOssConfig,
    GptOssForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from alignguard.model.observe import observing

FEW = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 1024,
    "num_experts_per_tok": 2,
    "bos_token_id": None,
}
KINDS = {
    "mixtral": (MixtralForCausalLM, MixtralConfig, {"num_local_experts": 4}),
    "qwen3": (Qwen3MoeForCausalLM, Qwen3MoeConfig, {"num_experts": 4, "moe_intermediate_size": 16}),
    "gptoss": (GptOssForCausalLM, GptOssConfig, {"num_local_experts": 4, "layer_types": ["full_attention"] * 2}),
}


def experts(kind, tokenizer, **flags):
    torch.manual_seed(0)
    model, config, more = KINDS[kind]
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    made = model(config(**FEW, **more, **ends, vocab_size=len(tokenizer), **flags))
    with torch.no_grad():
        for p in made.parameters():
            p.mul_(4.0 if p.dim() > 1 else 1.0)
    return made


def audited(tokenizer, output_dir, model):
    trainer = sft(tokenizer, output_dir, [guard()], model=model)
    trainer.train()
    return trainer, [{k: v for k, v in line["metrics"].items() if "/cost/" not in k} for line in lines(output_dir)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_mixture_with_its_balancing_loss_is_audited(kind, tokenizer, tmp_path):
    trainer, found = audited(tokenizer, tmp_path / "asked", experts(kind, tokenizer, output_router_logits=True))
    _, plain = audited(tokenizer, tmp_path / "plain", experts(kind, tokenizer, output_router_logits=False))
    assert found[0] == plain[0] and len(found) == 3 and found[-1]["alignguard/kl/raw"] > 1e-3
    assert trainer.model.config.output_router_logits is True


@pytest.mark.parametrize(
    "flags", [{"output_hidden_states": True}, {"return_dict": False}, {"output_attentions": True}, {"use_cache": False}]
)
def test_other_flags_change_no_figure(flags, tokenizer, tmp_path):
    def model():
        return tiny_model(tokenizer, seed=1, scale=4.0, attn_implementation="eager", **flags)

    held = model()
    kept = {name: getattr(held.config, name) for name in flags}
    with observing(held):
        ids = torch.ones((2, 4), dtype=torch.long)
        out = held(input_ids=ids)
        assert out.hidden_states is None and out.attentions is None
    assert kept == flags == {name: getattr(held.config, name) for name in flags}


def test_flags_are_put_back_after_an_error(tokenizer):
    model = experts("mixtral", tokenizer, output_router_logits=True)
    with pytest.raises(ValueError, match="no"), observing(model):
        assert model.config.output_router_logits is False
        raise ValueError("no")
    assert model.config.output_router_logits is True
