"""
Which checkpoints a trainer has left in its output directory, which of them were written to their end, and of which run each is.

A run writes its name into the trainer's state, which the trainer saves with every checkpoint. What transformers has for callbacks
(`ExportableState`) is not used: it would make ours anew from JSON, without the judges and scorers that people gave, and it fails at the
first save of a run that is resumed from a checkpoint without it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

_STATE = "trainer_state.json"
_OURS = "alignguard"  # among what callbacks keep in a trainer's state, and the folder of a record
_RECORD = "baseline.json"


def checkpoints(output_dir: str | Path) -> dict[int, Path]:
    """The trainer's checkpoints in a folder, by step, the earliest first."""
    found = {}
    for path in Path(output_dir).glob("checkpoint-*"):
        match = re.fullmatch(r"checkpoint-(\d+)", path.name)
        if match and path.is_dir():
            found[int(match[1])] = path
    return dict(sorted(found.items()))


def latest_checkpoint(output_dir: str | Path, step: int, run: str | None = None) -> Path | None:
    """
    The latest whole one of a run's checkpoints that is no later than a step; `None` where none is there.

    Args:
        output_dir (`str` or `Path`):
            The trainer's, in which checkpoints of an earlier run may lie too.
        step (`int`):
            The last that will do.
        run (`str`, *optional*):
            Whose, by its id; by default of the run whose record is there, and of any where there is no record.
    """
    run = run_on_record(Path(output_dir) / _OURS) if run is None else run
    early = [path for at, path in checkpoints(output_dir).items() if at <= step]
    own = (path for path in reversed(early) if run is None or run_of(path) == run)
    return next((path for path in own if not what_is_cut_off(path)), None)


def mark(state: Any, run: str) -> None:
    """
    From now on the trainer's checkpoints say which run they are of.

    Args:
        state (`TrainerState`):
            Of the training that begins.
        run (`str`):
            The run's id; one without is of an earlier version, and so are its checkpoints.
    """
    if run:
        state.stateful_callbacks[_OURS] = {"args": {}, "attributes": {"run": run}}
    else:
        state.stateful_callbacks.pop(_OURS, None)


def run_of(checkpoint: Path) -> str:
    """Which run a checkpoint is of, by its id; empty where it does not say: of an earlier version, or without a callback of ours."""
    try:
        told = json.loads((checkpoint / _STATE).read_text(encoding="utf-8"))["stateful_callbacks"][_OURS]
        return str(told["attributes"]["run"])
    except (OSError, ValueError, LookupError, TypeError):
        return ""


def run_on_record(record: Path) -> str | None:
    """The id of the run that a record is of, by its folder, empty where it has none; `None` where there is no record."""
    try:
        return str(json.loads((record / _RECORD).read_text(encoding="utf-8")).get("id", ""))
    except (OSError, ValueError, AttributeError):
        return None


def what_is_cut_off(checkpoint: Path) -> str:
    """
    What shows that a checkpoint was not written to its end, in a few words; empty where it is whole.

    The trainer writes its state last; and a file of weights says in its first bytes how long it is (safetensors' format).
    """
    state = checkpoint / _STATE
    try:
        json.loads(state.read_text(encoding="utf-8"))
    except OSError:
        return f"no {state.name}"
    except ValueError:
        return f"half of {state.name}"
    return next((f"a part of {path.name}" for path in sorted(checkpoint.glob("*.safetensors")) if _is_cut(path)), "")


def half_written(output_dir: str | Path) -> str:
    """A trainer that resumes takes its latest checkpoint: what to do where that is half-written, in a line, else nothing."""
    found = checkpoints(output_dir)
    if not found or not (cut := what_is_cut_off(found[latest := max(found)])):
        return ""
    whole = latest_checkpoint(output_dir, latest)
    then = f"resume_from_checkpoint={str(whole)!r} goes on from one that is" if whole else "none before it is either"
    return f"{found[latest]} is half-written ({cut}) and cannot be resumed; {then}"


def _is_cut(path: Path) -> bool:
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            header = int.from_bytes(file.read(8), "little")
            if size < 8 + header:
                return True
            told = json.loads(file.read(header))
        ends = [tensor["data_offsets"][1] for name, tensor in told.items() if name != "__metadata__"]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):  # a link to what is gone is no weights either
        return True
    return size < 8 + header + max(ends, default=0)
