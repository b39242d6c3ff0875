"""A record is written by one run at a time: who writes it holds it, by a lock that dies with its process."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from pathlib import Path

from ..errors import RunError

try:
    import fcntl
except ImportError:  # where there is none, two runs are not told apart
    fcntl = None  # type: ignore[assignment]

_PATIENCE, _AGAIN = 120.0, 2.0  # seconds
_held: dict[Path, int] = {}  # file descriptors by folder: a notebook that tries again holds what it held


def hold_record(folder: Path) -> None:
    """
    Hold a record until it is let go of, or this process ends, however it does.

    Args:
        folder (`Path`):
            Where its lock is: the folder of texts, which is never uploaded.

    Raises:
        RunError: Another process holds it. What is held by a process on another machine is waited for: a file server takes a
            while to see that a machine is gone.
    """
    if fcntl is None or folder in _held:
        return
    ends = time.monotonic() + _PATIENCE
    while (other := _try(folder)) and not _is_here(other) and time.monotonic() < ends:
        time.sleep(_AGAIN)
    if other:
        raise RunError(
            f"output_dir: {folder.parent} is being written by another run ({other}); wait for its end, or give this one an "
            f"output_dir of its own; if nothing runs there any more, end that process (a notebook's kernel, say) or remove {folder / '.lock'}"
        )


def _try(folder: Path) -> str:
    """Hold it; who does, where another one does."""
    try:
        descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError:
        return ""  # whether the record can be written at all is told elsewhere
    try:
        # POSIX's own, and not flock's: workers of a data loader, which may outlive a run by seconds, do not inherit it
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _held[folder] = descriptor
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    except (BlockingIOError, PermissionError):
        who = os.read(descriptor, 200).decode("utf-8", "replace").strip() or "a process that does not say which"
        os.close(descriptor)
        return who
    except OSError:  # a file system without locks, or without room to say who holds it
        if folder not in _held:
            os.close(descriptor)
    return ""


def _is_here(other: str) -> bool:
    """Whether who holds it is a process of this machine, whose end is seen at once."""
    return other.endswith(f" on {socket.gethostname()}")


def let_go(folder: Path) -> None:
    """Others may write it now."""
    if (descriptor := _held.pop(folder, None)) is not None:
        with suppress(OSError):
            (folder / ".lock").unlink()  # while it is held
        os.close(descriptor)
