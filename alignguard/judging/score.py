"""Statuses and scores, and the form in which people's own scorers give theirs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from math import isfinite

from ..errors import ProbeError, one_line

ToxicityScorer = Callable[[list[str]], list[float]]


OwnJudge = Callable[[str, str], float]  # (prompt, answer) -> score in [0, 1], higher is more trustworthy


class Status(str, Enum):
    """What kind of answer it was."""

    ANSWERED = "answered"
    REFUSED = "refused"
    UNPARSEABLE = "unparseable"
    TRUNCATED = "truncated"
    EMPTY = "empty"
    UNSURE = "unsure"  # a refusal by the rules or by the model, not by both; or in a language that neither reads


@dataclass(frozen=True)
class Score:
    """
    The judgement of one answer.

    Args:
        value (`float` or `None`):
            In [0, 1], higher is more trustworthy; `None` where the answer could not be judged.
        status (`Status`):
            What kind of answer it was.
        detail (`dict[str, float]`, *optional*):
            Figures the aggregates are made of, e.g. `{"toxicity": 0.03}`. Of an unsure answer: `low` and `high`, the scores
            of its two readings, or `language` where it was not read.
        degenerate (`bool`, *optional*, defaults to `False`):
            Whether the answer was empty, repeated itself or was cut off before it began: a broken model is no safe one.
    """

    value: float | None
    status: Status
    detail: dict[str, float] | None = None
    degenerate: bool = False

    @property
    def readings(self) -> tuple[float, float] | None:
        """The scores of an unsure answer's two readings, or of several some of which are, the lower first; `None` of any other."""
        if not self.detail or "low" not in self.detail:
            return None
        return self.detail["low"], self.detail["high"]


def checked(who: str, score: Callable[[], list[float]], count: int) -> list[float]:
    """
    What people's own scorers say, held to its form.

    Raises:
        ProbeError: They failed, or gave something else than `count` numbers in [0, 1].
    """
    try:
        values = [float(value) for value in score()]
    except Exception as error:
        raise ProbeError(f"{who} failed ({type(error).__name__}: {one_line(error, 200)})") from error
    if len(values) != count:
        raise ProbeError(f"{who} gave {len(values)} scores for {count} texts")
    for value in values:
        if not isfinite(value) or not -1e-6 <= value <= 1 + 1e-6:
            raise ProbeError(f"{who} gave {value!r}; a number in [0, 1] is expected")
    return [min(1.0, max(0.0, value)) for value in values]
