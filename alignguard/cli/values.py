"""What options may be given: each reads its text, or says what would be right."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any


def an_object(text: str) -> dict[str, Any]:
    """A JSON object."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"not JSON ({error.msg})") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"a JSON object is expected, not {text}")
    return value


def _number(kind: type, right: Callable[[Any], bool], says: str) -> Callable[[str], Any]:
    """What reads an option that is a number, and says what would be right."""

    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not right(value):
            raise argparse.ArgumentTypeError(f"{says}, not {text}")
        return value

    return read


count = _number(int, lambda value: value >= 1, "1 or more is expected")
seed = _number(int, lambda value: value >= 0, "0 or more is expected")
heat = _number(float, lambda value: 0 <= value < float("inf"), "0 or more is expected")
share = _number(float, lambda value: 0 < value < 1, "a share between 0 and 1 is expected (0.15: 15 points)")
part = _number(float, lambda value: 0 < value <= 1, "a share above 0, and at most 1, is expected")
any_number = _number(
    float, lambda value: True, "a number between 0 and 1 is expected"
)  # which the rule it is for holds to that
