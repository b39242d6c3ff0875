"""The HTML report: one file, no network, no script. Written after each audit, so it is there when a run dies.

Whatever a model or a probe says is escaped; nothing of it becomes markup, a link or a path.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from html import escape
from pathlib import Path

from ..auditing.audit import Audit
from ..auditing.figures import PREFIX
from ..files import write_text
from ..records.about import About
from ..verdicts.verdict import DimensionVerdict, State, Verdict
from . import charts
from .flips import flips
from .page import page
from .words import fell, no_verdict, regressed

_MANY_UNSCORED = 0.3


def write_report(target: Path, about: About, audits: Sequence[Audit], verdict: Verdict) -> None:
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
    """
    write_text(target, render(about, audits, verdict))


def render(about: About, audits: Sequence[Audit], verdict: Verdict) -> str:
    """The report as HTML, see [`write_report`]."""
    latest, run = audits[-1], _is_run(about, audits)
    title = about.title or f"AlignGuard: {about.model.rstrip('/').rpartition('/')[2]}"
    was = about.was
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="sub">{escape(_when(about, audits))}</p>',
        _headline(verdict, run, was),
        "<h2>Dimensions</h2>",
        _table(verdict, latest, was),
        *[f'<p class="worse">{escape(warning)}</p>' for warning in verdict.warnings],
        f'<p class="note">Drop: score of the {was} minus score now, on the same probes, with a 95 % interval for this look '
        "alone. Evidence is of all audits so far: from 1 on a fall is proven, and one of some size is called a regression. "
        "Scores are in [0, 1], higher is more trustworthy. Drift: KL in nats per token. Reasoning is the skill trained for, "
        "no trust dimension.</p>",
        _cards(audits, verdict, run, was),
    ]
    if run:
        over = [charts.drift(audits, verdict), charts.toxicity(audits), *charts.budget(audits)]
        each = [charts.dimension(name, audits, verdict) for name in verdict.dimensions]
        body += ["<h2>Over the run</h2>", _grid(over), _grid(each, small=True)]
    body += ["<h2>Probes whose judgement flipped</h2>", flips(verdict, about.quote, was)]
    more = _grid([charts.profile(audits), charts.elsewhere(audits) if run else ""])
    more += _grid([charts.plane(name, audits) for name in verdict.dimensions] if run else [], small=True)
    body += ["<h2>More of the drift</h2>", more] if more else []
    body += ["<h2>Kinds of answers, and cost</h2>", _grid([charts.manner(audits), charts.cost(audits)] if run else [])]
    body += [_kinds(audits), "<h2>Configuration</h2>", _settings(about)]
    return page(title, body)


def _grid(figures: Sequence[str], small: bool = False) -> str:
    shown = "".join(figures)
    return f'<div class="figures{" small" if small else ""}">{shown}</div>' if shown else ""


def _is_run(about: About, audits: Sequence[Audit]) -> bool:
    """Whether there are curves to show: a model that was audited once, beside its start, took no steps."""
    return len(audits if about.is_run else [a for a in audits if a.step > 0]) > 1


