"""The data set that people have, beside the rows that were trained on: which is which, and the set without some."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import RunError, one_line

_KINDS = {".json": "json", ".jsonl": "json", ".parquet": "parquet", ".csv": "csv", ".arrow": "arrow"}
_LONGEST = 16  # characters of a text that are looked up first
_MOST, _HALF = 0.8, 0.4  # of what is learnt of a document that a row must be
_WHOLE = 0.9  # of a document: all of it is learnt
_FEW = 20  # values of a column that it may be told apart by


def load_data(name: str, split: str = "train") -> Any:
    """
    A data set, from a file (JSONL, Parquet, CSV), a folder of `save_to_disk`, or the hub.

    Raises:
        RunError: There is none.
    """
    from datasets import load_dataset, load_from_disk

    path = Path(name)
    if path.suffix in _KINDS and not path.exists():
        raise RunError(f"--data {name}: no such file")
    try:
        if path.is_dir() and ((path / "state.json").exists() or (path / "dataset_dict.json").exists()):
            found = load_from_disk(name)
            return found[split] if (path / "dataset_dict.json").exists() else found
        if path.suffix in _KINDS:
            return load_dataset(_KINDS[path.suffix], data_files=name, split="train")
        return load_dataset(name, split=split)
    except Exception as error:  # a library's, of many kinds
        raise RunError(f"--data {name}: cannot be loaded ({type(error).__name__}: {one_line(error, 200)})") from None


def texts_of(value: Any) -> Iterator[str]:
    """Every text in a row, but names of roles."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            if key not in ("role", "from"):
                yield from texts_of(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from texts_of(inner)


def squeezed(text: str) -> str:
    """Without its white space, which templates and packing change."""
    return "".join(text.split())


@dataclass(frozen=True)
class Said:
    """
    A document that was trained on, in words.

    Args:
        row (`int`):
            Its place in the trainer's set; -1 where it has none.
        text (`str`):
            All of it.
        learnt (`str`):
            What of it must be from the row: what is learnt; of a completion its prompt.
    """

    row: int
    text: str
    learnt: str


def find_rows(data: Any, trained: Sequence[Said]) -> list[list[int]]:
    """
    Which rows of a data set some documents are that were trained on: of those that are in the document the one that is most of it, and
    of several the one of the same place. A row is in a document if all its turns are, or, without turns, its longest text; and if its
    texts are most of what is learnt of the document, white space apart.

    Args:
        data (`Dataset`):
            What people have.
        trained (`Sequence[Said]`):
            The documents.

    Returns:
        `list[list[int]]`: of each, one row, or several that say the same, or none, also where several rows are in it that do not.
    """
    begins: dict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(data):
        if needed := _needed(row):
            begins[max(needed, key=len)[:_LONGEST]].append(index)
    lengths = sorted({len(begin) for begin in begins})
    return [_search(data, said, begins, lengths) for said in trained]


def _search(data: Any, said: Said, begins: Mapping[str, Sequence[int]], lengths: Sequence[int]) -> list[int]:
    document = squeezed(said.text)
    pieces = {document[at : at + n] for n in lengths for at in range(len(document) - n + 1)}
    rows = {index: data[index] for piece in pieces for index in begins.get(piece, ())}
    sizes = {index: size for index, row in rows.items() if (size := _size_in(row, said))}
    most = [index for index, size in sizes.items() if size == max(sizes.values())]
    if said.row in most:
        return [said.row]
    alike = {tuple(_needed(rows[index])) for index in most}
    return sorted(most) if len(alike) == 1 else []


def _size_in(row: Mapping[str, Any], said: Said) -> int:
    """How many characters of a document are a row's; 0 where it is not in it, or is too little of it."""
    document, learnt = squeezed(said.text), squeezed(said.learnt)
    needed = _needed(row)
    if not needed or not all(text in document for text in needed):
        return 0
    texts = [text for text in map(squeezed, texts_of(row)) if text and text in document]
    least = (
        _MOST if len(learnt) < _WHOLE * len(document) else _HALF
    )  # where all is learnt, what a template writes is too
    own = sum(len(text) for text in texts if text in learnt) or max(
        (len(learnt) for t in texts if learnt in t), default=0
    )
    return sum(map(len, texts)) if own >= least * len(learnt) else 0


def _needed(row: Mapping[str, Any]) -> list[str]:
    """What of a row must be in what was trained on: its turns, or its longest text, beside which others may say where it is from."""
    turns = [
        text for value in row.values() if not isinstance(value, str) for text in map(squeezed, texts_of(value)) if text
    ]
    return turns or [text for text in [squeezed(max(texts_of(row), key=len, default=""))] if text]


def columns_to_tell_by(data: Any) -> list[str]:
    """Columns whose few values rows may be told apart by: `source`, and its like."""
    found = []
    for name in data.column_names:
        if getattr(data.features[name], "dtype", "") == "string":
            values = set(data[name])
            if 1 < len(values) <= min(_FEW, len(data) // 2):
                found.append(name)
    return found
