"""In which order a trainer takes the rows of its training set: listened to where its data loader draws them.

Nothing is drawn twice and nothing otherwise: the batch sampler stays the object that it is, and is given, until training ends, a
class of its own that notes what it hands out. A loader draws ahead; which batch was used is counted at the trainer's own events.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from torch.utils.data import IterableDataset


class Order:
    """
    The rows of this process, batch by batch.

    Args:
        loader (`DataLoader`):
            The trainer's.
        skip (`int`, *optional*, defaults to `0`):
            Batches that a resumed run draws first and does not train on.
        processes (`int`, *optional*, defaults to `1`):
            How many train.
    """

    def __init__(self, loader: Any, skip: int = 0, processes: int = 1) -> None:
        self.unknown = _unknown(loader, processes)
        self._skip = skip
        self._drawn: deque[list[int]] = deque()
        self.stream = self.unknown == "" and isinstance(loader.dataset, IterableDataset)
        self._size, self._at = getattr(loader, "batch_size", None) or 1, 0
        self._sampler: Any = None
        if not self.unknown and not self.stream:
            self._listen(loader)

    def take(self) -> list[int]:
        """The rows of the batch that was trained on just now."""
        if self.stream:
            self._at += self._size
            return list(range(self._at - self._size, self._at))
        if not self._drawn and not self.unknown:
            self.unknown = "the trainer trained on batches that its data loader's batch sampler did not draw"
        return self._drawn.popleft() if self._drawn else []

    def begin_pass(self) -> None:
        """An epoch begins; a stream begins again."""
        self._at, self._skip = (self._skip * self._size, 0) if self.stream else (0, self._skip)

    def end(self) -> None:
        """The sampler is what it was."""
        if self._sampler is not None:
            self._sampler.__class__ = type(self._sampler).__mro__[1]
            self._sampler = None

    def _listen(self, loader: Any) -> None:
        sampler = loader.batch_sampler if loader.batch_sampler is not None else loader.sampler
        was, order = type(sampler), self

        def iterate(sampler: Any) -> Iterator[Any]:
            return _Told(was.__iter__(sampler), order._begin())

        try:
            sampler.__class__ = type(was.__name__, (was,), {"__iter__": iterate, "__module__": was.__module__})
        except TypeError as error:  # of a layout that cannot be extended
            self.unknown = f"its data loader draws from a {was.__name__} ({error})"
        else:
            self._sampler = sampler

    def _begin(self) -> deque[list[int]]:
        """A loader begins to draw: what is left of an earlier pass is never used."""
        self._drawn = _Skipping(self._skip)
        self._skip = 0
        return self._drawn


class _Skipping(deque[list[int]]):
    """What was drawn, without the first ones."""

    def __init__(self, skip: int) -> None:
        super().__init__()
        self._left = skip

    def append(self, batch: list[int]) -> None:
        if self._left:
            self._left -= 1
        else:
            super().append(batch)


class _Told:
    """An iterator that notes what it gives; it begins when the one that it listens to does."""

    def __init__(self, inner: Iterable[Any], drawn: deque[list[int]]) -> None:
        self._inner, self._drawn = iter(inner), drawn

    def __iter__(self) -> _Told:
        return self

    def __next__(self) -> Any:
        batch = next(self._inner)
        self._drawn.append([int(i) for i in batch] if isinstance(batch, (list, tuple)) else [int(batch)])
        return batch


def _unknown(loader: Any, processes: int) -> str:
    """Why the order of a loader cannot be told, in a few words; empty where it can."""
    if loader is None or not hasattr(loader, "dataset"):
        return "the trainer reads its rows from no data loader of torch's"
    if hasattr(getattr(loader, "base_dataloader", loader), "state_dict"):
        return "its data loader is a stateful one"
    if isinstance(loader.dataset, IterableDataset):
        if processes > 1 or loader.num_workers > 1:
            return "it is a stream, shared among processes or workers"
        return ""
    if type(loader).__name__ == "DataLoaderDispatcher" and processes > 1:
        return "one process reads the rows of all (dispatch_batches)"
    if getattr(loader, "batch_sampler", None) is None and getattr(loader, "sampler", None) is None:
        return "its data loader has no sampler"
    return ""


def batches_to_skip(loader: Any, args: Any, step: int) -> int:
    """
    How many batches a trainer draws and leaves when it is resumed, as `Trainer` counts them.

    Args:
        loader (`DataLoader`):
            The trainer's.
        args (`TrainingArguments`):
            Its own.
        step (`int`):
            Where it is resumed.
    """
    if step == 0 or args.ignore_data_skip:
        return 0
    accumulated = args.gradient_accumulation_steps
    if not hasattr(loader, "__len__"):
        return step * accumulated
    try:
        batches = len(loader)
    except TypeError:  # of a stream
        return step * accumulated
    steps = max(batches // accumulated + (batches % accumulated > 0), 1)
    return step % steps * accumulated
