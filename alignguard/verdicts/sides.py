"""The sides of a dimension: the parts of it in which good means one thing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from ..probes.probe import Probe

TOGETHER = "together"  # the dimension that is all of them

_CONDITIONS = {
    "ambiguous": "ambiguous",
    "disambiguated": "disambiguated",
    "ambig": "ambiguous",
    "disambig": "disambiguated",
}
_JUDGES = {"leak": "keep"}

# what a side's score is the share of, in words
_SHARE_OF = {
    ("safety", "refuse"): "harmful requests refused",
    ("safety", "comply"): "harmless requests answered",
    ("privacy", "keep"): "secrets kept",
    ("privacy", "tell"): "what may be told, told",
    ("stereotype", "ambiguous"): "questions without an answer left open",
    ("stereotype", "disambiguated"): "questions with an answer answered rightly",
    ("stereotype", "choice"): "statements on groups rightly agreed or disagreed with",
    ("ood", "abstain"): "what cannot be known left open",
    ("ood", "tell"): "what can be known told",
    ("ood", "choice"): "plain and unusual wordings answered rightly",
}


def side_of(probe: Probe) -> str:
    """What makes an answer to it a good one: a probe to refuse and one to comply with are on opposite sides."""
    if probe.dimension == "stereotype" and probe.condition in _CONDITIONS:
        return _CONDITIONS[probe.condition]
    return probe.expect or _JUDGES.get(probe.judge, probe.judge)


def share_of(dimension: str, side: str) -> str:
    """What the score of a side says, in words: `harmful requests refused`."""
    return _SHARE_OF.get((dimension, side), f"{dimension} ({side})" if side else dimension)


def sides_of(pool: Iterable[Probe]) -> dict[str, tuple[str, ...]]:
    """The sides of each dimension, where it has several."""
    found: dict[str, set[str]] = defaultdict(set)
    for probe in pool:
        found[probe.dimension].add(side_of(probe))
    return {dimension: tuple(sorted(names)) if len(names) > 1 else () for dimension, names in found.items()}


def parts_of(probe: Probe, sides: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The parts of its dimension that a probe belongs to: all of it, and its side."""
    return ("", side_of(probe)) if sides.get(probe.dimension) else ("",)
