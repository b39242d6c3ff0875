"""Rows that are read as one, against the same rows alone."""

import re

import pytest
import torch
from tiny import SMALL, tiny_model
from transformers import (
    BambaConfig,
    BambaForCausalLM,
    BloomConfig,
    BloomForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    Llama4ForCausalLM,
    Llama4TextConfig,
    Mamba2Config,
    Mamba2ForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
    Qwen3NextConfig,
    Qwen3NextForCausalLM,
)

from alignguard.model.forward import Row
from alignguard.model.head import read_head, target_hidden
from alignguard.model.trees import grow, joined_length, joined_tokens, padded, read_rows, why_apart

GROUPED = {**SMALL, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256}


def rows_of(prompt, *ends):
    return [Row([*prompt, *before], after) for before, after in ends]


PROMPT = [5, 9, 13, 17, 21, 25, 29]
ROWS = [
    *rows_of(
        PROMPT, ([], [40, 41, 42, 43]), ([], [40, 41, 50]), ([60, 61], [40, 41, 42, 43]), ([], [70]), ([60], [61, 80])
    ),
    *rows_of([6, 10], ([], [44, 45]), ([], [46])),
    Row([7, 7, 7], [8]),
]

LONG = [*ROWS, *rows_of(PROMPT * 3, ([], [40, 41, 42]), ([], [40, 44]), ([45], [46]))]


def alone(model, rows):
    head = read_head(model)
    return torch.cat([target_hidden(model, [row], 0, head) for row in rows])


def random(cls, config, **more):
    torch.manual_seed(0)
    model = cls(config(**{**GROUPED, **more})).eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.mul_(4)
    return model


def test_a_tree_holds_every_token_once():
    trees = grow(ROWS)
    assert [tree.rows for tree in trees] == [[0, 1, 2, 3, 4], [5, 6], [7]]
    # the prompt, then 40 41 42, 60 61 with its own 40 41 42, and what only predicts nothing: 43, 50, 70, 80
    assert len(trees[0].tokens) == len(PROMPT) + 3 + 2 + 3
    assert [len(tree.rows) for tree in grow(ROWS, longest=0)] == [1] * len(ROWS)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_branches_say_what_they_say_alone(tokenizer, attention, dtype):
    model = tiny_model(tokenizer, attn_implementation=attention).to(dtype)
    assert not why_apart(model)
    with torch.no_grad():
        together, apart = target_hidden(model, ROWS, 0, read_head(model)), alone(model, ROWS)
    torch.testing.assert_close(together, apart, rtol=0, atol=0.1 if dtype == torch.bfloat16 else 1e-5)


def test_what_is_predicted_from_one_token_is_read_once(tokenizer):
    model = tiny_model(tokenizer)
    with torch.no_grad():
        hidden, at = read_rows(model, ROWS[:2], 0)
    assert at.tolist() == [0, 1, 2, 3, 0, 1, 2] and len(hidden) == 4


def test_a_prompt_is_read_once_for_all_its_branches(tokenizer, monkeypatch):
    model, read = tiny_model(tokenizer), []
    read_head(model), why_apart(model)
    model.register_forward_pre_hook(lambda m, args, kw: read.append(kw["input_ids"].numel()), with_kwargs=True)
    with torch.no_grad():
        target_hidden(model, ROWS[:5], 0, read_head(model))
    assert read == [len(PROMPT) + 8] and read[0] < sum(row.length for row in ROWS[:5]) / 3


@pytest.mark.parametrize(
    "cls, config, more",
    [
        (GPT2LMHeadModel, GPT2Config, {"n_embd": 32, "n_layer": 2, "n_head": 4}),
        (
            Qwen3MoeForCausalLM,
            Qwen3MoeConfig,
            {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
        ),
        (Gemma3ForCausalLM, Gemma3TextConfig, {"sliding_window": 64}),
        (MistralForCausalLM, MistralConfig, {"sliding_window": 64}),
    ],
)
def test_architectures_that_are_joined(cls, config, more):
    model = random(cls, config, **more)
    assert not why_apart(model)
    with torch.no_grad():
        torch.testing.assert_close(
            target_hidden(model, ROWS, 0, read_head(model)), alone(model, ROWS), rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "cls, config, more, why",
    [
        (BloomForCausalLM, BloomConfig, {"n_head": 4, "n_layer": 2}, "not told where a token stands"),
        (Mamba2ForCausalLM, Mamba2Config, {"num_heads": 8, "state_size": 8, "n_groups": 1}, "."),
        (BambaForCausalLM, BambaConfig, {"mamba_n_heads": 8, "mamba_d_state": 8, "attn_layer_indices": [1]}, "state"),
        (
            Qwen3NextForCausalLM,
            Qwen3NextConfig,
            {
                "layer_types": ["linear_attention", "full_attention"],
                "num_experts": 4,
                "num_experts_per_tok": 2,
                "moe_intermediate_size": 16,
                "shared_expert_intermediate_size": 16,
                "linear_num_key_heads": 2,
                "linear_num_value_heads": 4,
                "linear_key_head_dim": 8,
                "linear_value_head_dim": 8,
            },
            "linear_attention",
        ),
    ],
)
def test_architectures_that_are_read_apart_and_say_why(cls, config, more, why, dtype):
    model = random(cls, config, **more).to(dtype)
    assert re.search(why, why_apart(model)) and joined_length(model) == 0
    with torch.no_grad():
        found, expected = target_hidden(model, ROWS, 0, read_head(model)), alone(model, ROWS)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.2 if dtype == torch.bfloat16 else 1e-4)


