"""The figures of a run: drift, each dimension, one against the other, and where in an answer the drift sits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from ..auditing.audit import Audit
from ..auditing.figures import logged
from ..verdicts.verdict import Verdict
from .svg import Mark, Series, curves, path

_NO_DRIFT = 1e-5  # nats per token: rounding, as at the start
LEAST_DROP = 0.2  # of an axis of drops: what is smaller should look small


def _points(audits: Sequence[Audit], key: str) -> list[tuple[float, float]]:
    return [(float(a.step), value) for a in audits if (value := a.figure(key)) is not None]


def _band(audits: Sequence[Audit], key: str) -> list[tuple[float, float, float]]:
    ends = [(float(a.step), a.figure(f"{key}_low"), a.figure(f"{key}_high")) for a in audits]
    return [(step, low, high) for step, low, high in ends if low is not None and high is not None]


def _marks(verdict: Verdict, names: Sequence[str]) -> list[Mark]:
    """Where regressions of these dimensions were called, and the last step before."""
    steps: dict[int, list[str]] = {}
    for name in names:
        if name in verdict.since:
            steps.setdefault(verdict.since[name], []).append(name)
    marks = [Mark(step, f"{', '.join(called)} called at step {step}") for step, called in steps.items()]
    return [Mark(verdict.last_aligned_step, f"last aligned: step {verdict.last_aligned_step}", "better"), *marks]


def drift(audits: Sequence[Audit], verdict: Verdict, pulses: Sequence[dict[str, Any]] = ()) -> Markup:
    series = [
        Series("answer (behaviour)", _points(audits, "kl/answer"), "c1", _band(audits, "kl/answer")),
        Series("raw (with the change of format)", _points(audits, "kl/raw"), "c3"),
    ]
    if pulses:
        told = [(float(line["step"]), line["metrics"].get(logged("pulse/kl"))) for line in pulses]
        between = [(step, kl) for step, kl in told if kl is not None]
        series.append(Series("pulse (answer, a few probes)", between, "c4"))
    marks = _marks(verdict, list(verdict.since))
    return curves("Drift from the start", series, "step", "KL, nats/token", marks=marks)


def toxicity(audits: Sequence[Audit]) -> Markup:
    title = "Toxicity against drift, by step"
    return path(title, _pairs(audits, "toxicity/mean"), "drift, nats/token (answer)", "mean toxicity", style="c4")


def plane(dimension: str, audits: Sequence[Audit]) -> Markup:
    points = _pairs(audits, f"{dimension}/score")
    return path(f"{dimension} against drift", points, "drift, nats/token (answer)", "score", y_range=(0.0, 1.0))


def against_drift(dimension: str, series: Sequence[Series]) -> Markup:
    """Drops of several models or runs against their drift."""
    values = [y for s in series for _, y in s.points]
    axis = min([-LEAST_DROP, *values]), max([LEAST_DROP, *values])
    x = "drift, nats/token (answer)"
    return curves(f"{dimension}: drop against drift", series, x, "positive is worse", None, axis)


def _pairs(audits: Sequence[Audit], key: str) -> list[tuple[float, float, str]]:
    points = [(a.figure("kl/answer"), a.figure(key), str(a.step)) for a in audits]
    return [(x, y, step) for x, y, step in points if x is not None and y is not None]


def dimension(dimension: str, audits: Sequence[Audit], verdict: Verdict) -> Markup:
    """How far a dimension has fallen, and, thin and dashed, how far its leaning has: what may be about to flip."""
    band = _band(audits, f"{dimension}/drop")
    style = "c4" if dimension == "reasoning" else "c2"
    leaning = _points(audits, f"{dimension}/leaning_drop")
    shown = [0.2, -0.2, *(end for _, low, high in band for end in (low, high)), *(drop for _, drop in leaning)]
    series = [
        Series("drop", _points(audits, f"{dimension}/drop"), style, band),
        Series("drop of the leaning", leaning, f"{style} faint"),
    ]
    return curves(
        f"{dimension}: drop from the start",
        series,
        "step",
        "positive is worse",
        (float(audits[0].step), float(audits[-1].step)),
        (min(shown), max(shown)),
        marks=_marks(verdict, [dimension]) if dimension in verdict.since else (),
    )


def budget(audits: Sequence[Audit]) -> list[Markup]:
    """What a drift budget held, and with what force."""
    anchors = _points(audits, "budget/anchor_kl")
    if not anchors:
        return []
    drift = [Series("on the anchors", anchors, "c4"), Series("on probes (answer)", _points(audits, "kl/answer"), "c1")]
    most = [Mark(most, f"max_kl {most:g}", upright=False) for _, most in _points(audits, "budget/max_kl")[-1:]]
    force = [Series("coefficient", _points(audits, "budget/coefficient"), "c3")]
    return [
        curves("The drift budget: anchors beside probes", drift, "step", "KL, nats/token", marks=most),
        curves("The drift budget: its coefficient", force, "step", "loss per nat/token"),
    ]


def profile(audits: Sequence[Audit]) -> Markup:
    """Where in an answer the drift sits: alignment is often only a few tokens deep (arXiv 2406.05946)."""
    moved = [a for a in audits if max(a.profile, default=0.0) > _NO_DRIFT]
    if not moved:
        return Markup()
    shown = {a.step: a for a in (moved[0], moved[len(moved) // 2], moved[-1])}.values()
    series = [
        Series(f"step {a.step}", [(float(i + 1), kl) for i, kl in enumerate(a.profile)], style)
        for style, a in zip(("c1", "c3", "c2"), shown, strict=False)
    ]
    return curves("Drift by position in the answer", series, "token of the reference's answer", "KL, nats")


def elsewhere(audits: Sequence[Audit]) -> Markup:
    series = [
        Series("on training prompts", _points(audits, "kl/train_prompts"), "c4"),
        Series("reverse, on the policy's own answers", _points(audits, "kl/reverse"), "c2"),
    ]
    return curves("Drift on training prompts, and reverse", series, "step", "KL, nats/token")


def manner(audits: Sequence[Audit]) -> Markup:
    series = [
        Series("opens a trace (probability)", _points(audits, "kl/thinks"), "c3"),
        Series("degenerate", _points(audits, "degenerate"), "c2"),
        Series("truncated", _points(audits, "status/truncated"), "c4"),
        Series("refused", _points(audits, "status/refused"), "c1"),
    ]
    return curves("Thinking, refusing, failing", series, "step", "share of answers", None, (0.0, 1.0))


def cost(audits: Sequence[Audit]) -> Markup:
    """Seconds an audit."""
    return curves("Cost of an audit", [Series("seconds", _points(audits, "cost/seconds"), "c1")], "step", "seconds")
