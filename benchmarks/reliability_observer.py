"""Section `observer` of `reliability.py`: runs with the callback and without, to the bit, and Ctrl-C at lines of an audit.

A cell is a trainer and a way of training. It is run twice from one seed; what is held side by side are the logs but for wall times
and our own figures, the final weights, the optimizer, the schedule, the generators, and the files that are saved. A control has a
callback that draws one number in place of ours: each trainer must tell.

An audit is interrupted at each line that it reaches of ours where something is changed for a while, and at every twentieth of the
others. Each time the interrupt must go through, and everything of the process and the trainer be as it was: what is looked at is in `tests/helpers/everything.py`, whose own proof is
`tests/trainer/test_everything.py`.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

import environment  # noqa: F401  (no network, no account: before anything reads it)
from grid import KINDS, TRAINERS, Draws, NotRun, differing, starts
from interrupts import interrupted
from processes import end, found, start
from reliability_found import Found, row
from tiny import tiny_tokenizer
from transformers import logging

SAME = "identical"
RANKS = "two processes, DDP over gloo"
CONTROL = "control: a callback that draws one number"
_EVERY = 20  # of the lines of an audit that change nothing


def run(quick: bool) -> Found:
    """All cells; `quick`: the transformers Trainer's and SFT's, on one process, and only the lines that change something."""
    logging.set_verbosity_error()
    names = ["Trainer", "SFT"] if quick else list(TRAINERS)
    with tempfile.TemporaryDirectory() as place:
        folder, tokenizer = Path(place), tiny_tokenizer()
        cells = grid(names, tokenizer, folder)
        for name, differs in {} if quick else ranks(names, folder / "ranks").items():
            cells[name][RANKS] = differs
        drawn = control(names, tokenizer, folder / "control")
        tries = interrupted(tokenizer, folder / "interrupted", 10**9 if quick else _EVERY)
    rows, wrong = [], []
    for kind in dict.fromkeys(kind for of in cells.values() for kind in of):
        of = {name: kinds[kind] for name, kinds in cells.items() if not isinstance(kinds[kind], NotRun)}
        same = sum(not differs for differs in of.values())
        rows.append(row(kind, len(of), same, len(of) - same, same))
        wrong += [f"{name}, {kind}: not the same: {_some(differs)}" for name, differs in of.items() if differs]
    rows.append(row(CONTROL, len(names), len(drawn)))
    wrong += [f"{name}, {CONTROL}: not told, so the comparison tells nothing" for name in names if name not in drawn]
    through = sum(passed for _, passed, _ in tries)
    left = [f"interrupted at {line}: {_some(lines)}" for line, _, lines in tries if lines]
    rows.append(row("Ctrl-C at a line of an audit", len(tries), through, len(left), len(tries) - len(left)))
    wrong += left + [f"interrupted at {line}: it went on" for line, passed, _ in tries if not passed]
    shown = {name: {kind: _told(differs) for kind, differs in of.items()} for name, of in cells.items()}
    same = sum(told == SAME for of in shown.values() for told in of.values())
    return Found(rows, {"bit_identical": same, "cells": shown}, wrong)


def grid(names: list[str], tokenizer: Any, folder: Path) -> dict[str, dict[str, list[str] | NotRun]]:
    """Of each trainer and way of training what differs, on one process."""
    begin = starts(tokenizer, folder / "starts")
    cells: dict[str, dict[str, list[str] | NotRun]] = {name: {} for name in names}
    for name in names:
        for kind, how in KINDS.items():
            try:
                cells[name][kind] = differing(TRAINERS[name], how, tokenizer, begin[how.start], folder / name / kind)
            except NotRun as why:
                cells[name][kind] = why
    return cells


def ranks(names: list[str], folder: Path) -> dict[str, list[str]]:
    """Of each trainer what differs on two processes, with dropout; told by either."""
    end(start(",".join(names), folder, 2, "grid_run.py"))
    return {name: found(folder)[name] + found(folder, 1)[name] for name in names}


def control(names: list[str], tokenizer: Any, folder: Path) -> list[str]:
    """The trainers that tell of a callback that draws one number."""
    begin, how = starts(tokenizer, folder / "starts"), KINDS["dropout"]
    cases = {name: TRAINERS[name] for name in names}
    return [n for n, case in cases.items() if differing(case, how, tokenizer, begin["dropout"], folder / n, Draws)]


def _told(cell: list[str] | NotRun) -> str:
    """A cell, in a line."""
    return f"not run: {cell}" if isinstance(cell, NotRun) else _some(cell) or SAME


def _some(names: list[str]) -> str:
    """What differs, in a line."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
