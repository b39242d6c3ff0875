import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import tiny_model
from torch import nn
from transformers import DbrxConfig, DbrxForCausalLM

from alignguard.model.observe import eval_mode, memory_given_back, observing, trainer_autocast


def draw_all():
    return random.random(), np.random.rand(), torch.rand(3).tolist()


@pytest.mark.parametrize("fails", [False, True])
def test_generators_modes_and_gradients_are_as_before(fails):
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
    model.train()
    model[0].eval()  # frozen on purpose
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = draw_all()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    try:
        with observing(model):
            assert not model[1].training and not torch.is_grad_enabled()
            draw_all()
            if fails:
                raise KeyError
    except KeyError:
        pass
    assert draw_all() == expected
    assert [m.training for m in model.modules()] == [True, False, True]
    assert torch.is_grad_enabled()


class Remembers(nn.Module):
    """A layer that keeps account of what it reads: in an attribute, in a buffer of its own, and in another's place."""

    def __init__(self):
        super().__init__()
        self.longest = 0
        self.register_buffer("sum", torch.zeros(1))
        self.register_buffer("last", None)

    def forward(self, x):
        self.longest, self.new, self.last = max(self.longest, len(x)), True, x.detach()
        self.sum += x.sum()
        return x


@pytest.mark.parametrize("fails", [False, True])
def test_what_modules_remember_is_as_before(fails):
    model = nn.Sequential(nn.Linear(2, 2), Remembers())
    own = model[1].sum
    try:
        with observing(model):
            model(torch.ones(3, 2))
            assert model[1].longest == 3 and model[1].sum != 0
            if fails:
                raise KeyError
    except KeyError:
        pass
    assert model[1].longest == 0 and not hasattr(model[1], "new") and model[1].last is None
    assert model[1].sum is own and model[1].sum == 0


def test_a_rotary_embedding_that_fits_itself_to_what_it_reads_reads_the_next_batch_as_before(tokenizer):
    """NTK by the longest text so far (`rope_type="dynamic"`): one that was read in between would stay in every later batch."""
    fitted = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}
    found = []
    for looks in ((), (10, 900)):
        model = tiny_model(tokenizer, max_position_embeddings=64, rope_parameters=fitted).train()
        model(input_ids=torch.arange(300)[None])
        for tokens in looks:
            with observing(model):
                model(input_ids=torch.arange(tokens)[None] % 300)
        found.append(model(input_ids=torch.arange(200)[None]).logits)
    assert torch.equal(*found)


def test_generators_of_devices_are_as_before(monkeypatch):
    """Of all of them: a scorer may run on another than the model."""
    others = (torch.Generator(), torch.Generator())
    monkeypatch.setattr(torch.cuda, "default_generators", others)
    before = [generator.get_state() for generator in others]
    with observing(nn.Linear(2, 2)):
        for generator in others:
            torch.rand(1, generator=generator)
    assert all(torch.equal(generator.get_state(), state) for generator, state in zip(others, before, strict=True))


def test_tensors_made_inside_can_train_afterwards():
    model = nn.Linear(2, 2)
    with observing(model):
        x = torch.ones(2)
    model(x).sum().backward()  # would fail for a tensor made in inference mode


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"bf16": True}, torch.bfloat16),
        ({"fp16": True}, torch.float16),
        ({"bf16": False, "mixed_precision": "bf16"}, torch.bfloat16),
        ({"bf16": False, "mixed_precision": "no"}, None),
        ({}, None),
    ],
)
def test_mixed_precision_is_read_from_the_trainer_or_from_accelerate(settings, expected):
    assert trainer_autocast(SimpleNamespace(**settings)) is expected


def test_autocast_is_the_trainers():
    model = nn.Linear(2, 2)
    with observing(model, autocast=torch.bfloat16):
        assert model(torch.ones(1, 2)).dtype == torch.bfloat16
    assert model(torch.ones(1, 2)).dtype == torch.float32


@pytest.mark.parametrize(("after", "given_back"), [(5, []), (9, [True])])
def test_memory_that_an_audit_took_is_given_back(monkeypatch, after, given_back):
    reserved, calls = iter([5, after]), []
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: next(reserved))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: calls.append(True))
    with pytest.raises(KeyError), memory_given_back(torch.device("cuda")):
        raise KeyError
    assert calls == given_back


@pytest.mark.parametrize("checkpoints", [False, True])
def test_layers_that_drop_by_any_name_are_read_without_dropping(checkpoints):
    """DBRX's own rate is `resid_pdrop`: a layer that recomputes itself in training mode would drop what it says."""
    sizes = {"vocab_size": 211, "d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 128}
    experts = {"ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 2, "hidden_size": 32}
    config = DbrxConfig(**sizes, resid_pdrop=0.3, ffn_config=experts)
    config.attn_config.kv_n_heads, config.attn_config.clip_qkv, config.attn_config.rope_theta = 2, 8.0, 1e4
    model = DbrxForCausalLM(config)
    ids = torch.arange(4, 20)[None]
    expected = model.eval()(input_ids=ids, use_cache=False).logits
    model.gradient_checkpointing_enable()
    model.train()
    with eval_mode(model, checkpoints=checkpoints):
        state = torch.get_rng_state()
        found = model(input_ids=ids, use_cache=False).logits
    assert torch.equal(found, expected) and torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in model.modules())
