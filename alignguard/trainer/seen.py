"""Who was there: which rows went into which steps, kept from audit to audit, so that a regression can be traced to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ..model.observe import restored_rng
from ..records.rows import RowStore, TrainedRow
from .completions import Completions, keeps_completions
from .order import Order, batches_to_skip
from .start import RunContext
from .train_prompts import MORE_THAN_TEXT

_MOST_STEPS, _MOST_SAID = 512, 64  # between two times that rows are written, and that completions are
_COMPARED = 16  # rows that a resumed run looks at, whether they are what they were
_PLAIN = (None, "python", "numpy", "torch", "arrow", "pandas")  # formats that say the same each time


class Seen:
    """
    The rows of a run. What fails here is told once, and training goes on.

    Args:
        context ([`RunContext`]):
            What the run works with.
        loader (`DataLoader`):
            The trainer's.
        step (`int`):
            0, or where the run is resumed.
        trainer (`Trainer`, *optional*):
            Where it is known: some keep what their model said in training.
    """

    def __init__(self, context: RunContext, loader: Any, step: int, trainer: Any = None) -> None:
        self.store, self.console = RowStore(context.store.rows), context.console
        self.loader, self.ranks = loader, context.asking.ranks
        self.listens = context.settings.rows
        skip = batches_to_skip(loader, context.args, step) if self.listens else 0
        self.order = Order(loader if self.listens else None, skip, self.ranks.size, trainer)
        self.said, self.completions = RowStore(context.store.said), Completions(trainer)
        self.speaks = self.listens and keeps_completions(trainer)
        self.unread = why_unread(loader, trainer)
        if context.settings.trace and self.unread and not self.speaks:
            self.console.tell_once("rows", f"trace=True has nothing to look at in this run: {self.unread}")
        self._trained = trained_names(context.model)
        self._given: list[TrainedRow] = []  # completions that were not written yet
        self._answered: list[tuple[int, list[int]]] = []  # steps, and the numbers of what they were taken on
        self._heard: list[int] = []
        self._first = 0  # number of what is written next: an earlier part of the run has the others
        self._steps: list[tuple[int, list[int]]] = []
        self._now: list[int] = []
        self._kept: set[int] = set()
        self._others = False  # rows are not those that the run began with
        if self.listens and self.console.writes:
            self.console.guarded("the rows' record", lambda: self._begin(step))

    def _begin(self, step: int) -> None:
        if step > 0:
            self.store.rewind(step)
            self._kept = self.store.kept()
            self._others = bool(self._kept) and not self._as_before()
            self.said.rewind(step)
            self._first = self.said.next_row()
        self._tell(self.order.unknown)
        if self._others:
            self.console.tell_once(
                "rows",
                "the rows of the training set are others than before this run was resumed, or are read otherwise: which of them go into "
                "steps from now on is not kept, since they would be taken for those of the same number",
            )

    def _as_before(self) -> bool:
        """Whether some of the rows that are on record are still what they were."""
        if self.unread:
            return True
        rows = sorted(self._kept)
        some = set(rows[:: max(1, len(rows) // _COMPARED)])
        if some and max(some) >= len(self.loader.dataset):
            return False
        now = {(text.row, text.part): text for text in self._texts(sorted(some))}
        if self.unread:  # its collator draws, which is told of
            return True
        then = {(text.row, text.part): text for text in self.store.texts(some)}
        return now.keys() == then.keys() and all(
            np.array_equal(now[place].ids, then[place].ids) and np.array_equal(now[place].learnt, then[place].learnt)
            for place in then
        )

    def _tell(self, unknown: str) -> None:
        self.store.begin(_length(getattr(self.loader, "dataset", None)), unknown, self.unread, self._trained)

    def epoch(self) -> None:
        """A pass over the training set begins."""
        self.order.begin_pass()

    def batch(self) -> None:
        """A batch was trained on."""
        if self.listens:
            self._now += self.order.take()
        if self.speaks:
            self.console.guarded("the completions' record", self._hear)

    def step(self, step: int) -> None:
        """With it a step was taken."""
        if not self.listens:
            return
        self.batch()
        self._steps.append((step, self._now))
        self._now = []
        if self._heard:
            self._answered.append((step, self._heard))
            self._heard = []
        if len(self._steps) >= (_MOST_SAID if self.speaks else _MOST_STEPS):  # of all processes at the same one
            self.keep()

    def _hear(self) -> None:
        numbers, new = self.completions.take()
        self._heard += numbers
        self._given += new

    def keep(self) -> None:
        """Write down what has been seen since the last time. All processes call this."""
        if self.listens:
            self.console.guarded("the rows' record", self._keep)
        if self.speaks:
            self.console.guarded("the completions' record", self._keep_said)

    def _keep(self) -> None:
        mine, self._steps = self._steps, []
        found = self.ranks.together(lambda: (self.order.unknown, mine))
        unknown = next((why for why, _ in found if why), "")
        if not self.console.writes:
            return
        if unknown:
            self._tell(unknown)
        if unknown or self._others:
            return
        steps: dict[int, list[int]] = {}
        for _, part in found:
            for step, rows in part:
                steps.setdefault(step, []).extend(rows)
        new = sorted({row for rows in steps.values() for row in rows} - self._kept)
        with restored_rng():  # a data set may draw
            self.store.add(sorted(steps.items()), self._texts(new) if not self.unread else ())
        self._kept |= set(new)

    def _keep_said(self) -> None:
        mine, self._given, self._answered = (self._given, self._answered), [], []
        found = self.ranks.together(lambda: mine)
        if not self.console.writes:
            return
        steps: dict[int, list[int]] = {}
        texts: list[TrainedRow] = []
        for rank, (given, answered) in enumerate(found):

            def number(own: int, rank: int = rank) -> int:
                return self._first + own * self.ranks.size + rank

            texts += [replace(text, row=number(text.row)) for text in given]
            for step, numbers in answered:
                steps.setdefault(step, []).extend(map(number, numbers))
        self.said.add(sorted(steps.items()), texts)

    def end(self) -> None:
        """What is left is written, and the trainer's sampler left as it was."""
        self.keep()
        self.order.end()

    def _texts(self, rows: list[int]) -> Iterator[TrainedRow]:
        """
        What is learnt of some rows, as a copy of the trainer's own collator says: one that draws would draw otherwise afterwards.
        """
        if not rows:
            return
        collate, dataset = deepcopy(self.loader.collate_fn), self.loader.dataset
        for row in rows:
            if not _same(collate([dataset[row]]), collate([dataset[row]])):
                self.unread = "its collator draws what is learnt, each time anew"
                self._tell("")
                return
            yield from trained(row, dataset[row], collate)


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
    if type(dataset).__module__ != "datasets.arrow_dataset" or dataset.format["type"] not in _PLAIN:
        return "they are no plain table of `datasets`: a stream, a class or a transform of its own"
    if any(name in dataset.column_names for name in MORE_THAN_TEXT):
        return "they hold more than text"
    if trainer is None:
        return ""
    loss = getattr(type(trainer).compute_loss, "__qualname__", "")
    own = getattr(trainer, "compute_loss_func", None) is not None or bool(
        getattr(trainer.args, "label_smoothing_factor", False)
    )
    if loss not in ("Trainer.compute_loss", "SFTTrainer.compute_loss") or own:
        return f"the loss of {type(trainer).__name__} is not that of the labels alone"
    if getattr(trainer.args, "loss_type", "nll") not in ("nll", None):
        return f"its loss is {trainer.args.loss_type}"
    return ""


def trained_names(model: Any) -> list[str] | None:
    """Which weights train, where not all do; `None` too with adapters, whose start is without them."""
    trains = {name: p.requires_grad for name, p in model.named_parameters()}
    return None if all(trains.values()) or any("lora_" in name for name in trains) else [n for n in trains if trains[n]]


def _same(one: Any, other: Any) -> bool:
    """Whether a collator made the same of a row twice."""
    if not hasattr(one, "keys") or not hasattr(other, "keys"):
        return True
    keys = [key for key in ("input_ids", "labels") if isinstance(one.get(key), torch.Tensor)]
    return all(isinstance(other.get(key), torch.Tensor) and torch.equal(one[key], other[key]) for key in keys)


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


def _length(dataset: Any) -> int | None:
    try:
        return len(dataset)
    except TypeError:
        return None
