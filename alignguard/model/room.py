"""How much may be decoded at once: what is free on the device, over what a token takes there."""

from __future__ import annotations

from typing import Any

import torch

from ..distributed import compute_device

_SHARE = 0.5  # of what is free: the rest is for what is not foreseen, and for allocators' waste
_MOST = 2**18  # tokens: beyond it a step is bound by reading keys and values, and more rows gain nothing


def decode_room(model: Any, least: int) -> int:
    """
    Tokens, prompt and answer, whose keys and values may be held at once: a power of two, so that two runs on like machines
    decode in the same batches.

    Args:
        model (`PreTrainedModel`):
            The one that is asked.
        least (`int`):
            What is taken in any case, and where nothing is known of the device's memory: on a CPU a step costs what its rows
            cost, and larger batches gain nothing.
    """
    device = compute_device(model)
    if device.type != "cuda":
        return least
    free, _ = torch.cuda.mem_get_info(device)
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    fits = int(_SHARE * free / bytes_per_token(model))
    return max(least, min(_MOST, 2 ** max(0, fits.bit_length() - 1)))


def bytes_per_token(model: Any) -> int:
    """What a token takes while it is decoded: its keys and values in every layer, and one layer's activations."""
    config = model.config.get_text_config()

    def read(*names: str, default: int) -> int:
        return next(
            (value for name in names if isinstance(value := getattr(config, name, None), int) and value), default
        )

    width = read("hidden_size", "n_embd", "d_model", default=4096)
    layers = read("num_hidden_layers", "n_layer", default=32)
    heads = read("num_attention_heads", "n_head", default=32)
    size = read("head_dim", default=width // heads)
    inner = read("intermediate_size", "ffn_dim", "n_inner", default=4 * width)
    # a token is worked on by several experts, each with a copy of it
    inner = max(inner, read("moe_intermediate_size", default=inner) * read("num_experts_per_tok", default=1))
    kept = 2 * layers * read("num_key_value_heads", default=heads) * size
    passing = 3 * inner + 4 * width
    return (kept + passing) * max(2, model.dtype.itemsize)
