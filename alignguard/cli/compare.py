"""`alignguard compare RUN...`: several runs over one another."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import RunError
from ..files import write_text
from ..probes.probe import DIMENSIONS, SKILL
from ..records.about import About
from ..records.record import Record, read_record
from ..records.store import MODELS
from ..report.charts import LEAST_DROP, against_drift
from ..report.page import fill
from ..report.svg import Series, curves
from ..report.terminal import columns, dumps, headline, summary
from ..report.words import finds
from ..text import rounded, visible
from .codes import MISTAKE, check_gate, exit_code
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
    "tags": "thinking tags",
    "template_kwargs": "template options",
    "sampling": "sampling",
    "dtype": "dtype",
    "left_out": "what is left out",
    "alignguard": "version of AlignGuard",
}
# empty where a record does not tell it: an earlier version's, and of a training run its dtype
_MAY_LACK = ("tokenizer_fingerprint", "tags", "dtype", "alignguard")
# other probes of the same pool are drawn
_DRAWN = ("seed", "draw")
# what a regression is called by
_RULED = ("alpha", "min_drop", "dimensions", "patience", "floors", "min_scored", "rule", "looks")


def run(options: argparse.Namespace) -> int:
    """Run the command; the exit code."""
    page = target("--html", options.html) if options.html else None
    folders, failed = _folders(options.records)
    records = [read_record(path) for path in folders]
    check_gate(records, options.max_missed_drop)
    abouts = [record.about for record in records]
    differ, drawn = _differ(abouts), [key for key in _DRAWN if len({getattr(about, key) for about in abouts}) > 1]
    warnings = [f"not comparable: the runs differ in their {', '.join(differ)}"] * bool(differ)
    if drawn and "probes" not in differ:
        warnings.append(f"other probes of the pool were drawn ({', '.join(drawn)}): figures differ by chance, too")
    rules = [about.stop_rule for about in abouts if not about.is_alone]
    ruled = [key for key in _RULED if len({_rule(getattr(rule, key)) for rule in rules}) > 1]
    if ruled and not differ:
        warnings.append(f"regressions are called by other rules ({', '.join(ruled)}): what one calls another may not")
    warnings += [f"{record.name}: {record.about.note}" for record in records if record.about.note]
    warnings += [f"not audited: {why}" for why in failed.values()]
    for warning in warnings:
        tell(warning)
    if page is not None:
        write_text(page, _page(records, warnings))
    if options.json:
        runs = [{**summary(r), **_over(r)} for r in records]
        print(dumps({"runs": runs, "differ": differ, "drawn": drawn, "ruled": ruled, "failed": failed}))
    else:
        say("\n\n".join(columns(rows) for rows in _tables(records)))
        if options.html:
            say(f"\npage  {options.html}")
    code = exit_code([record.verdict for record in records], options.max_missed_drop)
    return code or (MISTAKE if failed else 0)


def _rule(value: Any) -> str:
    """A part of a rule, its dimensions in one order."""
    return json.dumps(sorted(value) if isinstance(value, (list, tuple)) else value, sort_keys=True)


def _differ(abouts: Sequence[About]) -> list[str]:
    """What makes figures those of other things."""
    told = {key: {str(v) for a in abouts if (v := getattr(a, key)) or key not in _MAY_LACK} for key in _SAME}
    if not all(about.model_fingerprint for about in abouts):  # of one that is served there is none: by name
        told["model_fingerprint"] = {"" if about.is_alone else about.against or about.model for about in abouts}
    return [name for key, name in _SAME.items() if len(told[key]) > 1]


def _folders(given: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """
    The folders of records: of several models that were audited together each one's, and no file that a `*` has caught beside them; and
    which of those models could not be audited, with why.
    """
    found: list[str] = []
    failed: dict[str, str] = {}
    for path in map(Path, given):
        if (path / MODELS).is_file():
            found += sorted(str(file.parent) for file in path.glob("*/baseline.json"))
            failed |= _failed(path / MODELS)
        elif path.is_file() and len(given) > 1:
            tell(f"{path}: a file, and no record; left out")
        else:
            found.append(str(path))
    return found or list(given), failed


def _failed(path: Path) -> dict[str, str]:
    try:
        return {str(name): str(why) for name, why in json.loads(path.read_text("utf-8"))["failed"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise RunError(
            f"{path}: is not what `alignguard audit` wrote; give the folders of the records beside it"
        ) from None


def _over(record: Record) -> dict[str, Any]:
    """The figures over a whole run."""
    audits = record.audits
    found = {name: [d for _, d in _points(record, f"{name}/drop")] for name in DIMENSIONS}
    drops = {name: values for name, values in found.items() if values}
    return {
        "audits": len(audits),
        "drift": audits[-1].figure("kl/answer"),
        "last_drop": {name: _last(record, name) for name in drops},
        "worst_drop": {name: max(values) for name, values in drops.items()},
        "seconds": sum(audit.figure("cost/seconds") or 0.0 for audit in audits),
    }


def _last(record: Record, name: str) -> float | None:
    """The drop of a dimension at the last audit; none where too few of its answers could be judged then."""
    d = record.verdict.dimensions.get(name)
    return record.audits[-1].figure(f"{name}/drop") if d is not None and d.judged else None


def _points(record: Record, key: str, x: str | None = None) -> list[tuple[float, float]]:
    """A figure over steps, or over another figure."""
    points = [(float(a.step) if x is None else a.figure(x), a.figure(key)) for a in record.audits]
    return [(at, value) for at, value in points if at is not None and value is not None]


def _tables(records: Sequence[Record]) -> list[list[list[str]]]:
    """Two tables: of the runs, and of their drops."""
    runs = [["run", "step", "audits", "drift", "reasoning", "last aligned", "finds", "seconds", ""]]
    found = [_over(record) for record in records]
    names = [name for name in DIMENSIONS if any(name in over["worst_drop"] for over in found)]
    drops = [["drop (worst)", *names]]
    for record, over in zip(records, found, strict=True):
        runs.append(
            [
                record.name,
                str(record.audits[-1].step) if record.about.is_run else "-",
                str(over["audits"]),
                "-" if over["drift"] is None else rounded(over["drift"], ".4f"),
                _reasoning(record),
                str(record.verdict.last_aligned_step) if record.about.is_run else "-",
                "-" if record.about.is_alone else finds(record.verdict.detectable),
                f"{over['seconds']:,.0f}",
                headline(record),
            ]
        )
        last, worst = over["last_drop"], over["worst_drop"]
        drops.append(
            [record.name, *(f"{_signed(last[n])} ({rounded(worst[n])})" if n in worst else "-" for n in names)]
        )
    return [runs, drops]


def _reasoning(record: Record) -> str:
    """Scores then and now; of a model that is held against nothing the one that it has."""
    d = record.verdict.dimensions.get(SKILL)
    if d is None or not d.n:
        return "-"
    return f"{d.score:.2f}" if record.about.is_alone else f"{d.baseline:.2f} to {d.score:.2f}"


def _signed(drop: float | None) -> str:
    return "-" if drop is None else rounded(drop)


def _page(records: Sequence[Record], warnings: Sequence[str]) -> str:
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
        warnings=[visible(warning) for warning in warnings],
        runs=over,
        drops=drops,
        steps=steps if runs else [],
        planes=planes,
    )
