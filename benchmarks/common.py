"""Timing side by side, tables, and results/NAME.json; what `--quick` found is kept apart, in results/quick/."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


def side_by_side(runs: dict[str, Callable[[], Any]], rounds: int = 3, warm: bool = False) -> dict[str, float]:
    """
    Seconds of each run, the median over rounds in which all take turns: a machine that slows down slows all of them.

    Args:
        runs (`dict[str, Callable]`):
            What is timed; each is run once before, to warm up.
        rounds (`int`, *optional*, defaults to `3`):
            How often.
        warm (`bool`, *optional*, defaults to `False`):
            Whether they have been run already.
    """
    for run in () if warm else runs.values():
        run()
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            taken[name].append(time.perf_counter() - start)
    return {name: median(values) for name, values in taken.items()}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows of the same keys as text."""
    heads = list(rows[0])
    cells = [[f"{row[h]:.4g}" if isinstance(row[h], float) else str(row[h]) for h in heads] for row in rows]
    widths = [max(len(h), *(len(line[i]) for line in cells)) for i, h in enumerate(heads)]
    lines = ["  ".join(h.rjust(w) for h, w in zip(heads, widths, strict=True))]
    lines += ["  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) for line in cells]
    return "\n".join(lines)


def _path(name: str, quick: bool) -> Path:
    return (RESULTS / "quick" if quick else RESULTS) / f"{name}.json"


def kept(name: str, quick: bool) -> dict[str, Any]:
    """What is on file, for benchmarks of several parts."""
    path = _path(name, quick)
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    found.pop("machine", None)
    return found


def write(name: str, results: dict[str, Any], quick: bool) -> None:
    """Write results with what they were measured on."""
    path = _path(name, quick)
    path.parent.mkdir(parents=True, exist_ok=True)
    machine = {"processor": platform.machine(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    path.write_text(json.dumps({"machine": machine, **results}, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {path}")
