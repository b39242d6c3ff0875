"""What a record says: for the terminal, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from math import isfinite
from typing import Any

from ..gather import gather
from ..verdict import DimensionVerdict
from .record import Record

_SHARES = ("/harmful_refusal", "/benign_refusal", "status/", "degenerate", "forced")
_SHOWN_ABOVE = ("/n", "/unscored", "/score", "/drop", "/drop_low", "/drop_high")  # in the table of dimensions


def headline(record: Record) -> str:
    """Whether there is a regression, in a line."""
    verdict = record.verdict
    if verdict.since:
        at = {name: f" (called at step {step})" if record.is_run else "" for name, step in verdict.since.items()}
        return "REGRESSION of " + ", ".join(f"{name}{at[name]}" for name in verdict.since)
    if missing := unjudged(record):
        return f"no verdict: too few answers could be judged in {', '.join(missing)}"
    fell = [d.dimension for d in verdict.dimensions.values() if d.dimension != "reasoning" and d.fell]
    return "no regression" + (f" is proven; below the {record.was} at this look: {', '.join(fell)}" if fell else "")


def unjudged(record: Record) -> list[str]:
    """
    Trust dimensions of which no verdict can be given: of what it is held against enough answers could be judged, and of the
    model too few, as of one that is broken. All of them, where not one probe was scored both then and now.
    """
    trust = [d for d in record.verdict.dimensions.values() if d.dimension != "reasoning"]
    if not any(d.n for d in trust):
        return [d.dimension for d in trust]
    return [d.dimension for d in trust if d.unjudged]


def exit_code(records: Sequence[Record]) -> int:
    """Made for CI: 3 where one has a regression, 1 where of one nobody could judge the answers, else 0."""
    if any(record.verdict.since for record in records):
        return 3
    return 1 if any(unjudged(record) for record in records) else 0


def tables(record: Record) -> str:
    """The latest audit beside what it is held against: dimensions, drift, and natural figures."""
    verdict, metrics, was = record.verdict, record.audits[-1].metrics, record.was
    now = "now" if record.is_run else "model"
    head = ["dimension", was, now, "drop", "95 % interval", "flips", "unscored", "n", "evidence", "drift", ""]
    rows = [_row(d, metrics, verdict.since, record.is_run) for d in verdict.dimensions.values()]
    kl = {name: metrics.get(f"alignguard/kl/{name}") for name in ("answer", "raw", "reverse", "train_prompts")}
    drift = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in kl.items() if value is not None)
    parts = [columns([head, *rows]), f"drift, nats/token: {drift}"] if drift else [columns([head, *rows])]
    before = reference_metrics(record)
    names = [name for name in before if name in metrics and not name.endswith(_SHOWN_ABOVE)]
    if names:
        figures = [
            [name.removeprefix("alignguard/"), *(_figure(name, m[name]) for m in (before, metrics))] for name in names
        ]
        parts.append(columns([["figure", was, now], *figures]))
    notes = "\n".join(f"note: {note}" for note in (*verdict.warnings, record.note) if note)
    return "\n\n".join([*parts, notes] if notes else parts)


def _row(d: DimensionVerdict, metrics: dict[str, float], since: dict[str, int], is_run: bool) -> list[str]:
    figures = ["-", "-", "-", "none scored"]
    if d.n:
        figures = [f"{d.baseline:.2f}", f"{d.score:.2f}", f"{d.drop:+.2f}", f"[{d.low:+.2f}, {d.high:+.2f}]"]
    kl = metrics.get(f"alignguard/{d.dimension}/kl")
    mark = "fell" if d.fell else ""
    if d.dimension in since:
        mark = "REGRESSION" + (f" since step {since[d.dimension]}" if is_run else "")
    counts = [str(len(d.flips)), f"{d.unscored}/{d.asked}", str(d.n), str(d.evidence)]
    return [d.dimension, *figures, *counts, "-" if kl is None else f"{kl:.4f}", mark]


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
        "report": str(record.store.report),
        "model": record.about.get("model"),
        "against": record.about.get("against", "the model at step 0"),
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
