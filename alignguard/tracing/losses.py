"""The loss of every learnt token of some documents, with no more logits held than those of a few tokens, in a backward pass too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from ..distributed import compute_device
from ..model.head import Head, read_head

_TOKENS = 512  # tokens whose logits are held at a time
_COPIES = 5  # of those, at most: the backward pass has the logits and what their loss' derivative is made of


@dataclass(frozen=True)
class Document:
    """
    What is learnt of one row.

    Args:
        ids (`Sequence[int]`):
            Token ids.
        learnt (`Sequence[bool]`):
            Which of them the loss is taken of; the first one never is.
        temperature (`float`, *optional*, defaults to `1.0`):
            By which logits are divided for it, as GRPO and RLOO do.
    """

    ids: Sequence[int]
    learnt: Sequence[bool]
    temperature: float = 1.0

    @property
    def places(self) -> list[int]:
        """Where the tokens stand that the loss is taken of."""
        return [i for i, learnt in enumerate(self.learnt) if learnt and i > 0]


def losses_of(
    model: Any, documents: Sequence[Document], pad: int, weights: Mapping[str, torch.Tensor] | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    The loss of every learnt token of a batch, (n,), and which document each is of, (n,); with other weights where they are given. The
    documents are of one temperature.
    """
    (temperature,) = {document.temperature for document in documents}
    head, device = read_head(model), compute_device(model)
    caught: list[tuple[Any, Any, Any]] = []
    learnt = [(i, place) for i, document in enumerate(documents) for place in document.places]
    of, place = (torch.tensor(column, device=device) for column in zip(*learnt, strict=True))
    target = torch.tensor([int(documents[i].ids[place]) for i, place in learnt], device=device)

    def catch(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        hidden = inputs[0][of.to(inputs[0].device), place.to(inputs[0].device) - 1]  # (n, d)
        # within the forward the module's own weights are the ones that are differentiated
        caught.append((hidden, getattr(module, "weight", None), getattr(module, "bias", None)))
        return (hidden[None, : None if head.weight is None else 1], *inputs[1:])

    handle = model.get_output_embeddings().register_forward_pre_hook(catch)
    try:
        said = _forward(model, documents, pad, weights)
    finally:
        handle.remove()
    hidden, weight, bias = caught[0]
    if head.weight is None:  # the model's own logits, of these tokens alone
        hidden, now = said.logits[0], None
    else:  # in float32 once: a copy for each part would be kept for the backward pass
        now = replace(head, weight=weight.float(), bias=None if bias is None else bias.float())
    target = target.to(hidden.device)
    parts = zip(hidden.split(_TOKENS), target.split(_TOKENS), strict=True)
    loss = _loss_again if torch.is_grad_enabled() else _loss
    return torch.cat([loss(now, temperature, *part) for part in parts]), of


def _loss_again(*asked: Any) -> torch.Tensor:
    """The same as [`_loss`], whose logits are not kept for the backward pass: it computes them again."""
    found: torch.Tensor = checkpoint(_loss, *asked, use_reentrant=False, preserve_rng_state=False)
    return found


def _loss(head: Head | None, temperature: float, hidden: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """-log p of each target, (n,), from hidden states, (n, d), and a head in float32, or without one from logits, (n, V)."""
    logits = hidden.float()
    if head is not None:
        assert head.weight is not None
        with torch.autocast(hidden.device.type, enabled=False):
            logits = logits @ head.weight.T  # (n, V)
        if head.bias is not None:
            logits = logits + head.bias
        if head.scale != 1:
            logits = logits * head.scale
        if head.softcap:
            logits = head.softcap * torch.tanh(logits / head.softcap)
    if temperature != 1:
        logits = logits / temperature
    return logits.logsumexp(1) - logits.gather(1, target[:, None])[:, 0]


def _forward(model: Any, documents: Sequence[Document], pad: int, weights: Mapping[str, torch.Tensor] | None) -> Any:
    """One forward of the whole model, with other weights where they are given."""
    width, device = max(len(document.ids) for document in documents), compute_device(model)
    ids = torch.full((len(documents), width), pad)
    mask = torch.zeros((len(documents), width), dtype=torch.long)
    for i, document in enumerate(documents):
        ids[i, : len(document.ids)] = torch.tensor(document.ids)
        mask[i, : len(document.ids)] = 1
    asked = {"input_ids": ids.to(device), "attention_mask": mask.to(device), "use_cache": False}
    return model(**asked) if weights is None else functional_call(model, dict(weights), (), asked)


def bytes_of(model: Any) -> int:
    """What the head takes beside the model."""
    weight = getattr(model.get_output_embeddings(), "weight", None)
    if weight is None:
        return head_bytes(int(model.config.get_text_config().vocab_size), 0)
    return head_bytes(len(weight), 0 if weight.dtype == torch.float32 else weight.numel())


def head_bytes(vocabulary: int, copied: int) -> int:
    """
    Of logits of a few tokens, and of a head in float32.

    Args:
        vocabulary (`int`):
            Its size.
        copied (`int`):
            Numbers of the head, where the model has it in less.
    """
    return 4 * (_COPIES * _TOKENS * vocabulary + copied)
