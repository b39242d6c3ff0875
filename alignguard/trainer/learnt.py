"""What is learnt of rows, as the trainer's own collator says: read from a copy of it, each row once."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from ..errors import one_line
from ..records.rows import TrainedRow
from .copied import copied, generators
from .train_prompts import MORE_THAN_TEXT, is_plain_table

_TWICE = 8  # rows that are read twice whatever was drawn: a collator may count, or make its generator as it is called


class Reader:
    """
    Reads rows of a training set, and knows why it does not.

    Args:
        loader (`DataLoader`):
            The trainer's.
        trainer (`Trainer`, *optional*):
            Where it is known.
    """

    def __init__(self, loader: Any, trainer: Any) -> None:
        self._loader = loader
        self.unread = why_unread(loader, trainer)
        """Why tokens are not kept, in a few words; empty where they are."""

    def read(self, rows: list[int]) -> Iterator[TrainedRow]:
        """
        What is learnt of some rows; where that cannot be told it ends, and `unread` says why. Data sets and collators may draw:
        whoever calls it puts generators back.
        """
        if not rows or self.unread:
            return
        # of each time anew: a collator may have been changed meanwhile
        collate, self.unread = copied(self._loader.collate_fn)
        if self.unread:
            return
        dataset, own = self._loader.dataset, generators(collate)
        before = _states(own)
        for number, row in enumerate(rows):
            try:
                found = [*trained(row, dataset[row], collate)]
                if number < _TWICE or _states(own) != before:
                    if not _same(found, [*trained(row, dataset[row], collate)]):
                        self.unread = "its collator draws what is learnt, each time anew"
                        return
                    before = _states(own)
            except Exception as error:
                self.unread = f"row {row} could not be read ({type(error).__name__}: {one_line(error, 120)})"
                return
            yield from found


def why_unread(loader: Any, trainer: Any) -> str:
    """
    Why the tokens of rows are not kept, in a few words; empty where they are.

    Args:
        loader (`DataLoader`):
            The trainer's.
        trainer (`Trainer`, *optional*):
            Where it is known.
    """
    dataset: Any = getattr(loader, "dataset", None)
    if not is_plain_table(dataset):
        return "they are no plain table of `datasets`: a stream, a class or a transform of its own"
    if any(name in dataset.column_names for name in MORE_THAN_TEXT):
        return "they hold more than text"
    if trainer is not None and (why := _of_loss(trainer)):
        return why
    return copied(getattr(loader, "collate_fn", None))[1]


def _of_loss(trainer: Any) -> str:
    loss = getattr(type(trainer).compute_loss, "__qualname__", "")
    own = getattr(trainer, "compute_loss_func", None) is not None or bool(
        getattr(trainer.args, "label_smoothing_factor", False)
    )
    if loss not in ("Trainer.compute_loss", "SFTTrainer.compute_loss") or own:
        return f"the loss of {type(trainer).__name__} is not that of the labels alone"
    if getattr(trainer.args, "loss_type", "nll") not in ("nll", None):
        return f"its loss is {trainer.args.loss_type}"
    return ""


def _states(own: list[Any]) -> list[Any]:
    """Where generators are, those of all and a copy's own: where none has moved nothing was drawn."""
    numpy: Any = np.random.get_state(legacy=False)["state"]
    return [
        *(random.getstate(), numpy["key"].tobytes(), numpy["pos"], torch.get_rng_state().numpy().tobytes()),
        *(_state(g) for g in own),
    ]


def _state(generator: Any) -> str:
    """Of a generator of torch, of numpy's two kinds, or of Python's `random`."""
    if isinstance(generator, np.random.Generator):
        return repr(generator.bit_generator.state)
    if isinstance(generator, np.random.RandomState):
        return repr(
            [(key, np.asarray(value).tobytes()) for key, value in generator.get_state(legacy=False)["state"].items()]
        )
    return repr(generator.get_state().tolist() if isinstance(generator, torch.Generator) else generator.getstate())


def _same(one: list[TrainedRow], other: list[TrainedRow]) -> bool:
    """Whether a collator made the same of a row twice."""
    return len(one) == len(other) and all(
        a.part == b.part and np.array_equal(a.ids, b.ids) and np.array_equal(a.learnt, b.learnt)
        for a, b in zip(one, other, strict=True)
    )


def trained(row: int, example: Any, collate: Callable[[list[Any]], Any]) -> Iterator[TrainedRow]:
    """
    The documents of a row, and which of their tokens the loss is taken of.

    Args:
        row (`int`):
            Its place in the training set.
        example (`Any`):
            The row.
        collate (`Callable[[list[Any]], Any]`):
            Of the trainer's data loader.

    Yields:
        Nothing where the collator gives no labels, as where the trainer's completions are its own.
    """
    batch = collate([example])
    if not isinstance(batch, dict) and not hasattr(batch, "keys"):
        return
    if not all(isinstance(batch.get(key), torch.Tensor) for key in ("input_ids", "labels")):
        return
    ids, labels = batch["input_ids"].flatten(), batch["labels"].flatten()
    if ids.shape != labels.shape or batch["input_ids"].shape[0] != 1:
        return
    there = torch.ones_like(ids, dtype=torch.bool)
    if isinstance(batch.get("attention_mask"), torch.Tensor) and batch["attention_mask"].numel() == ids.numel():
        there = batch["attention_mask"].flatten() > 0
    starts, at = [0], batch.get("position_ids")
    if isinstance(at, torch.Tensor) and at.numel() == ids.numel():
        starts = (at.flatten() == 0).nonzero().flatten().tolist()
        starts = starts if starts and starts[0] == 0 else [0, *starts]
    for part, (start, stop) in enumerate(zip(starts, [*starts[1:], len(ids)], strict=True)):
        within = there[start:stop]
        tokens, learnt = ids[start:stop][within].int().numpy(), (labels[start:stop][within] != -100).numpy()
        if learnt[1:].any():  # of the first token nothing is predicted
            yield TrainedRow(row, tokens, learnt, part)
