"""Virtual tokens that PEFT puts before a prompt (prompt tuning, P-tuning, CPT): how many, and how answers go on from them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ..errors import StartError


def virtual_tokens(model: Any) -> int:
    """How many stand before every prompt now; those of prefix tuning stand in the cache, and before no prompt."""
    config = None if getattr(model, "_adapters_disabled", True) else model.active_peft_config
    if config is None or not config.is_prompt_learning or _cached(config):
        return 0
    return int(config.num_virtual_tokens)


def _cached(config: Any) -> bool:
    return str(getattr(config.peft_type, "value", config.peft_type)) in ("PREFIX_TUNING", "CARTRIDGE")


@contextmanager
def speaking(model: Any) -> Iterator[None]:
    """
    For the time of the block a model with virtual tokens generates what its own logits say. PEFT puts them before the padding of
    a batch and drops the positions, so that the answers of shorter prompts are those of another model.
    """
    config = getattr(model, "active_peft_config", None)
    if not getattr(config, "is_prompt_learning", False) or "generate" in model.__dict__:
        yield
        return

    def generate(input_ids: torch.Tensor, attention_mask: torch.Tensor, **kwargs: Any) -> Any:
        base, virtual = model.get_base_model(), virtual_tokens(model)
        if not virtual and not model._adapters_disabled:
            raise StartError(
                "what a model with prefix tuning generates in batches is not what its own logits say, so its answers cannot be "
                "judged; train LoRA or prompt tuning, or leave AlignGuard out"
            )
        if virtual:
            given = model.get_prompt(batch_size=len(input_ids))  # (batch, virtual, d)
            asked = model.word_embeddings(input_ids)
            rows, masks = [], []
            for row, mask, before in zip(asked, attention_mask, given, strict=True):
                pads = int((mask == 0).sum())  # on the left
                rows.append(torch.cat([row[:pads], before.to(row.dtype), row[pads:]]))
                masks.append(torch.cat([mask[:pads], mask.new_ones(virtual), mask[pads:]]))
            attention_mask, kwargs["inputs_embeds"] = torch.stack(masks), torch.stack(rows)
        return base.generate(input_ids=input_ids, attention_mask=attention_mask, **kwargs)

    model.generate = generate
    try:
        yield
    finally:
        del model.generate
