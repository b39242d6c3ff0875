"""A model that is given as the start: what it must be, so that what is measured against it is drift."""

from __future__ import annotations

from typing import Any

import torch

from ..errors import StartError
from .adapters import is_peft, switched_off


def check_given(model: Any, reference: Any) -> None:
    """
    A model that is given can be the start of the one that trains.

    Args:
        model (`PreTrainedModel` or `PeftModel`):
            The policy.
        reference (`Any`):
            What was given.

    Raises:
        StartError: It is no model, moves with the policy, or has another vocabulary. More rows, for padding, do no harm.
    """
    if not hasattr(reference, "get_input_embeddings"):
        raise StartError(
            f"the reference is a {type(reference).__name__}; a model, or the path or hub id of one, is expected"
        )
    if reference is model:
        raise StartError("the reference is the very model that trains; give a copy, or reference='copy'")
    if (name := _shared(model, reference)) is not None:
        if is_peft(model):
            raise StartError(
                f"the reference holds the adapters that train ({name}): PEFT puts them into the very model it is given; leave "
                "reference= out, since the start of an adapter is its base, read with the adapter off, or give the base's path"
            )
        raise StartError(
            f"the reference shares {name} with the model that trains, and would move with it; give a copy, or reference='copy'"
        )
    ours, theirs = (m.config.get_text_config().vocab_size for m in (model, reference))
    if abs(ours - theirs) > 0.02 * max(ours, theirs):
        raise StartError(
            f"the reference has a vocabulary of {theirs:,} and the model one of {ours:,}; "
            "drift can only be measured between models of one tokenizer"
        )


def freeze_given(model: Any, reference: Any) -> Any:
    """
    A model that is given, in eval mode and without gradients. What it shares with the policy, layers that train in neither, is left
    as it is: the policy's modes and gradients are the trainer's.
    """
    ours = {id(module) for module in model.modules()}
    for module in reference.modules():
        if id(module) not in ours:
            module.training = False
    ours = {id(p) for p in model.parameters()}
    for p in reference.parameters():
        if id(p) not in ours:
            p.requires_grad_(False)
    return reference


def _shared(model: Any, reference: Any) -> str | None:
    """A weight that both hold and that moves: one that trains, or an adapter's, which is put beside and switched."""
    adapters = switched_off(model)
    theirs = {mark for p in reference.parameters() for mark in _marks(p)}
    moves = ((name, p) for name, p in model.named_parameters() if p.requires_grad or id(p) in adapters)
    return next((name for name, p in moves if theirs & _marks(p)), None)


def _marks(p: torch.Tensor) -> set[tuple[str, int]]:
    """What tells that two parameters are one: the object, or the memory that they lie in."""
    found = {("id", id(p))}
    if type(p.data) is torch.Tensor and not p.is_meta and p.numel():  # others' tensors have no memory of their own
        found.add((str(p.device), p.data_ptr()))
    return found
