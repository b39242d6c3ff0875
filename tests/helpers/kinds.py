"""What the modules in tests/field tell of themselves: what people do, the oracle, and the figures before and after."""

import ast
import re
from pathlib import Path

FIELD = Path(__file__).parents[1] / "field"
FORM = re.compile(r"(.+?)\n\nOracle: (.+?)\nBefore: (.+?)\nAfter: (.+?)(?:\n\n.*)?", re.DOTALL)


def told(path):
    """The four, each in a line, of which the first is a sentence; `None` where a docstring has another form."""
    found = FORM.fullmatch(ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "")
    if found is None:
        return None
    people, *others = (" ".join(part.split()) for part in found.groups())
    return [re.split(r"(?<=\.) (?=[A-Z])", people)[0].rstrip("."), *(part.rstrip(".") for part in others)]
