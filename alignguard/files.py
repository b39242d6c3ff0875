"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from .text import clean


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """
    Write beside, then rename: a reader never sees half a file.

    Args:
        path (`Path`):
            The file, in a folder that is there.
        write (`Callable[[Path], object]`):
            Writes everything to the path it is given.
    """
    beside = path.with_name(path.name + ".part")
    write(beside)
    os.replace(beside, path)


def write_text(path: Path, text: str) -> None:
    """Write a text whole, as UTF-8; what cannot be encoded becomes question marks."""
    write_whole(path, lambda beside: beside.write_text(clean(text), encoding="utf-8"))
