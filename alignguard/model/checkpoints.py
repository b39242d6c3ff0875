"""Which checkpoints a trainer has left in its output directory."""

from __future__ import annotations

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
    """The latest of the trainer's checkpoints that is no later than a step; `None` where none is there."""
    early = [path for at, path in checkpoints(output_dir).items() if at <= step]
    return early[-1] if early else None
