"""What the commands say: names and texts of others are among it, and none may act on the terminal."""

from __future__ import annotations

import codecs
import json
import sys

from ..text import visible


def _codes(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


codecs.register_error("alignguard", _codes)


def settle_output() -> None:
    """What the terminal's encoding has no characters for stands as codes, which readers of JSON undo."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="alignguard")


def say(text: str) -> None:
    """On stdout, for people; JSON is made so by `dumps`."""
    print(visible(text))


def tell(text: str) -> None:
    """Beside it, on stderr."""
    print(visible(f"alignguard: {text}"), file=sys.stderr)
