"""One teacher-forced pass: the hidden states a model predicts given answer tokens from.

The final hidden states are caught where they enter the LM head, in one forward of the whole model, so that hooks,
autocast and sharding of the trainer apply; the head itself is given a single position, so that no (batch, tokens,
vocabulary) logits arise. What is to be known of the logits is computed from hidden states and head, see `drift/kl.py`.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..distributed import compute_device

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """
    One sequence to be read.

    Args:
        context (`Sequence[int]`):
            Token ids that are given.
        target (`Sequence[int]`):
            Token ids whose prediction is looked at; at least one.
    """

    context: Sequence[int]
    target: Sequence[int]

    @property
    def length(self) -> int:
        return len(self.context) + len(self.target)

    @property
    def key(self) -> bytes:
        """What it is looked up by."""
        return array("q", self.context).tobytes() + b"|" + array("q", self.target).tobytes()


def _caught(model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, **asked: Any) -> list[torch.Tensor]:
    """What enters the LM head in one forward of the whole model; the head itself is given one position only."""
    caught: list[torch.Tensor] = []

    def catch(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        caught.append(inputs[0])
        return (inputs[0][:, :1], *inputs[1:])

    hook = model.get_output_embeddings().register_forward_pre_hook(catch)
    try:
        model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False, **asked)
    finally:
        hook.remove()
    return caught


def final_hidden(model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, **asked: Any) -> torch.Tensor:
    """
    Final hidden states, as they enter the LM head.

    Args:
        model (`PreTrainedModel` or `PeftModel`):
            A causal language model.
        input_ids, attention_mask (`torch.Tensor`):
            Shape (batch, tokens); a mask of its own form (batch, 1, tokens, tokens).
        asked (`Any`):
            What else its `forward` is given.

    Returns:
        `torch.Tensor` of shape (batch, tokens, d).

    Raises:
        RuntimeError: The model's own head was never called: its `forward` is bound to another model, which is what a
            careless copy of a patched model does.
    """
    caught = _caught(model, input_ids, attention_mask, **asked)
    if len(caught) != 1:
        raise RuntimeError(
            f"the forward of {type(model).__name__} called its own LM head {len(caught)} times, not once; "
            "its forward may be bound to another model"
        )
    return caught[0]


def idle(model: Any, pad: int) -> None:
    """A forward of nothing: of a sharded model each is a meeting, also of a process that has no rows left."""
    ids = torch.full((1, 2), pad, device=compute_device(model))
    model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)


def batches(lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Indices in batches of like length, longest first, each of at most `max_tokens` padded tokens (or one row)."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    batch: list[int] = []
    for index in order:
        if batch and (len(batch) + 1) * lengths[batch[0]] > max_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def pad_right(rows: Sequence[Row], pad: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, each of shape (batch, tokens); padding on the right moves no position."""
    width = max(row.length for row in rows)
    ids = torch.full((len(rows), width), pad, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : row.length] = torch.tensor([*row.context, *row.target])
        mask[i, : row.length] = 1
    return ids.to(device), mask.to(device)
