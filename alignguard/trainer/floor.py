"""Drift at step 0, of the start against itself: what rounding alone gives, or a policy that is its start no more."""

from __future__ import annotations

import torch

from ..auditing.audit import Audit
from ..distributed import is_quantized
from ..model.rounding import rounding
from .start import RunContext

_FLOAT32, _HALF = 1e-5, 1e-2  # nats per token: what step 0 may come to


def floor_of(found: Audit, context: RunContext) -> float | None:
    """
    The floor of a run's drift. Where step 0 is further from the start than rounding can be there is none, and it is told.

    Args:
        found ([`Audit`]):
            That of step 0, before anything was trained.
        context ([`RunContext`]):
            What the run works with.

    Returns:
        `float` or `None`: nats per token; nothing too where the reference is another model, whose distance is none of rounding.
    """
    drift = found.figure("kl/answer")
    if drift is None or context.reference.kind == "given":
        return None
    half = _rounds(context)
    most = _HALF if half else _FLOAT32
    if abs(drift) <= most:
        return abs(drift)
    context.console.tell_once(
        "floor",
        f"at step 0 the policy is not its start: drift is {drift:.4f} nats per token, and rounding gives at most {most:g} "
        f"{'in half precision' if half else 'in float32'}. Its weights were changed after the callback was attached, as by another "
        "trainer of the same model; attach it once they are final, or give reference= the start",
    )
    return None


def _rounds(context: RunContext) -> bool:
    """Whether the policy computes in less than float32."""
    model, asking = context.model, context.asking
    coarse = any(p.element_size() == 1 or is_quantized(p) for p in model.parameters())
    device = context.device.type
    with torch.autocast(device, dtype=asking.autocast, enabled=asking.autocast is not None):
        return coarse or rounding(model) > _FLOAT32
