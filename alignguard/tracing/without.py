"""A data set without some of its rows. Those that are kept are the user's own: lines of a file are copied, since what a library read
of them it would write otherwise (dates, long fractions, a text that says None)."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Any

from ..errors import RunError, one_line
from ..files import write_whole

Numbered = Iterator[tuple[int, bytes]]  # rows as they stand; what comes before the first one is -1


def name_without(name: str) -> str:
    """Where a data set without some rows goes, if nothing else is said."""
    path, suffix = Path(name), _formats(name)[0]
    return f"{path.stem if path.is_file() else path.name}-without{suffix}"


def check_copied(name: str, data: Any, output: Path) -> None:
    """
    Whether the rows of a data set can be written to a file.

    Raises:
        RunError: It is of a format that they are not written in, or they cannot be told apart in the file that they are in.
    """
    formats = _formats(name)
    if output.suffix not in formats:
        files = " or ".join(f"FILE{suffix}" for suffix in formats)
        raise RunError(f"--output {output}: {name} is written as {' or '.join(formats)}; give {files}")
    if output.suffix not in _COPIED:
        return
    why = ""
    try:
        last = max((number for number, _ in _COPIED[output.suffix](Path(name))), default=-1)
    except (ValueError, csv.Error) as error:
        last, why = -1, f" ({one_line(error, 100)})"
    if last + 1 != len(data):
        raise RunError(
            f"{name}: its {len(data):,} rows do not stand one a line{why}, to be copied; give --output FILE.parquet"
        )


def write_without(name: str, data: Any, dropped: Container[int], output: Path) -> int:
    """Write a data set without some rows, see [`check_copied`]; how many it has then."""
    kept = [i for i in range(len(data)) if i not in dropped]

    def write(beside: Path) -> None:
        if output.suffix not in _COPIED:
            data.select(kept).to_parquet(str(beside))
            return
        with beside.open("wb") as file:
            file.writelines(row for i, row in _COPIED[output.suffix](Path(name)) if i not in dropped)

    write_whole(output, write)
    return len(kept)


def _formats(name: str) -> list[str]:
    """In which a data set can be written: its own first, if its rows can be copied."""
    path = Path(name)
    return [*([path.suffix] if path.suffix in _COPIED and path.is_file() else []), ".parquet"]


def _json_lines(path: Path) -> Numbered:
    number = 0
    with path.open("rb") as file:
        for line in file:
            if line.strip():
                if not isinstance(json.loads(line), dict):
                    raise ValueError(f"{line[:40]!r} is none")
                yield number, line
                number += 1


def _csv_records(path: Path) -> Numbered:
    """Of records that may run over several lines, where they are quoted; the header is none."""
    number, limit = -1, csv.field_size_limit(2**31 - 1)
    held: list[str] = []  # lines of the record that is read

    def lines() -> Iterator[str]:
        for line in file:
            held.append(line)
            yield line

    try:
        with path.open(encoding="utf-8", newline="") as file:
            for _ in csv.reader(lines()):
                record = "".join(held)
                held.clear()
                if record.strip():
                    yield number, record.encode()
                    number += 1
    finally:
        csv.field_size_limit(limit)


_COPIED: dict[str, Callable[[Path], Numbered]] = {".jsonl": _json_lines, ".csv": _csv_records}
