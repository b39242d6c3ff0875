"""The verdict in words, for everything that tells it: terminal, report, alarm and trackers. Nothing is decided here."""

from __future__ import annotations

from math import isfinite, isnan

from ..probes.probe import SKILL
from ..text import rounded
from ..verdicts.evidence import Evidence
from ..verdicts.sides import TOGETHER, share_of
from ..verdicts.verdict import DimensionVerdict, SideVerdict, State, Verdict


def regressed(verdict: Verdict, steps: bool = True) -> str:
    """What has regressed: which side of it, from what to what, and, of a run, when that was called first."""
    found = []
    for name, step in verdict.since.items():
        what = [*side_that_fell(verdict.of(name)), *([f"called at step {step}"] if steps else [])]
        named = "all dimensions together" if name == TOGETHER else name
        found.append(f"{named} ({'; '.join(what)})" if what else named)
    return ", ".join(found)


def side_that_fell(d: DimensionVerdict | None) -> list[str]:
    """Of a dimension with sides the one with the strongest evidence, in words: `harmful requests refused: 67 % to 0 %`."""
    side = d.sides.get(d.evidence.part) if d is not None else None
    return [] if d is None or side is None or not side.n else [from_to(d.dimension, side)]


def from_to(dimension: str, side: SideVerdict) -> str:
    """A side's score then and now."""
    return f"{share_of(dimension, side.side)}: {side.baseline:.0%} to {side.score:.0%}".replace("%", " %")


def fell(verdict: Verdict) -> str:
    """Which dimensions lie below their start at this look, with their scores then and now."""
    names = verdict.names(State.FELL)
    found = [verdict.dimensions[name] for name in names]
    return ", ".join(f"{d.dimension} ({d.baseline:.2f} to {d.score:.2f})" for d in found)


def points(drop: float) -> str:
    """A drop in points of a hundred; `none` where there is none."""
    return f"{100 * drop:.0f} points" if isfinite(drop) else "none"


def detectable(verdict: Verdict) -> str:
    """What would have been found, as the end of a sentence that begins with what was."""
    if not verdict.step:
        return "only the start was asked so far"
    parts = [*_could_be_found(verdict), _are_not_watched(verdict)]
    return "; ".join(filter(None, parts))


def _could_be_found(verdict: Verdict) -> list[str]:
    """Of what is watched; dimensions are named where it is not of all that count."""
    counted = [d for d in verdict.counted if d.watched]
    if verdict.awaits:
        more = f"{verdict.awaits} more audit{'s' * (verdict.awaits > 1)}"
        return [f"none can be called before {more}, by the rule's patience"]
    read = [d for d in counted if d.judged and d.evidence.looks]
    drops = [d.evidence.detectable for d in read if not isnan(d.evidence.detectable)]
    found = f"{points(max(drops))} or more would have been" if drops else ""

    def of(names: list[str]) -> str:
        return f", in {', '.join(names)}" if len(names) < len(verdict.counted) else ""

    if len(drops) == len(counted):
        return [f"a drop of {found}{of([d.dimension for d in counted])}"] if drops else []
    reasons = {
        "with so few probes, or so little to lose, none could have been, however large": [
            d.dimension for d in read if isnan(d.evidence.detectable)
        ],
        "with so few answers that could be judged, none could have been": [
            d.dimension for d in counted if d not in read
        ],
    }
    none = [f"{why}{of(names)}" for why, names in reasons.items() if names]
    elsewhere = "in what else is watched" if verdict.unwatched else "elsewhere"
    return [*none, *([f"{elsewhere} one of {found}"] if found else [])]


def _are_not_watched(verdict: Verdict) -> str:
    names = verdict.unwatched
    return f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} not watched" if names else ""


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
            names = ", ".join(verdict.names(State.FELL))
            return f"no regression is proven; below the {was} at this look: {names}; {detectable(verdict)}"
        case State.UNTOLD | State.HOLDS:
            return f"no regression found; {detectable(verdict)}"


def moved(low: float, high: float) -> str:
    """Of a capability what the interval of its drop says; nothing where it says neither."""
    return "gained" if high < 0 else "lost" if low > 0 else ""


def gained(verdict: Verdict, was: str) -> list[str]:
    """What was learned meanwhile, in a sentence; nothing where it was not asked, or could not be judged."""
    d = verdict.dimensions.get(SKILL)
    if d is None or not d.n:
        return []
    kind = moved(d.low, d.high) or "not gained, as far as can be told"
    now = f"{SKILL.capitalize()} is {kind}: {d.baseline:.2f} at the {was}, {d.score:.2f} now, on {d.n} questions"
    return [f"{now} (95 %: {rounded(-d.high)} to {rounded(-d.low)})."]


def to_do(verdict: Verdict) -> list[str]:
    """What to do about it in a run, in a sentence."""
    match verdict.state:
        case State.REGRESSED:
            step = verdict.last_aligned_step
            weights = f"the weights of step {step} (StopRule(restore=True) keeps them)" if step else "the start again"
            return [
                f"What to do: take {weights}, see below what "
                "flipped and leave out what taught it (alignguard trace names rows), or train again held by budget=DriftBudget(...)."
            ]
        case State.UNTOLD | State.FELL:
            more = "To be told more: more audits, or a larger draw in Schedule(draw=...)."
            rule = "No more audits tell of what is not watched: name it in StopRule(dimensions=...)."
            return [more, *([rule] if verdict.unwatched else [])]
        case _:
            return []


def mark(verdict: Verdict, d: DimensionVerdict, steps: bool) -> str:
    """A dimension's state in a word or two; of one that no verdict is of, only what is the matter."""
    match verdict.state_of(d):
        case State.REGRESSED:
            return f"REGRESSION since step {verdict.since[d.dimension]}" if steps else "REGRESSION"
        case State.UNJUDGED:
            return "too few judged"
        case State.FELL:
            return "fell"
        case State.UNTOLD | State.HOLDS if d in verdict.counted:
            return verdict.state_of(d).value
        case _:
            return ""


def told(verdict: Verdict, d: DimensionVerdict) -> tuple[str, str]:
    """A dimension's state in a word, for what is read after the run, and the style of it on a page."""
    match verdict.state_of(d):
        case State.REGRESSED:
            return "regressed", "worse"
        case State.UNJUDGED | State.NOTHING:
            return "unknown", "odd"
        case State.FELL:
            return "fell", "odd"
        case State.UNTOLD | State.HOLDS as state:
            if d.high < 0:
                return "rose", "better"
            return (state.value if d.watched or d in verdict.counted else "-"), ""


def tested(d: DimensionVerdict | SideVerdict) -> bool:
    """
    Whether there is a proof to tell of: enough was judged, and a test has looked at it. None looks at what the rule does not watch,
    at the start, or, where whole dimensions are tested, at their sides.
    """
    return d.judged and d.evidence.looks > 0


def proof(e: Evidence) -> str:
    """How sure it is."""
    if not e.looks:
        return "no test is made of it"
    if e.strength < 1 and e.p >= 0.5:
        return "too few changed to tell"
    return f"{'significant' if e.strength >= 1 else 'not significant'} for the whole run, p {e}"


def finds(drop: float) -> str:
    """A drop that would have been found, for a table; `none` where there is none."""
    return f"{drop:.2f}" if isfinite(drop) else "none"
