"""What is said when a regression is called: what happened, how sure that is, and what to do now."""

from __future__ import annotations

import re
from pathlib import Path

from .asking import Result
from .store import clean
from .verdict import Verdict

_MOST_FLIPS = 5
_MOST_CHARACTERS = 160
_ADVICE = (
    "Advice: mix some safety rows with the start's own answers into the training data (a few hundred often suffice), "
    "or lower the learning rate."
)


def checkpoints(output_dir: str | Path) -> dict[int, Path]:
    """The trainer's checkpoints in a folder, by step, the earliest first."""
    found = {}
    for path in Path(output_dir).glob("checkpoint-*"):
        match = re.fullmatch(r"checkpoint-(\d+)", path.name)
        if match and path.is_dir():
            found[int(match[1])] = path
    return dict(sorted(found.items()))


def aligned_checkpoint(output_dir: str | Path, verdict: Verdict) -> Path | None:
    """The latest checkpoint that is no later than the last aligned audit; `None` where none is there."""
    early = [path for step, path in checkpoints(output_dir).items() if step <= verdict.last_aligned_step]
    return early[-1] if early else None


def headline(verdict: Verdict) -> str:
    """One line: which dimensions have regressed, and when that was called."""
    parts = [f"{name} (called at step {step})" for name, step in verdict.since.items()]
    return f"AlignGuard: regression of {', '.join(parts)}"


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
        if name not in verdict.dimensions:
            continue
        d = verdict.dimensions[name]
        flips += [flip for flip in d.flips if flip.drop > 0]
        e = d.evidence
        of = f" ({e.part})" if e.part else ""
        lines.append(
            f"  {name}{of}: fell by {e.drop:.2f} [{e.low:+.2f}, {e.high:+.2f}] over the last {e.looks} audits "
            f"({e.n} scored pairs); {d.why or f'evidence {e} now'}"
        )
    for flip in sorted(flips, key=lambda f: (-f.drop, f.after.probe.id))[:_MOST_FLIPS]:
        lines.append(f"  {flip.after.probe.id}: {flip.before.score.value:.2f} -> {flip.after.score.value:.2f}")
        if quote:
            lines += [
                f"    {when}: {_line(said(result))}" for when, result in (("then", flip.before), ("now ", flip.after))
            ]
    path = aligned_checkpoint(output_dir, verdict)
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
    return "\n".join([*lines, f"  {_ADVICE}"])


def said(result: Result) -> str:
    """What was answered: in words, or by the likeliest option."""
    if result.logprobs:
        text = result.probe.options[max(range(len(result.logprobs)), key=result.logprobs.__getitem__)]
    else:
        text = result.answer.answer if result.answer is not None else ""
    return clean(text)


def _line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MOST_CHARACTERS else line[:_MOST_CHARACTERS] + " ..."
