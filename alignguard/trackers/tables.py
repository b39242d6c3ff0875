"""What trackers show beside figures: probes whose judgement changed, and a sample of answers; and how often what grows is shown."""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import Any

from ..auditing.audit import Audit
from ..auditing.result import said
from ..probes.draw import spread
from ..probes.probe import DIMENSIONS
from ..text import clean, defused
from ..verdicts.verdict import Verdict

FLIPS = ("step", "dimension", "probe", "prompt", "before", "after", "drop")
ANSWERS = ("step", "dimension", "probe", "prompt", "answer", "trace", "status", "score")
_TEXTS = {"prompt", "before", "after", "answer", "trace"}
_A_DIMENSION = 3
_FIRST, _SHARE = 20, 1.05


def shown_anew(audits: int) -> bool:
    """
    Whether what a tracker takes as a whole, and what grows with each audit, is given to it after so many: after each of the first
    twenty, then when a twentieth of it is new. All in all it is given about twenty times what is there in the end, however long the
    run; after each audit that would be half as many times as there are audits.
    """
    return audits <= _FIRST or int(log(audits, _SHARE)) > int(log(audits - 1, _SHARE))


@dataclass(frozen=True)
class Table:
    """Columns, and rows of as many cells: strings, numbers or `None`."""

    columns: list[str]
    rows: list[list[Any]]


def columns(names: tuple[str, ...], quote: bool) -> list[str]:
    """Of a table's columns those that may be shown."""
    return [name for name in names if quote or name not in _TEXTS]


def flips(verdict: Verdict, quote: bool) -> Table:
    """Probes whose judgement changed since the start, worst first."""
    rows = []
    for flip in verdict.flips:
        probe = flip.after.probe
        texts = (clean(probe.prompt), said(flip.before), said(flip.after))
        rows.append(dict(zip(FLIPS, (verdict.step, probe.dimension, probe.id, *texts, flip.drop), strict=True)))
    return _table(FLIPS, rows, quote)


def answers(audit: Audit, quote: bool) -> Table:
    """A few answers of every dimension, evenly spaced among its probes."""
    rows = []
    for dimension in DIMENSIONS:
        there = [result for result in audit.results.values() if result.probe.dimension == dimension]
        for result in spread(there, _A_DIMENSION):
            trace = clean(result.answer.trace) if result.answer is not None else ""
            texts = (clean(result.probe.prompt), said(result), trace)
            judged = (result.score.status.value, result.score.value)
            rows.append(
                dict(zip(ANSWERS, (audit.step, dimension, result.probe.id, *texts, *judged), strict=True))
            )  # fmt: skip
    return _table(ANSWERS, rows, quote)


def _table(names: tuple[str, ...], rows: list[dict[str, Any]], quote: bool) -> Table:
    kept = columns(names, quote)
    return Table(kept, [[_cell(row[name]) for name in kept] for row in rows])


def _cell(value: Any) -> Any:
    """Trackers offer their tables as CSV, which spreadsheets open."""
    return defused(value) if isinstance(value, str) else value
