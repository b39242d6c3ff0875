"""How much two computations of the same number may differ, and be the same."""

from __future__ import annotations

from typing import Any

import torch

from ..distributed import compute_device


def rounding(model: Any) -> float:
    """
    By how much of its size a logit may differ between two computations of it in other batches, or with and without a cache.

    Twice the machine epsilon of the coarsest dtype the model computes in: its weights' or autocast's, which may be half
    precision where hidden states are float32, or TF32.
    """
    weights = {weight.dtype for weight in model.parameters() if weight.is_floating_point()}
    device = compute_device(model).type
    if torch.is_autocast_enabled(device):
        weights.add(torch.get_autocast_dtype(device))
    coarsest = max((torch.finfo(dtype).eps for dtype in weights if dtype.itemsize > 1), default=0.0)
    return max(1e-6, 2 * max(coarsest, 2.0**-10 if _may_be_tf32() else 0.0))


def _may_be_tf32() -> bool:
    """Whether float32 products may be taken in fewer bits."""
    try:
        return torch.get_float32_matmul_precision() != "highest"
    except RuntimeError:  # set by the newer API, of which the older one refuses to speak
        return True
