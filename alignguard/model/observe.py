"""Looking without touching: whatever an audit changes while it looks is put back when it ends."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from transformers.modeling_layers import GradientCheckpointingLayer

from ..distributed import compute_device, gathered, is_sharded
from .virtual import speaking

_SMALL = 2**16  # bytes of a buffer whose values are kept while an audit looks
_HOOKS = [name for name in vars(torch.nn.Module()) if "_hooks" in name]
# what a config makes every forward return, and generate cannot carry or an audit only pays for
_PLAIN = {
    "output_router_logits": False,
    "_output_attentions": False,
    "output_hidden_states": False,
    "return_dict": True,
}


@contextmanager
def restored_rng() -> Iterator[None]:
    """Python's, numpy's and torch's generators, the CPU's and those of all devices, continue afterwards as if nothing had been drawn."""
    python, numpy = random.getstate(), np.random.get_state()
    drawn = [(generator, generator.get_state()) for generator in _generators()]
    other = _other_backend()
    ours = other.get_rng_state() if other is not None else None
    try:
        yield
    finally:
        if other is not None:
            other.set_rng_state(ours)
        random.setstate(python)
        np.random.set_state(numpy)
        for generator, state in drawn:
            generator.set_state(state)


def _generators() -> list[torch.Generator]:
    """Torch's own: of a device that nobody has used there is none yet, and none is made by asking."""
    found = [torch.default_generator]
    for backend in (torch.cuda, torch.xpu):
        found += getattr(backend, "default_generators", ())
    if torch.backends.mps.is_available():
        found.append(torch.mps._get_default_mps_generator())
    return found


def _other_backend() -> Any:
    """The module of an accelerator whose generators cannot be listed (NPU, HPU, MLU and their like); `None` where there is none."""
    device = torch.accelerator.current_accelerator()
    if device is None or device.type in ("cuda", "xpu", "mps"):
        return None
    backend = getattr(torch, device.type, None)
    return backend if hasattr(backend, "get_rng_state") and hasattr(backend, "set_rng_state") else None


