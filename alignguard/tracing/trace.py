"""Which rows a regression came from: how much each moves the model from the start's answers to those that it gives now.

What is differentiated is, of the probes that flipped, the mean loss of the start's answers less that of the policy's: what a row does to
any answer is in both, and goes out. Probes that did not flip are no control: those of the same side lean the same way (see
`docs/cause.md`).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import RunError
from ..model.chat import Chat
from ..records.record import Record, read_record
from ..records.rows import RowStore, TrainedRow
from ..verdicts.verdict import Flip
from .named import Shares, agreement, named, shares, standing_out
from .pull import Direction, Document, Pull, gradient, looked_at, pulls, steps_of_adam
from .query import Query, answers, query

SHARE = 0.25  # of the layers, from the last one down
_SAMPLE = 64  # rows whose gradients tell how far Adam steps
_CHUNK = 1024  # rows whose tokens are held at a time


@dataclass(frozen=True)
class TracedRow:
    """
    One row that was trained on between two audits.

    Args:
        row, part (`int`):
            Its place in the training set; of a packed row, which of its documents.
        steps (`tuple[int, ...]`):
            It went into.
        pull (`float`):
            How much a step of Adam on it raises what is traced: nats per token of the answers, per unit of step, a mean over its tokens.
        stands_out (`float`):
            By how many robust standard deviations of all rows' pulls.
        loss (`float`):
            Under the start, nats per token.
        tokens (`int`):
            That are learnt of it.
        text (`str`, *optional*):
            Of those that are shown.
    """

    row: int
    part: int
    steps: tuple[int, ...]
    pull: float
    stands_out: float
    loss: float
    tokens: int
    text: str = ""

    @property
    def name(self) -> str:
        """As people are told of it: `17`, or of a packed row `17.2`."""
        return f"{self.row}.{self.part}" if self.part else str(self.row)


@dataclass(frozen=True)
class ByColumn:
    """
    The pull by a column of the data set.

    Args:
        name (`str`):
            Of the column.
        values (`list[tuple[str, int, int, float]]`):
            Of each value how many rows have it, how many of those are named, and their share of all pull above the middle row's.
    """

    name: str
    values: list[tuple[str, int, int, float]]


@dataclass(frozen=True)
class Trace:
    """
    Where a regression came from.

    Args:
        side (`str`), first, last (`int`):
            What was traced, between which steps.
        flips, steady (`int`):
            Probes that went from good to bad, and that stayed good.
        rows (`list[TracedRow]`):
            All that were trained on between those steps, the strongest pull first.
        named (`int`):
            How many of them, from the first on, are named; 0 where no small set of rows explains it.
        agreement (`float`):
            Rank correlation between the pulls on two halves of the flipped probes.
        shares ([`Shares`]):
            How much of the pull comes from how few rows.
        untold (`int`):
            More probes that flipped, of which it is not known whether before the first step.
        unknown (`int`):
            Steps between the two of which it is not on record what they were taken on.
        unread (`int`):
            Rows of those steps whose tokens are not on record.
        model (`str`):
            At whose weights it was looked.
        share (`float`):
            Of its layers that were looked at.
        seconds (`float`):
            It took.
        by (`list[ByColumn]`, *optional*):
            The pull by columns of the data set.
    """

    side: str
    first: int
    last: int
    flips: int
    steady: int
    rows: list[TracedRow]
    named: int
    agreement: float
    shares: Shares
    untold: int
    unknown: int
    unread: int
    model: str
    share: float
    seconds: float
    by: list[ByColumn] = field(default_factory=list)

    @property
    def pulled(self) -> float:
        """The share of all pull above the middle row's that comes from the rows named."""
        above = sum(max(row.stands_out, 0.0) for row in self.rows)
        return sum(row.stands_out for row in self.rows[: self.named]) / above if above else 0.0


def by_column(trace: Trace, name: str, value_of: Mapping[int, str]) -> ByColumn:
    """
    The pull by a column of the data set.

    Args:
        trace ([`Trace`]):
            Of a run.
        name (`str`):
            Of the column.
        value_of (`Mapping[int, str]`):
            By a row's place in `trace.rows`; rows that are in none are left out.
    """
    rows: dict[str, list[int]] = {}
    for i, value in value_of.items():
        rows.setdefault(value, []).append(i)
    above = sum(max(row.stands_out, 0.0) for row in trace.rows) or 1.0
    found = [
        (
            value,
            len(here),
            sum(i < trace.named for i in here),
            sum(max(trace.rows[i].stands_out, 0.0) for i in here) / above,
        )
        for value, here in rows.items()
    ]
    return ByColumn(name, sorted(found, key=lambda line: -line[3]))


@dataclass
class Cost:
    """What a trace will take, said before: rows, their tokens, bytes beside the model, and what is looked at."""

    rows: int
    tokens: int
    bytes: int
    weights: str

    def __str__(self) -> str:
        return (
            f"{self.rows:,} rows of {self.tokens:,} tokens, some three forward passes over them; "
            f"{self.bytes / 2**20:,.0f} MiB beside the model; over {self.weights}"
        )


