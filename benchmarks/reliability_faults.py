"""Section `faults` of `reliability.py`: one fault at a time while a model is trained; training ends as it would have.

Each is planted in a run of its own process after the first step, and held against a run of the same fault without AlignGuard, where
that can feel it, else against one that nothing befell: the same weights to the bit, the same error, or the same end by a signal.
What is ours and failed is told once. What was not asked, or not judged, has no figure; and what a record holds can be read.
`reliability_plants.py` has the faults.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import reliability_run as runs
from reliability_fault import ALL, Fault
from reliability_found import Found, row
from reliability_plants import FAULTS
from tqdm.auto import tqdm

from alignguard.errors import AlignGuardError
from alignguard.records.record import read_record

_KINDS = ("trackers", "scorers", "memory", "weights", "signals", "callbacks and data", "disk")


def run(quick: bool) -> Found:
    """Plant all of them; `quick`: one of each kind."""
    names = [next(name for name in FAULTS if FAULTS[name].kind == kind) for kind in _KINDS] if quick else [*FAULTS]
    left_out = [name for name in names if FAULTS[name].mounts and os.geteuid() != 0]
    with tempfile.TemporaryDirectory() as folder:
        found = plant([name for name in names if name not in left_out], Path(folder))
    rows = [row(f"disk: {name}: not run, since a disk of its own needs root", 0, 0) for name in left_out]
    return Found([*found.rows, *rows], found.figures, found.wrong)


def plant(names: list[str], home: Path) -> Found:
    """
    Plant some faults.

    Args:
        names (`list[str]`):
            Of [`FAULTS`].
        home (`Path`):
            Where they may train.
    """
    home.mkdir(exist_ok=True)
    plain = runs.lived(home / "plain", train, "", False)
    if plain.code:
        raise RuntimeError(f"a run that nothing befell ended with {plain.error}: {plain.said[-2000:]}")
    rows, wrong, survived = [], [], 0
    for name in tqdm(names, desc="faults", unit="fault"):
        fault = FAULTS[name]
        alone = runs.lived(home / "alone", train, name, False) if fault.felt else plain
        watched = runs.lived(home / "watched", train, name, True)
        why = _wrong(fault, alone, watched, home / "watched")
        survived += not why
        rows.append(
            row(f"{fault.kind}: {name}", 1, int(not why or "told" not in why), int("record" in why), int(not why))
        )
        wrong += [f"{name}: {why}"] if why else []
        for left in ("alone", "watched"):
            while (disk := home / left / "_alignguard").is_mount():
                subprocess.run(["umount", "-l", str(disk)], check=True)
            shutil.rmtree(home / left, ignore_errors=True)
            (home / left).with_suffix(".said").unlink(missing_ok=True)
    return Found(rows, {"faults": len(names), "survived": survived}, wrong)


def _wrong(fault: Fault, alone: runs.Left, watched: runs.Left, folder: Path) -> str:
    """What does not hold, in a line; empty where all does."""
    if fault.refused:
        return "" if fault.refused in watched.error else f"it ended with {watched.error[:300]!r}"
    if (alone.code, _kind(alone)) != (watched.code, _kind(watched)):
        return (
            f"it ended with {watched.code} {watched.error[:300]!r}, without us with {alone.code} {alone.error[:200]!r}"
        )
    if alone.weights != watched.weights:
        return "it ended with other weights"
    failed = Counter(watched.failures)
    if failed != Counter(fault.told):
        return f"told of {dict(failed)}, and not once each of {list(fault.told)}"
    missing = [text for text in fault.says if text not in watched.said]
    if missing:
        return f"it is not told that {missing[0]!r}"
    try:
        record = read_record(str(folder))
    except AlignGuardError as error:
        return "" if fault.unreadable and fault.unreadable in str(error) else f"the record cannot be read: {error}"
    steps = [audit.step for audit in record.audits]
    if fault.audits is None and steps != list(ALL[: len(steps)]):
        return f"the record has audits of steps {steps}, and not the first of {list(ALL)}"
    if fault.audits is not None and steps != list(fault.audits):
        return f"the record has audits of steps {steps}, not {list(fault.audits)}"
    if fault.unscored and (scored := _scored(record.audits, fault.unscored)):
        return f"the record has figures of {scored}, which nobody judged"
    if record.verdict.since:
        return f"the record calls a regression of {list(record.verdict.since)}"
    return ""


def _kind(left: runs.Left) -> str:
    """Of an error its type and what it says, less numbers of processes, and names of files, which differ."""
    return re.sub(r"\d+", "", left.error.partition("/")[0])


def _scored(audits: list[Any], dimension: str) -> list[str]:
    """Of audits after the start, the steps at which a dimension that was not judged has a score or a drop."""
    names = (f"alignguard/{dimension}/score", f"alignguard/{dimension}/drop")
    return [f"step {a.step}" for a in audits if a.step > 1 and any(name in a.metrics for name in names)]


def train(folder: Path, name: str, watched: bool, told: dict[str, Any]) -> None:
    """A run with one fault in it, or none."""
    planted = {"budget": None, **(FAULTS[name].plant(folder) if name else {})}  # a budget moves the weights
    trainer = runs.trainer_of(folder, watched, **planted)
    for callback in trainer.callback_handler.callbacks:
        if hasattr(callback, "trainer_is"):
            callback.trainer_is(trainer)
    trainer.train()
    told["weights"] = runs.weights(trainer.model)
