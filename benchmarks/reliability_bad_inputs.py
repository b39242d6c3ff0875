"""Section `bad_inputs` of `reliability.py`: everything wrong that is given is told in one line, with what would be right."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import reliability_arguments
import reliability_files
from reliability_case import Ground, told
from reliability_found import Found, row

CASES = [*reliability_arguments.CASES, *reliability_files.CASES]


def run(quick: bool) -> Found:
    """Give everything wrong that there is, and count what is told clearly; `quick` changes nothing."""
    seen: Counter[str] = Counter()
    unclear: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        ground = Ground(Path(folder))
        for case in CASES:
            wrong = told(case, ground).wrong
            seen[case.kind] += not wrong
            unclear += [f"{case.how}: {wrong}"] if wrong else []
    given = Counter(case.kind for case in CASES)
    rows = [row(f"wrong {kind}", count, seen[kind], count - seen[kind], seen[kind]) for kind, count in given.items()]
    return Found(rows, {"bad_inputs": len(CASES), "clear_errors": len(CASES) - len(unclear)}, unclear)
