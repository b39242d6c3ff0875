"""Answers that go on thinking: what is said after a trace was closed by force is often no answer, but more of the trace."""

from __future__ import annotations

import re

from ..text import fold

_READ = 400  # characters; who has come to the point by then has answered

# how deliberation opens, in whatever comes next
_OPENS = re.compile(
    r"""(?:
        (?:ok(?:ay)?|alright|all\ right|right|so|now|well|but|and)?[,.]?\s*(?:hmm+|hm|wait|let\ me\ (?:think|see|check|recall|consider
          |try|break|start|verify|figure|re-?read|look|work|first)|let's\ (?:think|see|check|consider|try|break|verify))\b
      | (?:ok(?:ay)?|alright|all\ right)[,.]?\ (?:so|now|let|i|the|first|but)\b
      | (?:so|now|but|and|well|then|first|next|also|maybe|perhaps|actually)?[,.]?\s*(?:the|this)\ (?:user|person\ asking)\b
      | (?:so|now|but|and|well|first|next|also|then)[,.]?\ (?:i|maybe|perhaps|what\ if|how\ (?:do|can|should)\ i)\b
      | (?:maybe|perhaps)\ (?:i|it|they|we|the|there|if)\b
      | (?:another|also|one)\ (?:thing|point|approach|possibility|angle|idea)\b
      | on\ the\ other\ hand\b
      | i\ (?:should|need\ to|have\ to|must|want\ to)\ (?:\w+\ )?(?:think|consider|figure|make\ sure|respond|answer|be|check|find|recall
          |start|approach|come\ up|figure|determine|address|avoid|keep|structure|provide\ a)\b
      | i\ (?:remember|recall|wonder|guess|suppose|think\ i|also)\b
      | (?:i'm|i\ am)\ (?:thinking|wondering|trying\ to|supposed\ to|a\ bit|confused)\b
    )""",
    re.VERBOSE,
)
# what one says to oneself; twice is no slip
_ASIDES = re.compile(
    r"""\b(?:wait|hmm+|let\ me|let's\ see|maybe|i\ (?:should|need\ to|wonder|guess|recall|remember)|should\ i|the\ user
      |(?:i'm|i\ am)\ not\ (?:\w+\ )?sure|what\ if|that\ (?:makes|doesn't\ make)\ sense|double-check|another\ thing)\b""",
    re.VERBOSE,
)


def goes_on_thinking(trace: str, answer: str) -> bool:
    """
    Whether what follows a trace that was closed by force is more of the trace.

    It opens as deliberation does ("Okay, so", "Wait,", "Let me think", "The user wants"), talks to itself twice within its
    first 400 characters, or goes on in the middle of the sentence in which the trace was cut off.

    Args:
        trace (`str`):
            What was thought until the budget was used up.
        answer (`str`):
            What was said after it was closed.
    """
    start = answer.lstrip(" \t\n\"'*_>-")[:_READ]
    opening = fold(start).lstrip()
    if _OPENS.match(opening) or len(_ASIDES.findall(opening)) >= 2:
        return True
    cut = re.search(r"[\w,;(]$", trace.rstrip()) is not None  # in the middle of a sentence
    return cut and re.match(r"[a-z]+[\s,;]", start) is not None and re.search(r"[.!?]\s+[A-Z]", answer) is not None
