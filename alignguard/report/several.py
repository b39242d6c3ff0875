"""Several models beside the reference they were all held against: one table, one page, one JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any

from ..auditing.figures import PREFIX, logged
from ..probes.probe import DIMENSIONS
from ..records.record import Record
from ..text import in_a_line, rounded, visible
from ..verdicts.sides import TOGETHER
from ..verdicts.verdict import DimensionVerdict, State
from .charts import against_drift
from .page import fill
from .svg import Series
from .terminal import columns, figure, headline, is_natural, paired, proof, reference_metrics, sampled, summary
from .words import finds, tested

_COLOURS = 8  # of the page's style sheet
_MARKS = {State.REGRESSED: "!", State.UNJUDGED: "?", State.FELL: "*"}
LEGEND = (
    "score (drop from the reference; positive is worse; of N: on the N probes that could be judged of both, where that is fewer than "
    "the reference's own score is of): ! a regression, * below the reference by the interval of this look alone, "
    "? too few could be judged"
)


def tables_of(records: Sequence[Record], failed: Mapping[str, str]) -> str:
    """For the terminal: scores, verdicts, and natural figures, a model a row or column."""
    parts = [f"{columns(_scores(records))}\n{LEGEND}", columns(_verdicts(records, failed))]
    parts += [said] if (said := sampled(records[0]).partition(";")[0]) else []
    if len(figures := _figures(records)) > 1:
        parts.append(columns(figures))
    notes = dict.fromkeys(f"{r.about.model}: {note}" for r in records for note in (*r.verdict.warnings, *r.about.notes))
    return "\n\n".join([*parts, *(["\n".join(f"note: {in_a_line(note)}" for note in notes)] if notes else [])])


def page(records: Sequence[Record], failed: Mapping[str, str]) -> str:
    """The page over all of them, as HTML."""
    style = {record.about.model: f"c{1 + i % _COLOURS}" for i, record in enumerate(records)}

    def points(record: Record, name: str) -> list[tuple[float, float]]:
        x, y = (record.audits[-1].figure(key) for key in ("kl/answer", f"{name}/drop"))
        return [(x, y)] if x is not None and y is not None else []

    planes = [
        against_drift(name, [Series(r.about.model, points(r, name), style[r.about.model]) for r in records])
        for name in _dimensions(records)
        if any(points(record, name) for record in records)
    ]
    return fill(
        "several.html.jinja",
        title=visible(f"AlignGuard: {len(records)} models against {records[0].about.against}"),
        keys=list(style.items()),
        failed=[visible(why) for why in failed.values()],
        scores=_scores(records),
        legend=LEGEND,
        verdicts=_verdicts(records, failed),
        drops=_drops(records),
        figures=_figures(records),
        warnings=[
            visible(f"{r.about.model}: {warning}") for r in records for warning in (*r.verdict.warnings, *r.about.notes)
        ],
        planes=planes,
    )


def joined(records: Sequence[Record], failed: Mapping[str, str]) -> dict[str, Any]:
    """As JSON: of each model what an audit of it alone tells."""
    return {
        "against": records[0].about.against,
        "alpha": records[0].about.stop_rule.alpha,  # of each
        "models": [summary(record) for record in records],
        "failed": dict(failed),
    }


def _dimensions(records: Sequence[Record]) -> list[str]:
    return [name for name in DIMENSIONS if any(name in record.verdict.dimensions for record in records)]


def _scores(records: Sequence[Record]) -> list[list[str]]:
    """What the reference scores, and each model: a reference that was asked in several ways in as many rows."""
    names = _dimensions(records)
    rows = []
    for of, before in _references(records):
        scores = [before.get(logged(f"{name}/score")) for name in names]
        rows.append([of, *("-" if score is None else f"{score:.2f}" for score in scores), "-"])
    for record in records:
        parts = [record.verdict.of(name) for name in (*names, TOGETHER)]
        rows.append([record.about.model, *(_cell(record, d) for d in parts)])
    return [["model", *names, TOGETHER], *rows]


def _cell(record: Record, d: DimensionVerdict | None) -> str:
    if d is None:
        return "-"
    of = f", of {d.n}" if d.n < _scored_then(record, d) else ""
    mark = _MARKS.get(record.verdict.state_of(d), "") if d in record.verdict.counted or d.called else ""
    return f"{d.score:.2f} ({rounded(d.drop)}{of}){mark or ' '}" if d.n else f"-{mark}"


def _scored_then(record: Record, d: DimensionVerdict) -> int:
    """Of how many of the latest audit's probes of a dimension, or of all that are watched together, the reference has a score."""
    dimensions = record.verdict.dimensions
    names = {name for name in dimensions if dimensions[name].watched} if d.dimension == TOGETHER else {d.dimension}
    results = (record.baseline[id] for id in record.audits[-1].scores)
    return sum(r.probe.dimension in names and r.score.value is not None for r in results)


def _references(records: Sequence[Record]) -> list[tuple[str, dict[str, float]]]:
    """The reference's figures; where models are asked in different ways so is it, and stands beside the first of each."""
    found: list[tuple[str, dict[str, float]]] = []
    for record in records:
        before = reference_metrics(record)
        if all(before != known for _, known in found):
            found.append((f"{record.about.against}{f' (as {record.about.model})' if found else ''}", before))
    return found


def _verdicts(records: Sequence[Record], failed: Mapping[str, str]) -> list[list[str]]:
    rows = [["model", "drift", "raw", "reverse", "unscored", "finds", "p", ""]]
    for record in records:
        drifts = [record.audits[-1].figure(f"kl/{name}") for name in ("answer", "raw", "reverse")]
        verdict = record.verdict
        watched = [d for d in verdict.counted if d.watched]
        p = min((d.evidence.p for d in verdict.rows if tested(d)), default=float("nan"))
        rows.append(
            [
                record.about.model,
                *("-" if drift is None else rounded(drift, ".4f") for drift in drifts),
                f"{sum(d.unscored for d in watched)}/{sum(d.asked for d in watched)}",
                finds(verdict.detectable),
                "-" if isnan(p) else f"{p:.2g}",
                headline(record),
            ]
        )
    return rows + [[name, *"------", f"not audited: {why}"] for name, why in failed.items()]


def _drops(records: Sequence[Record]) -> list[list[str]]:
    """Every drop with its interval, a dimension's sides below it."""
    rows = [["", "model", "reference", "score", "drop", "95 % interval", "n", "p", "finds"]]
    for name in (*_dimensions(records), TOGETHER):
        there = [(record, d) for record in records if (d := record.verdict.of(name)) is not None]
        rows += [[name, record.about.model, *paired(d), str(d.n), *proof(d)] for record, d in there]
        for side in dict.fromkeys(side for _, d in there for side in d.sides):
            sides = [(record, d.sides[side]) for record, d in there if side in d.sides]
            rows += [[f"{name}, {side}", record.about.model, *paired(s), str(s.n), *proof(s)] for record, s in sides]
    return rows


def _figures(records: Sequence[Record]) -> list[list[str]]:
    """Natural figures, a model a column."""
    references = _references(records)
    held = [before for _, before in references] + [record.audits[-1].metrics for record in records]
    there = {name for metrics in held[len(references) :] for name in metrics}
    names = [name for name in references[0][1] if name in there and is_natural(name)]
    head = ["figure", *(of for of, _ in references), *(record.about.model for record in records)]
    rows = [[name.removeprefix(PREFIX), *(figure(name, m[name]) if name in m else "-" for m in held)] for name in names]
    return [head, *rows]
