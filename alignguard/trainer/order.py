"""In which order a trainer takes the rows of its training set: listened to where its data loader draws them.

Nothing is drawn twice and nothing otherwise: the batch sampler stays the object that it is, and is given, until training ends, a
class of its own that notes what it hands out. A loader draws ahead; which batch was used is counted at the trainer's own events.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from torch.utils.data import IterableDataset
from transformers import Trainer

from ..errors import one_line


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
        trainer (`Trainer`, *optional*):
            Where it is known: some make a stream of their own of one that they are given.
    """

    def __init__(self, loader: Any, skip: int = 0, processes: int = 1, trainer: Any = None) -> None:
        self._skip, self._drawn = skip, _Pass(0)
        self._awaited = self._used = (
            False  # a pass of the trainer's is to begin; of the latest one a batch was trained on
        )
        self._sampler: Any = None
        self._at, self._size = 0, getattr(loader, "batch_size", None) or 1
        try:  # a loader may be anybody's
            self.unknown = _unknown(loader, processes, trainer)
            self.stream = not self.unknown and isinstance(loader.dataset, IterableDataset)
            if not self.unknown and not self.stream:
                self._listen(loader)
        except Exception as error:
            self.unknown, self.stream = f"its data loader is one of its own ({one_line(error, 120)})", False

    def take(self) -> list[int]:
        """The rows of the batch that was trained on just now."""
        if self.stream:
            self._at += self._size
            return list(range(self._at - self._size, self._at))
        self._used = True
        if not self._drawn and not self.unknown:
            self.unknown = "the trainer trained on batches that its data loader's batch sampler did not draw"
        return self._drawn.popleft() if self._drawn else []

    def begin_pass(self) -> None:
        """An epoch begins; a stream begins again."""
        self._awaited, self._used = True, False
        if self.stream:
            self._at, self._skip = self._skip * self._size, 0

    def end(self) -> None:
        """The sampler is what it was."""
        if self._sampler is not None:
            self._sampler.__class__ = type(self._sampler).__mro__[1]
            self._sampler = None

    def _listen(self, loader: Any) -> None:
        sampler = loader.batch_sampler if getattr(loader, "batch_sampler", None) is not None else loader.sampler
        was, order = type(sampler), self

        def iterate(sampler: Any) -> Iterator[Any]:
            return _Told(was.__iter__(sampler), order)

        try:
            sampler.__class__ = type(was.__name__, (was,), {"__iter__": iterate, "__module__": was.__module__})
        except TypeError as error:  # of a layout that cannot be extended
            self.unknown = f"its data loader draws from a {was.__name__} ({error})"
        else:
            self._sampler = sampler

    def begin(self) -> _Pass:
        """
        A first batch is drawn: by the trainer, if a pass of its own is to begin; else by somebody who looks at the rows, which is
        no training. Who came first where both did at the beginning of an epoch cannot be told.
        """
        if not self._awaited:
            if self._sampler is not None and not self._used and self._drawn:
                self.unknown = "somebody else read its data loader as an epoch began"
            return _Pass(0)
        self._awaited = False
        self._drawn, self._skip = _Pass(self._skip), 0
        return self._drawn


class _Pass(deque[list[int]]):
    """What was drawn of one pass, without the first batches."""

    def __init__(self, skip: int) -> None:
        super().__init__()
        self._left = skip

    def note(self, batch: Any) -> None:
        """Of one that is left out, or is no list of places in a data set, nothing is kept but that it was drawn."""
        if self._left:
            self._left -= 1
        else:
            self.append([int(i) for i in batch] if hasattr(batch, "__iter__") else [int(batch)])


class _Told:
    """An iterator that notes what it gives; it begins when the one that it listens to does."""

    def __init__(self, inner: Iterable[Any], order: Order) -> None:
        self._inner, self._order = iter(inner), order
        self._pass: _Pass | None = None

    def __iter__(self) -> _Told:
        return self

    def __next__(self) -> Any:
        batch = next(self._inner)
        try:
            if self._pass is None:
                self._pass = self._order.begin()
            self._pass.note(batch)
        except Exception as error:  # a sampler may draw anything; the trainer gets it all the same
            self._order.unknown = f"its data loader's sampler draws no places in the data set ({one_line(error, 80)})"
        return batch


def _unknown(loader: Any, processes: int, trainer: Any) -> str:
    """Why the order of a loader cannot be told, in a few words; empty where it can."""
    if loader is None or not hasattr(loader, "dataset"):
        return "the trainer reads its rows from no data loader of torch's"
    if hasattr(getattr(loader, "base_dataloader", loader), "state_dict"):
        return "its data loader is a stateful one"
    if isinstance(loader.dataset, IterableDataset):
        if processes > 1 or getattr(loader, "num_workers", 2) > 1:
            return "it is a stream, shared among processes or workers"
        if isinstance(trainer, Trainer) and type(trainer).get_train_dataloader is not Trainer.get_train_dataloader:
            return "it is a stream, which its trainer reads by a loader of its own"  # GRPO's, which repeats rows
        return ""
    if type(loader).__name__ == "DataLoaderDispatcher" and processes > 1:
        return "one process reads the rows of all (dispatch_batches)"
    if getattr(loader, "num_workers", 0) > 1 and not getattr(loader, "in_order", True):
        return "its workers hand out batches as they are ready (dataloader_in_order=False)"
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
    except Exception:  # of a stream
        return step * accumulated
    steps = max(batches // accumulated + (batches % accumulated > 0), 1)
    return step % steps * accumulated
