"""What leaving rows out undoes, drawn from the results on file: `docs/images/cause.svg`.

    python benchmarks/cause_picture.py

A panel a kind of rows and model, a line a training set: the drop of the side after training on all rows, without as many as were named by
chance, and without those that were named (of several orders the mean).
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "images" / "cause.svg"
PLACES = ("all rows", "without\nrandom", "without\nnamed")


def lines(cells: dict[str, dict[str, Any]]) -> dict[str, list[list[float]]]:
    """By kind and model the three drops of each training set that was trained on again; those with a drop to undo."""
    found: dict[str, list[list[float]]] = defaultdict(list)
    for name, cell in cells.items():
        if "without_named" in cell and "without_random" in cell and cell["drop"] > 0:
            named, chance = (np.mean([run["drop"] for run in cell[f"without_{what}"]]) for what in ("named", "random"))
            model = name.split("-", 3)[3:]
            found[" ".join([cell["kind"], *model])].append([cell["drop"], float(chance), float(named)])
    return dict(found)


def picture(cells: dict[str, dict[str, Any]], path: Path) -> None:
    """Draw it."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    kinds = lines(cells)
    columns = 4
    rows = -(-len(kinds) // columns)
    figure, panels = pyplot.subplots(rows, columns, figsize=(9.5, 2.6 * rows), sharey=True, layout="constrained")
    for axes in panels.flat:
        axes.set_axis_off()
    for axes, (kind, drops) in zip(panels.flat, sorted(kinds.items(), key=lambda kind: len(kind[0])), strict=False):
        axes.set_axis_on()
        for each in drops:
            axes.plot(range(3), each, "-", color="0.7", linewidth=0.9)
            for place, colour in enumerate(("0.35", "C0", "C2")):
                axes.plot(place, each[place], "o", color=colour, markersize=5)
        axes.axhline(0, color="gray", linewidth=0.8)
        axes.set_xticks(range(3), PLACES, fontsize=8)
        axes.set_xlim(-0.4, 2.4)
        first, _, model = kind.partition(" ")
        axes.set_title(f"{first}\n{model}" if model else first, fontsize=9)
        axes.grid(axis="y", alpha=0.3)
    figure.supylabel("drop of the side, after training on", fontsize=9)
    matplotlib.rcParams["svg.hashsalt"] = "cause"  # the same figures give the same file
    figure.savefig(path, metadata={"Date": None})
    print(f"wrote {path}")


if __name__ == "__main__":
    picture(json.loads((ROOT / "benchmarks" / "results" / "cause.json").read_text("utf-8"))["cells"], PICTURE)
