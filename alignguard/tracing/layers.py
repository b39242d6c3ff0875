"""Which weights pulls are taken over: those that train, of the last layers that text runs through."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from typing import Any

import torch

from ..distributed import compute_device, is_quantized
from ..drift.adapters import are_off, switched_off
from ..errors import RunError
from ..model.observe import observing

Layer = tuple[str, int]  # a container's name, and which of its layers
# what wraps modules while they train, and stands in their weights' names: FSDP1, activation checkpointing, torch.compile
_WRAPPERS = ("_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_orig_mod.")


def trained_names(model: Any) -> list[str] | None:
    """
    Which weights train, by their names in a model that nothing wraps, where not all do: none where they are not known, since FSDP1 has
    made flat ones of them (`use_orig_params=False`); `None` too with adapters, whose start is without them.
    """
    trains = {name: p.requires_grad for name, p in model.named_parameters()}
    if all(trains.values()) or any("lora_" in name for name in trains):
        return None
    names = [] if any("_flat_param" in name for name in trains) else [name for name in trains if trains[name]]
    for wrapper in _WRAPPERS:
        names = [name.replace(wrapper, "") for name in names]
    return names


def looked_at(model: Any, share: float = 1.0, trained: Sequence[str] | None = None) -> dict[str, torch.nn.Parameter]:
    """
    The weights that pulls are taken over: those that are trained, of the last layers.

    Args:
        model (`PreTrainedModel` or `PeftModel`):
            The model; where nothing in it is trainable, all of it is taken. With adapters it is theirs, unless they are switched off.
        share (`float`, *optional*, defaults to `1.0`):
            Of the layers that have any, from the last one down; with 1 all weights, embeddings too.
        trained (`Sequence[str]`, *optional*):
            Names of those that trained, where not all did: a copy of a start does not know them. If it has none of them, all are taken.

    Raises:
        RunError: Its weights are quantised, which have no gradient, or none of them is in a layer.
    """
    off = switched_off(model) if are_off(model) else set()
    named = {name: p for name, p in model.named_parameters() if p.is_floating_point() and id(p) not in off}
    adapter = {name: p for name, p in named.items() if "lora_" in name}
    known = {name: named[name] for name in trained or () if name in named}
    found = adapter or known or {name: p for name, p in named.items() if p.requires_grad and not off} or named
    if not adapter and any(is_quantized(p) for p in model.parameters()):
        raise RunError("the model's weights are quantised and have no gradient; load the start in bfloat16 or float32")
    if share >= 1:
        return found
    place = {name: _layer_of(name) for name in found}
    order = _order(model, {layer for name, _ in model.named_parameters() if (layer := _layer_of(name))})
    layers = sorted({order[layer] for layer in place.values() if layer in order})
    if not layers:
        raise RunError(
            "none of the weights that train is in a numbered layer of text; `alignguard trace --layers 1` looks at all of them"
        )
    first = layers[-max(1, round(share * len(layers)))]
    return {name: p for name, p in found.items() if (at := place[name]) in order and order[at] >= first}


def _layer_of(name: str) -> Layer | None:
    """In which layer a weight is, and of which container."""
    parts = name.split(".")
    at = next((i for i, part in enumerate(parts) if part.isdigit()), None)
    return None if at is None else (".".join(parts[:at]), int(parts[at]))


def _order(model: Any, layers: Set[Layer]) -> dict[Layer, int]:
    """
    As which one text runs through each layer. Where there are several containers (a tower for images, layers that draft ahead), each
    numbers its own, and a forward of one token tells; layers that it does not run through are left out.
    """
    if len({container for container, _ in layers}) <= 1:
        return {layer: layer[1] for layer in layers}
    run: dict[Layer, int] = {}
    modules = dict(model.named_modules())

    def counted(layer: Layer) -> Callable[..., None]:
        def count(*_: Any) -> None:
            run.setdefault(layer, len(run))

        return count

    handles = [
        modules[name].register_forward_pre_hook(counted((container, number)))
        for container, number in layers
        if (name := f"{container}.{number}") in modules
    ]
    try:
        with observing(model):
            model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=compute_device(model)), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return run
