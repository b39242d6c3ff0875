"""Who was there: which rows went into which steps, kept from audit to audit, so that a regression can be traced to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from ..model.observe import restored_rng
from ..records.rows import RowStore, TrainedRow
from .completions import Completion, completions_of, documents
from .order import Order, batches_to_skip
from .start import RunContext


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
        self.order = Order(
            loader if self.listens else None, batches_to_skip(loader, context.args, step), self.ranks.size
        )
        self.said, self.chat, self.trainer = RowStore(context.store.said), context.asking.chat, trainer
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
            self._numbers = range(first := max(self.said.kept(), default=-1) + 1, first)
        self.store.begin(_length(getattr(self.loader, "dataset", None)), self.order.unknown)

    def epoch(self) -> None:
        """A pass over the training set begins."""
        self.order.begin_pass()

    def batch(self) -> None:
        """A batch was trained on."""
        self._now += self.order.take()

    def step(self, step: int) -> None:
        """With it a step was taken."""
        self.batch()
        self._steps.append((step, self._now))
        self._now = []
        if self.listens and self.console.writes:
            self.console.guarded("the rows' record", lambda: self._hear(step))

    def _hear(self, step: int) -> None:
        """What was said for this step; of several steps on one generation all were taken on it."""
        completions = completions_of(self.trainer)
        if completions and completions != self._latest:
            first = self._numbers.stop
            self._numbers, self._latest = range(first, first + len(completions)), completions
            self._given.append((first, completions))
        if completions:
            self._answered.append((step, list(self._numbers)))

    def keep(self) -> None:
        """Write down what has been seen since the last time. All processes call this."""
        if self.listens:
            self.console.guarded("the rows' record", self._keep)

    def _keep(self) -> None:
        mine, self._steps = self._steps, []
        found = self.ranks.together(lambda: (self.order.unknown, mine))
        unknown = next((why for why, _ in found if why), "")
        if not self.console.writes:
            return
        self._keep_said()
        if unknown:
            self.store.begin(_length(getattr(self.loader, "dataset", None)), unknown)
            return
        steps: dict[int, list[int]] = {}
        for _, part in found:
            for step, rows in part:
                steps.setdefault(step, []).extend(rows)
        new = sorted({row for rows in steps.values() for row in rows} - self._kept)
        with restored_rng():  # a data set may draw
            self.store.add(sorted(steps.items()), (text for row in new for text in self._texts(row)))
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

    def _texts(self, row: int) -> Iterator[TrainedRow]:
        """What is learnt of a row, as the trainer's own collator says."""
        if not self.order.stream:  # of which no row can be read again
            yield from trained(row, self.loader.dataset[row], self.loader.collate_fn)


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
        if learnt.any():
            yield TrainedRow(row, tokens, learnt, part)


def _length(dataset: Any) -> int | None:
    try:
        return len(dataset)
    except TypeError:
        return None
