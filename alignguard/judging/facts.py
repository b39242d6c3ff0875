"""Whether a fact stands in a text, in any form in which it is the right answer.

A fact is told by whole words: 7 is not told by 17, nor by 7.5. But it may stand in the plural ("dogs"), a number with its ending
or unit ("18th", "5:40pm", "EUR120"), and a day of a month in either order ("the 16th of February", "Feb 16"). A sign of a figure
belongs to it: $5 is not told by $5,000, nor 5% by 5.5%.
"""

from __future__ import annotations

import re
from functools import lru_cache

from .numbers import COUNTS
from .plain import BEGIN, END, plain, stands_as_written

_MONTHS = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
]
_MONTH = "|".join(_MONTHS)
_DATE = re.compile(
    rf"(?:(?P<day>\d{{1,2}})\w{{0,2}}(?: of)? (?P<month>{_MONTH})|(?P<month_>{_MONTH}) (?P<day_>\d{{1,2}})\w{{0,2}})"
)
_FIGURE = re.compile(r"(?P<sign>[-+$€£¥] ?)?(?P<figure>\d{1,2}:\d\d|\d+(?:[.,]\d+)*)(?P<share> ?%)?")
_CURRENCY = r"(?:usd|eur|gbp|chf|sek|nok|dkk|rs|kr)"
_UNIT = r"(?!(?:k|bn|mn|mln|tn)\b)[^\W\d_]{1,3}"  # "18th", "5:40pm", "120eur"; 5k is no 5


def tells(fact: str, text: str) -> bool:
    """Whether a fact stands in a text."""
    if not any(c.isalnum() for c in plain(fact)):  # "<br>" and "!?" are no words
        return stands_as_written(fact, text)
    return _pattern(fact).search(plain(text)) is not None


@lru_cache(maxsize=4096)
def _pattern(fact: str) -> re.Pattern[str]:
    """What a fact looks like in plain text."""
    fact = plain(fact)
    if date := _DATE.fullmatch(fact):
        return re.compile(_date(date["day"] or date["day_"], date["month"] or date["month_"]))
    if found := _FIGURE.fullmatch(fact):
        sign, unit = found["sign"], " ?(?:%|per ?cent)" if found["share"] else f"(?:{_UNIT})?"
        before = f"{re.escape(sign.strip())} ?" if sign else f"{_CURRENCY}?"
        written = re.escape(found["figure"]).replace(":", "[:.]")
        return re.compile(rf"{BEGIN}{before}(?<!\d[.,]){written}(?!\.\d*[1-9]|,\d{{3}}){unit}{END}")
    return re.compile(BEGIN + _word(fact) + END)


def _date(day: str, month: str) -> str:
    day = rf"0?{day}(?:st|nd|rd|th)?"
    month = rf"(?:{month}|{month[:3]}\.?)"
    return rf"{BEGIN}(?:{day}(?:,? of)?,? {month}|{month},? (?:the )?{day}){END}"


def _word(fact: str) -> str:
    """Words, the last of which may be in the plural; but "the tens digit" tells no ten."""
    if fact in COUNTS or not re.search(r"[a-z]{3}$", fact):
        return re.escape(fact)
    if re.search(r"[^aeiou]y$", fact):
        return re.escape(fact[:-1]) + r"(?:y|ies)"
    return re.escape(fact) + r"(?:e?s)?"