def _when(about: About, audits: Sequence[Audit]) -> str:
    latest = audits[-1]
    against = f"held against {about.held_against}"
    if not about.is_run and not _is_run(about, audits):
        return against
    time = datetime.fromtimestamp(latest.time, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    count = "1 audit" if len(audits) == 1 else f"{len(audits)} audits"
    return f"step {latest.step} of {about.max_steps if about.is_run else '?'}, {count}, the latest at {time}; {against}"


def _headline(verdict: Verdict, run: bool, was: str) -> str:
    """Whether there is a regression, and why, in a sentence."""
    unscored = [d for d in verdict.counted if d.unscored > _MANY_UNSCORED * d.asked]
    why: list[str] = []
    match verdict.state:
        case State.REGRESSED:
            kind, text = "bad", f"Regression of {regressed(verdict, run)}"
            why += [_because(verdict.dimensions[name], was) for name in verdict.since if name in verdict.dimensions]
            why += [f"Last aligned audit: step {verdict.last_aligned_step}."] if run else []
        case State.UNJUDGED | State.NOTHING:
            kind, text, because = "odd", "No verdict", no_verdict(verdict, was)
            why += [f"{because[0].upper()}{because[1:]}."]
        case State.FELL:
            kind, text = "odd", "No regression is proven"
            why += [f"Below their {was} at this audit: {fell(verdict)}."]
        case State.FINE:
            kind, text = "", "No regression"
            most = max((d for d in verdict.counted if d.n), key=lambda d: d.drop)
            why += [f"No trust dimension is clearly below its {was}."]
            why += [f"Nearest to it is {most.dimension}, with {_fall(most)}."] if most.drop > 0 else []
    if unscored:
        kind = kind or "odd"
        names = ", ".join(f"{d.dimension} {d.unscored}/{d.asked}" for d in unscored)
        why.append(f"Many answers could not be judged: {names}.")
    reasons = "".join(f"<p>{escape(reason)}</p>" for reason in why)
    return f'<div class="headline {kind}"><b>{escape(text)}</b>{reasons}</div>'


def _because(d: DimensionVerdict, was: str) -> str:
    if not d.n:
        return f"Of {d.dimension} nothing could be judged at this audit."
    worse = sum(flip.drop > 0 for flip in d.flips)
    flipped = f"{worse} of {d.n} probes flipped to worse, " if worse else ""
    proof = d.why if d.called else f"evidence {d.evidence}"
    return f"{d.dimension}: {was} {d.baseline:.2f}, now {d.score:.2f}, {_fall(d)}; {flipped}{proof}."


def _fall(d: DimensionVerdict) -> str:
    return f"a drop of {d.drop:.2f} (95 %: {d.low:+.2f} to {d.high:+.2f})"


def _cards(audits: Sequence[Audit], verdict: Verdict, run: bool, was: str) -> str:
    wanted = (
        ("kl/answer", "drift, nats/token (answer)", ".4f", False),
        ("kl/raw", "drift with the change of format (raw)", ".4f", False),
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
    cards = [(str(verdict.last_aligned_step), "last aligned step")] if run else []
    for key, label, form, compared in wanted:
        now, then = latest.figure(key), first.figure(key)
        if now is None:
            continue
        if compared and first.step == 0 and first is not latest and then is not None:
            label += f", {was} {then:{form}}"
        cards.append((f"{now:{form}}", label))
    shown = "".join(f'<div class="card"><b>{value}</b><span>{escape(label)}</span></div>' for value, label in cards)
    return f'<div class="cards">{shown}</div>'


def _table(verdict: Verdict, latest: Audit, was: str) -> str:
    rows = []
    for d in verdict.dimensions.values():
        state, style = _state(d, verdict)
        figures = (
            f'<td>{d.baseline:.2f}</td><td>{d.score:.2f}</td><td class="{style}">{d.drop:+.2f}</td>'
            f"<td>{d.low:+.2f} to {d.high:+.2f}</td>"
            if d.n
            else "<td>-</td><td>-</td><td>-</td><td>none scored</td>"
        )
        drift = latest.figure(f"{d.dimension}/kl")
        rows.append(
            f'<tr><td>{escape(d.dimension)}</td><td class="{style}"><b>{state}</b></td>{figures}'
            f"<td>{len(d.flips)}</td><td>{d.unscored} of {d.asked}</td><td>{d.n}</td><td>{d.evidence}</td>"
            f"<td>{'-' if drift is None else f'{drift:.4f}'}</td></tr>"
        )
    names = ("dimension", "verdict", was, "now", "drop", "95 %", "flips", "unscored", "n", "evidence", "drift")
    head = "".join(f"<th>{name}</th>" for name in names)
    return f'<div class="scroll"><table><tr>{head}</tr>{"".join(rows)}</table></div>'


def _state(d: DimensionVerdict, verdict: Verdict) -> tuple[str, str]:
    """A dimension's state in a word, and its style."""
    match verdict.state_of(d):
        case State.REGRESSED:
            return "regressed", "worse"
        case State.UNJUDGED | State.NOTHING:
            return "unknown", "odd"
        case State.FELL:
            return "fell", "odd"
        case State.FINE:
            return ("rose", "better") if d.high < 0 else ("holds", "")


def _kinds(audits: Sequence[Audit]) -> str:
    known = [name.removeprefix(PREFIX) for name in audits[-1].metrics]
    keys = [k for k in known if k.startswith(("status/", "cost/"))] + [
        k for k in ("forced", "degenerate") if k in known
    ]
    head = "".join(f"<th>{escape(k.removeprefix('status/'))}</th>" for k in keys)
    rows = []
    for audit in audits:
        cells = "".join(f"<td>{'-' if (value := audit.figure(k)) is None else _figure(k, value)}</td>" for k in keys)
        rows.append(f"<tr><td>{audit.step}</td>{cells}</tr>")
    return f'<div class="scroll tall"><table><tr><th>step</th>{head}</tr>{"".join(rows)}</table></div>'


def _figure(key: str, value: float) -> str:
    return f"{value:,.0f}" if key.endswith(("seconds", "tokens")) else f"{value:.1%}"


def _settings(about: About) -> str:
    rows = [
        f'<tr><td>{escape(str(k))}</td><td class="words">{escape(str(v))}</td></tr>' for k, v in about.to_dict().items()
    ]
    return f'<div class="scroll"><table>{"".join(rows)}</table></div>'
