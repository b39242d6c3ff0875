"""The probes whose judgement changed, before and after, with the words that changed marked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from html import escape

from ..auditing.result import Result
from ..verdicts.verdict import DimensionVerdict, Flip, Verdict

_MOST_FLIPS = 10  # of a dimension
_MOST_OPEN = 2
_MOST_CHARACTERS = 2000
_MOST_TRACE = 400  # the answer matters more, and must not be pushed off the page
_MOST_LINE = 110
_MOST_WORDS = 400  # that are compared: more takes time that belongs to the training
_FEWEST_SAME = 3  # words in a row that count as kept: one that two texts share by chance says nothing


def flips(verdict: Verdict, quote: bool = True, was: str = "start") -> str:
    """
    The probes whose judgement changed, dimension by dimension, those called first.

    Args:
        verdict ([`Verdict`]):
            Of the latest audit.
        quote (`bool`, *optional*, defaults to `True`):
            Whether what was asked and said is shown; else ids, statuses and scores alone.
        was (`str`, *optional*, defaults to `"start"`):
            What the model is held against.

    Returns:
        `str`: HTML.
    """
    found = [d for d in verdict.dimensions.values() if d.flips]
    if not found:
        return "<p>None.</p>"
    if not quote:
        return _table(verdict.flips, was)
    return "".join(_dimension(d, was) for d in sorted(found, key=lambda d: d.dimension not in verdict.since))


def _table(flips: Sequence[Flip], was: str) -> str:
    rows = "".join(
        f'<tr><td>{escape(f.after.probe.id)}</td><td class="left">{escape(f.after.probe.dimension)}</td>'
        f'<td class="left">{_mark(f.before)}</td><td class="left {_way(f)}">{_mark(f.after)}</td></tr>'
        for f in flips
    )
    head = f'<th>probe</th><th class="left">dimension</th><th class="left">{was}</th><th class="left">now</th>'
    return f'<div class="scroll tall"><table><tr>{head}</tr>{rows}</table></div>'


def _dimension(d: DimensionVerdict, was: str) -> str:
    worse = sum(flip.drop > 0 for flip in d.flips)
    more = len(d.flips) - _MOST_FLIPS
    return (
        f"<h3>{escape(d.dimension)}: {worse} worse, {len(d.flips) - worse} better, of {d.n}</h3>"
        + "".join(_flip(flip, was, i < _MOST_OPEN) for i, flip in enumerate(d.flips[:_MOST_FLIPS]))
        + (f'<p class="note">and {more:,} more, not shown here.</p>' if more > 0 else "")
    )


def _flip(flip: Flip, was: str, shown: bool) -> str:
    probe = flip.after.probe
    asked = "\n".join(f"{turn['role']}: {turn['content']}" for turn in probe.messages)
    before, after = _said(flip.before, flip.after)
    named = " ".join(filter(None, (probe.id, probe.group, probe.condition)))
    return (
        f"<details{' open' if shown else ''}><summary>"
        f'<b class="{_way(flip)}">{_way(flip)}</b> {_mark(flip.before)} &rarr; {_mark(flip.after)} '
        f'<span>{escape(named)}</span><q>{escape(_line(probe.prompt))}</q></summary><div class="flip">'
        f'<p>Asked</p><div class="said">{_middle(asked)}</div><div class="sides">'
        f'<div><p>{was.capitalize()}</p><div class="said">{before}</div></div>'
        f'<div><p>Now</p><div class="said">{after}</div></div></div></div></details>'
    )


def _line(text: str) -> str:
    """The end of what was asked, where the question stands."""
    line = " ".join(text[-_MOST_CHARACTERS:].split())
    return line if len(line) <= _MOST_LINE else f"... {line[-_MOST_LINE:].partition(' ')[2]}"


def _way(flip: Flip) -> str:
    return "worse" if flip.drop > 0 else "better"


def _mark(result: Result) -> str:
    value = result.score.value
    forced = ", trace closed by force" if result.answer is not None and result.answer.forced else ""
    return f"{escape(result.score.status.value)} {'-' if value is None else f'{value:.2f}'}{forced}"


def _said(before: Result, after: Result) -> tuple[str, str]:
    if before.logprobs and after.logprobs:
        return _options(before, "del"), _options(after, "ins")
    was, now = ((r.answer.answer if r.answer is not None else "") for r in (before, after))
    first, second = changes(was[:_MOST_CHARACTERS], now[:_MOST_CHARACTERS])
    return _trace(before) + first + _more(was), _trace(after) + second + _more(now)


def _options(result: Result, tag: str) -> str:
    """What there was to choose from, with the choice marked."""
    logprobs, probe = result.logprobs or [], result.probe
    chosen = max(range(len(logprobs)), key=logprobs.__getitem__)
    lines = []
    for i, option in enumerate(probe.options):
        text = _middle(option.strip()) + (" (right)" if i == probe.target else "")
        lines.append(f"&bull; <{tag}>{text}</{tag}>" if i == chosen else f"&bull; {text}")
    return "\n".join(lines)


def _trace(result: Result) -> str:
    if result.answer is None or not result.answer.trace:
        return ""
    return f'<span class="trace">thinks: {_middle(result.answer.trace, _MOST_TRACE)}</span>'


def _more(text: str) -> str:
    return f" ... ({len(text) - _MOST_CHARACTERS:,} more characters)" if len(text) > _MOST_CHARACTERS else ""


def _middle(text: str, most: int = _MOST_CHARACTERS) -> str:
    """Escaped, and of a length a page can bear: a question stands at the end of its prompt, so the middle goes."""
    left = len(text) - most
    if left <= 0:
        return escape(text)
    return f"{escape(text[: most // 2])} ... ({left:,} more characters) ... {escape(text[-(most // 2) :])}"


def changes(before: str, after: str) -> tuple[str, str]:
    """
    Two texts as HTML: words that went in `<del>` on the one side, words that came in `<ins>` on the other.

    Args:
        before, after (`str`):
            As they were said; beyond the first 400 words they are shown and not compared.

    Returns:
        `tuple[str, str]`: both, escaped.
    """
    pieces = [re.findall(r"\s*\S+|\s+$", escape(text)) for text in (before, after)]
    old, new = ([piece.strip() for piece in side[:_MOST_WORDS]] for side in pieces)
    blocks = SequenceMatcher(None, old, new, autojunk=False).get_matching_blocks()
    kept = [b for b in blocks if b.size >= _FEWEST_SAME or b.a == b.b == 0 or (b.a + b.size, b.b + b.size) == (len(old), len(new))]  # fmt: skip
    return (
        _marked(pieces[0], [(b.a, b.size) for b in kept], len(old), "del"),
        _marked(pieces[1], [(b.b, b.size) for b in kept], len(new), "ins"),
    )


def _marked(pieces: Sequence[str], kept: Sequence[tuple[int, int]], compared: int, tag: str) -> str:
    parts, at = [], 0
    for start, size in [*kept, (compared, len(pieces) - compared)]:
        gone = "".join(pieces[at:start])
        words = gone.lstrip()  # the space before a mark is not part of it
        parts.append(gone[: len(gone) - len(words)] + (f"<{tag}>{words}</{tag}>" if words else ""))
        parts.append("".join(pieces[start : start + size]))
        at = start + size
    return "".join(parts)
