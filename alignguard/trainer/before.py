"""Whether rows of one number are one row: of a resumed run and of its beginning, and of all processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..distributed import Ranks
from ..model.observe import restored_rng
from ..records.rows import RowStore, TrainedRow
from .learnt import Reader

_FEW, _MANY = 16, 2**16  # rows that are compared where the data set says that it is the same, and where it does not
_CHUNK = 1024  # rows whose tokens are held at a time


def are_as_before(store: RowStore, dataset: Any, reader: Reader) -> bool:
    """
    Whether a training set is the one on record, as it is read now. Its length tells, and rows on record: a few where `datasets` says that
    nothing was done to it, since a collator may still cut them otherwise; else all, of very many evenly some.

    Args:
        store ([`RowStore`]):
            What is on record; nothing of a stream, nor of another kind of run.
        dataset (`Dataset`):
            The training set now.
        reader ([`Reader`]):
            Reads its rows. Where they cannot be read, now or then, their number alone is compared.
    """
    then, now = store.length, length_of(dataset)
    if then is not None and now is not None and then != now:
        return False
    rows = sorted(store.kept())
    if reader.unread or not rows or now is None:
        return True
    if rows[-1] >= now:
        return False
    same = store.fingerprint is not None and store.fingerprint == fingerprint_of(dataset)
    few, many = (set(rows[:: max(1, len(rows) // most)]) for most in (_FEW, _MANY))
    return _are_read_so(store, few, reader) and (same or _are_read_so(store, many - few, reader))


def differs_by_process(dataset: Any, reader: Reader, ranks: Ranks) -> str:
    """
    That processes hold other training sets, or in another order, in a few words; empty where a few of their rows are the same. All
    processes call this.

    Args:
        dataset (`Dataset`):
            The training set of this one.
        reader ([`Reader`]):
            Reads its rows.
        ranks ([`Ranks`]):
            The processes.
    """

    def few() -> tuple[int, list[tuple[int, int, bytes]]]:
        n = length_of(dataset) or 0
        with restored_rng():  # a data set may draw
            read = reader.read([*range(0, n, max(1, n // _FEW))])
            return n, [(row.row, row.part, np.asarray(row.ids, np.int64).tobytes()) for row in read]

    found = ranks.together(few)
    if all(rows == found[0] for rows in found):
        return ""
    return "processes hold other rows under one number (a data set that each shuffles or splits without a seed)"


def length_of(dataset: Any) -> int | None:
    """Of a training set; `None` of a stream."""
    try:
        return len(dataset)
    except TypeError:
        return None


def fingerprint_of(dataset: Any) -> str | None:
    """By which `datasets` knows a table and what was done to it; `None` of any other."""
    found = getattr(dataset, "_fingerprint", None)
    return found if isinstance(found, str) else None


def _are_read_so(store: RowStore, rows: set[int], reader: Reader) -> bool:
    for then in _chunks(store.texts(rows)):
        now = {(text.row, text.part): text for text in reader.read(sorted({text.row for text in then}))}
        if reader.unread:  # its collator draws, which is told of
            return True
        if now.keys() != {(text.row, text.part) for text in then}:
            return False
        for text in then:
            read = now[text.row, text.part]
            if not (np.array_equal(read.ids, text.ids) and np.array_equal(read.learnt, text.learnt)):
                return False
    return True


def _chunks(texts: Iterator[TrainedRow]) -> Iterator[list[TrainedRow]]:
    """All documents of a row are in one."""
    chunk: list[TrainedRow] = []
    for text in texts:
        if len(chunk) >= _CHUNK and text.row != chunk[-1].row:
            yield chunk
            chunk = []
        chunk.append(text)
    if chunk:
        yield chunk
