"""Of a model that carries adapters: which weights are theirs, and how it is the start for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def swapped(model: Any, start: dict[str, torch.Tensor]) -> Iterator[None]:
    """What trains, as it was at the start, for the time of the block. Pointers are exchanged: nothing is rounded."""
    now: dict[str, torch.Tensor] = {}
    parameters = {name: p for name, p in model.named_parameters() if name in start}
    try:
        for name, p in parameters.items():
            now[name] = p.data
            p.data = start[name]
        torch.clear_autocast_cache()  # it keeps casts by parameter, whatever data the parameter points to
        yield
    finally:
        for name, data in now.items():
            parameters[name].data = data
        torch.clear_autocast_cache()


@contextmanager
def without_adapters(model: Any) -> Iterator[None]:
    """PEFT adapters off, for the time of the block. PEFT itself makes all of them trainable when it ends; here none is."""
    asked = [(p, p.requires_grad) for p in model.parameters()]
    try:
        with model.disable_adapter():
            yield
    finally:
        for p, trains in asked:
            p.requires_grad_(trains)


def is_peft(model: Any) -> bool:
    """Whether a model carries PEFT adapters that can be switched off."""
    return hasattr(model, "disable_adapter") and hasattr(model, "peft_config")


def switched_off(model: Any) -> set[int]:
    """The parameters, by `id`, that PEFT's layers have for themselves: they say nothing while adapters are off."""
    found: set[int] = set()
    for module in model.modules():
        for name in getattr(module, "adapter_layer_names", ()):
            part = getattr(module, name, None)
            own = part.parameters() if isinstance(part, torch.nn.Module) else [part]
            found |= {id(p) for p in own}
    return found


def are_off(model: Any) -> bool:
    """Whether a model's PEFT adapters are switched off just now."""
    return any(module.disable_adapters for module in model.modules() if hasattr(module, "adapter_layer_names"))
