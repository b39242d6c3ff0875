"""How an answer opens: its first words, bare of what stands around them, and a linear model of whether they decline.

The model is a logistic regression over words and pairs of words, fitted by `benchmarks/refusals.py` and kept in
`opening.json`. It reads English, as the rules beside it do (`refusal.py`).
"""

from __future__ import annotations

import json
import re
from functools import cache
from itertools import pairwise
from pathlib import Path

from ..text import fold

WORDS = 64  # how many words the model reads
_READ = 2000  # characters; no opening is longer

# tags, channels, headings, quotes, numbers of a list, labels such as "Final answer:", and words that open any answer
_AROUND = re.compile(
    r"""(?:
        <[^<>\s]{1,40}(?:\ [^<>]{0,40})?>
      | \[[^\[\]]{0,24}\](?!\()
      | \(?\d{1,2}[.)]\s
      | (?:the\ |my\ )?(?:final\ |short\ )?(?:answer|response|reply|output|result|assistant|ai|bot|conclusion|summary|tl;?dr|verdict
          |decision|solution|a)(?:\s*[*_:#]+\s*|\s*:)
      | (?:okay|ok|alright|all\ right|(?:(?:that\ is|that's|what)\ an?\ |it's\ an?\ )?(?:very\ )?(?:great|good|excellent|interesting)\ question)[.,!:]+\s
      | [^\w<\[]
      | _
    )\s*""",
    re.VERBOSE,
)
_HEADING = re.compile(r"(?<=\w)[ \t]*\n")  # a line without a full stop ends as a label does
_SHORT = (
    (re.compile(r"\b(?:can't|can not)\b"), "cannot"),
    (re.compile(r"\bwon't\b"), "will not"),
    (re.compile(r"n't\b"), " not"),
    (re.compile(r"\bi'm\b"), "i am"),
    (re.compile(r"'re\b"), " are"),
    (re.compile(r"'ve\b"), " have"),
    (re.compile(r"'ll\b"), " will"),
    (re.compile(r"'d\b"), " would"),
    (re.compile(r"\b(it|that|there|here|what|this|he|she)'s\b"), r"\1 is"),
)
_MARKS = re.compile(r"<[^<>\s]{1,40}>|[*_`#]+")


def bare_opening(text: str) -> str:
    """
    The opening of an answer as it is compared: folded, without tags, headings, quotes, list numbers and labels before it,
    without markdown, and with contractions written out ("can't" is "cannot", "it's" is "it is").
    """
    text = fold(_HEADING.sub(": ", text[:_READ]))
    while found := _AROUND.match(text):
        text = text[found.end() :]
    text = _MARKS.sub("", text)
    for short, long in _SHORT:
        text = short.sub(long, text)
    return re.sub(r"\s+", " ", text).strip()


def opening_grams(text: str) -> set[str]:
    """
    Words and pairs of words among the first 64; `^` stands before the first, `0` for any number. "will not" is one word, for
    it opens refusals and "will" opens help.
    """
    found = re.findall(r"will not\b|[^\W\d_]+|\d+", bare_opening(text))[:WORDS]
    words = ["^"] + ["0" if word.isdecimal() else word for word in found]
    return set(words[1:]) | {f"{a} {b}" for a, b in pairwise(words)}


@cache
def _weights() -> tuple[float, dict[str, float]]:
    kept = json.loads(Path(__file__).with_name("opening.json").read_text(encoding="utf-8"))
    return kept["bias"], kept["weights"]


def refusal_logit(answer: str) -> float:
    """The model's log-odds that an answer (without its trace) declines."""
    bias, weights = _weights()
    return bias + sum(sorted(weights[gram] for gram in opening_grams(answer) if gram in weights))
