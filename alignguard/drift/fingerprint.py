"""What tells one start from another, and whether the weights under adapters are as they were."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import torch

from ..distributed import whole_weight


@torch.no_grad()
def weight_samples(model: Any, without_adapters: bool) -> Iterator[tuple[str, tuple[int, ...], torch.Tensor]]:
    """Name, shape and 64 evenly spaced values, float32 on the CPU, of every weight."""
    trains = {name for name, p in model.named_parameters() if p.requires_grad}
    for name, p in sorted(model.state_dict(keep_vars=True).items()):
        if p.is_meta:  # another process holds it
            continue
        if without_adapters:
            if name in trains or "lora_" in name or "modules_to_save" in name:
                continue
            name = name.replace("base_model.model.", "").replace(".base_layer", "").replace(".original_module", "")
        whole = whole_weight(p).detach()
        flat = whole.reshape(-1)
        yield name, tuple(whole.shape), flat[:: max(1, flat.numel() // 64)][:64].to("cpu", torch.float32, copy=True)


def fingerprint(model: Any, without_adapters: bool) -> str:
    """
    16 hexadecimal digits that tell one start from another: names, shapes and 64 evenly spaced values of every weight.

    Args:
        model (`torch.nn.Module`):
            The model.
        without_adapters (`bool`):
            Leave PEFT adapters out.
    """
    digest = hashlib.sha256()
    for name, shape, values in weight_samples(model, without_adapters):
        digest.update(f"{name} {shape} ".encode())
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()[:16]
