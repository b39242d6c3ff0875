"""Fourteen and more architectures, as tiny random models: hidden states and heads against the model's own logits."""

import pytest
import torch
from oracles import oracle, own_logits
from tiny import SMALL
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from alignguard.drift.kl import kl_tokens
from alignguard.drift.reference import freeze_start
from alignguard.model.forward import Row
from alignguard.model.head import read_head, target_hidden

pytestmark = pytest.mark.slow

GQA = {**SMALL, "num_key_value_heads": 2}
HEAD = {**GQA, "head_dim": 8}
MODELS = {
    "llama": (LlamaForCausalLM, LlamaConfig, GQA),
    "llama-untied": (LlamaForCausalLM, LlamaConfig, {**GQA, "tie_word_embeddings": False}),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, {**GQA, "tie_word_embeddings": True}),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, HEAD),
    "gemma2": (Gemma2ForCausalLM, Gemma2Config, {**HEAD, "final_logit_softcapping": 3.0}),
    "gemma3": (Gemma3ForCausalLM, Gemma3TextConfig, HEAD),
    "phi3": (Phi3ForCausalLM, Phi3Config, GQA),
    "phi-bias": (PhiForCausalLM, PhiConfig, GQA),
    "mistral": (MistralForCausalLM, MistralConfig, GQA),
    "olmo2": (Olmo2ForCausalLM, Olmo2Config, GQA),
    "cohere-scale": (CohereForCausalLM, CohereConfig, {**GQA, "logit_scale": 0.25}),
    "granite-scale": (GraniteForCausalLM, GraniteConfig, {**GQA, "logits_scaling": 4.0}),
    "gpt2": (
        GPT2LMHeadModel,
        GPT2Config,
        {
            "vocab_size": 211,
            "n_embd": 32,
            "n_layer": 2,
            "n_head": 4,
            "n_positions": 128,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
    ),
    "gpt_neox": (GPTNeoXForCausalLM, GPTNeoXConfig, SMALL),
    "mixtral-moe": (MixtralForCausalLM, MixtralConfig, {**GQA, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen3-moe": (
        Qwen3MoeForCausalLM,
        Qwen3MoeConfig,
        {**HEAD, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    ),
}


def build(name):
    kind, config, settings = MODELS[name]
    torch.manual_seed(0)
    model = kind(config(**settings)).eval()
    with torch.no_grad():
        for parameter_name, p in model.named_parameters():
            if p.dim() > 1:
                p.mul_(8)
            elif "lm_head.bias" in parameter_name or "embed_out.bias" in parameter_name:
                p.normal_()
    return model


@pytest.mark.parametrize("name", MODELS)
def test_fused_drift_is_that_of_the_models_own_logits(name):
    policy = build(name)
    reference = freeze_start(policy)
    rows = [Row([1, 5, 6, 7], [8, 9, 10]), Row([1, 20], [30, 31, 32, 33, 34, 35])]
    targets = torch.tensor([t for row in rows for t in row.target])

    def measure():
        with torch.no_grad():
            head_p, head_q = read_head(reference.model), read_head(policy)
            hidden_p, hidden_q = (
                target_hidden(m, rows, 0, h) for m, h in ((reference.model, head_p), (policy, head_q))
            )
            assert head_p.weight is not None and head_q.weight is not None, "the fused path was not taken"
            return kl_tokens(hidden_p, head_p, hidden_q, head_q, targets)["kl"], head_p.logits(head_p.prepare(hidden_p))

    kl, before = measure()
    assert kl.abs().max() < 1e-5
    own = torch.cat([own_logits(reference.model, row) for row in rows])
    assert (before - own).abs().max() < 1e-4 * own.abs().max()
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(torch.randn_like(p) * 0.05 * p.abs().mean())
    kl, after = measure()
    assert torch.equal(before, after), "the reference moved"
    expected = torch.cat([oracle(own_logits(reference.model, row), own_logits(policy, row)) for row in rows])
    assert expected.mean() > 1e-5
    torch.testing.assert_close(kl.double(), expected, rtol=1e-3, atol=1e-5)


class Odd(LlamaForCausalLM):
    """Does something to its logits that no config tells."""

    def forward(self, *args, **kwargs):
        out = super().forward(*args, **kwargs)
        out.logits = out.logits * 0.5 + 0.1 * out.logits.square()
        return out


def test_a_head_that_is_not_understood_takes_the_plain_path(caplog):
    torch.manual_seed(0)
    policy = Odd(LlamaConfig(**GQA)).eval()
    other = Odd(LlamaConfig(**GQA)).eval()
    rows = [Row([1, 5, 6, 7], [8, 9, 10]), Row([1, 20], [30, 31])]
    targets = torch.tensor([t for row in rows for t in row.target])
    with torch.no_grad():
        head, other_head = read_head(policy), read_head(other)
        read_head(policy)
        assert head.weight is None and len(head) == 211
        hidden_p, hidden_q = target_hidden(policy, rows, 0, head), target_hidden(other, rows, 0, other_head)
        kl = kl_tokens(hidden_p, head, hidden_q, other_head, targets)["kl"]
    expected = torch.cat([oracle(own_logits(policy, row), own_logits(other, row)) for row in rows])
    torch.testing.assert_close(kl.double(), expected, rtol=1e-4, atol=1e-6)
    said = [r for r in caplog.records if "its own logits are used" in r.getMessage()]
    assert len(said) == 2  # once a model


def test_an_adapter_on_the_head_takes_the_plain_path():
    from peft import LoraConfig, get_peft_model

    for lora in (
        LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj", "lm_head"]),
        LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], modules_to_save=["lm_head"]),
    ):
        model = get_peft_model(LlamaForCausalLM(LlamaConfig(**GQA, tie_word_embeddings=False)).eval(), lora)
        reference = freeze_start(model)
        rows = [Row([1, 5, 6], [8, 9])]
        with torch.no_grad():
            for p in model.parameters():
                if p.requires_grad:
                    p.add_(torch.randn_like(p) * 0.1)
            head = read_head(model)
            assert head.weight is None
            hidden = target_hidden(model, rows, 0, head)
            with reference.loaded() as frozen:
                start = target_hidden(frozen, rows, 0, read_head(frozen))
        torch.testing.assert_close(hidden, own_logits(model, rows[0]))
        assert (hidden - start).abs().max() > 1e-3


