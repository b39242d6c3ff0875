"""What was traced, on disk: `_alignguard/traces/SIDE_FIRST-LAST.jsonl`, a line on what was found and then a line for each row."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from ..errors import RunError, one_line
from ..files import make_folder, write_text
from ..records.lines import read_lines
from ..records.store import Store
from .found import ByColumn, Trace, TracedRow
from .named import Shares


def folder_of(store: Store) -> Path:
    """Where the traces of a run are: among the texts."""
    return store.private / "traces"


def summary(trace: Trace) -> dict[str, Any]:
    """What was found, without the rows, as JSON can hold it."""
    told = {f.name: getattr(trace, f.name) for f in fields(trace) if f.name not in ("rows", "shares", "by")}
    return {**told, "shares": asdict(trace.shares), "by": [asdict(column) for column in trace.by]}


def write_trace(store: Store, trace: Trace) -> Path:
    """Write a trace in place of an earlier one of the same side and steps; where to."""
    lines = [summary(trace), *({**asdict(row), "named": i < trace.named} for i, row in enumerate(trace.rows))]
    folder = folder_of(store)
    make_folder(folder.parent, private=True)
    make_folder(folder, private=True)
    path = folder / f"{trace.side.replace('/', '-')}_{trace.first:05d}-{trace.last:05d}.jsonl"
    write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), private=True)
    return path


def read_trace(path: Path) -> Trace:
    """
    Read what [`write_trace`] wrote.

    Raises:
        RunError: It is none.
    """
    try:
        head, *lines = read_lines(path)
        rows = [_row(line) for line in lines]
        columns = [ByColumn(**{**column, "values": [tuple(v) for v in column["values"]]}) for column in head.pop("by")]
        return Trace(**{**head, "shares": Shares(**head["shares"]), "rows": rows, "by": columns})
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: is no trace ({type(error).__name__}: {one_line(error)})") from None


def read_traces(store: Store) -> list[Trace]:
    """All traces of a run; those that cannot be read are left out."""
    found = []
    for path in sorted(folder_of(store).glob("*.jsonl")):
        try:
            found.append(read_trace(path))
        except RunError:
            continue
    return found


def _row(line: dict[str, Any]) -> TracedRow:
    names = {f.name for f in fields(TracedRow)}
    return TracedRow(**{**{k: v for k, v in line.items() if k in names}, "steps": tuple(line["steps"])})
