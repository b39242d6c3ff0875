"""Which rows a regression came from: how much each moves the model from the start's answers to those that it gives now.

What is differentiated is, of the probes that flipped, the mean loss of the start's answers less that of the policy's: what a row does to
any answer is in both, and goes out. Probes that did not flip are no control: those of the same side lean the same way (see
`docs/cause.md`).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from math import isfinite, isnan
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import RunError
from ..model.chat import Chat
from ..records.record import Record, read_record
from ..records.rows import RowStore, TrainedRow
from ..text import clean, own_lines
from .alike import likeness, screened
from .found import Trace, TracedRow
from .layers import looked_at
from .losses import Document, bytes_of
from .named import LINE, Naming, Shares, agreement, named, shares, standing_out
from .pull import Direction, Pull, check_forwards, gradient, is_finite, pulls, steps_of_adam
from .query import answers, query

Place = tuple[int, int]  # a row, and which of its documents
SHARE = 0.25  # of the layers, from the last one down
_SAMPLE = 64  # rows whose gradients tell how far Adam steps
HALVED = 512  # rows by which it is told how the pulls of half of the flipped probes spread
_CHUNK = 1024  # rows whose tokens are held at a time
_SHOWN = 20  # rows whose text is kept, beside those that are named


@dataclass
class Cost:
    """What a trace will take, said before: rows, of how many, their tokens, bytes beside the model, and what is looked at."""

    rows: int
    trained: int
    tokens: int
    bytes: int
    weights: str

    @property
    def readings(self) -> int:
        """Of rows: each once, and some once more, of half of the flipped probes."""
        return self.rows + min(self.rows, HALVED)

    def __str__(self) -> str:
        of = f"{self.rows:,} of {self.trained:,}" if self.rows < self.trained else f"{self.rows:,}"
        passes = 1.5 * self.readings / self.rows
        return (
            f"{of} rows of {self.tokens:,} tokens, {passes:.1f} forward passes over them; "
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
    screen: int | None = None,
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
        screen (`int`, *optional*):
            Of more rows than twice so many, look at so many that are most like what was said, before and now, and at as many drawn by
            chance. By default at all.
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

    def texts() -> Iterator[TrainedRow]:
        """What was learnt of: of a completion without an advantage it is nothing."""
        return (text for text in store.texts(set(where)) if text.weight)

    # where one row was read otherwise than it was trained on, the others may have been, too
    sizes, read_of = {}, set()
    for text in () if store.unread else store.texts(set(where)):
        read_of.add(text.row)
        if text.weight:
            sizes[text.row, text.part] = len(text.ids)
    if not sizes:
        why = store.unread or "nothing of them is learnt by the labels of a row"
        raise RunError(
            f"{record.name}: of what steps {asked.first + 1} to {asked.last} were taken on no tokens are on record: {why}"
        )
    chat = Chat.of(model, tokenizer, record.about.template_kwargs, _tags(record))
    then, now = answers(asked.flips, chat)
    places, alike = likeness(texts, (now, then))
    seed = record.about.seed
    looked = screened(alike, screen or len(places), seed)
    chosen = {places[i]: (float(alike[i, 0]), stands_for) for i, stands_for in looked.items()}
    trained = RowStore(record.store.rows).trained  # told there of completions, too
    weights, pad = looked_at(model, share, trained), tokenizer.pad_token_id or 0
    check_forwards(model, weights, autocast)
    numbers = sum(p.numel() for p in weights.values())
    of = f"{numbers:,} weights, such as {next(reversed(weights))}"
    if trained is not None and weights.keys().isdisjoint(trained):
        of += ", whether they trained or not, which is not on record"
    tell(Cost(len(chosen), len(sizes), sum(sizes[place] for place in chosen), 16 * numbers + bytes_of(model), of))
    temperature = store.temperature

    def learnt(text: TrainedRow) -> Document:
        return Document(text.ids, text.learnt, temperature)

    sampled = set(random.Random(seed).sample(sorted(sizes), min(_SAMPLE, len(sizes))))
    sample = [learnt(t) for t in store.texts({row for row, _ in sampled}) if (t.row, t.part) in sampled]
    scale = steps_of_adam(model, sample, weights, pad, max_tokens, autocast)

    def moved(half: slice) -> Direction:
        """Of the mean loss of the start's answers less that of the policy's, as Adam would step."""
        before, after = then[half], now[half]
        each = [1 / len(before)] * len(before) + [-1 / len(after)] * len(after)
        own = gradient(model, [*before, *after], each, weights, pad, max_tokens, autocast)
        if not is_finite(own):
            raise RunError(
                "the answers that are traced have no finite gradient; load the start in float32, or bfloat16"
            )
        return {name: grad.mul_(scale[name]) for name, grad in own.items()}

    one, whole = (moved(half) for half in (slice(0, None, 2), slice(1, None, 2)))
    scale, part = {}, len(then[::2]) / len(then)
    for name, grad in one.items():
        whole[name].mul_(1 - part).add_(grad, alpha=part)

    def read(asked: Container[Place], along: Direction) -> Iterator[tuple[TrainedRow, Pull]]:
        """The pulls of some rows, whose tokens are not kept."""
        for chunk in _chunks(t for t in store.texts({row for row, _ in chosen}) if (t.row, t.part) in asked):
            found = pulls(model, [learnt(t) for t in chunk], along, pad, max_tokens, autocast, tick)
            for t, pull in zip(chunk, found, strict=True):
                yield TrainedRow(t.row, (), (), t.part, t.weight), replace(pull, pull=t.weight * pull.pull)

    found = [*read(chosen, whole)]
    finite = [(text, pull) for text, pull in found if isfinite(pull.pull) and isfinite(pull.loss)]
    if not finite:
        raise RunError("the pulls of all rows are no finite numbers; load the start in float32, or bfloat16")
    rows, naming, agree, few = _ordered(finite, chosen, where, lambda asked: read(asked, one), part, seed)
    rows = _with_texts(rows, max(len(naming.rows), _SHOWN), store, tokenizer)
    unread = len(where.keys() - read_of)
    return Trace(
        asked.side,
        asked.first,
        asked.last,
        len(asked.flips),
        len(asked.steady),
        rows,
        len(naming.rows),
        agree,
        few,
        asked.untold,
        unknown,
        unread,
        record.about.model,
        share,
        time.perf_counter() - begun,
        len(found) - len(finite),
        store.folder == record.store.said,
        why=naming.why,
    )


def _ordered(
    found: Sequence[tuple[TrainedRow, Pull]],
    chosen: Mapping[Place, tuple[float, float]],
    where: Mapping[int, Sequence[int]],
    half: Callable[[Container[Place]], Iterator[tuple[TrainedRow, Pull]]],
    part: float,
    seed: int,
) -> tuple[list[TracedRow], Naming, float, Shares]:
    """
    The rows in their order, which of them are named or why none is, how far two halves of the flipped probes agree, and how few rows pull how much.

    One half, which is a part of the whole, is looked at alone for the rows that stand out, and for some by chance, by which it is told how
    its pulls spread; that of the other is what is left.
    """
    places = [(text.row, text.part) for text, _ in found]
    whole = np.array([pull.pull for _, pull in found])
    each = np.array([chosen[place][1] for place in places])
    z = standing_out(whole, each)
    drawn = random.Random(seed).sample(range(len(found)), min(HALVED, len(found)))
    looked = np.union1d(drawn, np.flatnonzero(z >= LINE)).astype(int)
    alone = {(text.row, text.part): pull.pull for text, pull in half({places[i] for i in looked})}
    looked = looked[[isfinite(alone[places[i]]) for i in looked]]
    one = np.array([alone[places[i]] for i in looked])
    two = (whole[looked] - part * one) / (1 - part)
    by_chance = np.isin(looked, drawn)
    least = np.full(len(found), np.nan)
    least[looked] = np.minimum(*(standing_out(pulled, each[looked] * by_chance) for pulled in (one, two)))
    naming = named(z, least, each)
    rows = []
    for i in naming.rows + [int(i) for i in np.lexsort((-whole, -z)) if int(i) not in set(naming.rows)]:
        text, pull = found[i]
        of = tuple(where[text.row]), pull.pull, float(z[i]), None if isnan(least[i]) else float(least[i])
        rows.append(TracedRow(text.row, text.part, *of, pull.loss, pull.tokens, *chosen[places[i]]))
    few = shares([row.moved for row in rows], [row.stands_for for row in rows])
    return rows, naming, agreement(one[by_chance], two[by_chance]), few


def _with_texts(rows: list[TracedRow], shown: int, store: RowStore, tokenizer: Any) -> list[TracedRow]:
    """The first rows with what was learnt of each, and what it was learnt after, but for what a template puts around all of them."""
    places = {(row.row, row.part): i for i, row in enumerate(rows[:shown])}
    words: dict[int, tuple[str, str]] = {}
    for text in store.texts({row for row, _ in places}):
        if (i := places.get((text.row, text.part))) is not None:
            ids, learnt = np.asarray(text.ids), np.asarray(text.learnt, dtype=bool)
            said, asked = (tokenizer.decode(ids[part].tolist(), skip_special_tokens=True) for part in (learnt, ~learnt))
            words[i] = said.strip(), asked
    found = list(rows)
    for (i, (said, _)), own in zip(words.items(), own_lines([asked for _, asked in words.values()]), strict=True):
        found[i] = replace(rows[i], text=clean(f"{said} <- {own}" if own else said))
    return found


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
