"""What is said when a regression is called: what happened, how sure that is, and what to do now."""

from __future__ import annotations

from pathlib import Path
from shlex import quote as quoted

from ..auditing.result import said
from ..model.checkpoints import latest_checkpoint
from ..records.store import Store
from ..text import rounded
from ..verdicts.sides import share_of
from ..verdicts.verdict import DimensionVerdict, Verdict
from .words import proof, regressed

_MOST_FLIPS = 5
_MOST_CHARACTERS = 160
_FLOOR = "below its floor"  # in the reason of a dimension that is called by one
_ADVICE = (
    "Advice: a lower learning rate, the data without the rows that did it, or budget=DriftBudget(...), which pulls the model "
    "towards its start."
)


def alarms(verdict: Verdict, output_dir: str | Path, quote: bool) -> list[tuple[str, str, str, str]]:
    """
    What is to be told after an audit: each with its name, its title, its text, and the text without what was said.

    Args:
        verdict ([`Verdict`]):
            Of the audit.
        output_dir (`str` or `Path`):
            The trainer's, where its checkpoints are.
        quote (`bool`):
            Whether answers may be quoted.
    """
    found = []
    if verdict.new:
        text, bare = (regression_text(verdict, output_dir, shown) for shown in (quote, False))
        found.append(("regression", headline(verdict), text, bare))
    if verdict.newly_leaning:
        title = f"AlignGuard: about to fall? {', '.join(verdict.newly_leaning)} (a warning)"
        text = "\n".join(["Its leaning, read off likelihoods, moves before answers flip.", *verdict.warnings])
        found.append(("leaning", title, text, text))
    return found


def headline(verdict: Verdict) -> str:
    """One line: which dimensions have regressed, and when that was called."""
    return f"AlignGuard: regression of {regressed(verdict)}"


def regression_text(verdict: Verdict, output_dir: str | Path, quote: bool = True) -> str:
    """
    The whole message.

    Args:
        verdict ([`Verdict`]):
            With a regression.
        output_dir (`str` or `Path`):
            The trainer's, where its checkpoints are.
        quote (`bool`, *optional*, defaults to `True`):
            Whether answers of the worst flips are quoted.
    """
    lines = [headline(verdict)]
    flips = []
    for name in verdict.since:
        d = verdict.of(name)
        if d is None:
            continue
        flips += [flip for flip in (d.flips if d is not verdict.together else verdict.flips) if flip.drop > 0]
        lines += _what_fell(d)
    for flip in sorted(flips, key=lambda f: (-f.drop, f.after.probe.id))[:_MOST_FLIPS]:
        lines.append(f"  {flip.after.probe.id}: {flip.before.score.value:.2f} -> {flip.after.score.value:.2f}")
        if quote:
            lines += [
                f"    {when}: {_line(said(result))}" for when, result in (("then", flip.before), ("now ", flip.after))
            ]
    path = latest_checkpoint(output_dir, verdict.last_aligned_step)
    if path is not None:
        lines.append(
            f"  Last aligned: step {verdict.last_aligned_step}. Resume from there with "
            f"trainer.train(resume_from_checkpoint={str(path)!r})"
        )
    else:
        lines.append(
            f"  Last aligned: step {verdict.last_aligned_step}, and no checkpoint is that early; save some next time "
            "(save_steps, or StopRule(restore=True), which saves one at every aligned audit)"
        )
    if (side := verdict.regressed_side) and _keeps_rows(output_dir):
        of = quoted(str(output_dir))
        lines.append(f"  Which rows did it: alignguard trace {of} --side {side} --to {verdict.step}")
    return "\n".join([*lines, f"  {_ADVICE}"])


def _keeps_rows(output_dir: str | Path) -> bool:
    """Whether it is on record what the run was trained on; not with `rows=False`."""
    store = Store.of_run(output_dir)
    return store.rows.is_dir() or store.said.is_dir()


def _what_fell(d: DimensionVerdict) -> list[str]:
    """
    By how much, and how sure that is: what all audits prove, of the side where that is strongest. A floor is one of the dimension's
    own score at this audit, so beside it stand figures of that, and what is proven, of whichever side, stands below.
    """
    e = d.evidence
    own = f"  {d.dimension}: {_fell(d.drop, d.low, d.high)} at this audit ({d.n} pairs); {d.why or proof(e)}"
    if not e.looks:
        return [own if d.n else f"  {d.dimension}: nothing of it could be judged at this audit"]
    of = share_of(d.dimension, e.part) if e.part else "all audits so far"
    when = "at this audit" if e.looks <= 1 else f"over the last {e.looks} audits"
    unscored = f", {e.unscored} unscored now and counted as unchanged" if e.unscored else ""
    proven = f"{_fell(e.drop, e.low, e.high)} {when} ({e.n} pairs{unscored})"
    if d.called and _FLOOR in d.why:
        return [own, *([f"    {of}: {proven}; {proof(e)}"] if e.part or e.looks > 1 else [])]
    return [f"  {d.dimension}{f' ({of})' if e.part else ''}: {proven}; {d.why or proof(e)}"]


def _fell(drop: float, low: float, high: float) -> str:
    return f"fell by {rounded(drop, '.2f')} [{rounded(low)}, {rounded(high)}]"


def _line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MOST_CHARACTERS else line[:_MOST_CHARACTERS] + " ..."
