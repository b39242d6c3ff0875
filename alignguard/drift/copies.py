"""Copies of a model that nothing done to the original can move.

TRL replaces `model.forward` by a closure over the original model. A copy that keeps it runs the policy, and its KL reads
0 for ever; so copies shed every forward that knows more than its own module, and a reference whose own LM head is not called is
an error (see `forward.final_hidden`). Those of Liger and accelerate know no more, and are kept: without them a copy would round
otherwise.
"""

from __future__ import annotations

import copy
from functools import partial
from itertools import chain
from typing import Any

import torch

from ..distributed import compute_device

# what accelerate binds to a model on several devices
_MOVERS = ("to", "cuda", "npu", "xpu", "mlu", "sdaa", "musa", "neuron")
_ADAM_BYTES = 12  # a float32 gradient and two moments, for every weight that trains


def too_large(model: Any) -> str:
    """Why a copy might not fit on the model's device; nothing where it does."""
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    device = compute_device(model)
    if device.type == "cuda":
        # of all memory, not of what happens to be free: the choice is the same on every rank, and on resume
        total = torch.cuda.get_device_properties(device).total_memory
        training = sum(p.numel() * _ADAM_BYTES for p in model.parameters() if p.requires_grad)
        if 2 * weights + training > 0.6 * total:
            return f"a copy of {weights / 2**30:.1f} GiB might not fit beside the optimizer"
    return ""


def frozen_copy(model: Any, device: str | torch.device | None = None) -> Any:
    """
    A copy of a model that nothing done to the original can move.

    A `forward` bound to an instance is dropped unless all it knows is its module: it is a closure over the original's weights. So is
    what moves a model from device to device, where accelerate has bound it.

    Args:
        model (`torch.nn.Module`):
            What is copied; its gradients are not.
        device (`str` or `torch.device`, *optional*):
            Where to; weights go there one by one, so that the original's device never holds them twice.
    """
    memo: dict[int, Any] = {}
    for p in [*model.parameters(), *model.buffers()]:
        twin = p.detach().to(device or p.device, copy=True)
        memo[id(p)] = torch.nn.Parameter(twin, requires_grad=False) if isinstance(p, torch.nn.Parameter) else twin
    clone = copy.deepcopy(model, memo)
    for module in clone.modules():
        bound = [name for name in ("forward", "_old_forward", "_original_forward") if name in module.__dict__]
        if not all(_knows_only(module.__dict__[name], module) for name in bound):
            for name in bound:
                del module.__dict__[name]
        for name in _MOVERS:
            module.__dict__.pop(name, None)
    return clone.eval().requires_grad_(False)


def take_precision(model: Any, policy: Any) -> None:
    """Each weight and buffer of the same name in the precision that it has in the policy."""
    now = dict(chain(policy.named_parameters(), policy.named_buffers()))
    for name, own in chain(model.named_parameters(), model.named_buffers()):
        if name in now and own.is_floating_point() and now[name].is_floating_point():
            own.data = own.data.to(now[name].dtype)


def _knows_only(forward: Any, module: Any) -> bool:
    """Whether a forward is a plain function of its own module, as Liger (a method) and accelerate (a partial) bind it."""
    function, owner = getattr(forward, "__func__", None), getattr(forward, "__self__", None)
    if isinstance(forward, partial):
        function, owner = forward.func, forward.args[0] if forward.args else None
    return owner is module and getattr(function, "__closure__", None) is None
