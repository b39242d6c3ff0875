"""Text as it is compared, as it can be written down, and as it may be shown on a terminal."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

# what moves a terminal's cursor, colours it, or hides or turns around what stands beside it: all controls but tab and new
# line, zero-width characters but the two that scripts and emoji need, bidirectional controls, line separators, tags
_ACTS = "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"
_UNSEEN = re.compile(f"[{_ACTS}]")
# what a spreadsheet begins a formula with (OWASP, CSV injection), in their full width too; a plain number is none
_FORMULA, _FIGURE = re.compile(r"\s*[=+\-@\t\r＝＋－＠]|[\t\r\n]"), re.compile(r"[+-]?[\d.,]+(?:[eE][+-]?\d+)?\s?%?")


def fold(text: str) -> str:
    """Lower case, straight apostrophes, single spaces: the form in which text is compared."""
    return re.sub(r"\s+", " ", text.replace("’", "'").replace("‘", "'")).strip().casefold()


def clean(text: str) -> str:
    """Text that can be encoded: lone surrogates become question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")


def visible(text: str) -> str:
    """Text that others wrote, for a terminal: what would act there, or hide, stands as its code; new lines and tabs stay."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), clean(text))


def visible_json(text: str) -> str:
    """JSON that a terminal shows as it is: what would act there stands as its code, which readers of JSON undo."""
    return _UNSEEN.sub(lambda found: json.dumps(found[0])[1:-1], clean(text))


def defused(text: str) -> str:
    """A cell of a table that may be opened as a spreadsheet: what that would take for a formula begins with an apostrophe."""
    return f"'{text}" if _FORMULA.match(text) and not _FIGURE.fullmatch(text) else text


def in_a_line(text: str) -> str:
    """Text that others wrote, as a part of a line for people."""
    return visible(" ".join(text.split()))


def rounded(value: float, form: str = "+.2f") -> str:
    """A figure as text. What is rounded to nothing has no minus before it, which would tell of a way that nothing went."""
    text = f"{value:{form}}"
    return text if not text.startswith("-") or re.search("[1-9a-df-z]", text) else f"{0.0:{form}}"


def own_lines(texts: Sequence[str]) -> list[str]:
    """What texts have for themselves, without the lines with which all of several begin, and those with which all end."""
    lines = [text.split("\n") for text in texts]
    while len(lines) > 1 and all(lines) and len({own[0] for own in lines}) == 1:
        lines = [own[1:] for own in lines]
    while len(lines) > 1 and all(lines) and len({own[-1] for own in lines}) == 1:
        lines = [own[:-1] for own in lines]
    return ["\n".join(own).strip() for own in lines]
