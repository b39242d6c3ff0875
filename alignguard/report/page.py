"""Every page we write: one file that needs no network and no script, on a phone, in the dark and on paper.

The markup stands in templates/. What is put into a template is escaped there, once, unless it is `Markup` already; so nothing
that a model or a probe says becomes markup, a link or a path.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ..text import rounded

templates = Environment(
    loader=PackageLoader(__package__), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
templates.globals["rounded"] = rounded
templates.globals["style"] = Markup(files(__package__).joinpath("style.css").read_text(encoding="utf-8"))


def fill(template: str, **values: Any) -> str:
    """
    A page or a figure.

    Args:
        template (`str`):
            A file of templates/.
        values (`Any`):
            What stands in it, as text and figures.

    Returns:
        `str`: HTML, in which all that others have written is escaped.
    """
    return templates.get_template(template).render(values)