def trace(
    run: Record | str | Path,
    model: Any,
    tokenizer: Any,
    side: str,
    first: int | None = None,
    last: int | None = None,
    share: float = SHARE,
    max_tokens: int = 2048,
    autocast: torch.dtype | None = None,
    tell: Callable[[Cost], Any] = lambda cost: None,
    tick: Callable[[int], Any] = lambda n: None,
) -> Trace:
    """
    Trace what a side lost between two audits to the rows that were trained on between them.

    Args:
        run (`str`, `Path` or [`Record`]):
            A trainer's output_dir.
        model (`PreTrainedModel` or `PeftModel`):
            Its start, or a checkpoint of it; nothing in it is changed.
        tokenizer (`PreTrainedTokenizerBase`):
            The run's.
        side (`str`):
            `safety/refuse`, or a dimension.
        first, last (`int`, *optional*):
            Steps of the two audits; by default the start and the latest one.
        share (`float`, *optional*, defaults to `0.25`):
            Of the layers, from the last one down: cost and memory go with it.
        max_tokens (`int`, *optional*, defaults to `2048`):
            Of a batch, padded.
        autocast (`torch.dtype`, *optional*):
            What the trainer computes in, where it uses mixed precision.
        tell (`Callable[[Cost], Any]`, *optional*):
            Is told, before it begins, what it will take.
        tick (`Callable[[int], Any]`, *optional*):
            Is told how many rows were read.

    Raises:
        RunError: Too few probes flipped, it is not on record which rows were trained on, or the model cannot be differentiated.

    Example:
    ```python
    >>> found = alignguard.trace("runs/sft", start, tokenizer, "safety/refuse")
    >>> [(row.name, row.steps) for row in found.rows[: found.named]]
    ```
    """
    begun, record = time.perf_counter(), run if isinstance(run, Record) else read_record(str(run))
    asked, store = query(record, side, first, last), store_of(record)
    where = store.rows(asked.first, asked.last)
    unknown = asked.last - asked.first - len([s for s in store.steps() if asked.first < s <= asked.last])
    sizes = {(text.row, text.part): len(text.ids) for text in store.texts(set(where))}
    if not sizes:
        why = store.unread or "nothing of them is learnt by the labels of a row"
        raise RunError(
            f"{record.name}: of what steps {asked.first + 1} to {asked.last} were taken on no tokens are on record: {why}"
        )
    weights, pad = looked_at(model, share), tokenizer.pad_token_id or 0
    numbers = sum(p.numel() for p in weights.values())
    tell(
        Cost(
            len(sizes), sum(sizes.values()), 4 * 4 * numbers, f"{numbers:,} weights, such as {next(reversed(weights))}"
        )
    )
    chat = Chat.of(model, tokenizer, record.about.template_kwargs, _tags(record))
    sampled = set(random.Random(record.about.seed).sample(sorted(sizes), min(_SAMPLE, len(sizes))))
    sample = [Document(t.ids, t.learnt) for t in store.texts({row for row, _ in sampled}) if (t.row, t.part) in sampled]
    scale = steps_of_adam(model, sample, weights, pad, max_tokens, autocast)

    def moved(flips: Sequence[Flip]) -> Direction:
        """Of the mean loss of the start's answers less that of the policy's, as Adam would step."""
        then, now = answers(flips, chat)
        each = [1 / len(flips)] * len(flips) + [-1 / len(flips)] * len(flips)
        own = gradient(model, [*then, *now], each, weights, pad, max_tokens, autocast)
        return {name: grad.mul_(scale[name]) for name, grad in own.items()}

    halves = [moved(flips) for flips in (asked.flips[::2], asked.flips[1::2])]
    scale = {}  # the memory of it
    found: list[tuple[TrainedRow, list[Pull]]] = []
    for chunk in _chunks(store.texts(set(where))):
        part = [Document(t.ids, t.learnt) for t in chunk]
        each = [pulls(model, part, half, pad, max_tokens, autocast, tick) for half in halves]
        found += [(TrainedRow(t.row, (), (), t.part, t.weight), [*both]) for t, *both in zip(chunk, *each, strict=True)]
    # of a completion without an advantage nothing is learnt
    read = [(text, both) for text, both in found if text.weight]
    unread = len(where) - len({text.row for text, _ in found})
    return _trace(asked, read, where, unknown, unread, record.about.model, share, time.perf_counter() - begun)


def _trace(
    asked: Query,
    found: Sequence[tuple[TrainedRow, Sequence[Pull]]],
    where: Mapping[int, Sequence[int]],
    unknown: int,
    unread: int,
    model: str,
    share: float,
    seconds: float,
) -> Trace:
    one, two = ([text.weight * both[i].pull for text, both in found] for i in (0, 1))
    whole = [(a + b) / 2 for a, b in zip(one, two, strict=True)]
    z = standing_out(whole)
    first = named(z, standing_out(one), standing_out(two))
    order = first + [int(i) for i in np.argsort(-z, kind="stable") if int(i) not in set(first)]
    rows = []
    for i in order:
        text, (pull, _) = found[i]
        steps = tuple(where[text.row])
        rows.append(TracedRow(text.row, text.part, steps, whole[i], float(z[i]), pull.loss, pull.tokens))
    of = asked.side, asked.first, asked.last, len(asked.flips), len(asked.steady)
    return Trace(
        *of, rows, len(first), agreement(one, two), shares(z), asked.untold, unknown, unread, model, share, seconds
    )


def store_of(record: Record) -> RowStore:
    """What a run was trained on: what its model said in training, where that is on record, and else rows of its training set."""
    said = RowStore(record.store.said)
    if said.folder.is_dir() and said.steps():
        return said
    store = RowStore(record.store.rows)
    if store.unknown:
        raise RunError(f"{record.name}: it is not on record which rows were trained on: {store.unknown}")
    return store


def _tags(record: Record) -> tuple[str, str] | None:
    """Between which the run's traces stand."""
    return (record.about.tags[0], record.about.tags[1]) if len(record.about.tags) == 2 else None


def _chunks(texts: Iterator[TrainedRow]) -> Iterator[list[TrainedRow]]:
    while chunk := list(islice(texts, _CHUNK)):
        yield chunk
