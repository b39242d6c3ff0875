"""Recurrent models that run through the padding before a row, or mix up a batch: told by two steps, and asked one by one."""

import pytest
import torch
from tiny import tiny_model
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    Mamba2Config,
    Mamba2ForCausalLM,
    RecurrentGemmaConfig,
    RecurrentGemmaForCausalLM,
    RwkvConfig,
    RwkvForCausalLM,
)

from alignguard.model.batched import can_batch
from alignguard.model.chat import Chat
from alignguard.model.generation import TokenBudget, answer_all
from alignguard.model.observe import observing

PROMPTS = ["How do I open a locked door?", "The fox", "The quick brown fox jumps over the lazy dog.", "The dog"]


def made(name, tokenizer, dtype=torch.float32):
    """A model with predictions far from uniform."""
    size, eos = len(tokenizer), tokenizer.eos_token_id
    torch.manual_seed(0)
    match name:
        case "llama":
            return tiny_model(tokenizer).to(dtype)
        case "rwkv":
            config = RwkvConfig(
                vocab_size=size, hidden_size=32, num_hidden_layers=2, intermediate_size=64, eos_token_id=eos
            )
            model = RwkvForCausalLM(config)
        case "recurrent-gemma":
            config = RecurrentGemmaConfig(
                num_hidden_layers=3, vocab_size=size, hidden_size=32, intermediate_size=64, num_attention_heads=4, lru_width=32,
                num_key_value_heads=1, head_dim=8, attention_window_size=64, eos_token_id=eos,
            )  # fmt: skip
            model = RecurrentGemmaForCausalLM(config)
        case "mamba2":
            config = Mamba2Config(
                num_heads=8, head_dim=8, vocab_size=size, hidden_size=32, state_size=8, num_hidden_layers=2, n_groups=1,
                eos_token_id=eos,
            )  # fmt: skip
            model = Mamba2ForCausalLM(config)
        case "gpt2":
            model = GPT2LMHeadModel(GPT2Config(vocab_size=size, n_embd=32, n_layer=2, n_head=4, eos_token_id=eos))
        case "bloom":
            model = BloomForCausalLM(
                BloomConfig(vocab_size=size, hidden_size=32, n_layer=2, n_head=4, eos_token_id=eos)
            )
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.mul_(6)
    return model.to(dtype).eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["llama", "gpt2", "bloom", "mamba2", "rwkv", "recurrent-gemma"])
def test_what_a_batch_changes_is_told(name, dtype, tokenizer):
    model = made(name, tokenizer, dtype)
    with observing(model):
        assert can_batch(model, Chat(tokenizer)) is (name not in ("rwkv", "recurrent-gemma"))


@pytest.mark.parametrize("name", ["llama", "mamba2", "rwkv", "recurrent-gemma"])
def test_answers_in_a_batch_are_those_that_generate_gives_alone(name, tokenizer, monkeypatch):
    model, chat = made(name, tokenizer), Chat(tokenizer)
    prompts = [tokenizer(text)["input_ids"] for text in PROMPTS]
    prompts.append(prompts[1][::-1])  # as long as another
    shapes, generate = [], type(model).generate

    def seen(self, *args, **kwargs):
        shapes.append(tuple(kwargs["input_ids"].shape))
        return generate(self, *args, **kwargs)

    with observing(model):
        alone = [
            model.generate(torch.tensor([p]), max_new_tokens=12, do_sample=False)[0, len(p) :].tolist() for p in prompts
        ]
        monkeypatch.setattr(type(model), "generate", seen)
        found = answer_all(model, prompts, [False] * len(prompts), chat, TokenBudget(answer=12, trace=12))
        once = len(shapes)
        again = answer_all(model, prompts, [False] * len(prompts), chat, TokenBudget(answer=12, trace=12))
    for answer, tokens in zip(found, alone, strict=True):
        assert list(answer.tokens) == tokens[: len(answer.tokens)] and (answer.finished or len(answer.tokens) == 12)
    looked = 2 if model._is_stateful else 0
    assert again == found and len(shapes) - once == once - looked  # a model is looked at once
    assert [count for count, _ in shapes[looked:once]] == ([5] if name in ("llama", "mamba2") else [1] * 5)
