"""Who was there: which rows went into which steps, kept from audit to audit, so that a regression can be traced to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import torch

from ..model.observe import restored_rng
from ..records.rows import RowStore, TrainedRow
from .completions import Completion, completions_of, documents, keeps_completions
from .order import Order, batches_to_skip
from .start import RunContext
from .train_prompts import MORE_THAN_TEXT

_MOST_STEPS = 512  # between two times that rows are written
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
        self.order = Order(loader if self.listens else None, skip, self.ranks.size)
        self.said, self.chat, self.trainer = RowStore(context.store.said), context.asking.chat, trainer
        self.unread = why_unread(loader, trainer)
        if context.settings.trace and self.unread and not keeps_completions(trainer):
            self.console.tell_once("rows", f"trace=True has nothing to look at in this run: {self.unread}")
        self._ignored: list[Completion] = []  # of an evaluation
        self._latest: list[Completion] = []
        self._given: list[tuple[int, list[Completion]]] = []  # new ones, by the number of the first
        self._answered: list[tuple[int, list[int]]] = []  # steps, and the numbers of what they were taken on
        self._numbers = range(0)
        self._steps: list[tuple[int, list[int]]] = []
        self._now: list[int] = []
        self._kept: set[int] = set()
        if self.listens and self.console.writes:
            self.console.guarded("the rows' record", lambda: self._begin(step))

    def _begin(self, step: int) -> None:
        if step > 0:
            self.store.rewind(step)
            self._kept = self.store.kept()
            self.said.rewind(step)
            self._numbers = range(first := self.said.next_row(), first)
        self._tell(self.order.unknown)

    def _tell(self, unknown: str) -> None:
        self.store.begin(_length(getattr(self.loader, "dataset", None)), unknown, self.unread)

    def epoch(self) -> None:
        """A pass over the training set begins."""
        self.order.begin_pass()

    def batch(self) -> None:
        """A batch was trained on."""
        if self.listens:
            self._now += self.order.take()

    def step(self, step: int) -> None:
        """With it a step was taken."""
        if not self.listens:
            return
        self.batch()
        self._steps.append((step, self._now))
        self._now = []
        if self.console.writes:
            self.console.guarded("the completions' record", lambda: self._hear(step))
        if len(self._steps) >= _MOST_STEPS:  # of all processes at the same one
            self.keep()

    def evaluated(self) -> None:
        """What a trainer has its model say in an evaluation nothing is learnt of."""
        self._ignored = completions_of(self.trainer)

    def _hear(self, step: int) -> None:
        """What was said for this step; of several steps on one generation all were taken on it."""
        completions = completions_of(self.trainer)
        if completions and completions not in (self._latest, self._ignored):
            first = self._numbers.stop
            self._numbers, self._latest = range(first, first + len(completions)), completions
            self._given.append((first, completions))
        if self._numbers:
            self._answered.append((step, list(self._numbers)))

    def keep(self) -> None:
        """Write down what has been seen since the last time. All processes call this."""
        if self.listens:
            self.console.guarded("the rows' record", self._keep)
            self.console.guarded("the completions' record", self._keep_said)

    def _keep(self) -> None:
        mine, self._steps = self._steps, []
        found = self.ranks.together(lambda: (self.order.unknown, mine))
        unknown = next((why for why, _ in found if why), "")
        if not self.console.writes:
            return
        if unknown:
            self._tell(unknown)
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
        given, self._given = self._given, []
        answered, self._answered = self._answered, []
        if answered:
            texts = (text for first, completions in given for text in documents(first, completions, self.chat))
            self.said.add(answered, texts)

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
        if not _same(collate([dataset[rows[0]]]), collate([dataset[rows[0]]])):
            self.unread = "its collator draws what is learnt, each time anew"
            self._tell("")
            return
        for row in rows:
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
