"""Files that are there whole or not at all; those that quote what a model said can be read by their owner only."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from .text import clean

_OWNER_ONLY, _AS_USUAL = 0o600, 0o666  # less what the umask takes


def write_whole(path: Path, write: Callable[[Path], object], private: bool = False) -> None:
    """
    Write beside, then rename: a reader never sees half a file.

    Args:
        path (`Path`):
            The file, in a folder that is there.
        write (`Callable[[Path], object]`):
            Writes everything to the path it is given, where an empty file is.
        private (`bool`, *optional*, defaults to `False`):
            Whether its owner alone may read it, from the first byte on.
    """
    beside = path.with_name(path.name + ".part")
    beside.unlink(missing_ok=True)  # what was cut off before; a link that somebody put there is not followed
    os.close(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY if private else _AS_USUAL))
    write(beside)
    os.replace(beside, path)


def write_text(path: Path, text: str, private: bool = False) -> None:
    """Write a text whole, as UTF-8, see [`write_whole`]; what cannot be encoded becomes question marks."""
    write_whole(path, lambda beside: beside.write_text(clean(text), encoding="utf-8"), private)


def make_folder(path: Path, private: bool = False) -> None:
    """Make a folder, and those above it; one that is private its owner alone can enter, if it is new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700 if private else 0o777, exist_ok=True)
