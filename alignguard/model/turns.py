"""Ways in which a chat template takes turns, and whether every word of them is in what it wrote."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import one_line


def _as_they_are(turns: Sequence[dict[str, str]]) -> list[dict[str, Any]] | None:
    return [dict(turn) for turn in turns]


def _in_parts(turns: Sequence[dict[str, str]]) -> list[dict[str, Any]] | None:
    """For templates of models that see pictures, which loop over parts of a turn."""
    return [{"role": t["role"], "content": [{"type": "text", "text": t["content"]}]} for t in turns]


def _folded(turns: Sequence[dict[str, str]]) -> list[dict[str, Any]] | None:
    """For templates that know no system turn (gemma, some mistral): it goes before the first user turn."""
    if turns[0]["role"] != "system" or len(turns) < 2:
        return None
    system, first, *rest = turns
    return [{"role": first["role"], "content": f"{system['content']}\n\n{first['content']}"}, *rest]


def _folded_in_parts(turns: Sequence[dict[str, str]]) -> list[dict[str, Any]] | None:
    folded = _folded(turns)
    return None if folded is None else _in_parts(folded)


WAYS = (_as_they_are, _in_parts, _folded, _folded_in_parts)  # the first that keeps every word is taken


def left_out(turns: Sequence[dict[str, str]], text: str) -> str:
    """Which turn's words are not in the prompt, in a few words; empty where all are. White space may differ."""
    squeezed = " ".join(text.split())
    for number, turn in enumerate(turns, 1):
        if " ".join(turn["content"].split()) not in squeezed:
            return f"turn {number}, the {turn['role']}'s: {one_line(turn['content'], 60)!r}"
    return ""
