"""What the frozen start has said: it says the same for ever, so no row is read twice while there is room for it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch

from ..distributed import compute_device
from ..model.forward import Row
from ..model.head import Head, read_head, target_hidden

_MOST = 2**30  # bytes of the CPU's memory; beyond it what was asked longest ago is read anew


class Kept:
    """
    Final hidden states of the start by row, as they were computed, on the CPU.

    Args:
        most (`int`, *optional*):
            Bytes that are kept.
    """

    def __init__(self, most: int = _MOST) -> None:
        self.most, self.bytes = most, 0
        self._rows: OrderedDict[bytes, torch.Tensor] = OrderedDict()

    def put(self, row: Row, hidden: torch.Tensor) -> None:
        """
        Keep what was said.

        Args:
            row (`Row`):
                What was read.
            hidden (`torch.Tensor`):
                Hidden states that its targets are predicted from, shape (tokens, d).
        """
        if row.key in self._rows:
            return
        kept = hidden.to("cpu", copy=True)
        self._rows[row.key] = kept
        self.bytes += kept.nbytes
        while self.bytes > self.most:
            self.bytes -= self._rows.popitem(last=False)[1].nbytes

    def read(self, frozen: Any, head: Head, rows: Sequence[Row], pad: int, keep: bool = True) -> torch.Tensor:
        """
        What the start says at some rows: from what is kept, and what is not is asked.

        Args:
            frozen (`PreTrainedModel`):
                The start.
            head ([`Head`]):
                Its own.
            rows (`Sequence[Row]`):
                One batch.
            pad (`int`):
                A token to fill up with.
            keep (`bool`, *optional*, defaults to `True`):
                Whether they are likely to come back.

        Returns:
            `torch.Tensor` of shape (sum of target lengths, d), rows joined, on the device of the head.
        """
        found = [self.get(row) for row in rows]
        missing = [row for row, kept in zip(rows, found, strict=True) if kept is None]
        if missing:
            asked = target_hidden(frozen, missing, pad, head).split([len(row.target) for row in missing])
            if keep:
                for row, hidden in zip(missing, asked, strict=True):
                    self.put(row, hidden)
            new = iter(asked)
            found = [next(new) if kept is None else kept for kept in found]
        device = compute_device(frozen) if head.weight is None else head.weight.device
        return torch.cat([hidden.to(device) for hidden in found if hidden is not None])

    def get(self, row: Row) -> torch.Tensor | None:
        """What was said at a row, (tokens, d); `None` where it was not asked, or is kept no more."""
        found = self._rows.get(row.key)
        if found is not None:
            self._rows.move_to_end(row.key)
        return found

    def clear(self) -> None:
        """Forget it: the start computes in another precision from now on."""
        self._rows.clear()
        self.bytes = 0


def heard(reference: Any, rows: Sequence[Row], pad: int) -> tuple[torch.Tensor, Head]:
    """
    What the start says at some rows, and its LM head: a start that is kept on the CPU is moved only if it must be asked.

    Args:
        reference ([`Reference`]):
            The frozen start, with a model.
        rows (`Sequence[Row]`):
            One batch.
        pad (`int`):
            A token to fill up with.

    Returns:
        Hidden states, shape (sum of target lengths, d), rows joined, and the head, on one device.
    """
    said = reference.said
    if reference.kind == "offload" and reference.device is not None and all(said.get(row) is not None for row in rows):
        head = read_head(reference.model).to(reference.device)
        return said.read(reference.model, head, rows, pad), head
    with reference.loaded() as frozen:
        head = read_head(frozen)
        return said.read(frozen, head, rows, pad), head