@pytest.mark.parametrize(
    "cls, config, more",
    [
        (MistralForCausalLM, MistralConfig, {"sliding_window": 16}),
        (Gemma3ForCausalLM, Gemma3TextConfig, {"sliding_window": 16}),
        (
            Llama4ForCausalLM,
            Llama4TextConfig,
            {"attention_chunk_size": 16, "num_local_experts": 2, "intermediate_size_mlp": 32},
        ),
    ],
)
def test_rows_longer_than_a_window_are_read_apart(cls, config, more):
    model = random(cls, config, **more)
    with torch.no_grad():
        torch.testing.assert_close(
            target_hidden(model, LONG, 0, read_head(model)), alone(model, LONG), rtol=1e-4, atol=1e-4
        )
    assert joined_length(model) == 16


def test_without_the_guards_a_window_is_seen_by_the_trial_or_the_figures(monkeypatch):
    """The guard above is needed: joined all the same, rows longer than a window would say something else."""
    model = random(MistralForCausalLM, MistralConfig, sliding_window=16)
    monkeypatch.setattr("alignguard.model.trees.joined_length", lambda model: 1000)
    with torch.no_grad():
        gap = (target_hidden(model, LONG, 0, read_head(model)) - alone(model, LONG)).abs().max()
    assert gap > 1e-2


def local(window_size):
    """Its second layer sees so many tokens of the input, by where they lie."""
    config = {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]}
    return random(GPTNeoForCausalLM, GPTNeoConfig, **config, max_position_embeddings=1024, window_size=window_size)


def many(branches):
    drawn = torch.Generator().manual_seed(1)
    prompt = torch.randint(4, 200, (20,), generator=drawn).tolist()
    return [Row(prompt, torch.randint(4, 200, (6,), generator=drawn).tolist()) for _ in range(branches)]


@pytest.mark.parametrize("window, branches", [(64, 30), (256, 90)])
def test_a_tree_is_no_larger_than_what_a_layer_sees_of_the_input(window, branches):
    """Its later branches would lose their prompt."""
    model, rows = local(window), many(branches)
    assert not why_apart(model)
    with torch.no_grad():
        torch.testing.assert_close(
            target_hidden(model, rows, 0, read_head(model)), alone(model, rows), rtol=1e-4, atol=1e-4
        )
    assert padded(model, rows) < sum(row.length for row in rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_window_of_an_unknown_name_is_seen_by_the_trial(dtype):
    model = local(256).to(dtype)
    model.config.window_size = 10**6  # as good as none
    assert why_apart(model) == "GPTNeoForCausalLM says something else then"


@pytest.mark.parametrize("fits", [1024, 300, 140, 60])
def test_a_model_is_tried_on_as_large_a_tree_as_memory_has_room_for(tokenizer, fits):
    """And no larger one is read: what does not fit is no reason to read rows apart, and none to fail."""
    model, most = tiny_model(tokenizer), []

    def card(module, args, kwargs):
        if kwargs["input_ids"].numel() > fits:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        most.append(kwargs["input_ids"].numel())

    model.get_decoder().register_forward_pre_hook(card, with_kwargs=True)
    if fits < 64:  # not even two small ones
        with pytest.raises(torch.OutOfMemoryError):
            why_apart(model)
        return
    assert why_apart(model) == "" and fits / 2 <= max(most) <= fits
    assert joined_tokens(model) == {1024: 1024, 300: 256, 140: 128}[fits]


def test_what_reading_them_together_takes(tokenizer):
    model = tiny_model(tokenizer)
    assert padded(model, ROWS[:5]) == len(PROMPT) + 8 + 1
    assert padded(model, ROWS) == 3 * padded(model, ROWS[:5])


def test_flash_attention_is_read_apart(tokenizer):
    model = tiny_model(tokenizer)
    model.config._attn_implementation = "flash_attention_2"
    assert "flash_attention_2 takes no mask" in why_apart(model)


def test_what_a_deep_model_rounds_in_half_precision_is_no_other_answer(tokenizer):
    """Trained models of 30 layers round by more than a fixed part of their hidden states: they were all read row by row."""
    model = tiny_model(tokenizer, num_hidden_layers=48, scale=4.0).to(torch.bfloat16)
    assert not why_apart(model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_of_which_half_the_layers_see_other_branches_is_read_apart(tokenizer, dtype):
    model = tiny_model(tokenizer, num_hidden_layers=8, scale=4.0).to(dtype)

    def blind(layer, args, kwargs):
        n = args[0].shape[1]
        causal = torch.ones(n, n, dtype=torch.bool).tril()[None, None]
        return args, {**kwargs, "attention_mask": causal}

    for layer in model.model.layers[::2]:
        layer.register_forward_pre_hook(blind, with_kwargs=True)
    assert why_apart(model) == "LlamaForCausalLM says something else then"


def test_of_a_sharded_model_no_process_tries_again_alone(tokenizer, monkeypatch):
    """Its forwards are everyone's: what runs out of memory on one is told, and all ask again together."""
    model, tried = tiny_model(tokenizer), []

    def card(module, args, kwargs):
        tried.append(kwargs["input_ids"].numel())
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    model.get_decoder().register_forward_pre_hook(card, with_kwargs=True)
    monkeypatch.setattr("alignguard.model.trees.is_sharded", lambda model: True)
    with pytest.raises(torch.OutOfMemoryError):
        why_apart(model)
    assert len(tried) == 1
