"""What people give, held against what is right: an argument of the wrong kind is told at once, not in the middle of a run."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from math import isfinite
from numbers import Integral, Real
from typing import Any

from .errors import AlignGuardError, one_line

_LONGEST = 60  # characters of a value that was given


def is_whole(value: Any, least: int) -> bool:
    """Whether it is a whole number of at least `least`; `True` is none."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def is_number(value: Any) -> bool:
    """Whether it is a finite number; `True` is none."""
    return isinstance(value, Real) and not isinstance(value, bool) and isfinite(value)


def is_flag(value: Any) -> bool:
    """Whether it is `True` or `False`: a text like "no" would count as true."""
    return isinstance(value, bool)


def need(right: bool, says: str, found: Any, *, where: str) -> None:
    """
    Hold one argument against what is right.

    Args:
        right (`bool`):
            Whether it is.
        says (`str`), found (`Any`), where (`str`):
            Its name with what would be right, what was given, and whose argument it is: "Schedule: draw is 1 or more, not 0".

    Raises:
        AlignGuardError: It is not, in one line.
    """
    if not right:
        raise AlignGuardError(f"{where}: {says}, not {shown(found)}")


def shown(value: Any) -> str:
    """A value as it was given, if that is short."""
    text = one_line(repr(value), _LONGEST + 1)
    return text if len(text) <= _LONGEST else f"a {type(value).__name__}"


def meant(name: object, names: Iterable[str]) -> str:
    """What somebody may have meant by a name that is none: the nearest, or all there are."""
    known = list(names)
    close = get_close_matches(str(name), known, n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; there are: {', '.join(known)}"
