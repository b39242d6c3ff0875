"""What the frozen start has said: it says the same for ever, so no row is read twice while there is room for it."""

from __future__ import annotations

from collections import OrderedDict

import torch

from ..model.forward import Row

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
