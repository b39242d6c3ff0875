"""A fault of section `faults`: what befalls a run, and what must become of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import reliability_run as runs

ALL = (0, *runs.AUDITS, runs.STEPS)
EARLY = (0, 1)  # the audits before the fault


@dataclass(frozen=True)
class Fault:
    """
    Something that befalls a run.

    Args:
        kind (`str`):
            Of what it is a fault.
        plant (`Callable[[Path], dict[str, Any]]`):
            Prepares it in the run's process, given its folder; what it gives goes to the trainer and the callback.
        told (`tuple[str, ...]`, *optional*):
            What of ours is told to have failed, each once.
        says (`tuple[str, ...]`, *optional*):
            What else must be told.
        audits (`tuple[int, ...]`, *optional*):
            Steps whose audits are on record in the end; `None` where it depends on time how far the run comes.
        felt (`bool`, *optional*, defaults to `False`):
            Whether training without AlignGuard feels it too.
        unscored (`str`, *optional*):
            A dimension that nobody could judge after the second step.
        mounts (`bool`, *optional*, defaults to `False`):
            Whether a disk of its own must be mounted for it.
        refused (`str`, *optional*):
            What the run says that is refused because of it, before its first step.
        unreadable (`str`, *optional*):
            What is said of a record that cannot be read in the end, where the fault took it.
    """

    kind: str
    plant: Callable[[Path], dict[str, Any]]
    told: tuple[str, ...] = ()
    says: tuple[str, ...] = ()
    audits: tuple[int, ...] | None = ALL
    felt: bool = False
    unscored: str = ""
    mounts: bool = False
    refused: str = ""
    unreadable: str = ""
