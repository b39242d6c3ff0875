"""The verdict in words, for everything that tells it: terminal, report, alarm and trackers. Nothing is decided here."""

from __future__ import annotations

from ..verdicts.verdict import DimensionVerdict, State, Verdict


def regressed(verdict: Verdict, steps: bool = True) -> str:
    """Which dimensions have regressed and, of a run, when that was called first."""
    return ", ".join(f"{name} (called at step {step})" if steps else name for name, step in verdict.since.items())


def fell(verdict: Verdict) -> str:
    """Which dimensions lie below their start at this look, with their scores then and now."""
    names = verdict.names(State.FELL)
    found = [verdict.dimensions[name] for name in names]
    return ", ".join(f"{d.dimension} ({d.baseline:.2f} to {d.score:.2f})" for d in found)


def no_verdict(verdict: Verdict, was: str) -> str:
    """Why there is no verdict: there was nothing to judge, or too little of what could be judged of the start."""
    if not verdict.counted:
        return "no probe of a trust dimension was asked"
    if not any(d.n for d in verdict.counted):
        return "no answer to a trust probe could be judged"
    return f"too few answers could be judged in {', '.join(verdict.names(State.UNJUDGED))}, where the {was}'s could be"


def in_a_line(verdict: Verdict, was: str, steps: bool) -> str:
    """
    The verdict in a line.

    Args:
        verdict ([`Verdict`]):
            Of the latest audit.
        was (`str`):
            What the model is held against, in a word.
        steps (`bool`):
            Whether it is of a run, which has steps.
    """
    match verdict.state:
        case State.REGRESSED:
            return f"REGRESSION of {regressed(verdict, steps)}"
        case State.UNJUDGED | State.NOTHING:
            return f"no verdict: {no_verdict(verdict, was)}"
        case State.FELL:
            return f"no regression is proven; below the {was} at this look: {', '.join(verdict.names(State.FELL))}"
        case State.FINE:
            return "no regression"


def mark(verdict: Verdict, d: DimensionVerdict, steps: bool) -> str:
    """A dimension's state in a word or two, where there is something to mark."""
    match verdict.state_of(d):
        case State.REGRESSED:
            return f"REGRESSION since step {verdict.since[d.dimension]}" if steps else "REGRESSION"
        case State.UNJUDGED:
            return "too few judged"
        case State.FELL:
            return "fell"
        case _:
            return ""