def base_of(model: Any) -> Any:
    """The model that is within PEFT's, or itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


@contextmanager
def eval_mode(model: torch.nn.Module, checkpoints: bool = False) -> Iterator[None]:
    """
    Every submodule in eval mode, and afterwards each in the mode it had: some may have been frozen on purpose.

    Args:
        model (`torch.nn.Module`):
            The model.
        checkpoints (`bool`, *optional*, defaults to `False`):
            Where gradients are taken: layers that the trainer lets recompute themselves in the backward pass go on doing so,
            which they do in training mode alone. What lies in them is in eval mode all the same.
    """
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        for module, training in modes:
            module.training = checkpoints and training and _recomputes(module)
        yield
    finally:
        for module, training in modes:
            module.training = training


def _recomputes(module: torch.nn.Module) -> bool:
    """Whether a layer may be in training mode for its gradient checkpointing: none that drops something itself."""
    drops = any("drop" in name and isinstance(rate, float) and rate > 0 for name, rate in vars(module).items())
    return isinstance(module, GradientCheckpointingLayer) and module.gradient_checkpointing and not drops


@contextmanager
def plain_outputs(model: torch.nn.Module) -> Iterator[None]:
    """
    A forward returns its logits and nothing beside, whatever the trainer set in the model's config, which is then as it was:
    with router logits, a mixture of experts adds a loss that fails in batches with padding while it generates.
    """
    configs = {id(config): config for m in model.modules() if (config := getattr(m, "config", None)) is not None}
    with ExitStack() as stack:
        for fields in (vars(config) for config in configs.values() if hasattr(config, "__dict__")):
            asked = {name: fields[name] for name in _PLAIN.keys() & fields.keys()}
            stack.callback(fields.update, asked)
            fields.update({name: _PLAIN[name] for name in asked})
        yield


@contextmanager
def unmarked(model: torch.nn.Module) -> Iterator[None]:
    """
    What modules keep beside their weights is afterwards as it was: attributes, hooks, buffers, and the values of small ones.

    A rotary embedding may fit itself to the longest text it has read, and would read the next batch of the training otherwise;
    PEFT leaves a method behind where it generates; Ctrl-C may come just before a hook is taken off. What wraps a sharded model
    keeps account of its forwards in attributes, so there only modules count that hold nothing but buffers.
    """
    everywhere = not is_sharded(model)
    modules = [m for m in model.modules() if everywhere or (m._buffers and not (m._modules or m._parameters))]
    fields = [vars(m) for m in modules]
    fields += [own[name] for own in fields for name in ("_buffers", *_HOOKS) if name in own]
    kept = [(now, dict(now)) for now in fields if now]
    empty = [now for now in fields if not now]  # nearly all: a module has a dictionary for every kind of hook
    buffers = {id(buffer): buffer for m in modules for buffer in m._buffers.values() if buffer is not None}
    small = [b for b in buffers.values() if b.nbytes <= _SMALL and not b.is_meta]
    values = [(buffer, buffer.clone()) for buffer in small]

    def restore() -> None:
        for now, before in kept:
            put_back(now, before)
        for now in filter(None, empty):
            now.clear()
        with torch.no_grad():
            for buffer, value in values:
                if not torch.equal(buffer, value):
                    buffer.copy_(value)

    try:
        yield
    finally:
        try:
            restore()
        except BaseException:  # Ctrl-C, in the middle of it
            restore()
            raise


def put_back(now: dict[str, Any], before: Mapping[str, Any]) -> None:
    """Make a dictionary what it was, at no moment less: Ctrl-C may come here too."""
    for name in now.keys() - before.keys():
        del now[name]
    now.update(before)


@contextmanager
def observing(*models: torch.nn.Module, autocast: torch.dtype | None = None) -> Iterator[None]:
    """
    Everything an audit does with the models happens in here.

    No gradients, eval mode, plain outputs, the generators restored, and no mark left in the modules. `torch.no_grad` and not
    `inference_mode`: caches that a model fills under the latter (rotary tables, for one) would break the next backward pass.

    Args:
        models (`torch.nn.Module`):
            Policy, and reference where there is one.
        autocast (`torch.dtype`, *optional*):
            What the trainer computes in, where it uses mixed precision; both models are then run the same way.
    """
    device = compute_device(models[0])
    with ExitStack() as stack:
        stack.enter_context(restored_rng())
        for model in models:
            stack.enter_context(unmarked(model))
            stack.enter_context(eval_mode(model))
            stack.enter_context(plain_outputs(model))
            stack.enter_context(gathered(model))
            stack.enter_context(speaking(model))
        stack.enter_context(torch.no_grad())
        # an audit asks at many lengths: compiled anew for each, they would use up what training may recompile
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        if autocast is not None:
            stack.enter_context(torch.autocast(device.type, dtype=autocast))
        yield


@contextmanager
def memory_given_back(device: torch.device) -> Iterator[None]:
    """What the allocator took from a GPU for an audit goes back to it afterwards: NCCL and vLLM take theirs from the same."""
    if device.type != "cuda":
        yield
        return
    before = torch.cuda.memory_reserved(device)
    try:
        yield
    finally:
        if torch.cuda.memory_reserved(device) > before:
            torch.cuda.empty_cache()


@contextmanager
def undisturbed(device: torch.device) -> Iterator[None]:
    """
    How scorers are called, which are people's own code: outside the trainer's autocast, which would round what a torch scorer
    says, without gradients, and with the generators restored.
    """
    with ExitStack() as stack:
        stack.enter_context(restored_rng())
        stack.enter_context(torch.no_grad())
        for kind in {device.type, "cpu"}:
            stack.enter_context(torch.autocast(kind, enabled=False))
        yield


@contextmanager
def evaluated_weights(optimizer: Any) -> Iterator[None]:
    """
    For the time of the block the model has the weights that the trainer evaluates, where the optimizer trains at others
    (schedule-free ones); then again those it trains at, to the bit, which the way back alone would round.

    Args:
        optimizer (`torch.optim.Optimizer` or `None`):
            The trainer's, as accelerate may have wrapped it.
    """
    while hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    switches = callable(getattr(optimizer, "eval", None)) and callable(getattr(optimizer, "train", None))
    if not switches or not any(group.get("train_mode", True) for group in optimizer.param_groups):
        yield
        return
    kept = [(p, p.detach().to("cpu", copy=True)) for group in optimizer.param_groups for p in group["params"]]
    try:
        optimizer.eval()
        yield
    finally:
        optimizer.train()
        with torch.no_grad():
            for p, trained in kept:
                p.copy_(trained)


def uncompiled(model: Any) -> Any:
    """The model itself, where `torch.compile` has wrapped it."""
    return getattr(model, "_orig_mod", model)


def is_within(model: Any, other: Any) -> bool:
    """Whether two are one model, or one wraps the other."""
    return any(m is other for m in model.modules()) or any(m is model for m in other.modules())


def trainer_autocast(args: Any) -> torch.dtype | None:
    """The dtype of the trainer's mixed precision, from its arguments; `None` where it has none."""
    asked = getattr(args, "mixed_precision", None)  # what accelerate was launched with
    if getattr(args, "bf16", False) or asked == "bf16":
        return torch.bfloat16
    return torch.float16 if getattr(args, "fp16", False) or asked == "fp16" else None
