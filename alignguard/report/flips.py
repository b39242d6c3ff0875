"""The probes whose judgement changed, before and after, with the words that changed marked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from markupsafe import Markup

from ..auditing.result import Result
from ..verdicts.verdict import Flip, Verdict

_MOST_FLIPS = 10  # of a dimension
_MOST_CHARACTERS = 2000
_MOST_TRACE = 400  # the answer matters more, and must not be pushed off the page
_MOST_LINE = 110
_MOST_WORDS = 400  # that are compared: more takes time that belongs to the training
_FEWEST_SAME = 3  # words in a row that count as kept: one that two texts share by chance says nothing


@dataclass(frozen=True)
class Row:
    """A flip in a line: nothing of what was asked and said."""

    probe: str
    dimension: str
    way: str  # worse or better
    then: str
    now: str


@dataclass(frozen=True)
class Said:
    """What a model said, beside what another did."""

    trace: str
    answer: Markup


@dataclass(frozen=True)
class Quoted:
    """What was asked and said."""

    named: str
    question: str  # in a line
    asked: str
    then: Said
    now: Said


@dataclass(frozen=True)
class Section:
    """The flips of a dimension: the worst, and how many more there are."""

    dimension: str
    worse: int
    better: int
    n: int
    flips: list[tuple[Row, Quoted]]
    more: int


def sections(verdict: Verdict) -> list[Section]:
    """The probes whose judgement changed, with what was asked and said: dimension by dimension, those called first."""
    found = []
    for d in sorted(verdict.dimensions.values(), key=lambda d: d.dimension not in verdict.since):
        if d.flips:
            worse = sum(flip.drop > 0 for flip in d.flips)
            shown = [(_row(flip), _quoted(flip)) for flip in d.flips[:_MOST_FLIPS]]
            found.append(Section(d.dimension, worse, len(d.flips) - worse, d.n, shown, len(d.flips) - len(shown)))
    return found


def rows(verdict: Verdict) -> list[Row]:
    """The probes whose judgement changed, all of them: ids, statuses and scores alone."""
    return [_row(flip) for flip in verdict.flips]


def _row(flip: Flip) -> Row:
    probe, way = flip.after.probe, "worse" if flip.drop > 0 else "better"
    return Row(probe.id, probe.dimension, way, _mark(flip.before), _mark(flip.after))


def _quoted(flip: Flip) -> Quoted:
    probe = flip.after.probe
    named = " ".join(filter(None, (probe.id, probe.group, probe.condition)))
    asked = "\n".join(f"{turn['role']}: {turn['content']}" for turn in probe.messages)
    before, after = _answers(flip.before, flip.after)
    then, now = Said(_trace(flip.before), before), Said(_trace(flip.after), after)
    return Quoted(named, _line(probe.prompt), _middle(asked), then, now)


def _line(text: str) -> str:
    """The end of what was asked, where the question stands."""
    line = " ".join(text[-_MOST_CHARACTERS:].split())
    return line if len(line) <= _MOST_LINE else f"... {line[-_MOST_LINE:].partition(' ')[2]}"


def _mark(result: Result) -> str:
    value = result.score.value
    forced = (
        ", trace closed by force" if result.answer is not None and result.answer.forced and not result.logprobs else ""
    )
    mean = f" (mean of {len(result.samples)})" if len(result.samples) > 1 else ""
    return f"{result.score.status.value} {'-' if value is None else f'{value:.2f}'}{mean}{forced}"


def _trace(result: Result) -> str:
    """What it thought; what the start says to a choice is for drift alone, and is not shown."""
    return "" if result.answer is None or result.logprobs else _middle(result.answer.trace, _MOST_TRACE)


def _answers(before: Result, after: Result) -> tuple[Markup, Markup]:
    if before.logprobs and after.logprobs:
        return _options(before, "del"), _options(after, "ins")
    was, now = ((r.answer.answer if r.answer is not None else "") for r in (before, after))
    first, second = changes(was[:_MOST_CHARACTERS], now[:_MOST_CHARACTERS])
    return first + _more(was), second + _more(now)


def _options(result: Result, tag: str) -> Markup:
    """What there was to choose from, with the choice marked."""
    logprobs, probe = result.logprobs or [], result.probe
    chosen = max(range(len(logprobs)), key=logprobs.__getitem__)
    lines = []
    for i, option in enumerate(probe.options):
        text = _middle(option.strip()) + (" (right)" if i == probe.target else "")
        lines.append(Markup("&bull; ") + (_tagged(text, tag) if i == chosen else text))
    return Markup("\n").join(lines)


def _more(text: str) -> str:
    return f" ... ({len(text) - _MOST_CHARACTERS:,} more characters)" if len(text) > _MOST_CHARACTERS else ""


def _middle(text: str, most: int = _MOST_CHARACTERS) -> str:
    """Of a length a page can bear: a question stands at the end of its prompt, so the middle goes."""
    left = len(text) - most
    if left <= 0:
        return text
    return f"{text[: most // 2]} ... ({left:,} more characters) ... {text[-(most // 2) :]}"


def changes(before: str, after: str) -> tuple[Markup, Markup]:
    """
    Two texts as markup: words that went in `<del>` on the one side, words that came in `<ins>` on the other.

    Args:
        before, after (`str`):
            As they were said; beyond the first 400 words they are shown and not compared.

    Returns:
        `tuple[Markup, Markup]`: both; the texts in them are escaped.
    """
    pieces = [re.findall(r"\s*\S+|\s+$", text) for text in (before, after)]
    old, new = ([piece.strip() for piece in side[:_MOST_WORDS]] for side in pieces)
    blocks = SequenceMatcher(None, old, new, autojunk=False).get_matching_blocks()
    kept = [b for b in blocks if b.size >= _FEWEST_SAME or b.a == b.b == 0 or (b.a + b.size, b.b + b.size) == (len(old), len(new))]  # fmt: skip
    return (
        _marked(pieces[0], [(b.a, b.size) for b in kept], len(old), "del"),
        _marked(pieces[1], [(b.b, b.size) for b in kept], len(new), "ins"),
    )


def _marked(pieces: Sequence[str], kept: Sequence[tuple[int, int]], compared: int, tag: str) -> Markup:
    parts, at = [], 0
    for start, size in [*kept, (compared, len(pieces) - compared)]:
        gone = "".join(pieces[at:start])
        words = gone.lstrip()  # the space before a mark is not part of it
        parts += [gone[: len(gone) - len(words)], _tagged(words, tag) if words else ""]
        parts.append("".join(pieces[start : start + size]))
        at = start + size
    return Markup().join(parts)


def _tagged(text: str, tag: str) -> Markup:
    return Markup("<{1}>{0}</{1}>").format(text, tag)
