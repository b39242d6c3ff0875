"""One teacher-forced pass: the hidden states a model predicts given answer tokens from.

The final hidden states are caught where they enter the LM head, in one forward of the whole model, so that hooks,
autocast and sharding of the trainer apply; the head itself is given a single position, so that no (batch, tokens,
vocabulary) logits arise. What is to be known of the logits is computed from hidden states and head, see `drift.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch


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


@dataclass(frozen=True)
class Head:
    """
    What turns final hidden states into logits: `softcap(scale * (h W^T + b))`.

    Args:
        weight (`torch.Tensor`):
            Shape (vocabulary, d).
        bias (`torch.Tensor` or `None`):
            Shape (vocabulary,).
        scale (`float`, *optional*, defaults to `1.0`):
            Multiplies the logits (cohere; granite, by the inverse).
        softcap (`float`, *optional*, defaults to `0.0`):
            `c * tanh(z / c)` where not zero (gemma2).
    """

    weight: torch.Tensor
    bias: torch.Tensor | None
    scale: float = 1.0
    softcap: float = 0.0

    def logits(self, hidden: torch.Tensor, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """
        Float32 logits of a slice of the vocabulary.

        Args:
            hidden (`torch.Tensor`):
                Shape (n, d).
            start, stop (`int`, *optional*):
                The slice of the vocabulary.

        Returns:
            `torch.Tensor` of shape (n, stop - start), float32.
        """
        weight = self.weight[start:stop]  # (v, d)
        if hidden.is_cuda and hidden.dtype == weight.dtype != torch.float32:
            z = torch.mm(hidden, weight.T, out_dtype=torch.float32)  # (n, v)
        else:
            z = hidden.float() @ weight.float().T  # (n, v)
        if self.bias is not None:
            z += self.bias[start:stop].float()
        if self.scale != 1.0:
            z *= self.scale
        if self.softcap:
            z = torch.tanh(z / self.softcap) * self.softcap
        return z


def read_head(model: Any) -> Head:
    """The LM head of a causal language model. Models known to scale or cap their logits are read by their config."""
    module = model.get_output_embeddings()
    config = model.config.get_text_config()
    scale = getattr(config, "logit_scale", None) or 1.0
    if getattr(config, "logits_scaling", None):
        scale = 1.0 / config.logits_scaling
    return Head(
        weight=module.weight.detach(),
        bias=None if getattr(module, "bias", None) is None else module.bias.detach(),
        scale=float(scale),
        softcap=float(getattr(config, "final_logit_softcapping", None) or 0.0),
    )


def final_hidden(model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """
    Final hidden states, as they enter the LM head.

    Args:
        model (`PreTrainedModel` or `PeftModel`):
            A causal language model.
        input_ids, attention_mask (`torch.Tensor`):
            Shape (batch, tokens).

    Returns:
        `torch.Tensor` of shape (batch, tokens, d).

    Raises:
        RuntimeError: The model's own head was never called: its `forward` is bound to another model, which is what a
            careless copy of a patched model does.
    """
    caught: list[torch.Tensor] = []

    def catch(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        caught.append(inputs[0])
        return (inputs[0][:, :1], *inputs[1:])

    hook = model.get_output_embeddings().register_forward_pre_hook(catch)
    try:
        model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
    finally:
        hook.remove()
    if len(caught) != 1:
        raise RuntimeError(
            f"the forward of {type(model).__name__} called its own LM head {len(caught)} times, not once; "
            "its forward may be bound to another model"
        )
    return caught[0]


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


def target_hidden(model: Any, rows: Sequence[Row], pad: int) -> torch.Tensor:
    """
    Hidden states from which each row's target tokens are predicted, rows joined.

    Returns:
        `torch.Tensor` of shape (sum of target lengths, d).
    """
    device = next(model.parameters()).device
    ids, mask = pad_right(rows, pad, device)
    hidden = final_hidden(model, ids, mask)  # (batch, tokens, d)
    # the token at position t is predicted from the hidden state at t - 1
    return torch.cat([hidden[i, len(row.context) - 1 : row.length - 1] for i, row in enumerate(rows)])
