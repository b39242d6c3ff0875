"""Several processes: what all of them must agree on."""

from __future__ import annotations

from typing import TypeVar

import torch

T = TypeVar("T")


def from_first(value: T) -> T:
    """
    The first process's value, on every process; the value itself where there is only one.

    Args:
        value (`Any`):
            Small and picklable.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return value
    held = [value]
    torch.distributed.broadcast_object_list(held, src=0)
    return held[0]
