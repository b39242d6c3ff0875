"""Text as it is compared, as it can be written down, and as it may be shown on a terminal."""

from __future__ import annotations

import re

# what moves a terminal's cursor, colours it, or hides or turns around what stands beside it: all controls but tab and new
# line, zero-width characters but the two that scripts and emoji need, bidirectional controls, line separators, tags
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)


def fold(text: str) -> str:
    """Lower case, straight apostrophes, single spaces: the form in which text is compared."""
    return re.sub(r"\s+", " ", text.replace("’", "'").replace("‘", "'")).strip().casefold()


def clean(text: str) -> str:
    """Text that can be encoded: lone surrogates become question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")


def visible(text: str) -> str:
    """Text that others wrote, for a terminal: what would act there, or hide, stands as its code; new lines and tabs stay."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), clean(text))


def in_a_line(text: str) -> str:
    """Text that others wrote, as a part of a line for people."""
    return visible(" ".join(text.split()))
