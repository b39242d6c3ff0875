"""Text as it is compared, and as it can be written down."""

from __future__ import annotations

import re


def fold(text: str) -> str:
    """Lower case, straight apostrophes, single spaces: the form in which text is compared."""
    return re.sub(r"\s+", " ", text.replace("’", "'").replace("‘", "'")).strip().casefold()


def clean(text: str) -> str:
    """Text that can be encoded: lone surrogates become question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")
