"""Docstrings in TRL's form, as mkdocstrings renders them: ``name (`type`, *optional*, defaults to `x`):`` becomes `name:`, since
types and defaults stand in the signature already, and [`Name`] a link where the name is public."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import griffe

_INIT = ast.parse((Path(__file__).resolve().parents[1] / "alignguard" / "__init__.py").read_text("utf-8"))
PUBLIC = next(
    set(ast.literal_eval(node.value))
    for node in _INIT.body
    if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"
)
SHOWN = PUBLIC - {"__version__"}
_ARGUMENT = re.compile(r"^( {4})(\w+(?:, \w+)*)((?: \(.*?\))?(?:, \w+ \(.*?\))*):$")
_LINK = re.compile(r"\[`(\w+)`\]")


def links(text: str) -> str:
    """[`Name`] as a link to where it is described, or in code where it is not public."""
    return _LINK.sub(
        lambda found: f"[`{found[1]}`][alignguard.{found[1]}]" if found[1] in SHOWN else f"`{found[1]}`", text
    )


def plain(text: str) -> str:
    """A docstring in the form that griffe's Google parser reads."""
    lines, section, pending = [], "", []
    for line in text.splitlines():
        if re.fullmatch(r"(Args|Returns|Raises|Example):", line):
            section = line[:-1]
        elif line and not line.startswith(" "):
            section = ""
        argument = _ARGUMENT.match(line) if section == "Args" else None
        if argument:
            names = re.findall(r"(\w+)(?: \(.*?\))?(?:, |$)", argument[2] + argument[3])
            first, *pending = names
            lines.append(f"{argument[1]}{first}:")
            continue
        if pending and section == "Args" and line.startswith(" " * 8):  # one description for several names
            lines += [line, *(part for name in pending for part in (f"    {name}:", f"        As `{first}`."))]
            pending = []
            continue
        if section == "Returns":
            line = re.sub(r"^( {4})\[?`(\w+)`\]?: ", r"\1\2: ", line)
        elif section == "Example" and line == "Example:":
            line = "**Example**\n"
        lines.append(line)
    return links("\n".join(lines))


class TRLDocstrings(griffe.Extension):
    """Rewrites every docstring when it is collected, before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Whatever has a docstring."""
        if obj.docstring is not None:
            obj.docstring.value = plain(obj.docstring.value)
