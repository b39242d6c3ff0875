"""Whether a start stays where it is when what trains is elsewhere, asked of its own logits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from types import FunctionType, MethodType
from typing import Any

import torch

from ..distributed import compute_device, is_quantized, is_sharded
from ..errors import StartError
from ..model.observe import observing
from ..model.rounding import rounding
from .adapters import swapped

_DEEP, _FAR = 5, 10_000  # how far a function's closure is looked into: steps from it, and objects
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
    asked = _asked(model)
    moved = {name: p.detach() + 1 for name, p in trains.items()}
    with observing(model, autocast=autocast):
        now = model(**asked).logits
        with swapped(model, moved), start() as frozen:
            then = frozen(**asked).logits
    return then.shape == now.shape and bool((now - then).abs().max() <= _TOLERANCE * now.abs().max())


def check_still(model: Any, start: Any, autocast: torch.dtype | None = None) -> None:
    """
    A model that is kept as the start does not follow the one that trains. What is copied with a model keeps the functions that its hooks
    are, and these may read the weights of the original: such a start would move with the policy, and the drift be told as 0.

    Where functions that know more than their module take part in its forward, it is asked with what trains elsewhere.

    Args:
        model (`PreTrainedModel` or `PeftModel`):
            The policy.
        start (`PreTrainedModel`):
            The copy, or what was given.
        autocast (`torch.dtype`, *optional*):
            What the trainer computes in, where it uses mixed precision.

    Raises:
        StartError: Its logits move with weights that train.
    """
    where = _functions(start)
    if not where or is_sharded(model) or is_sharded(start):
        return
    own = {id(p) for p in start.parameters()}
    # an object that a hook is bound to may have been copied with it: what trains is what the policy's own hooks read
    reached = (t for _, function in _functions(model) for t in _reached(function, set()))
    trains = {id(t): t for t in (*model.parameters(), *reached) if t.requires_grad and t.is_leaf and id(t) not in own}
    home, device = compute_device(start), compute_device(model)
    try:
        if home != device:
            start.to(device)  # as for an audit
        asked = _asked(start)
        with observing(model, start, autocast=autocast):
            now = start(**asked).logits
            with _elsewhere(trains.values()):
                then = start(**asked).logits
            same = (now - then).abs().max() <= max(_TOLERANCE, rounding(start)) * now.abs().max()
    finally:
        if home != device:
            start.to(home)
    if not same and bool(now.isfinite().all()):
        name = where[0][0] or "the model"
        raise StartError(
            f"the start would follow the model that trains: a hook or function of {name} reads weights of that model, also in a "
            "copy; have it read them from the module that it is called with, use reference='cache', or give the start's path"
        )


def _asked(model: Any) -> dict[str, Any]:
    ids = torch.arange(5, 21, device=compute_device(model))[None] % model.config.get_text_config().vocab_size
    configs = (getattr(model, "peft_config", None) or {}).values()
    wakes = [getattr(config, "alora_invocation_tokens", None) or [] for config in configs]
    ids = torch.cat([*(ids.new_tensor([tokens], dtype=torch.long) for tokens in wakes), ids], 1)  # else aLoRA is silent
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}


@contextmanager
def _elsewhere(tensors: Iterable[torch.Tensor]) -> Iterator[None]:
    """These with other values, for the time of the block. Pointers are exchanged: nothing is rounded, and no second model held."""
    kept: list[tuple[torch.Tensor, torch.Tensor]] = []
    try:
        for t in tensors:
            if not t.is_meta and not is_quantized(t):
                # no two values of a row are alike: a norm would take out what is added to all of them
                row = (torch.arange(t.shape[-1] if t.dim() else 1, device=t.device).sin() + 1.7).to(t.dtype)
                kept.append((t, t.data))
                t.data = row.expand(t.shape) if t.dim() else row[0]
        torch.clear_autocast_cache()
        yield
    finally:
        for t, data in kept:
            t.data = data
        torch.clear_autocast_cache()


def _functions(model: Any) -> list[tuple[str, Any]]:
    """What takes part in a forward beside the code of the modules' classes: hooks, and functions that know other weights; with its module."""
    own, found = {id(p) for p in model.parameters()}, []
    for name, module in model.named_modules():
        found += [(name, hook) for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values())]
        for value in vars(module).values():
            known = not isinstance(value, (FunctionType, MethodType, partial))
            if not known and any(id(t) not in own for t in _reached(value, set())):
                found.append((name, value))
    return found


def _reached(found: Any, seen: set[int], deep: int = 0) -> Iterator[torch.Tensor]:
    """Weights that a function can read: through its closure, its defaults, what it is bound to, and the globals that it names."""
    if id(found) in seen or deep > _DEEP or len(seen) > _FAR:
        return
    seen.add(id(found))
    within: list[Any] = []
    if isinstance(found, torch.Tensor):
        yield found
    elif isinstance(found, torch.nn.Module):
        yield from found.parameters()
    elif isinstance(found, MethodType):
        within = [found.__self__, found.__func__]
    elif isinstance(found, partial):
        within = [found.func, *found.args, *found.keywords.values()]
    elif isinstance(found, FunctionType):
        named = (found.__globals__.get(name) for name in found.__code__.co_names)
        within = [value for value in named if isinstance(value, (torch.Tensor, torch.nn.Module, list, dict))]
        within += [*(found.__defaults__ or ()), *(found.__kwdefaults__ or {}).values()]
        for cell in found.__closure__ or ():
            try:
                within.append(cell.cell_contents)
            except ValueError:  # not filled yet
                continue
    elif isinstance(found, dict):
        within = list(found.values())
    elif isinstance(found, (list, tuple, set)):
        within = list(found)[:_FAR]
    elif not isinstance(found, type) and hasattr(found, "__dict__"):
        within = list(vars(found).values())
    for value in within:
        yield from _reached(value, seen, deep + 1)
