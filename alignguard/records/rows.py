"""Which rows of the training set went into which steps, and what was learnt of each: `_alignguard/rows/`. The same of completions
that the model gave in training, numbered as they came: `_alignguard/said/`.

| file | what it holds |
|---|---|
| order_00003.parquet | columns `step` and `row`: one line for each row of a step, from where the file before ends to the next audit or checkpoint |
| texts_00003.parquet | what of those rows is not in an earlier file: `row`, `part` (of a packed row, its documents), token ids, which of them are learnt, and their weight |
| about.json | how many rows the training set has, its fingerprint, and what cannot be told of it; of completions their temperature |

Of a row that is repeated its tokens are kept once. Token ids take about two bytes each, the order about three bytes a row.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..errors import RunError, one_line
from ..files import make_folder, write_text, write_whole

_ORDER = pa.schema([("step", pa.int32()), ("row", pa.int64())])
_TEXTS = pa.schema(
    [
        ("row", pa.int64()),
        ("part", pa.int32()),
        ("ids", pa.list_(pa.int32())),
        ("learnt", pa.list_(pa.bool_())),
        ("weight", pa.float64()),
    ]
)


_TOKENS = 2**22  # of a file
_NO_ROWS = "the run kept no rows (AlignGuardCallback(rows=False), or an earlier version)"


@dataclass(frozen=True, eq=False)
class TrainedRow:
    """
    One document that was trained on.

    Args:
        row (`int`):
            Its place in the training set.
        ids (`Sequence[int]` or `np.ndarray`):
            Token ids.
        learnt (`Sequence[bool]` or `np.ndarray`):
            Which of them the loss was taken of.
        part (`int`, *optional*, defaults to `0`):
            Where several documents are packed into a row, which of them.
        weight (`float`, *optional*, defaults to `1.0`):
            Of its loss; of a completion its advantage.
    """

    row: int
    ids: Sequence[int]
    learnt: Sequence[bool]
    part: int = 0
    weight: float = 1.0

    @property
    def name(self) -> str:
        """As people are told of it: `17`, or of a packed row `17.2`."""
        return name_of(self.row, self.part)


def name_of(row: int, part: int) -> str:
    """How people are told of a document: `17`, or of a packed row `17.2`."""
    return f"{row}.{part}" if part else str(row)


class RowStore:
    """
    Rows on disk.

    Args:
        folder (`Path`):
            Of texts, which its owner alone can read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begin(
        self,
        rows: int | None,
        unknown: str = "",
        unread: str = "",
        trained: Sequence[str] | None = None,
        fingerprint: str | None = None,
        temperature: float = 1.0,
    ) -> None:
        """
        Write of what training set it is, and of how many rows; where it cannot be told which rows are trained on, or what is learnt of
        them, why; which weights train, where not all do; and by what the loss divides logits.
        """
        self._prepare()
        told = {"rows": rows, "fingerprint": fingerprint, "unknown": unknown, "unread": unread, "trained": trained}
        write_text(self._about_path, json.dumps({**told, "temperature": temperature}), private=True)

    @property
    def unknown(self) -> str:
        """Why it cannot be told which rows were trained on; empty where it can."""
        return str(self._about()["unknown"])

    @property
    def unread(self) -> str:
        """Why the tokens of rows are not on record; empty where they are."""
        return str(self._about()["unread"])

    @property
    def trained(self) -> list[str] | None:
        """The weights that trained, by name, none where that is not known; `None` where all did, or they are adapters'."""
        return self._about().get("trained")

    @property
    def length(self) -> int | None:
        """How many rows the training set had; `None` where that is not known."""
        return self._about().get("rows")

    @property
    def fingerprint(self) -> str | None:
        """By which `datasets` knew it; `None` where that is not known."""
        return self._about().get("fingerprint")

    @property
    def temperature(self) -> float:
        """By which the loss divides logits: that of GRPO and RLOO."""
        return float(self._about().get("temperature") or 1)

    @property
    def _about_path(self) -> Path:
        return self.folder / "about.json"

    def _about(self) -> dict[str, Any]:
        """What was written of the training set; nothing of completions."""
        if not self._about_path.exists():
            return {"unknown": _NO_ROWS, "unread": ""}
        try:
            told = json.loads(self._about_path.read_text(encoding="utf-8"))
            more = {name: told.get(name) for name in ("rows", "fingerprint", "trained", "temperature")}
            return {"unknown": told["unknown"], "unread": told["unread"], **more}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(f"{self._about_path}: cannot be read ({one_line(error)})") from None

    def add(self, order: Iterable[tuple[int, Iterable[int]]], texts: Iterable[TrainedRow]) -> None:
        """Add steps with their rows, in the order of steps; and what those rows hold that is not kept yet."""
        pairs = [(step, row) for step, rows in order for row in sorted(set(rows))]
        if not pairs:
            return
        self._prepare()
        # texts first, so that a step on record has its rows; never more of them in memory than a file holds
        number = 1 + max((_number(path) for kind in ("texts", "order") for path in self._files(kind)), default=0)
        for chunk in _chunks(texts):
            columns = zip(*((t.row, t.part, t.ids, t.learnt, t.weight) for t in chunk), strict=True)
            self._write(self.folder / f"texts_{number:05d}.parquet", columns, _TEXTS)
            number += 1
        self._write(self.folder / f"order_{number:05d}.parquet", zip(*pairs, strict=True), _ORDER)

    def kept(self) -> set[int]:
        """Rows whose tokens are on record."""
        return {row for path in self._files("texts") for row in _column(path, "row")}

    def next_row(self) -> int:
        """The first number that no row has."""
        return 1 + max(
            (row for kind in ("texts", "order") for p in self._files(kind) for row in _column(p, "row")), default=-1
        )

    def rows(self, after: int, until: int) -> dict[int, list[int]]:
        """Of each row that steps `after + 1` to `until` were taken on: at which of them, in order."""
        found: dict[int, list[int]] = {}
        for path in self._files("order"):
            for step, row in zip(_column(path, "step"), _column(path, "row"), strict=True):
                if after < step <= until:
                    found.setdefault(row, []).append(step)
        return found

    def steps(self) -> set[int]:
        """Of which it is known what they were taken on."""
        return {step for path in self._files("order") for step in _column(path, "step")}

    def texts(self, wanted: set[int]) -> Iterator[TrainedRow]:
        """What some rows hold, file by file; each once, though a disk that was full may have had it written twice."""
        told: set[tuple[int, int]] = set()
        for path in self._files("texts"):
            table = _read(path)
            table = table.filter(pc.is_in(table["row"], pa.array(sorted(wanted), pa.int64())))
            for batch in table.to_batches():
                ids, learnt = (_lists(batch.column(name)) for name in ("ids", "learnt"))
                others = (batch.column(name).to_pylist() for name in ("row", "part", "weight"))
                for row, part, weight, tokens, flags in zip(*others, ids, learnt, strict=True):
                    if (row, part) not in told:
                        told.add((row, part))
                        yield TrainedRow(row, tokens, flags, part, weight)

    def rewind(self, step: int) -> None:
        """Steps after one belong to a future that a resumed run will not have; what rows hold stays."""
        for path in self._files("order"):
            table = _read(path)
            kept = table.filter(pc.less_equal(table["step"], step))
            if not len(kept):
                path.unlink()
            elif len(kept) < len(table):
                self._write(path, (column.to_pylist() for column in kept.columns), _ORDER)

    def _files(self, kind: str) -> list[Path]:
        return sorted(self.folder.glob(f"{kind}_*.parquet"), key=_number)

    def _prepare(self) -> None:
        make_folder(self.folder.parent, private=True)
        make_folder(self.folder, private=True)

    def _write(self, path: Path, columns: Iterable[Sequence[object]], schema: pa.Schema) -> None:
        table = pa.table([list(column) for column in columns], schema=schema)
        write_whole(path, lambda beside: pq.write_table(table, beside, compression="zstd"), private=True)


def _lists(column: pa.ListArray) -> Iterator[np.ndarray]:
    """The lists of a column, without a Python object for each value."""
    values = column.values.to_numpy(zero_copy_only=False)
    for start, stop in pairwise(column.offsets.to_pylist()):
        yield values[start:stop]


def _chunks(texts: Iterable[TrainedRow]) -> Iterator[list[TrainedRow]]:
    chunk: list[TrainedRow] = []
    tokens = 0
    for text in texts:
        chunk.append(text)
        tokens += len(text.ids)
        if tokens >= _TOKENS:
            yield chunk
            chunk, tokens = [], 0
    if chunk:
        yield chunk


def _number(path: Path) -> int:
    return int(path.stem.rpartition("_")[2])


def _read(path: Path) -> pa.Table:
    try:
        return pq.read_table(path)
    except pa.ArrowException as error:
        raise RunError(f"{path}: cannot be read ({one_line(error)})") from None


def _column(path: Path, name: str) -> list[int]:
    return _read(path)[name].to_pylist()
