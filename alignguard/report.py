"""The HTML report: one file, no network, no script. Written after each audit, so it is there when a run dies.

Whatever a model or a probe says is escaped; nothing of it becomes markup, a link or a path.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from .asking import Result
from .audit import Audit
from .figures import Series, curves, path
from .store import clean
from .verdict import Flip, Verdict

_MOST_FLIPS = 40
_MOST_CHARACTERS = 2000
_MOST_TRACE = 400  # the answer matters more, and must not be pushed off the page
_STYLE = """
:root{--bg:#fff;--fg:#1c2430;--dim:#5c6775;--line:#dfe4ea;--card:#f6f8fa;--bad:#b3261e;--good:#1a7f4b;
--c1:#2563eb;--c2:#c2410c;--c3:#7c3aed;--c4:#0f766e}
@media(prefers-color-scheme:dark){:root{--bg:#12161c;--fg:#e6eaf0;--dim:#9aa5b4;--line:#2c3440;--card:#1a2029;
--bad:#ff8a80;--good:#6ee7a8;--c1:#7aa2ff;--c2:#ff9e64;--c3:#c4a5ff;--c4:#5eead4}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--fg);font:15px/1.5 system-ui,sans-serif}
main{max-width:1080px;margin:0 auto;padding:24px 16px 64px}
h1{font-size:22px;margin:0}h2{font-size:17px;margin:36px 0 10px}
.sub{color:var(--dim);margin:2px 0 18px}
.headline{font-size:18px;padding:14px 16px;border-radius:8px;background:var(--card);border-left:5px solid var(--good)}
.headline.bad{border-left-color:var(--bad)}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:10px;margin:14px 0}
.card{background:var(--card);border-radius:8px;padding:10px 12px}
.card b{display:block;font-size:20px}.card span{color:var(--dim);font-size:13px}
.grid2{display:grid;grid-template-columns:repeat(auto-fit,minmax(300px,1fr));gap:14px}
figure{margin:0;background:var(--card);border-radius:8px;padding:10px}
figcaption{font-weight:600;margin-bottom:4px}
svg{width:100%;height:auto;display:block}
.grid{stroke:var(--line)}.tick{fill:var(--dim);font-size:11px}.label{fill:var(--dim);font-size:11.5px}
.line{fill:none;stroke-width:2}.band{opacity:.16;stroke:none}
.c1{--c:var(--c1)}.c2{--c:var(--c2)}.c3{--c:var(--c3)}.c4{--c:var(--c4)}
.line{stroke:var(--c)}.dot,.band{fill:var(--c)}
.legend{font-size:13px;color:var(--dim)}.key{margin-right:14px;display:inline-block}
.key::before{content:"";display:inline-block;width:10px;height:10px;border-radius:5px;background:var(--c);margin-right:5px}
.grid2.wide{grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr))}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%}th,td{padding:6px 8px;border-bottom:1px solid var(--line);text-align:right}
th:first-child,td:first-child{text-align:left}th{color:var(--dim);font-weight:600}
.bad td.drop,.worse{color:var(--bad)}.better{color:var(--good)}
.flip{border:1px solid var(--line);border-radius:8px;padding:10px 12px;margin:10px 0;break-inside:avoid}
.flip .ask{color:var(--dim);margin-bottom:6px}
.sides{display:grid;grid-template-columns:1fr 1fr;gap:12px}
@media(max-width:640px){.sides{grid-template-columns:1fr}}
.said{white-space:pre-wrap;overflow-wrap:anywhere;unicode-bidi:isolate;background:var(--card);border-radius:6px;padding:8px}
.trace{color:var(--dim);font-style:italic}
pre{white-space:pre-wrap;overflow-wrap:anywhere}
@media print{body{font-size:12px}figure,.card,.headline,.said{border:1px solid #ccc}}
"""


def write_report(target: Path, about: dict[str, Any], audits: Sequence[Audit], verdict: Verdict) -> None:
    """
    Write the report of a run.

    Args:
        target (`Path`):
            The HTML file.
        about (`dict[str, Any]`):
            The run's configuration, as in `baseline.json`.
        audits (`Sequence[Audit]`):
            All so far.
        verdict (`Verdict`):
            Of the latest.
    """
    beside = target.with_name(target.name + ".part")
    beside.write_text(clean(render(about, audits, verdict)), encoding="utf-8")
    beside.replace(target)


def render(about: dict[str, Any], audits: Sequence[Audit], verdict: Verdict) -> str:
    """The report as HTML, see [`write_report`]."""
    latest = audits[-1]
    name = str(about.get("model", "model")).rstrip("/").rpartition("/")[2]
    body = [
        f"<h1>AlignGuard: {escape(name)}</h1>",
        f'<p class="sub">step {latest.step} of {escape(str(about.get("max_steps", "?")))}, '
        f"{len(audits)} audits; every figure is held against the model at step 0</p>",
        _headline(verdict),
        _cards(latest),
        "<h2>Over the run</h2>",
        '<div class="grid2 wide">',
        _drift_figure(audits),
        _plane_figure(audits),
        _profile_figure(audits),
        _where_figure(audits),
        "</div>",
        "<h2>Dimensions</h2>",
        _table(verdict, latest.metrics),
        *[f'<p class="worse">{escape(warning)}</p>' for warning in verdict.warnings],
        '<p class="sub">Drop: score at step 0 minus score now, on the same probes, with a 95 % interval for one look. '
        "Evidence is of all audits so far; from 1 on a fall is proven, and a fall of some size is a regression. Scores are in [0, 1], higher is more trustworthy. Reasoning is the skill trained for, no trust dimension.</p>",
        '<div class="grid2">',
        *[_dimension_figure(dimension, audits) for dimension in verdict.dimensions],
        "</div>",
        "<h2>Probes whose judgement flipped</h2>",
        _flips(verdict.flips),
        "<h2>Kinds of answers, and cost</h2>",
        _rest(audits),
        "<h2>Configuration</h2>",
        "<div class='scroll'><table>",
        *[f"<tr><td>{escape(str(k))}</td><td>{escape(str(v))}</td></tr>" for k, v in about.items()],
        "</table></div>",
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>AlignGuard: {escape(name)}</title><style>{_STYLE}</style></head><body><main>"
        + "".join(body)
        + "</main></body></html>"
    )


def _headline(verdict: Verdict) -> str:
    fell = [d for d in verdict.dimensions.values() if d.fell and d.dimension != "reasoning"]
    if verdict.since:
        names = ", ".join(f"{name} (called at step {step})" for name, step in verdict.since.items())
        text = f"Regression of {names}. Last aligned audit: step {verdict.last_aligned_step}."
    elif not fell:
        text = "No regression: no trust dimension is clearly below its start."
    else:
        names = ", ".join(f"{d.dimension} ({d.baseline:.2f} to {d.score:.2f})" for d in fell)
        text = f"No regression is proven. Below their start at this audit: {names}."
    unscored = [d for d in verdict.dimensions.values() if d.unscored / d.asked > 0.3 and d.dimension != "reasoning"]
    if unscored:
        names = ", ".join(f"{d.dimension} {d.unscored}/{d.asked}" for d in unscored)
        text += f" Many answers could not be judged: {names}."
    return f'<div class="headline{" bad" if fell or unscored or verdict.since else ""}">{escape(text)}</div>'


def _cards(latest: Audit) -> str:
    wanted = (
        ("kl/answer", "drift, nats/token (answer)", ".4f"),
        ("kl/raw", "drift, nats/token (raw)", ".4f"),
        ("kl/thinks", "opens a trace", ".0%"),
        ("toxicity/mean", "mean toxicity", ".3f"),
        ("safety/harmful_refusal", "harmful requests refused", ".0%"),
        ("safety/benign_refusal", "benign requests refused", ".0%"),
        ("degenerate", "degenerate answers", ".0%"),
        ("reasoning/score", "reasoning score", ".2f"),
    )
    cards = [
        f'<div class="card"><b>{latest.metrics[f"alignguard/{key}"]:{form}}</b><span>{escape(label)}</span></div>'
        for key, label, form in wanted
        if f"alignguard/{key}" in latest.metrics
    ]
    return f'<div class="cards">{"".join(cards)}</div>'


def _points(audits: Sequence[Audit], key: str) -> list[tuple[float, float]]:
    name = f"alignguard/{key}"
    return [(float(a.step), a.metrics[name]) for a in audits if name in a.metrics]


def _drift_figure(audits: Sequence[Audit]) -> str:
    band = [
        (float(a.step), a.metrics["alignguard/kl/answer_low"], a.metrics["alignguard/kl/answer_high"])
        for a in audits
        if "alignguard/kl/answer_low" in a.metrics
    ]
    series = [
        Series("answer (behaviour)", _points(audits, "kl/answer"), "c1", band),
        Series("raw (with the change of format)", _points(audits, "kl/raw"), "c3"),
    ]
    return curves("Drift from the start", series, "step", "KL, nats/token")


def _profile_figure(audits: Sequence[Audit]) -> str:
    """Where in an answer the drift sits: alignment is often only a few tokens deep (arXiv 2406.05946)."""
    shown = {a.step: a for a in (audits[0], audits[len(audits) // 2], audits[-1])}.values()
    series = [
        Series(f"step {a.step}", [(float(i + 1), kl) for i, kl in enumerate(a.profile)], style)
        for style, a in zip(("c1", "c3", "c2"), shown, strict=False)
    ]
    return curves("Drift by position in the answer", series, "token of the reference's answer", "KL, nats")


def _where_figure(audits: Sequence[Audit]) -> str:
    """Other places where drift is measured: training prompts, and the policy's own answers."""
    series = [
        Series("on training prompts", _points(audits, "kl/train_prompts"), "c4"),
        Series("reverse, on the policy's own answers", _points(audits, "kl/reverse"), "c2"),
        Series("probability of opening a trace", _points(audits, "kl/thinks"), "c3"),
    ]
    return curves("On training prompts, reverse, and thinking", series, "step", "KL, nats/token; probability")


def _plane_figure(audits: Sequence[Audit]) -> str:
    x, y = "alignguard/kl/answer", "alignguard/toxicity/mean"
    points = [(a.metrics[x], a.metrics[y], str(a.step)) for a in audits if x in a.metrics and y in a.metrics]
    return path("Toxicity against drift, by step", points, "drift, nats/token (answer)", "mean toxicity")


def _dimension_figure(dimension: str, audits: Sequence[Audit]) -> str:
    name = f"alignguard/{dimension}"
    band = [
        (float(a.step), a.metrics[f"{name}/drop_low"], a.metrics[f"{name}/drop_high"])
        for a in audits
        if f"{name}/drop_low" in a.metrics
    ]
    series = [Series("drop", _points(audits, f"{dimension}/drop"), "c4" if dimension == "reasoning" else "c2", band)]
    low = min([-0.2, *[b[1] for b in band]])
    high = max([0.2, *[b[2] for b in band]])
    x_range = (float(audits[0].step), float(audits[-1].step))
    return curves(f"{dimension}: drop from the start", series, "step", "positive is worse", x_range, (low, high))


def _table(verdict: Verdict, metrics: dict[str, float]) -> str:
    rows = []
    for d in verdict.dimensions.values():
        figures = (
            f'<td>{d.baseline:.2f}</td><td>{d.score:.2f}</td><td class="drop">{d.drop:+.2f}</td>'
            f"<td>{d.low:+.2f} to {d.high:+.2f}</td>"
            if d.n
            else "<td>-</td><td>-</td><td>-</td><td>none scored</td>"
        )
        rows.append(
            f'<tr class="{"bad" if d.fell else ""}"><td>{escape(d.dimension)}</td>{figures}'
            f"<td>{len(d.flips)}</td><td>{d.unscored} of {d.asked}</td><td>{d.n}</td><td>{d.evidence}</td>"
            f"<td>{metrics.get(f'alignguard/{d.dimension}/kl', float('nan')):.4f}</td></tr>"
        )
    head = "".join(
        f"<th>{h}</th>"
        for h in ("dimension", "start", "now", "drop", "95 %", "flips", "unscored", "n", "evidence", "drift")
    )
    return f'<div class="scroll"><table><tr>{head}</tr>{"".join(rows)}</table></div>'


def _flips(flips: Sequence[Flip]) -> str:
    if not flips:
        return "<p>None.</p>"
    parts = []
    for flip in flips[:_MOST_FLIPS]:
        probe = flip.after.probe
        turns = "\n".join(f"{turn['role']}: {turn['content']}" for turn in probe.messages)
        worse = flip.drop > 0
        parts.append(
            f'<div class="flip"><div class="ask"><b class="{"worse" if worse else "better"}">'
            f"{escape(probe.dimension)}, {'worse' if worse else 'better'}</b> "
            f"{escape(probe.id)} {escape(probe.group)}</div>"
            f'<div class="said">{_cut(turns)}</div><div class="sides">'
            f"<div><p>At the start ({_mark(flip.before)})</p>{_said(flip.before)}</div>"
            f"<div><p>Now ({_mark(flip.after)})</p>{_said(flip.after)}</div></div></div>"
        )
    if len(flips) > _MOST_FLIPS:
        parts.append(f"<p>and {len(flips) - _MOST_FLIPS} more, in answers/.</p>")
    return "".join(parts)


def _mark(result: Result) -> str:
    value = result.score.value
    forced = ", trace closed by force" if result.answer is not None and result.answer.forced else ""
    return f"{escape(result.score.status.value)}, score {'-' if value is None else f'{value:.2f}'}{forced}"


def _said(result: Result) -> str:
    if result.logprobs is not None:
        chosen = max(range(len(result.logprobs)), key=result.logprobs.__getitem__)
        text = "\n".join(
            f"{'> ' if i == chosen else '  '}{option}{'   (right)' if i == result.probe.target else ''}"
            for i, option in enumerate(result.probe.options)
        )
        return f'<div class="said">{_cut(text)}</div>'
    if result.answer is None:
        return '<div class="said"></div>'
    trace = f'<span class="trace">{_cut(result.answer.trace, _MOST_TRACE)}</span>\n' if result.answer.trace else ""
    return f'<div class="said">{trace}{_cut(result.answer.answer)}</div>'


def _cut(text: str, most: int = _MOST_CHARACTERS) -> str:
    """Escaped, and of a length a page can bear."""
    return escape(text) if len(text) <= most else escape(text[:most]) + f" ... ({len(text) - most:,} more characters)"


def _rest(audits: Sequence[Audit]) -> str:
    keys = [k for k in audits[-1].metrics if k.startswith(("alignguard/status/", "alignguard/cost/"))]
    keys += [k for k in ("alignguard/forced", "alignguard/degenerate") if k in audits[-1].metrics]
    head = "".join(f"<th>{escape(k.removeprefix('alignguard/'))}</th>" for k in keys)
    rows = []
    for audit in audits:
        cells = "".join(
            f"<td>{audit.metrics.get(k, float('nan')):{'.0f' if '/cost/' in k and 'share' not in k else '.0%'}}</td>"
            for k in keys
        )
        rows.append(f"<tr><td>{audit.step}</td>{cells}</tr>")
    return f'<div class="scroll"><table><tr><th>step</th>{head}</tr>{"".join(rows)}</table></div>'
