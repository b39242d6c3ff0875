"""What a record says: for the terminal, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from math import isfinite
from typing import Any

from ..auditing.audit import Audit
from ..auditing.figures import PREFIX
from ..auditing.metrics import gather
from ..records.record import Record
from ..verdicts.verdict import DimensionVerdict, Verdict
from .words import in_a_line, mark

_SHARES = ("/harmful_refusal", "/benign_refusal", "status/", "degenerate", "forced")
_SHOWN_ABOVE = ("/n", "/unscored", "/score", "/drop", "/drop_low", "/drop_high")  # in the table of dimensions


def headline(record: Record) -> str:
    """The verdict, in a line."""
    return in_a_line(record.verdict, record.about.was, record.about.is_run)


def tables(record: Record) -> str:
    """The latest audit beside what it is held against: dimensions, drift, and natural figures."""
    verdict, metrics, was = record.verdict, record.audits[-1].metrics, record.about.was
    now = "now" if record.about.is_run else "model"
    head = ["dimension", was, now, "drop", "95 % interval", "flips", "unscored", "n", "evidence", "drift", ""]
    rows = [_row(d, record) for d in verdict.dimensions.values()]
    kl = {name: record.audits[-1].figure(f"kl/{name}") for name in ("answer", "raw", "reverse", "train_prompts")}
    drift = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in kl.items() if value is not None)
    drift += floor(record.audits[-1])
    parts = [columns([head, *rows]), f"drift, nats/token: {drift}"] if drift else [columns([head, *rows])]
    before = reference_metrics(record)
    names = [name for name in before if name in metrics and not name.endswith(_SHOWN_ABOVE)]
    if names:
        figures = [[name.removeprefix(PREFIX), *(_figure(name, m[name]) for m in (before, metrics))] for name in names]
        parts.append(columns([["figure", was, now], *figures]))
    notes = "\n".join(f"note: {note}" for note in (*verdict.warnings, record.note) if note)
    return "\n\n".join([*parts, notes] if notes else parts)


def _row(d: DimensionVerdict, record: Record) -> list[str]:
    figures = ["-", "-", "-", "none scored"]
    if d.n:
        figures = [f"{d.baseline:.2f}", f"{d.score:.2f}", f"{d.drop:+.2f}", f"[{d.low:+.2f}, {d.high:+.2f}]"]
    kl = record.audits[-1].figure(f"{d.dimension}/kl")
    counts = [str(len(d.flips)), f"{d.unscored}/{d.asked}", str(d.n), str(d.evidence)]
    marked = mark(record.verdict, d, record.about.is_run)
    return [d.dimension, *figures, *counts, "-" if kl is None else f"{kl:.4f}", marked]


def _figure(name: str, value: float) -> str:
    return f"{value:.0%}" if any(part in name for part in _SHARES) else f"{value:.3f}"


def reference_metrics(record: Record) -> dict[str, float]:
    """The reference's own figures on the probes of the latest audit, under the names that are logged."""
    asked = {id: record.baseline[id] for id in record.audits[-1].scores}
    # what was said to choices is for drift alone, and a policy says nothing to them
    asked = {id: replace(r, answer=None) if r.probe.judge == "choice" else r for id, r in asked.items()}
    found = gather(asked, asked)
    return {name: value for name, value in found.items() if "/drop" not in name}


def summary(record: Record) -> dict[str, Any]:
    """A record as JSON; figures that do not exist are null."""
    verdict, latest = record.verdict, record.audits[-1]
    return {
        "record": str(record.store.root),
        "report": str(record.store.report(record.about.quote)),
        "model": record.about.model,
        "against": record.about.held_against,
        "step": latest.step,
        "verdict": headline(record),
        "regressed": verdict.since,
        "last_aligned_step": verdict.last_aligned_step,
        "warnings": [note for note in (*verdict.warnings, record.note) if note],
        "dimensions": {name: _dimension(d) for name, d in verdict.dimensions.items()},
        "metrics": latest.metrics,
        "reference_metrics": reference_metrics(record),
    }


def _dimension(d: DimensionVerdict) -> dict[str, Any]:
    return {
        "reference": d.baseline,
        "score": d.score,
        "drop": d.drop if d.n else None,
        "low": d.low if d.n else None,
        "high": d.high if d.n else None,
        "n": d.n,
        "asked": d.asked,
        "unscored": d.unscored,
        "flips": len(d.flips),
        "evidence": d.evidence.strength,
        "called": d.called,
    }


def dumps(value: Any) -> str:
    """JSON that every reader takes: what is not finite is null."""
    return json.dumps(_finite(value), indent=1, ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text in columns: the first and a last one without a name to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    left = {0} | ({len(widths) - 1} if not rows[0][-1] else set())
    lines = []
    for row in rows:
        cells = [
            text.ljust(w) if i in left else text.rjust(w) for i, (text, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def floor(audit: Audit) -> str:
    """What the start drifts against itself, to be said behind a drift; empty where it is not known."""
    value = audit.figure("kl/floor")
    return "" if value is None else f", floor {value:.1e}"


def format_table(audit: Audit, verdict: Verdict) -> str:
    """An audit as a table for the terminal."""
    keys = ("kl/answer", "kl/raw", "kl/thinks", "cost/seconds")
    answer, raw, thinks, seconds = (float("nan") if (value := audit.figure(key)) is None else value for key in keys)
    lines = [
        f"AlignGuard  step {audit.step}  drift {answer:.4f} nats/token (raw {raw:.4f}{floor(audit)})  opens a trace "
        f"{thinks:.0%}  {seconds:.0f} s",
        f"  {'dimension':<11} {'start':>6} {'now':>6} {'drop':>7}  {'95 % interval':<16} {'flips':>5} {'unscored':>9} {'n':>4} {'evidence':>8}",
    ]
    for d in verdict.dimensions.values():
        if d.n:
            figures = f"{d.baseline:6.2f} {d.score:6.2f} {d.drop:+7.2f}  [{d.low:+.2f}, {d.high:+.2f}]"
        else:
            figures = f"{'-':>6} {'-':>6} {'-':>7}  {'none scored':<14}"
        marked = mark(verdict, d, steps=True)
        lines.append(
            f"  {d.dimension:<11} {figures}   {len(d.flips):>5} {d.unscored:>6}/{d.asked:<3}{d.n:>4} "
            f"{d.evidence!s:>8}  {marked}".rstrip()
        )
    lines += [f"  note: {warning}" for warning in verdict.warnings]
    return "\n".join(lines)
