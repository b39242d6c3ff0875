"""What a record says: for the terminal, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import isfinite, nan
from typing import Any

from ..auditing.audit import Audit
from ..auditing.figures import PREFIX
from ..auditing.metrics import gather
from ..records.about import About
from ..records.record import Record
from ..text import in_a_line, rounded, visible, visible_json
from ..verdicts.sides import TOGETHER
from ..verdicts.verdict import DimensionVerdict, SideVerdict, State, Verdict
from .words import finds, mark, no_verdict, tested
from .words import in_a_line as verdict_in_a_line

_SHARES = ("/harmful_refusal", "/benign_refusal", "status/", "degenerate", "forced")
_SHOWN_ABOVE = (
    "/n",
    "/unscored",
    "/score",
    "/drop",
    "/drop_low",
    "/drop_high",
    "/leaning_drop",
)  # in the table of dimensions


def headline(record: Record) -> str:
    """The verdict, in a line, with what is left out of it."""
    return headline_of(record.about, record.verdict)


def headline_of(about: About, verdict: Verdict, shown: Callable[[str], str] = str) -> str:
    """The same of what stands on record; `shown` is how words of others are shown."""
    none = f"; {no_verdict(verdict, about.was)}" if verdict.state is State.NOTHING else ""
    alone = f"scores, held against nothing{none}"
    line = alone if about.is_alone else verdict_in_a_line(verdict, about.was, about.is_run)
    return f"{line}; left out: {', '.join(map(shown, about.left_out))}" if about.left_out else line


def tables(record: Record) -> str:
    """The latest audit beside what it is held against: dimensions, drift, and natural figures."""
    verdict, metrics, was = record.verdict, record.audits[-1].metrics, record.about.was
    now = "now" if record.about.is_run else "model"
    head = ["dimension", was, now, "drop", "95 % interval", "flips", "unscored", "n", "p", "finds", "drift", ""]
    rows = [row for d in verdict.rows for row in _rows(d, record)]
    if record.about.is_alone:  # nothing but scores, and how many they are of
        head, *rows = ([row[i] for i in (0, 2, 6, 7)] for row in [head, *rows])
    kl = {name: record.audits[-1].figure(f"kl/{name}") for name in ("answer", "raw", "reverse", "train_prompts")}
    drift = ", ".join(
        f"{name.replace('_', ' ')} {rounded(value, '.4f')}" for name, value in kl.items() if value is not None
    )
    drift += floor(record.audits[-1])
    parts = [columns([head, *rows]), f"drift, nats/token: {drift}"] if drift else [columns([head, *rows])]
    before = reference_metrics(record)
    parts += [said] if (said := sampled(record)) else []
    names = [name for name in before if name in metrics and is_natural(name)]
    if names:
        held = {now: metrics} if record.about.is_alone else {was: before, now: metrics}
        figures = [[name.removeprefix(PREFIX), *(figure(name, m[name]) for m in held.values())] for name in names]
        parts.append(columns([["figure", *held], *figures]))
    notes = "\n".join(f"note: {in_a_line(note)}" for note in notes_of(record))
    return "\n\n".join([*parts, notes] if notes else parts)


def notes_of(record: Record) -> list[str]:
    """What is said beside the figures."""
    about = record.about
    return [note for note in (*record.verdict.warnings, *about.notes, about.note, record.note) if note]


def sampled(record: Record) -> str:
    """How answers were drawn, and by how much that moves scores, in a line; empty where they are greedy."""
    drawn = record.about.sampling
    if drawn is None:
        return ""
    errors = {name: record.audits[-1].figure(f"{name}/sample_error") for name in record.verdict.dimensions}
    told = ", ".join(f"{name} {error:.3f}" for name, error in errors.items() if error is not None)
    text = "{samples} sampled answers a probe, at temperature {temperature:g}, top_p {top_p:g}".format(**drawn)
    return f"{text}, seed {record.about.seed}" + (
        f"; a score's standard error from sampling alone: {told}" if told else ""
    )


def _rows(d: DimensionVerdict, record: Record) -> list[list[str]]:
    """A dimension, and its sides below it."""
    kl = None if d.dimension == TOGETHER else record.audits[-1].figure(f"{d.dimension}/kl")
    counts = [str(len(d.flips)), f"{d.unscored}/{d.asked}", str(d.n), *proof(d)]
    marked = mark(record.verdict, d, record.about.is_run)
    rows = [[d.dimension, *paired(d), *counts, "-" if kl is None else rounded(kl, ".4f"), marked]]
    for s in d.sides.values():
        rows.append([f"  {s.side}", *paired(s), "", "", str(s.n), *proof(s), "", ""])
    return rows


def is_natural(name: str) -> bool:
    """Whether a figure is shown beside the table of dimensions, and not in it."""
    return not name.endswith(_SHOWN_ABOVE)


def paired(d: DimensionVerdict | SideVerdict) -> list[str]:
    """Scores then and now, and the drop with its interval."""
    if not d.n:
        return ["-", "-", "-", "none scored"]
    return [f"{d.baseline:.2f}", f"{d.score:.2f}", rounded(d.drop), f"[{rounded(d.low)}, {rounded(d.high)}]"]


def proof(d: DimensionVerdict | SideVerdict) -> list[str]:
    """p, and what would have been found; nothing of what no test looks at, or too little of could be judged."""
    return [str(d.evidence), finds(d.evidence.detectable)] if tested(d) else ["-", "-"]


def figure(name: str, value: float) -> str:
    """A natural figure, as a share or a number."""
    return rounded(value, ".0%" if any(part in name for part in _SHARES) else ".3f")


def reference_metrics(record: Record) -> dict[str, float]:
    """The reference's own figures on the probes of the latest audit, under the names that are logged."""
    asked = {id: record.baseline[id] for id in record.audits[-1].scores}
    # what was said to choices is for drift alone, and a policy says nothing to them
    asked = {id: replace(r, answer=None) if r.probe.judge == "choice" else r for id, r in asked.items()}
    found = gather(asked, asked)
    return {name: value for name, value in found.items() if "/drop" not in name and not name.endswith("_drop")}


