"""What a drift budget holds the model to: prompts of our own or of the user's, never a probe that judges."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ProbeError
from ..probes.probe import Probe
from ..probes.rows import need, read_jsonl, turns_of

Turns = tuple[dict[str, str], ...]
BUILT_IN = Path(__file__).with_name("anchors.jsonl")
_HINT = "; anchors are 'built-in', a JSONL file or a list"
_LONG = 20  # characters: a shorter text lies in others by chance


@dataclass(frozen=True)
class Anchor:
    """
    One prompt a model is held on.

    Args:
        turns (`tuple[dict[str, str], ...]`):
            Chat turns, the last one the user's.
        family (`str`, *optional*, defaults to `""`):
            The scene it is from; a probe of that scene may not judge.
    """

    turns: Turns
    family: str = ""


def load_anchors(given: str | Path | Iterable[Any] = "built-in") -> dict[str, Anchor]:
    """
    The prompts that a drift budget is measured on.

    Args:
        given (`str`, `Path` or `Iterable`, *optional*, defaults to `"built-in"`):
            `"built-in"`; a JSONL file with `prompt` or `messages` (and, if you like, `system`, `id`, `family`) in each line;
            or such rows, or texts.

    Returns:
        `dict[str, Anchor]`: by a name of the anchor.

    Raises:
        ProbeError: A row is no prompt, or there is none; the message names file and line.
    """
    if isinstance(given, (str, Path)):
        path = BUILT_IN if given == "built-in" else Path(given)
        rows: list[tuple[str, Any]] = list(read_jsonl(path, _HINT))
    else:
        need(isinstance(given, Iterable), "anchors", f"a {type(given).__name__} is none{_HINT}")
        rows = [(f"anchors[{i}]", {"prompt": row} if isinstance(row, str) else row) for i, row in enumerate(given)]
    found: dict[str, Anchor] = {}
    for number, (where, row) in enumerate(rows):
        need(isinstance(row, dict), where, 'expected a text or an object with fields, e.g. {"prompt": ...}')
        family = row.get("family", "")
        need(isinstance(family, str), where, f"'family' must be a string, not {family!r}")
        found[str(row.get("id", f"anchor-{number:03d}"))] = Anchor(turns_of(row, where), family)
    if len(found) < len(rows):
        raise ProbeError("anchors: two of them have the same id")
    if not found:
        raise ProbeError("anchors: there is none; give prompts, or leave 'built-in'")
    return found


def plain_words(turns: Sequence[dict[str, str]]) -> str:
    """What is asked, in letters and digits only: the form in which anchors and probes are compared."""
    return " ".join(re.findall(r"[^\W_]+", " ".join(t["content"] for t in turns if t["role"] == "user").casefold()))


def check_disjoint(anchors: dict[str, Anchor], pool: Sequence[Probe]) -> None:
    """
    Anchors train, probes judge: no text may do both, and no scene.

    Raises:
        ProbeError: An anchor is a probe's prompt, or holds one, or lies in one, or is of a probe's family.
    """
    asked = {f" {plain_words(probe.messages)} ": probe.id for probe in pool}
    families = {probe.family: probe.id for probe in pool}
    for id, anchor in anchors.items():
        words = f" {plain_words(anchor.turns)} "
        same = asked.get(words) or next((p for text, p in asked.items() if _in(text, words) or _in(words, text)), None)
        if same is not None:
            raise ProbeError(
                f"anchor {id!r} asks what probe {same!r} asks; what trains must not judge, so leave out one of them"
            )
        if anchor.family in families:
            raise ProbeError(
                f"anchor {id!r} is of the family {anchor.family!r}, as probe {families[anchor.family]!r} is; what trains "
                "must not judge, so leave out one of them, or rename the family if they share no more than its name"
            )


def _in(text: str, other: str) -> bool:
    return len(text) > _LONG and text in other
