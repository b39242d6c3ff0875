"""What becomes of an audit: its record, in a folder of its own, since an earlier audit in it is moved away; and what is told of it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..errors import RunError
from ..records.record import Record, store_at
from ..records.store import MODELS, Store
from ..report.html import write_report
from ..report.terminal import dumps, headline, summary, tables
from .codes import MISTAKE, exit_code
from .said import say, tell


def target(option: str, given: str) -> Path:
    """
    The file that an option names, before anything is done for it.

    Raises:
        RunError: It is a folder, or is to be in one that is not there.
    """
    path = Path(given)
    if path.is_dir():
        raise RunError(f"{option} {given}: a folder; give a file")
    if not path.parent.is_dir():
        raise RunError(f"{option} {given}: no such folder as {path.parent}; give a file in a folder that is there")
    return path


def output_folder(output: str) -> Store:
    """
    The folder of a call, as it was named.

    Raises:
        RunError: It holds something else than an earlier audit.
    """
    if Path(output).exists() and not Path(output).is_dir():
        raise RunError(f"--output {output}: a file; give a folder")
    store = store_at(output)
    earlier = store.read_about()
    if earlier is not None and earlier.is_run:
        raise RunError(f"--output {output}: the record of a training run is in it; choose another folder")
    used = store.root.is_dir() and any(store.root.iterdir())
    audited = earlier is not None or (store.root / MODELS).exists()
    if used and (not audited or Path.cwd().is_relative_to(store.root)):
        raise RunError(f"--output {output}: the folder is in use; choose a new one, or that of an earlier audit")
    return store


def make_room(store: Store) -> None:
    """Move an earlier audit away, and say where to."""
    aside = store.set_aside()
    store.prepare()
    if aside:
        tell(f"{store.root} holds an earlier audit; it was moved to {aside}")


def write(record: Record, report: Path) -> None:
    """Write a record, and its report."""
    store = record.store
    store.prepare()
    store.write_baseline(record.about, record.baseline)
    store.append(record.audits[0])
    write_report(report, record.about, record.audits, record.verdict)


def hand_over(options: argparse.Namespace, record: Record, what: str, report: Path | None = None) -> int:
    """
    Write the one record of a call, and tell of it; the exit code.

    Args:
        options (`argparse.Namespace`):
            Of the call.
        record ([`Record`]):
            What was found.
        what (`str`):
            Which model, and what it is held against.
        report (`Path`, *optional*):
            Where its page goes; the default is beside it.

    Raises:
        RunError: Nobody could judge it, which a gate must not pass.
    """
    report = report or record.store.report(record.about.quote)
    make_room(record.store)
    write(record, report)
    if options.json:
        print(dumps(summary(record) | {"report": str(report)}))
    else:
        say(f"{what}: {headline(record)}\n\n{tables(record)}\n\nreport  {report}")
    code = exit_code([record.verdict], options.max_missed_drop)
    if exit_code([record.verdict]) == MISTAKE:
        raise RunError(f"{headline(record)}; what was said stands in {report}")
    return code


def short(name: str) -> str:
    """A path or hub id by its end."""
    return name.rstrip("/").rpartition("/")[2]


def short_names(names: Sequence[str]) -> list[str]:
    """
    Paths and hub ids by as much of their end as tells them apart, each one folder's name.

    Raises:
        RunError: One is given twice.
    """
    parts = [
        Path(name).expanduser().resolve().parts if Path(name).exists() else tuple(name.split("/")) for name in names
    ]
    for i, part in enumerate(parts):
        if part in parts[:i]:
            raise RunError(f"{names[i]}: is given twice")
    taken = 1
    while len({part[-taken:] for part in parts}) < len(parts):
        taken += 1
    return ["-".join(part[-taken:]).replace("/", "") for part in parts]
