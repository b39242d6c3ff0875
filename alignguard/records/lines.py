"""The lines of a record's files, read back as what they must be: a record may have been written by anybody."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from numbers import Real
from pathlib import Path
from typing import Any

from ..auditing.audit import Audit
from ..given import is_whole, shown
from ..probes.probe import Probe

_LAST_TIME = 253_402_300_799  # seconds, the end of the year 9999: no calendar goes further
_LAST_STEP = 10**12


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of lines; a line cut off by a crash, or that is none, is left out."""
    found = []
    for line in path.read_bytes().split(b"\n") if path.exists() else []:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


def audit_of(line: dict[str, Any]) -> Audit:
    """
    An audit from its line, without its results.

    Raises:
        ValueError: A field is missing, or is not what it must be.
    """
    for name, (right, says, needed) in _FIELDS.items():
        if (needed or name in line) and not right(line.get(name)):
            raise ValueError(f"audits.jsonl: {name} must be {says}, not {shown(line.get(name))}")
    return Audit(
        line["step"],
        {},
        line["metrics"],
        line["time"],
        line["profile"],
        line["scores"],
        {id: (low, high) for id, (low, high) in line.get("unsure", {}).items()},
        line.get("leaning", {}),
    )


def probe_of(line: dict[str, Any]) -> Probe:
    """
    A probe from its line, as it was written from a [`Probe`].

    Raises:
        ValueError: A field is none of a probe's, or is not what it must be.
    """
    for name, value in line.items():
        kind = _PROBE.get(name)
        if kind is None:
            raise ValueError(f"probes.jsonl: a probe has no field {shown(name)}, or this version knows of none")
        if not kind(value):
            raise ValueError(f"probes.jsonl: {name} is not what it must be: {shown(value)}")
    known: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in line.items()}
    return Probe(**known)


def _is_real(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_share(value: Any) -> bool:
    return _is_real(value) and 0 <= value <= 1


def _each(right: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(right, value.values()))


def _list_of(right: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(right, value))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_turn(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {"role", "content"} and all(map(_is_text, value.values()))


# of a line of audits.jsonl: what each field must be, in words, and whether it must be there
_FIELDS: dict[str, tuple[Callable[[Any], bool], str, bool]] = {
    "step": (lambda value: is_whole(value, 0) and value <= _LAST_STEP, "a step from 0 on", True),
    "time": (lambda value: _is_real(value) and 0 <= value <= _LAST_TIME, "seconds since the epoch", True),
    "scores": (_each(lambda score: score is None or _is_share(score)), "scores between 0 and 1 by probe", True),
    "metrics": (_each(_is_real), "figures by name", True),
    "profile": (_list_of(_is_real), "a list of figures", True),
    "unsure": (_each(lambda pair: _list_of(_is_share)(pair) and len(pair) == 2), "pairs of scores by probe", False),
    "leaning": (_each(_is_share), "leanings between 0 and 1 by probe", False),
}
_OF_TYPE: dict[str, Callable[[Any], bool]] = {
    "str": _is_text,
    "int": lambda value: is_whole(value, -1),
    "bool": lambda value: isinstance(value, bool),
    "tuple[str, ...]": _list_of(_is_text),
    "tuple[dict[str, str], ...]": lambda value: bool(value) and _list_of(_is_turn)(value),
}
_PROBE = {field.name: _OF_TYPE[str(field.type)] for field in fields(Probe)}
