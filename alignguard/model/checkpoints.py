"""Which checkpoints a trainer has left in its output directory, and which of them were written to their end."""

from __future__ import annotations

import json
import re
from pathlib import Path


def checkpoints(output_dir: str | Path) -> dict[int, Path]:
    """The trainer's checkpoints in a folder, by step, the earliest first."""
    found = {}
    for path in Path(output_dir).glob("checkpoint-*"):
        match = re.fullmatch(r"checkpoint-(\d+)", path.name)
        if match and path.is_dir():
            found[int(match[1])] = path
    return dict(sorted(found.items()))


def latest_checkpoint(output_dir: str | Path, step: int) -> Path | None:
    """The latest whole one of the trainer's checkpoints that is no later than a step; `None` where none is there."""
    early = [path for at, path in checkpoints(output_dir).items() if at <= step]
    return next((path for path in reversed(early) if not what_is_cut_off(path)), None)


def what_is_cut_off(checkpoint: Path) -> str:
    """
    What shows that a checkpoint was not written to its end, in a few words; empty where it is whole.

    The trainer writes its state last; and a file of weights says in its first bytes how long it is (safetensors' format).
    """
    state = checkpoint / "trainer_state.json"
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
