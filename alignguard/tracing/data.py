"""The data set that people have, beside the rows that were trained on: which is which, and the set without some."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import RunError, one_line

_KINDS = {".json": "json", ".jsonl": "json", ".parquet": "parquet", ".csv": "csv", ".arrow": "arrow"}
_LONGEST = 40  # characters of a text that are looked up first
_FEW = 20  # values of a column that it may be told apart by


def load_data(name: str, split: str = "train") -> Any:
    """
    A data set, from a file (JSONL, Parquet, CSV), a folder of `save_to_disk`, or the hub.

    Raises:
        RunError: There is none.
    """
    from datasets import load_dataset, load_from_disk

    path = Path(name)
    try:
        if path.is_dir() and ((path / "state.json").exists() or (path / "dataset_dict.json").exists()):
            found = load_from_disk(name)
            return found[split] if (path / "dataset_dict.json").exists() else found
        if path.suffix in _KINDS and path.exists():
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


def find_rows(data: Any, trained: Sequence[str]) -> list[list[int]]:
    """
    Which rows of a data set some documents are that were trained on: those whose turns are all in the document, or, of rows without
    turns, whose longest text is; white space apart.

    Args:
        data (`Dataset`):
            What people have.
        trained (`Sequence[str]`):
            The documents' texts.

    Returns:
        `list[list[int]]`: of each, the rows that say most of it: one, or several that say the same, or none.
    """
    begins: dict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(data):
        if needed := _needed(row):
            begins[max(needed, key=len)[:_LONGEST]].append(index)
    lengths = sorted({len(begin) for begin in begins})
    found = []
    for document in map(squeezed, trained):
        pieces = {document[at : at + n] for n in lengths for at in range(len(document) - n + 1)}
        said = {index: data[index] for piece in pieces for index in begins.get(piece, ())}
        within = {
            index: sum(len(text) for text in map(squeezed, texts_of(row)) if text in document)
            for index, row in said.items()
            if all(text in document for text in _needed(row))
        }
        most = max(within.values(), default=0)
        found.append(sorted(index for index, size in within.items() if size == most))
    return found


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
