"""The frozen start: the model the policy was at step 0.

TRL replaces `model.forward` by a closure over the original model. A copy that keeps it runs the policy, and its KL reads
0 for ever; so copies shed every instance-level forward, and a reference whose own LM head is not called is an error
(see `forward.final_hidden`).
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from .errors import StartError
from .forward import final_hidden
from .observe import observing

_CHECK_TOLERANCE = 1e-5  # of the largest hidden value: adapters that start at zero change nothing at all


@dataclass
class Reference:
    """
    The frozen start.

    Args:
        kind (`str`):
            `"copy"`, a second model on the same device, or `"adapter"`, the policy with its adapters switched off.
        model (`torch.nn.Module`):
            The copy; for `"adapter"` the policy itself.
        why (`str`):
            Why this kind, in a few words.
    """

    kind: str
    model: Any
    why: str

    @contextmanager
    def loaded(self) -> Iterator[Any]:
        """The model that answers as the reference, for the time of the block."""
        if self.kind == "adapter":
            with self.model.disable_adapter():
                yield self.model
        else:
            yield self.model

    @property
    def bytes(self) -> int:
        """Memory held beside the policy."""
        return 0 if self.kind == "adapter" else sum(p.numel() * p.element_size() for p in self.model.parameters())


def frozen_copy(model: Any) -> Any:
    """
    A copy of a model on the same device that nothing done to the original can move.

    Every `forward` bound to an instance is dropped: it is a closure over the original's weights.
    """
    grads = [(p, p.grad) for p in model.parameters() if p.grad is not None]
    for p, _ in grads:  # gradients are no part of the start
        p.grad = None
    try:
        clone = copy.deepcopy(model)
    finally:
        for p, grad in grads:
            p.grad = grad
    for module in clone.modules():
        module.__dict__.pop("forward", None)
        module.__dict__.pop("_original_forward", None)
    return clone.eval().requires_grad_(False)


def _is_peft(model: Any) -> bool:
    return hasattr(model, "disable_adapter") and hasattr(model, "peft_config")


def _adapters_start_at_zero(model: Any) -> bool:
    """Whether switching the adapters off changes nothing: not so for a continued adapter, nor for PiSSA and the like."""
    device = next(model.parameters()).device
    ids = torch.arange(5, 21, device=device)[None] % model.config.get_text_config().vocab_size
    with observing(model):
        on = final_hidden(model, ids, torch.ones_like(ids))
        with model.disable_adapter():
            off = final_hidden(model, ids, torch.ones_like(ids))
    return bool((on - off).abs().max() <= _CHECK_TOLERANCE * on.abs().max())


def freeze_start(model: Any, kind: str = "auto") -> Reference:
    """
    Keep the start of a model that is about to be trained.

    Args:
        model (`PreTrainedModel` or `PeftModel`):
            The policy, before its first step.
        kind (`str`, *optional*, defaults to `"auto"`):
            `"copy"`, `"adapter"`, or `"auto"`: adapters switched off where those are the start, else a copy.

    Raises:
        StartError: `kind` is unknown, or `"adapter"` where the adapters are not the only difference to the start.
    """
    if kind not in ("auto", "copy", "adapter"):
        raise StartError(f"reference={kind!r} is unknown; there are: 'auto', 'copy', 'adapter'")
    if _is_peft(model) and kind != "copy":
        if _adapters_start_at_zero(model):
            return Reference("adapter", model, "the adapters are new, so the model without them is the start")
        if kind == "adapter":
            raise StartError(
                "reference='adapter': the adapters already change the model (a continued adapter, or PiSSA-like "
                "initialisation), so switching them off is not the start; use reference='copy'"
            )
        return Reference("copy", frozen_copy(model), "the adapters already change the model")
    if kind == "adapter":
        raise StartError("reference='adapter' needs a PEFT model; use reference='copy'")
    return Reference("copy", frozen_copy(model), "all weights may train")


def fingerprint(reference: Reference) -> str:
    """
    16 hexadecimal digits that tell one start from another: names, shapes and 64 evenly spaced values of every weight.

    Adapters are left out where they are switched off.
    """
    digest = hashlib.sha256()
    with torch.no_grad():
        for name, p in sorted(reference.model.state_dict().items()):
            if reference.kind == "adapter":
                if "lora_" in name or "modules_to_save" in name or ".adapter" in name:
                    continue
                name = name.replace("base_model.model.", "").replace(".base_layer", "").replace(".original_module", "")
            digest.update(f"{name} {tuple(p.shape)} ".encode())
            flat = p.detach().reshape(-1)
            sample = flat[:: max(1, flat.numel() // 64)][:64]
            digest.update(sample.to("cpu", torch.float32).numpy().tobytes())
    return digest.hexdigest()[:16]
