"""A record is written by one run at a time: who writes it holds it, by a lock that dies with its process."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from ..errors import RunError

try:
    import fcntl
except ImportError:  # where there is none, two runs are not told apart
    fcntl = None  # type: ignore[assignment]

_held: dict[Path, int] = {}  # file descriptors by folder: a notebook that tries again holds what it held


def hold_record(folder: Path) -> None:
    """
    Hold a record until it is let go of, or this process ends, however it does.

    Args:
        folder (`Path`):
            Where its lock is: the folder of texts, which is never uploaded.

    Raises:
        RunError: Another process holds it.
    """
    if fcntl is None or folder in _held:
        return
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        # POSIX's own, and not flock's: workers of a data loader, which may outlive a run by seconds, do not inherit it
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        who = os.read(descriptor, 200).decode("utf-8", "replace").strip() or "which does not say where"
        os.close(descriptor)
        raise RunError(
            f"output_dir: {folder.parent} is being written by another run ({who}); wait for its end, or give this one an "
            "output_dir of its own"
        ) from None
    except OSError:
        os.close(descriptor)  # a file system without locks
        return
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    _held[folder] = descriptor


def let_go(folder: Path) -> None:
    """Others may write it now."""
    if (descriptor := _held.pop(folder, None)) is not None:
        os.close(descriptor)