class Scaled(torch.nn.Linear):
    """An LM head with a factor of its own for every token, which is learnt and begins at 1."""

    def __init__(self, linear):
        super().__init__(linear.in_features, linear.out_features, bias=False)
        self.weight, self.factor = linear.weight, torch.nn.Parameter(torch.ones(linear.out_features))

    def forward(self, hidden):
        return super().forward(hidden) * self.factor


class Tempered(LlamaForCausalLM):
    """A factor on all logits, which is learnt and begins at 1, beside the head."""

    def __init__(self, config):
        super().__init__(config)
        self.factor = torch.nn.Parameter(torch.ones(()))

    def forward(self, *args, **kwargs):
        out = super().forward(*args, **kwargs)
        out.logits = out.logits * self.factor
        return out


def scaled_head(llama):
    llama.lm_head = Scaled(llama.lm_head)
    return llama.lm_head.factor


def hooked(part):
    def build(llama):
        factor = torch.nn.Parameter(torch.ones(()))
        module = llama.lm_head if part == "head" else llama
        if part == "head":
            module.register_forward_hook(lambda module, given, out: out * factor)
        else:
            module.register_forward_hook(lambda module, given, out: type(out)(logits=out.logits * factor))
        return factor

    return build


@pytest.mark.parametrize("kind", ["head", "beside", "hook on the head", "hook on the model"])
def test_a_factor_that_is_learnt_from_1_on_is_in_the_logits(kind):
    torch.manual_seed(0)
    policy = (Tempered if kind == "beside" else LlamaForCausalLM)(LlamaConfig(**GQA, tie_word_embeddings=False)).eval()
    adds = {"head": scaled_head, "hook on the head": hooked("head"), "hook on the model": hooked("model")}
    factor = policy.factor if kind == "beside" else adds[kind](policy)
    rows = [Row([1, 5, 6, 7], [8, 9, 10]), Row([1, 20], [30, 31])]
    targets = torch.tensor([t for row in rows for t in row.target])
    with torch.no_grad():
        policy.lm_head.weight.mul_(40)
        start_head = read_head(policy)
        assert start_head.weight is not None
        start = target_hidden(policy, rows, 0, start_head)
        own = torch.cat([own_logits(policy, row) for row in rows])
        for _ in range(2):  # and again, where it was found before
            factor.mul_(1 + 0.3 * torch.rand_like(factor))
            head = read_head(policy)
            kl = kl_tokens(start, start_head, target_hidden(policy, rows, 0, head), head, targets)["kl"]
            expected = oracle(own, torch.cat([own_logits(policy, row) for row in rows]))
            assert expected.mean() > 1e-2
            torch.testing.assert_close(kl.double(), expected, rtol=1e-3, atol=1e-5)
        factor.fill_(1.0)  # as the start of an adapter is, whose head is the policy's
        assert read_head(policy).weight is not None


def test_a_plain_head_is_tried_once(monkeypatch):
    import alignguard.model.head as heads

    calls = []
    monkeypatch.setattr(heads, "_fused_is_exact", lambda model, head: calls.append(model) or True)
    models = [build(name) for name in ("llama", "gpt2", "phi-bias", "mixtral-moe")]
    for model in models + models:
        read_head(model)
    assert calls == models


def test_logits_at_the_least_there_is_take_the_plain_path():
    """Chameleon sets its image tokens so: of such a size every difference is small."""

    class Masked(LlamaForCausalLM):
        def forward(self, *args, **kwargs):
            out = super().forward(*args, **kwargs)
            out.logits[..., 100:120] = torch.finfo(out.logits.dtype).min
            return out

    torch.manual_seed(0)
    policy, other = (Masked(LlamaConfig(**GQA, tie_word_embeddings=False)).eval() for _ in range(2))
    rows = [Row([1, 5, 6, 7], [8, 9, 10]), Row([1, 20], [30, 31])]
    targets = torch.tensor([t for row in rows for t in row.target])
    with torch.no_grad():
        for model in (policy, other):
            model.lm_head.weight.mul_(40)
        head, other_head = read_head(policy), read_head(other)
        assert head.weight is None and other_head.weight is None
        hidden_p, hidden_q = target_hidden(policy, rows, 0, head), target_hidden(other, rows, 0, other_head)
        found = kl_tokens(hidden_p, head, hidden_q, other_head, targets, everything=True)
    p, q = (torch.cat([own_logits(model, row) for row in rows]) for model in (policy, other))
    torch.testing.assert_close(found["kl"].double(), oracle(p, q), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found["reverse"].double(), oracle(q, p), rtol=1e-4, atol=1e-6)
    with torch.no_grad():
        assert read_head(policy.half()).weight is None
