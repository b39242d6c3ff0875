"""Where the records of an audit go: a folder of its own, since an earlier audit in it is moved away."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import RunError
from ..records.record import Record, store_at
from ..records.store import MODELS, Store
from ..report.html import write_report


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


def make_room(store: Store) -> Path | None:
    """Move an earlier audit away; where to, or `None` where there was none."""
    aside = store.set_aside()
    store.prepare()
    return aside


def write(record: Record, report: Path) -> None:
    """Write a record, and its report."""
    store = record.store
    store.prepare()
    store.write_baseline(record.about, record.baseline)
    store.append(record.audits[0])
    write_report(report, record.about, record.audits, record.verdict)


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
