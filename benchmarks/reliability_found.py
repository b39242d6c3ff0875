"""What a section of `reliability.py` gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Found:
    """
    What a section found.

    Args:
        rows (`list[dict[str, Any]]`):
            Of the table, each from [`row`].
        figures (`dict[str, Any]`):
            Its fields in `results/reliability.json`.
        wrong (`list[str]`, *optional*):
            What did not hold, a line each; the command then ends with 1.
    """

    rows: list[dict[str, Any]]
    figures: dict[str, Any]
    wrong: list[str] = field(default_factory=list)


def row(fault: str, injected: int, seen: int, lost: int = 0, recovered: int = 0) -> dict[str, Any]:
    """
    A row of the table.

    Args:
        fault (`str`):
            What was done.
        injected (`int`), seen (`int`), lost (`int`), recovered (`int`):
            How often; how often it was told of, or had no effect that could be; what was lost by it; and after how many all was
            as it should be.
    """
    return {"fault": fault, "injected": injected, "seen": seen, "lost": lost, "recovered": recovered}
