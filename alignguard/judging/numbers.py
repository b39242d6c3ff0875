"""The number that an answer gives: the one it marks as its answer, else the last one it says.

Reasoning training teaches a model to box its answer, to head it "Final answer:", to write LaTeX and to check itself
afterwards. None of that changes the number.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from math import isfinite

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_VULGAR = {"½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅖": "2/5", "⅗": "3/5", "⅘": "4/5"}
_VULGAR |= {"⅙": "1/6", "⅚": "5/6", "⅛": "1/8", "⅜": "3/8", "⅝": "5/8", "⅞": "7/8"}

# LaTeX, typography and markdown, in this order, to what the grammar below reads
_PLAIN = [
    (r"[−﹣－]", "-"),
    (r"\\(?:text|math|textnormal)[a-z]*\s*\{([^{}]*)\}|\\(?:boldsymbol|operatorname|emph)\s*\{([^{}]*)\}", r" \1\2 "),
    (r"\\(?:left|right|displaystyle|big|Big)\b", ""),
    (r"(?<=\d)(?:\{,\}|,\\!|\\[,;: ]|[_'’~\u00a0\u2007\u2009\u200a\u202f])(?=\d{3}(?!\d))", ","),  # thousands
    (r"\\[,;:!]|[*_~](?=\\boxed)", " "),
    (r"(?<=\d)\s*(?=\\[dtc]?frac)", " "),  # a mixed number
    (r"\\[dtc]?frac\s*\{\s*(-?[\d.,]+)\s*\}\s*\{\s*([\d.,]+)\s*\}", r"\1/\2 "),
    (r"\\[dtc]?frac\s*(\d)\s*(\d)", r"\1/\2 "),
    (r"⁄", "/"),
    (r"\\times\b|\\cdot\b|[·⋅]", "×"),
    (r"\^\s*\{\s*([^{}]*?)\s*\}", r"^\1"),
    (r"(?<=\d)\*\*(?=-?\d)", "^"),  # a power; elsewhere it is bold
    (r"\*\*|__|~~|`", ""),
    (r"(?<=[A-Za-zµΩ%°)\]])\s?\^\s?-?\d+", ""),  # of a unit or a variable
    (r"([-–])\s*(?:\\?\$|[€£¥₹])\s*(?=[\d.])", r"\1"),
    (r"\b(?:[Nn]egative|(?<=\bis )minus|(?<==\s)minus)\s+(?=[\d.])", "-"),
    (r"(?<=[=≈(:]) ?- (?=[\d.])", " -"),
]
_PLAIN_RE = [(re.compile(pattern), text) for pattern, text in _PLAIN]

_NUMBER = re.compile(
    r"(?P<date>\d+/\d+/\d+|\d{4}-\d{2}-\d{2}(?!\d))"
    r"|(?P<whole>"
    r"\d{1,3}(?:\.\d{3})+,\d+(?!\d)|\d{1,3}(?:\.\d{3}){2,}(?![.\d])"  # 1.234,56 and 1.234.567
    r"|\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d{1,2}(?:,\d{2})+,\d{3}(?!\d)"  # 1,234.5 and 12,34,567
    r"|\d+(?:\.\d+)?|(?<![\d.])\.\d+)"
    r"(?:[eE](?P<e>[-+]?\d+)(?![\w.])"
    r"|\s*[×x*]\s*10\^(?P<ten>-?\d+)"
    r"|\s?\^\s?(?P<power>-?\d+)"
    r"|\s*/\s*(?P<under>\d+(?:\.\d+)?)(?!\d)"
    r"| +(?P<top>\d+)/(?P<bottom>\d+)(?![\d/]))?"
)
_ORDINAL = re.compile(r"(?:st|nd|rd|th)\b")
_LABEL = re.compile(r"(?:[A-Za-z]_?\{?|\b(?:[Ss]tep|[Cc]ase|[Oo]ption|[Qq]uestion|[Pp]art)\s+#?)$")
_NUMBERING = re.compile(r"[.)][ \t]+\S")
_ITEM = re.compile(r"(?:^|\n)[ \t]*(?:[-*+>#]+[ \t]+)*$")  # where a list's numbering stands

_BOXED = re.compile(r"\\f?boxed\s*(\{)?")
_MARKER = re.compile(
    r"(?:(?:^|\n)[#> \t]*(?:the\s+)?(?:final\s+)?answer[# \t]*(?=\n)"
    r"|(?<!/)\b(?:answer|final result)\s*(?:\s(?:is|would be|should be|must be|comes to|equals)\b(?!\s+not\b)|[:=>→])"
    r"|[\"'](?:final[_ ]?)?(?:answer|result|value|solution|total)[\"']\s*:\s*[\"']?(?=-?[$€£]?\.?\d)"  # JSON
    r"|\banswer to [^\n]{0,120}\bis\b(?!\s+not\b)(?=[^\w\n]{0,8}\d)"
    r"|(?:^|\n)####(?=[ \t]*[-$]?[\d.,]+[ \t]*(?:\n|$)))"
    r"(?:\s+(?:is|was)\b|\s*[:=])?",
    re.IGNORECASE,
)
# what may stand between a marker and its number: signs, a name for it, and two words that begin no working
_LEAD = re.compile(
    r"(?:[^\w\n.!?]|\n)*(?:[A-Za-z]\s*[=≈]\s*)?"
    r"(?:(?!(?:step|first|we|let|lets|to|given|if|since|because|for|from|start|in|on|with|each|after|part|question|"
    r"problem|case|option|choice|not|as|so|when)\b)[A-Za-z]+[^\w\n.!?]+|[A-Za-z]\)\s*){0,3}(?=\.?\d)",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.!?](?=\s|$|[*\"'”)])|\n|;|\s\(|,?\s(?:because|since|as|where|so|which)\b", re.IGNORECASE)
_CHECK = re.compile(
    r"(?:\n[^\w\n]*|#{2,} *)(?:(?:(?:let's|let us|let me|now|to) )?(?:double[- ]?|sanity )?(?:verif\w+|check\w*|proof)\b"
    r"|(?:confidence|certainty|source|reference|time taken)\s*:|(?:please )?(?:let me know|feel free|would you like|if you (?:want|like|need|have))\b)",
    re.IGNORECASE,
)
# a line that is the result: "Result: 26 (5 + 7*3)"; a total may be one of several
_RESULT = re.compile(
    r"[#>*\- \t]*(?:the )?(?:final |grand )?(?P<name>result|solution|output|total|sum|ans|a)\.?\s*[:=]\s*(?=-?[$€£¥₹]? ?\.?\d)",
    re.IGNORECASE,
)
_OPERATOR = re.compile(r"[-$€£¥₹ ]*[\d.,/]+ ?[A-Za-z%°]* ?[-+×*/÷x=]\s?[\d(.]")
_NAMED = re.compile(r"[^\n:=\d]{1,40}[:=]")
_FALSE = re.compile(r"(?:,?\s)?\(?\b(?:(?:and |but )?not|rather than|instead of)\s+[$€£¥₹]?-?\d[\d.,/]*\d?")
# "30 = 18 + 12": the result stands first
_RESULT_FIRST = re.compile(
    r"(?<![\d.,+×*/÷)=-])(?<![-+×*/÷=] )(?P<result>-?[\d.,]*\d)\s*=\s*\(?\d[\d.,]*\)?(?:\s*[-+×*/÷]\s*\(?\d[\d.,]*\)?)+(?![\d.]*\s*[-+×*/÷=])"
)
_ROW = re.compile(r"^.*(?:\d\s*:\s+|\\to\b|→)(?=[^\d]{0,40}\d)", re.DOTALL)  # in a box: "Row 8: 26"
_SENTENCE = re.compile(r"[.!?](?=\s)|\n")
COUNTS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_WORDS = {word: float(i) for i, word in enumerate(COUNTS, 1)}
_WORDS |= {
    w: float(i)
    for i, w in enumerate(
        ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"], 1
    )
}


@dataclass(frozen=True)
class _Found:
    """A number in a text; a weak one numbers a step or a day, or is part of a name."""

    value: float
    weak: bool
    ordinal: bool
    start: int


def last_number(text: str, given: Collection[float] = ()) -> float | None:
    r"""
    The number that a text gives as its answer.

    It is read from the last `\boxed{...}`; where there is none, from what follows the last "Answer:", "The answer is",
    `"answer":` or `####`; else from a line "Result: 26"; else it is the last number before a section that checks it, and of
    that number's sentence the last one that was not given. Fractions, powers, thousands marks and exponents are read as what
    they are worth; a percentage or an amount as its figure, without the unit.

    Args:
        text (`str`):
            An answer, without its trace.
        given (`Collection[float]`, *optional*):
            Numbers of the question, which an answer may say again: "He pays 30 euros for the 2 kites."

    Returns:
        `float` or `None`: `None` where the text holds no number.
    """
    boxed = _boxed(text)
    plain = _plain(text)
    if boxed is not None and (found := _given(_result_alone(_ROW.sub("", _plain(boxed))))) is not None:
        return found
    for marker in reversed(list(_MARKER.finditer(plain))):
        if lead := _LEAD.match(plain, marker.end()):
            return _given(plain[lead.end() - _sign(plain, lead.end()) :])
        rest = plain[marker.end() :]
        if not re.search(r"\w", plain[: marker.start()]) and (found := _last(rest, given)) is not None:
            return found  # a heading over the whole of it
    result = _result(plain)
    return _last(plain, given) if result is None else result


def numbers_of(question: str) -> set[float]:
    """The numbers that a question gives, the small ones in words too."""
    words = {_WORDS[word] for word in re.findall(r"[a-z]+", question.casefold()) if word in _WORDS}
    return words | {found.value for found in _numbers(_plain(question))}


def _plain(text: str) -> str:
    for sign, fraction in _VULGAR.items():
        if sign in text:
            text = re.sub(rf"(?<=\d)\s*{sign}", f" {fraction}", text).replace(sign, fraction)
    text = re.sub(r"[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+", lambda m: "^" + m[0].translate(_SUPERSCRIPTS), text)
    for pattern, plain in _PLAIN_RE:
        text = pattern.sub(plain, text)
    return text


def _boxed(text: str) -> str | None:
    r"""What stands in the last `\boxed{...}`, to its own closing brace, or to the end of a cut answer."""
    boxes = list(_BOXED.finditer(text))
    if not boxes:
        return None
    found = boxes[-1]
    if found[1] is None:
        return text[found.end() :].split("\n", 1)[0].split("$", 1)[0]
    depth = 1
    for i in range(found.end(), len(text)):
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if depth == 0:
            return text[found.end() : i]
    return text[found.end() :]


def _given(text: str) -> float | None:
    """The number of a marked answer: of its first sentence what stands behind the last equals sign, else the first."""
    text = text.lstrip()
    while item := re.match(r"\d+[.)]\s+(?=[-$*]*\d)", text):  # "1. 42" numbers it
        text = text[item.end() :]
    end = next((m.start() for m in _SENTENCE_END.finditer(text) if re.search(r"\d", text[: m.start()])), len(text))
    sentence = text[:end]
    for part in reversed(re.split(r"[=≈]", sentence)):
        if found := _numbers(part):
            return next((n for n in found if not n.weak and not n.ordinal), found[0]).value
    return None


def _result(text: str) -> float | None:
    """What the first line or the last one says after "Result:", where it is a number and no working."""
    lines = [line for line in text.split("\n") if re.search(r"\d", line)]
    named = all(_NAMED.match(line.strip()) for line in lines)
    for line in lines[-1:] + lines[:1]:
        label = _RESULT.match(line)
        if label is None or _OPERATOR.match(line, label.end()):
            continue
        if named or line is lines[-1] or label["name"].casefold() not in ("total", "sum"):
            return _given(line[label.end() :])
    return None


def _result_alone(text: str) -> str:
    """Equations whose result stands first, as their result."""
    return _RESULT_FIRST.sub(lambda found: found["result"], text)


def _last(text: str, given: Collection[float]) -> float | None:
    """The last number, of what stands before a check where that holds one."""
    text = _result_alone(text)
    if _numbers(said := _FALSE.sub("", text)):
        text = said
    for check in _CHECK.finditer(text):
        if before := _numbers(text[: check.start()]):
            return _strong(before, text, given)
    found = _numbers(text)
    return _strong(found, text, given) if found else None


def _strong(found: list[_Found], text: str, given: Collection[float]) -> float:
    """The last that counts something; of its sentence the last that was not given, where there is one."""
    last = next((n for n in reversed(found) if not n.weak), found[-1])
    start = max((m.end() for m in _SENTENCE.finditer(text, 0, last.start)), default=0)
    new = [
        n.value
        for n in found
        if start <= n.start <= last.start and not n.weak and not n.ordinal and n.value not in given
    ]
    return new[-1] if new and given else last.value


def _numbers(text: str) -> list[_Found]:
    found = []
    for match in _NUMBER.finditer(text):
        value = _value(match)
        if value is None or not isfinite(value):
            continue
        before = text[max(0, match.start() - 40) : match.start()]
        numbered = _NUMBERING.match(text, match.end()) is not None and _ITEM.search(before) is not None
        weak = match["date"] is not None or numbered or _LABEL.search(before) is not None
        sign = -1.0 if _sign(text, match.start()) else 1.0
        found.append(_Found(sign * value, weak, _ORDINAL.match(text, match.end()) is not None, match.start()))
    return found


def _sign(text: str, start: int) -> int:
    """How many characters before a number are its minus; in "12-7" and "12 -7" it is an operator."""
    if start == 0 or text[start - 1] not in "-–":
        return 0
    before = text[max(0, start - 3) : start - 1]
    return 0 if re.search(r"[^\W_]$|[)\]}%]$|\d\s$", before) else 1


def _value(match: re.Match[str]) -> float | None:
    """What a match is worth; `None` for a division by zero and for powers that no float holds."""
    if match["date"] is not None:
        return float(re.findall(r"\d+", match["date"])[-1])
    whole = match["whole"]
    if re.fullmatch(r"\d{1,3}(?:\.\d{3})+(?:,\d+)?", whole) and (whole.count(".") > 1 or "," in whole):
        whole = whole.replace(".", "").replace(",", ".")
    value = float(whole.replace(",", ""))
    try:
        if match["e"] or match["ten"]:
            return value * 10.0 ** int((match["e"] or match["ten"])[:6])
        if match["power"]:
            return float(value ** int(match["power"][:6]))
        if match["under"]:
            return value / float(match["under"])
        if match["top"]:
            return value + float(match["top"]) / float(match["bottom"])
    except (OverflowError, ZeroDivisionError):
        return None
    return value
