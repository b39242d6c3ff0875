"""Files that are there whole or not at all; those that quote what a model said can be read by their owner only."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

from .text import clean

_OWNER_ONLY, _AS_USUAL = 0o600, 0o666  # less what the umask takes
# a link that somebody put in a file's place would have another file written; Windows counts line ends otherwise as text
_AS_IT_IS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


def write_whole(path: Path, write: Callable[[Path], object], private: bool = False) -> None:
    """
    Write beside, then rename: a reader never sees half a file, nor does whoever comes after a loss of power.

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
    try:
        write(beside)
        _to_disk(beside)
        os.replace(beside, path)
    except OSError:
        beside.unlink(missing_ok=True)  # of a full disk it would take the rest
        raise
    _to_disk(path.parent)  # where its name stands


def write_text(path: Path, text: str, private: bool = False) -> None:
    """Write a text whole, as UTF-8, see [`write_whole`]; what cannot be encoded becomes question marks."""
    write_whole(path, lambda beside: beside.write_text(clean(text), encoding="utf-8"), private)


def append_line(path: Path, line: str, durable: bool = True) -> None:
    """
    Add a line to a file, whole or not at all.

    Args:
        path (`Path`):
            The file, in a folder that is there.
        line (`str`):
            Without its end. What stands after the last line's end in the file was cut off in the writing, and goes.
        durable (`bool`, *optional*, defaults to `True`):
            Whether it must outlast a loss of power, which takes a moment.

    Raises:
        OSError: It cannot be written, or is a link; the file is as it was.
    """
    told = line.encode() + b"\n"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | _AS_IT_IS, 0o644)
    try:
        ends = _end_of_lines(descriptor)
        os.ftruncate(descriptor, ends)
        try:
            if os.write(descriptor, told) < len(told):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            if durable:
                os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, ends)
            raise
    finally:
        os.close(descriptor)


def _end_of_lines(descriptor: int) -> int:
    """Where the last whole line of an open file ends, in bytes."""
    end = os.fstat(descriptor).st_size
    while end > 0:
        start = max(0, end - 4096)
        os.lseek(descriptor, start, os.SEEK_SET)
        found = os.read(descriptor, end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def _to_disk(path: Path) -> None:
    """What was written to a file, or of a folder the names in it, outlasts a loss of power, where the file system can."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES):  # which cannot, says so
            raise


def make_folder(path: Path, private: bool = False) -> None:
    """Make a folder, and those above it; one that is private its owner alone can enter, if it is new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700 if private else 0o777, exist_ok=True)
