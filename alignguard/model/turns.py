"""Ways in which a chat template takes turns, whether every word of them is in what it wrote, and how it ends one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from itertools import takewhile
from typing import Any

from ..errors import one_line
from .forms import ANSWER, QUESTION

Turns = Sequence[dict[str, Any]]


def _as_they_are(turns: Turns) -> list[dict[str, Any]] | None:
    return [dict(turn) for turn in turns]


def _in_parts(turns: Turns) -> list[dict[str, Any]] | None:
    """For templates of models that see pictures, which loop over parts of a turn."""
    return [{**t, "content": [{"type": "text", "text": text} for text in texts_of(t)]} for t in turns]


def _in_one_part(turns: Turns) -> list[dict[str, Any]] | None:
    """For templates that add a turn's text to their own: parts become one text, and a turn that only calls tools an empty one."""
    return None if is_plain(turns) else [{**t, "content": "".join(texts_of(t))} for t in turns]


def _folded(turns: Turns) -> list[dict[str, Any]] | None:
    """For templates that know no system turn (gemma, some mistral): it goes before the first user turn."""
    if turns[0]["role"] != "system" or len(turns) < 2:
        return None
    system, first, *rest = _in_one_part(turns) or turns
    return [{**first, "content": f"{system['content']}\n\n{first['content']}"}, *rest]


def _folded_in_parts(turns: Turns) -> list[dict[str, Any]] | None:
    folded = _folded(turns)
    return None if folded is None else _in_parts(folded)


WAYS = (_as_they_are, _in_parts, _folded, _folded_in_parts, _in_one_part)  # the first that keeps every word is taken


def texts_of(turn: dict[str, Any]) -> list[str]:
    """What a turn says: its content, or the texts of its parts."""
    content = turn.get("content") or ""
    return [content] if isinstance(content, str) else [part["text"] for part in content]


def is_plain(turns: Turns) -> bool:
    """Whether all of them are texts, and none calls a tool."""
    return all(isinstance(turn.get("content"), str) and turn.keys() <= {"role", "content"} for turn in turns)


def left_out(turns: Turns, text: str, tools: Any = None) -> str:
    """Which turn's words, or calls, are not in the prompt, in a few words; empty where all are. White space may differ."""
    squeezed = " ".join(text.split())
    if "{'type': 'text'" in squeezed and not is_plain(turns):
        return "the parts of a turn, which it writes as Python does"
    said = [(number, turn, " ".join(part.split())) for number, turn in enumerate(turns, 1) for part in texts_of(turn)]
    for number, turn, words in said:
        if words not in squeezed:
            return f"turn {number}, the {turn['role']}'s: {one_line(words, 60)!r}"
    called = Counter(call.get("function", call)["name"] for turn in turns for call in turn.get("tool_calls") or ())
    for name, calls in called.items():  # told of by the tools themselves, it was not called yet
        if squeezed.count(name) < calls + json.dumps(tools).count(name) + sum(w.count(name) for _, _, w in said):
            return f"a call of the tool {name}"
    return ""


_NEXT = "Question 4714"  # as [`QUESTION`], of the turn after


def end_of_turn(
    render: Callable[[Turns, bool, dict[str, Any]], str],
    encode: Callable[[str], list[int]],
    marks: Collection[int],
    known: Collection[int],
) -> tuple[int | None, str]:
    """
    The token with which a chat template ends an assistant's turn, where that is none of those known to end an answer: the last mark
    that stands behind every turn; behind the last one, where they differ; or, where nothing does, that which begins the next turn.

    Args:
        render (`Callable`):
            From turns, whether the assistant's is to be begun, and further options of the template, to text.
        encode (`Callable`):
            From text to token ids.
        marks (`Collection[int]`):
            Tokens that are no text, so that one of them can end an answer.
        known (`Collection[int]`):
            Tokens that end an answer in any case.

    Returns:
        `tuple[int | None, str]`: the token, and, where there is neither such a token nor a known one, the text with which the template
        goes on after an answer.
    """
    turns: list[dict[str, Any]] = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]
    last = _written(render, turns).rpartition(ANSWER)
    amid = _written(render, [*turns, {"role": "user", "content": _NEXT}]).partition(ANSWER)
    closing, follows = last[2] if last[1] else "", amid[2].partition(_NEXT)[0]
    ends, goes_on = encode(closing), encode(follows)
    shared = [a for a, _ in takewhile(lambda pair: pair[0] == pair[1], zip(ends, goes_on, strict=False))]
    begins = encode(follows.lstrip())[:1] if not closing.strip() else []
    for ids in (shared, ends, begins):
        found = [token for token in ids if token in marks or token in known]
        if found:
            return (None if any(token in known for token in found) else found[-1]), ""
    return None, (closing if closing.strip() else follows).strip()


def _written(render: Callable[[Turns, bool, dict[str, Any]], str], turns: Turns) -> str:
    """Turns as the template writes them, in the first way in which it keeps what is said; nothing where it takes none."""
    for way in WAYS[:2]:
        try:
            text = render(way(turns) or turns, False, {})
        except Exception:  # a template that takes no such turns tells nothing by it
            continue
        if ANSWER in text:
            return text
    return ""
