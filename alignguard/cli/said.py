"""What the commands say: names and texts of others are among it, and none may act on the terminal."""

from __future__ import annotations

import sys

from ..text import visible


def say(text: str) -> None:
    """On stdout, for people; JSON is made so by `dumps`."""
    print(visible(text))


def tell(text: str) -> None:
    """Beside it, on stderr."""
    print(visible(f"alignguard: {text}"), file=sys.stderr)
