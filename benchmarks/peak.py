"""Peak memory of tensors on any device, counted operation by operation."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class PeakMemory(TorchDispatchMode):
    """
    Counts the bytes of every storage made inside the block, while it lives.

    Example:
    ```python
    >>> with PeakMemory() as peak:
    ...     torch.ones(1000) + 1
    >>> peak.bytes
    8000
    ```
    """

    def __enter__(self) -> PeakMemory:
        self.bytes = self._live = 0
        self._seen: dict[int, int] = {}
        super().__enter__()
        return self

    def _free(self, key: int) -> None:
        self._live -= self._seen.pop(key, 0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {
            leaf.untyped_storage().data_ptr() for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)
        }
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if not isinstance(leaf, torch.Tensor):
                continue
            storage = leaf.untyped_storage()
            key = storage.data_ptr()
            if key in given or key in self._seen or storage.nbytes() == 0:
                continue
            self._seen[key] = storage.nbytes()
            self._live += storage.nbytes()
            weakref.finalize(storage, self._free, key)
        self.bytes = max(self.bytes, self._live)
        return out
