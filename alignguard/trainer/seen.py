"""Who was there: which rows went into which steps, kept from audit to audit, so that a regression can be traced to them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..model.observe import restored_rng
from ..records.rows import RowStore, TrainedRow
from ..tracing.layers import trained_names
from .before import are_as_before, differs_by_process, fingerprint_of, length_of
from .completions import Completions, keeps_completions, why_unread
from .learnt import Reader
from .order import Order, batches_to_skip
from .start import RunContext

_MOST_STEPS, _MOST_SAID = 512, 64  # between two times that rows are written, and that completions are
_MOST_HELD = 2**24  # tokens of completions, while they cannot be written


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
        spent (`Callable[[int, float], Any]`, *optional*):
            Is told after which step it took how many seconds to write down what was seen.
    """

    def __init__(
        self,
        context: RunContext,
        loader: Any,
        step: int,
        trainer: Any = None,
        spent: Callable[[int, float], Any] = lambda step, seconds: None,
    ) -> None:
        self._spent, self._at = spent, step
        self.store, self.console = RowStore(context.store.rows), context.console
        self.loader, self.ranks = loader, context.asking.ranks
        self.listens = context.settings.rows
        skip = batches_to_skip(loader, context.args, step) if self.listens else 0
        self.order = Order(loader if self.listens else None, skip, self.ranks.size, trainer)
        self.said, self.completions = RowStore(context.store.said), Completions(trainer)
        self.speaks = self.listens and keeps_completions(trainer)
        self.reader = Reader(loader if self.listens else None, trainer)
        if self.listens and self.ranks.size > 1 and not self.order.stream:
            dataset, order = getattr(loader, "dataset", None), self.order
            order.unknown = differs_by_process(dataset, self.reader, self.ranks) or order.unknown
        self._untold = why_unread(trainer) if self.speaks else ""  # of completions
        unread = self._untold if self.speaks else self.reader.unread
        if context.settings.trace and unread:
            self.console.tell_once("rows", f"trace=True has nothing to look at in this run: {unread}")
        self._model, self._trained = context.model, trained_names(context.model)
        self._given: list[TrainedRow] = []  # completions that were not written yet
        self._answered: list[tuple[int, list[int]]] = []  # steps, and the numbers of what they were taken on
        self._heard: list[int] = []
        self._first = 0  # number of what is written next: an earlier part of the run has the others
        self._steps: list[tuple[int, list[int]]] = []
        self._now: list[int] = []
        self._unwritten: dict[
            int, list[int]
        ] = {}  # of all processes, for longer than a moment only where a disk is full
        self._unsaid: tuple[dict[int, list[int]], list[TrainedRow]] = {}, []  # the same of completions
        self._told: tuple[str, str, list[str] | None] | None = None
        self._kept: set[int] = set()
        self._length: int | None = None
        self._fingerprint: str | None = None
        self._others = False  # rows are not those that the run began with
        if self.listens and self.console.writes:
            self.console.guarded("the rows' record", lambda: self._begin(step))

    def _begin(self, step: int) -> None:
        dataset = getattr(self.loader, "dataset", None)
        self._length, self._fingerprint = length_of(dataset), fingerprint_of(dataset)
        if step > 0:
            self.store.rewind(step)
            self._kept = self.store.kept()
            if self.store.steps():
                self._trained = _either(self._trained, self.store.trained)
            with restored_rng():  # a data set may draw
                self._others = not are_as_before(self.store, dataset, self.reader)
            self.said.rewind(step)
            self._first = self.said.next_row()
        if self._others:  # on record stays what the run began with
            self._length, self._fingerprint = self.store.length, self.store.fingerprint
            self.console.tell_once(
                "rows",
                "the rows of the training set are others than before this run was resumed, or are read otherwise: which of them go into "
                "steps from now on is not kept, since they would be taken for those of the same number",
            )
        self._tell(self.order.unknown)
        if self.speaks:
            self.said.begin(None, unread=self._untold, temperature=self.completions.temperature)

    def _tell(self, unknown: str) -> None:
        self.store.begin(self._length, unknown, self.reader.unread, self._trained, self._fingerprint)
        self._told = unknown, self.reader.unread, self._trained

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
        if self._trained is not None:  # others may be trained later on
            self._trained = _either(self._trained, trained_names(self._model))
        self._at = step
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
        begun = time.perf_counter()
        if self.listens:
            self.console.guarded("the rows' record", self._keep)
        if self.speaks:
            self.console.guarded("the completions' record", self._keep_said)
        self._spent(self._at, time.perf_counter() - begun)

    def _keep(self) -> None:
        mine, self._steps = self._steps, []
        found = self.ranks.together(lambda: (self.order.unknown, mine))
        unknown = next((why for why, _ in found if why), "")
        if not self.console.writes:
            return
        if not unknown and not self._others:
            for _, part in found:
                for step, rows in part:
                    self._unwritten.setdefault(step, []).extend(rows)
            new = sorted({row for rows in self._unwritten.values() for row in rows} - self._kept)
            with restored_rng():  # a data set may draw
                self.store.add(sorted(self._unwritten.items()), self.reader.read(new))
            self._unwritten = {}
            self._kept |= set(new)
        if (unknown, self.reader.unread, self._trained) != self._told:
            self._tell(unknown)

    def _keep_said(self) -> None:
        mine, self._given, self._answered = (self._given, self._answered), [], []
        found = self.ranks.together(lambda: mine)
        if not self.console.writes:
            return
        if sum(len(text.ids) for text in self._unsaid[1]) > _MOST_HELD:
            self._unsaid = {}, []
        steps, texts = self._unsaid
        for rank, (given, answered) in enumerate(found):

            def number(own: int, rank: int = rank) -> int:
                return self._first + own * self.ranks.size + rank

            texts += [replace(text, row=number(text.row)) for text in given if not self._untold]
            for step, numbers in answered:
                steps.setdefault(step, []).extend(map(number, numbers))
        self.said.add(sorted(steps.items()), texts)
        self._unsaid = {}, []

    def end(self) -> None:
        """What is left is written, and the trainer's sampler left as it was."""
        self.keep()
        self.order.end()


def _either(one: list[str] | None, other: list[str] | None) -> list[str] | None:
    """The weights that trained in one part of a run or another, see [`trained_names`]."""
    if one is None or other is None:
        return None
    return list(dict.fromkeys([*one, *other])) if one and other else []
