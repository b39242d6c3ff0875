"""Whether a start stays where it is when what trains is elsewhere, asked of its own logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch

from ..distributed import compute_device
from ..model.observe import observing
from .adapters import swapped

_TOLERANCE = 1e-5  # of the largest logit: adapters that start at zero change nothing at all


def says_the_same(
    model: Any,
    start: Callable[[], AbstractContextManager[Any]],
    trains: Mapping[str, torch.Tensor],
    autocast: torch.dtype | None,
) -> bool:
    """
    Whether the start says what the model says now, also when all that trains is elsewhere.

    Args:
        model (`PeftModel`):
            The policy.
        start (`Callable[[], ContextManager]`):
            The same model as its start, for the time of a block.
        trains (`Mapping[str, torch.Tensor]`):
            What trains in it, by name.
        autocast (`torch.dtype`, *optional*):
            What the trainer computes in, where it uses mixed precision.
    """
    device = compute_device(model)
    ids = torch.arange(5, 21, device=device)[None] % model.config.get_text_config().vocab_size
    wakes = [getattr(config, "alora_invocation_tokens", None) or [] for config in model.peft_config.values()]
    ids = torch.cat([*(ids.new_tensor([tokens], dtype=torch.long) for tokens in wakes), ids], 1)  # else aLoRA is silent
    asked = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}
    moved = {name: p.detach() + 1 for name, p in trains.items()}
    with observing(model, autocast=autocast):
        now = model(**asked).logits
        with swapped(model, moved), start() as frozen:
            then = frozen(**asked).logits
    return then.shape == now.shape and bool((now - then).abs().max() <= _TOLERANCE * now.abs().max())
