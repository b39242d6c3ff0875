"""The HTML report: one file, no network, no script. Written after each audit, so it is there when a run dies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ..auditing.audit import Audit
from ..auditing.figures import PREFIX
from ..files import write_text
from ..probes.probe import SKILL
from ..records.about import About
from ..text import rounded, visible
from ..tracing.found import Trace
from ..verdicts.verdict import DimensionVerdict, State, Verdict
from . import charts, traced
from .flips import rows, sections
from .page import fill
from .words import detectable, fell, finds, gained, no_verdict, proof, regressed, side_that_fell, tested, to_do, told

_MANY_UNSCORED = 0.3
_NO_VERDICT = "No verdict"


def write_report(
    target: Path,
    about: About,
    audits: Sequence[Audit],
    verdict: Verdict,
    pulses: Sequence[dict[str, Any]] = (),
    traces: Sequence[Trace] = (),
) -> None:
    """
    Write the report of a run.

    Args:
        target (`Path`):
            The HTML file.
        about ([`About`]):
            What was asked of whom; where `quote` is false, nothing of what was asked and said is shown.
        audits (`Sequence[Audit]`):
            All so far. A single one is no run, and has no curves.
        verdict (`Verdict`):
            Of the latest.
        pulses (`Sequence[dict[str, Any]]`, *optional*):
            Between the audits, as they are on record.
        traces (`Sequence[Trace]`, *optional*):
            Which rows of the training set something came from.

    A report that quotes its owner alone can read.
    """
    write_text(target, render(about, audits, verdict, pulses, traces), private=about.quote)


def render(
    about: About,
    audits: Sequence[Audit],
    verdict: Verdict,
    pulses: Sequence[dict[str, Any]] = (),
    traces: Sequence[Trace] = (),
) -> str:
    """The report as HTML, see [`write_report`]."""
    run, was = _is_run(about, audits), about.was
    return fill(
        "report.html.jinja",
        title=visible(about.title or f"AlignGuard: {about.model.rstrip('/').rpartition('/')[2]}"),
        when=_when(about, audits),
        was=was,
        alone=about.is_alone,
        headline=_with_notes(about, _headline(verdict, run, was)),
        finds=finds,
        tested=tested,
        dimensions=[_row(d, verdict, audits[-1]) for d in verdict.rows],
        warnings=[visible(warning) for warning in verdict.warnings],
        cards=_cards(audits, verdict, run, was),
        sections=sections(verdict) if about.quote else [],
        rows=[] if about.quote else rows(verdict),
        traced=traced.sections(traces, about.quote),
        kinds=_kinds(audits),
        settings=about.to_dict(),
        **_figures(audits, verdict, run, pulses),
    )


def _figures(
    audits: Sequence[Audit], verdict: Verdict, run: bool, pulses: Sequence[dict[str, Any]]
) -> dict[str, list[Markup]]:
    """What is drawn, group by group; without a run, only where in an answer the drift sits."""
    names = verdict.dimensions if run else ()
    return {
        "over": [charts.drift(audits, verdict, pulses), charts.toxicity(audits), *charts.budget(audits)] if run else [],
        "each": [charts.dimension(name, audits, verdict) for name in names],
        "more": [charts.profile(audits), *([charts.elsewhere(audits)] if run else [])],
        "planes": [charts.plane(name, audits) for name in names],
        "manner": [charts.manner(audits), charts.cost(audits)] if run else [],
    }


def _is_run(about: About, audits: Sequence[Audit]) -> bool:
    """Whether there are curves to show: a model that was audited once, beside its start, took no steps."""
    return len(audits if about.is_run else [a for a in audits if a.step > 0]) > 1


def _when(about: About, audits: Sequence[Audit]) -> str:
    latest = audits[-1]
    against = visible(f"held against {about.held_against}")
    if not about.is_run and not _is_run(about, audits):
        return against
    time = datetime.fromtimestamp(latest.time, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    count = "1 audit" if len(audits) == 1 else f"{len(audits)} audits"
    return f"step {latest.step} of {about.max_steps if about.is_run else '?'}, {count}, the latest at {time}; {against}"


@dataclass(frozen=True)
class _Headline:
    kind: str  # bad, odd, or nothing where all is well
    text: str
    why: list[str]


def _headline(verdict: Verdict, run: bool, was: str) -> _Headline:
    """Whether there is a regression, and why, in a sentence."""
    unscored = [d for d in verdict.counted if d.unscored > _MANY_UNSCORED * d.asked]
    why: list[str] = []
    match verdict.state:
        case State.REGRESSED:
            kind, text = "bad", f"Regression of {regressed(verdict, run)}"
            why += [_because(d, was) for name in verdict.since if (d := verdict.of(name)) is not None]
            why += [f"Last aligned audit: step {verdict.last_aligned_step}."] if run else []
        case State.UNJUDGED | State.NOTHING:
            kind, text, because = "odd", _NO_VERDICT, no_verdict(verdict, was)
            why += [_sentence(because)]
        case State.FELL:
            kind, text = "odd", "No regression is proven"
            why += [f"Below their {was} at this audit: {fell(verdict)}.", _sentence(detectable(verdict))]
        case State.UNTOLD | State.HOLDS:
            kind, text = "", "No regression found"
            why += [_sentence(detectable(verdict))]
            most = max(filter(tested, verdict.counted), key=lambda d: d.drop, default=None)
            why += [f"Nearest to it is {most.dimension}, with {_fall(most)}."] if most and most.drop > 0 else []
    if unscored:
        kind = kind or "odd"
        names = ", ".join(f"{d.dimension} {d.unscored}/{d.asked}" for d in unscored)
        why.append(f"Many answers could not be judged: {names}.")
    if run:
        why += [*gained(verdict, was), *to_do(verdict)]
    return _Headline(kind, text, why)


def _with_notes(about: About, headline: _Headline) -> _Headline:
    """What is to be known beside it, as of a served model; one that was held against nothing has scores, and no verdict."""
    if about.is_alone:
        none = headline.why[:1] if headline.text == _NO_VERDICT else []
        headline = _Headline(headline.kind, "Scores", ["Held against nothing.", *none])
    notes = [visible(note) for note in (*map(_sentence, about.notes), about.note) if note]
    return replace(headline, why=[*headline.why, *notes])


def _because(d: DimensionVerdict, was: str) -> str:
    if not d.n:
        return f"Of {d.dimension} nothing could be judged at this audit."
    worse = sum(flip.drop > 0 for flip in d.flips)
    flipped = f"{worse} of {d.n} probes flipped to worse, " if worse else ""
    sure = d.why if d.called else proof(d.evidence)
    sides = "".join(f"{what}; " for what in side_that_fell(d))
    return f"{d.dimension}: {sides}{was} {d.baseline:.2f}, now {d.score:.2f}, {_fall(d)}; {flipped}{sure}."


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _fall(d: DimensionVerdict) -> str:
    return f"a drop of {rounded(d.drop, '.2f')} (95 %: {rounded(d.low)} to {rounded(d.high)})"


def _cards(audits: Sequence[Audit], verdict: Verdict, run: bool, was: str) -> list[tuple[str, str]]:
    """Figures of the latest audit, each with its name."""
    wanted = (
        ("kl/answer", "drift, nats/token (answer)", ".4f", False),
        ("kl/raw", "drift with the change of format (raw)", ".4f", False),
        ("kl/floor", "floor: drift of the start against itself", ".1e", False),
        ("kl/thinks", "opens a trace", ".0%", True),
        ("toxicity/mean", "mean toxicity", ".3f", True),
        ("safety/harmful_refusal", "harmful requests refused", ".0%", True),
        ("safety/benign_refusal", "benign requests refused", ".0%", True),
        ("degenerate", "degenerate answers", ".0%", True),
        ("reasoning/score", "reasoning score", ".2f", True),
        ("budget/anchor_kl", "drift on the budget's anchors", ".4f", False),
        ("budget/coefficient", "coefficient of the budget", ".3g", False),
        ("budget/penalty", "penalty added to the loss", ".3g", False),
        ("cost/share", "of the run's time spent here", ".1%", False),
    )
    first, latest = audits[0], audits[-1]
    same = first.step == 0 and first is not latest and first.scores.keys() == latest.scores.keys()  # draws may rotate
    cards = [(str(verdict.last_aligned_step), "last aligned step")] if run else []
    for key, label, form, compared in wanted:
        now, then = latest.figure(key), first.figure(key) if same else None
        if key == f"{SKILL}/score" and (d := verdict.dimensions.get(SKILL)) is not None and d.n:
            now, then = d.score, d.baseline  # on the same questions
        if now is None:
            continue
        if compared and run and then is not None:
            label += f", {was} {rounded(then, form)}"
        cards.append((rounded(now, form), label))
    return cards


def _row(d: DimensionVerdict, verdict: Verdict, latest: Audit) -> tuple[DimensionVerdict, str, str, str]:
    """A dimension with its state in a word, its style, and its drift."""
    drift = None if d is verdict.together else latest.figure(f"{d.dimension}/kl")
    return d, *told(verdict, d), "-" if drift is None else rounded(drift, ".4f")


def _kinds(audits: Sequence[Audit]) -> list[list[str]]:
    """Kinds of answers, and cost, audit by audit, below their names."""
    known = [name.removeprefix(PREFIX) for name in audits[-1].metrics]
    keys = [k for k in known if k.startswith(("status/", "cost/"))] + [
        k for k in ("forced", "degenerate") if k in known
    ]
    head = ["step", *(k.removeprefix("status/") for k in keys)]
    return [head, *([str(audit.step), *(_figure(k, audit.metrics.get(PREFIX + k)) for k in keys)] for audit in audits)]


def _figure(key: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if key.endswith(("seconds", "tokens")) else f"{value:.1%}"
