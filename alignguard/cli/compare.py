"""`alignguard compare RUN...`: several runs over one another."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..files import write_text
from ..probes.probe import DIMENSIONS
from ..records.record import Record, read_record
from ..records.store import MODELS
from ..report.charts import LEAST_DROP, against_drift
from ..report.page import fill
from ..report.svg import Series, curves
from ..report.terminal import columns, dumps, headline, summary
from ..report.words import finds
from .codes import exit_code
from .output import target
from .said import say, tell

_COLOURS = 8  # of the page's style sheet
# what figures depend on: where runs differ in one of these, their figures are not of the same thing
_SAME = {
    "pool_hash": "probes",
    "model_fingerprint": "start",
    "tokenizer_fingerprint": "tokenizer",
    "toxicity": "toxicity scorer",
    "judge": "judge",
    "answer_tokens": "answer budget",
    "trace_tokens": "trace budget",
    "sampling": "sampling",
}


def run(options: argparse.Namespace) -> int:
    """Run the command; the exit code."""
    page = target("--html", options.html) if options.html else None
    records = [read_record(path) for path in _folders(options.records)]
    differ = [name for key, name in _SAME.items() if len({str(getattr(r.about, key)) for r in records}) > 1]
    warning = f"not comparable: the runs differ in their {', '.join(differ)}" if differ else ""
    if warning:
        tell(warning)
    if page is not None:
        write_text(page, _page(records, warning))
    if options.json:
        print(dumps({"runs": [{**summary(r), **_over(r)} for r in records], "differ": differ}))
    else:
        say("\n\n".join(columns(rows) for rows in _tables(records)))
        if options.html:
            say(f"\npage  {options.html}")
    return exit_code([record.verdict for record in records], options.max_missed_drop)


def _folders(given: Sequence[str]) -> list[str]:
    """The folders of records: of several models that were audited together each one's, and no file that a `*` has caught beside them."""
    found: list[str] = []
    for path in map(Path, given):
        if (path / MODELS).is_file():
            found += sorted(str(file.parent) for file in path.glob("*/baseline.json"))
        elif path.is_file() and len(given) > 1:
            tell(f"{path}: a file, and no record; left out")
        else:
            found.append(str(path))
    return found or list(given)


def _over(record: Record) -> dict[str, Any]:
    """The figures over a whole run."""
    audits = record.audits
    drops = {name: [d for _, d in _points(record, f"{name}/drop")] for name in DIMENSIONS}
    return {
        "audits": len(audits),
        "drift": audits[-1].figure("kl/answer"),
        "last_drop": {name: values[-1] for name, values in drops.items() if values},
        "worst_drop": {name: max(values) for name, values in drops.items() if values},
        "seconds": sum(audit.figure("cost/seconds") or 0.0 for audit in audits),
    }


def _points(record: Record, key: str, x: str | None = None) -> list[tuple[float, float]]:
    """A figure over steps, or over another figure."""
    points = [(float(a.step) if x is None else a.figure(x), a.figure(key)) for a in record.audits]
    return [(at, value) for at, value in points if at is not None and value is not None]


def _tables(records: Sequence[Record]) -> list[list[list[str]]]:
    """Two tables: of the runs, and of their drops."""
    runs = [["run", "step", "audits", "drift", "reasoning", "last aligned", "finds", "seconds", ""]]
    found = [_over(record) for record in records]
    names = [name for name in DIMENSIONS if any(name in over["last_drop"] for over in found)]
    drops = [["drop (worst)", *names]]
    for record, over in zip(records, found, strict=True):
        d = record.verdict.dimensions.get("reasoning")
        runs.append(
            [
                record.name,
                str(record.audits[-1].step) if record.about.is_run else "-",
                str(over["audits"]),
                "-" if over["drift"] is None else f"{over['drift']:.4f}",
                f"{d.baseline:.2f} to {d.score:.2f}" if d is not None and d.n else "-",
                str(record.verdict.last_aligned_step) if record.about.is_run else "-",
                finds(record.verdict.detectable),
                f"{over['seconds']:,.0f}",
                headline(record),
            ]
        )
        last, worst = over["last_drop"], over["worst_drop"]
        drops.append([record.name, *(f"{last[n]:+.2f} ({worst[n]:+.2f})" if n in last else "-" for n in names)])
    return [runs, drops]


def _page(records: Sequence[Record], warning: str) -> str:
    runs = [record for record in records if record.about.is_run]
    style = {id(record): f"c{1 + i % _COLOURS}" for i, record in enumerate(records)}

    def series(shown: Sequence[Record], points: Callable[[Record], list[tuple[float, float]]]) -> list[Series]:
        return [Series(record.name, points(record), style[id(record)]) for record in shown]

    steps = [curves("Drift from the start", series(runs, lambda r: _points(r, "kl/answer")), "step", "KL, nats/token")]
    planes = []
    for d in DIMENSIONS:
        over_steps = series(runs, partial(_points, key=f"{d}/drop"))
        planes.append(against_drift(d, series(records, partial(_points, key=f"{d}/drop", x="kl/answer"))))
        values = [y for s in over_steps for _, y in s.points]
        axis = min([-LEAST_DROP, *values]), max([LEAST_DROP, *values])
        steps.append(curves(f"{d}: drop from the start", over_steps, "step", "positive is worse", None, axis))
    over, drops = _tables(records)
    return fill(
        "compare.html.jinja",
        title="AlignGuard: runs compared",
        keys=[(record.name, style[id(record)]) for record in records],
        warning=warning,
        runs=over,
        drops=drops,
        steps=steps if runs else [],
        planes=planes,
    )
