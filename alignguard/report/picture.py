"""The picture of a trust card: the report's curves in one SVG file that stands alone, with a light background wherever it is shown."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from xml.etree import ElementTree

from markupsafe import Markup

from ..files import write_text
from . import charts
from .card import TrustCard
from .page import fill

_COLUMNS, _GAP, _HEAD, _LINE = 2, 24, 26, 18  # pixels, but for the columns


@dataclass(frozen=True)
class _Panel:
    """A figure of the report, and where it stands."""

    x: float
    y: float
    title: str
    drawn: Markup
    keys: list[tuple[str, str]]


def picture(card: TrustCard) -> str:
    """
    The curves of a run: drift, and each dimension's drop.

    Returns:
        `str`: an SVG document; empty where there are no curves, as of a model that was audited once.
    """
    audits, verdict = card.audits, card.verdict
    if len({audit.step for audit in audits}) < 2:
        return ""
    found = [charts.drift(audits, verdict), *(charts.dimension(name, audits, verdict) for name in verdict.dimensions)]
    figures = [ElementTree.fromstring(figure) for figure in found if figure]
    wide, high = (float(side) for side in figures[0][1].attrib["viewBox"].split()[2:])
    panels, top = [], float(_GAP)
    for first in range(0, len(figures), _COLUMNS):
        row = figures[first : first + _COLUMNS]
        for number, figure in enumerate(row):
            panels.append(_panel(figure, _GAP + number * (wide + _GAP), top, wide, high))
        top += _HEAD + high + _LINE * max(len(panel.keys) for panel in panels[-len(row) :]) + _GAP
    size = {"width": _GAP + _COLUMNS * (wide + _GAP), "height": top}
    return fill("picture.svg.jinja", colours=_light(), panels=panels, head=_HEAD, line=_LINE, high=high, **size)


def write_picture(target: Path, card: TrustCard) -> str:
    """Write it; its name, or nothing where there is none."""
    drawn = picture(card)
    if drawn and (not target.exists() or target.read_text(encoding="utf-8") != drawn):
        write_text(target, drawn)
    return target.name if drawn else ""


def _panel(figure: ElementTree.Element, x: float, y: float, wide: float, high: float) -> _Panel:
    caption, drawn, *legend = figure
    drawn.attrib |= {"x": f"{x:g}", "y": f"{y + _HEAD:g}", "width": f"{wide:g}", "height": f"{high:g}"}
    keys = [(key.text or "", key.attrib["class"].removeprefix("key ")) for part in legend for key in part]
    return _Panel(x, y, caption.text or "", Markup(ElementTree.tostring(drawn, encoding="unicode")), keys)


def _light() -> Markup:
    """The colours of our pages by day."""
    style = files(__package__).joinpath("style.css").read_text(encoding="utf-8")
    found = re.search(r":root \{.*?\}", style, re.DOTALL)
    assert found is not None
    classes = re.findall(r"^\.(?:c\d|worse|better|odd) \{ --c: .*\}$", style, re.MULTILINE)
    return Markup("\n".join([found[0], *classes]))