def summary(record: Record) -> dict[str, Any]:
    """A record as JSON; figures that do not exist are null."""
    verdict, latest = record.verdict, record.audits[-1]
    drawn = {"sampling": {**record.about.sampling, "seed": record.about.seed}} if record.about.sampling else {}
    alone = record.about.is_alone
    served = {"engine": record.about.engine, "left_out": record.about.left_out} if record.about.engine else {}
    return (
        drawn
        | served
        | {
            "record": str(record.store.root),
            "report": str(record.store.report(record.about.quote)),
            "model": record.about.model,
            "against": record.about.held_against,
            "step": latest.step,
            "verdict": headline(record),
            "regressed": verdict.since,
            "last_aligned_step": verdict.last_aligned_step if record.about.is_run else None,
            "warnings": notes_of(record),
            "detectable": verdict.detectable,
            "dimensions": {d.dimension: _alone(d) if alone else _dimension(d) for d in verdict.rows},
            "metrics": latest.metrics,
            "reference_metrics": {} if alone else reference_metrics(record),
        }
    )


def _alone(d: DimensionVerdict) -> dict[str, Any]:
    """What is told of a model that is held against nothing."""
    sides = {s.side: {"score": s.score, "n": s.n} for s in d.sides.values()}
    return {"score": d.score, "n": d.n, "asked": d.asked, "unscored": d.unscored, "sides": sides}


def _dimension(d: DimensionVerdict) -> dict[str, Any]:
    counts = {"asked": d.asked, "unscored": d.unscored, "flips": len(d.flips)}
    sides = {s.side: _paired(s) | _proof(s) for s in d.sides.values()}
    return _paired(d) | counts | _proof(d) | {"called": d.called, "sides": sides}


def _paired(d: DimensionVerdict | SideVerdict) -> dict[str, Any]:
    """Both ends over the same pairs, and the drop between them with its interval for this look."""
    drop = {"drop": d.drop, "low": d.low, "high": d.high}
    return {"reference": d.baseline, "score": d.score, **(drop if d.n else dict.fromkeys(drop)), "n": d.n}


def _proof(d: DimensionVerdict | SideVerdict) -> dict[str, Any]:
    """What all audits so far prove; the interval is valid for the whole run. Where nothing is tested there are counts alone."""
    e = d.evidence
    if not tested(d):
        e = replace(e, p=nan, strength=nan, detectable=nan, drop=nan, low=nan, high=nan)
    whole_run = {"looks": e.looks, "n": e.n, "unscored": e.unscored, "drop": e.drop, "low": e.low, "high": e.high}
    return {"p": e.p, "evidence": e.strength, "part": e.part, "detectable": e.detectable, "whole_run": whole_run}


def dumps(value: Any, indent: int | None = 1) -> str:
    """JSON that every reader takes, and every terminal: what is not finite is null."""
    return visible_json(json.dumps(_finite(value), indent=indent, ensure_ascii=False, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text in columns: the first and a last one without a name to the left, the others to the right."""
    rows = [[visible(text).replace("\n", " ") for text in row] for row in rows]  # names are others'
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
    return "" if value is None else f", floor {rounded(value, '.1e')}"


def format_table(audit: Audit, verdict: Verdict) -> str:
    """An audit as a table for the terminal."""
    answer, raw, thinks, seconds = map(audit.figure, ("kl/answer", "kl/raw", "kl/thinks", "cost/seconds"))
    drift = "" if answer is None else f"drift {rounded(answer, '.4f')} nats/token"
    drift += "" if raw is None else f" (raw {rounded(raw, '.4f')}{floor(audit)})"
    trace = "" if thinks is None else f"opens a trace {thinks:.0%}"
    time = "" if seconds is None else f"{seconds:.0f} s"
    head = ["dimension", "start", "now", "drop", "95 % interval", "flips", "unscored", "n", "p", "finds", ""]
    rows = [head]
    for d in verdict.rows:
        counts = [str(len(d.flips)), f"{d.unscored}/{d.asked}", str(d.n), *proof(d)]
        rows.append([d.dimension, *paired(d), *counts, mark(verdict, d, steps=True)])
        for s in d.sides.values() if d.watched else ():
            rows.append([f"  {s.side}", *paired(s), "", "", str(s.n), *proof(s), ""])
    lines = [
        "  ".join(filter(None, (f"AlignGuard  step {audit.step}", drift.strip(), trace, time))),
        *(f"  {line}" for line in columns(rows).splitlines()),
    ]
    lines += [f"  note: {in_a_line(warning)}" for warning in verdict.warnings]
    return "\n".join(lines)
