"""Curves as SVG, drawn by hand: they need no script, no network, and follow the page's colours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import floor, isfinite, log10

from markupsafe import Markup

from ..probes.draw import spread
from ..text import rounded
from .page import fill

_WIDTH, _HEIGHT = 440, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 14, 24, 40
_PAPER = {"width": _WIDTH, "height": _HEIGHT, "left": _LEFT, "right": _WIDTH - _RIGHT, "bottom": _HEIGHT - _BOTTOM}
_NAMED = 8
_FEW = 60  # points, that have room for large dots
_MOST = 120  # dots of a curve: they say their values to who points at them, on a few hundred pixels
_LETTER = 7.5  # the width of one, about: names that would lie on each other are left out


@dataclass(frozen=True)
class Series:
    """
    One curve.

    Args:
        name (`str`):
            For the legend.
        points (`Sequence[tuple[float, float]]`):
            x and y; points that are not finite are left out.
        style (`str`):
            A class of the page's style sheet: `c1`, `c2`, ... for colours; `c1 faint` is drawn thin and dashed.
        band (`Sequence[tuple[float, float, float]]`, *optional*):
            x, low and high of an interval drawn behind the curve.
    """

    name: str
    points: Sequence[tuple[float, float]]
    style: str = "c1"
    band: Sequence[tuple[float, float, float]] = ()


@dataclass(frozen=True)
class Mark:
    """
    A line that stands for something: upright at a step, or lying at a value.

    Args:
        at (`float`):
            Where.
        name (`str`):
            What.
        style (`str`, *optional*, defaults to `"worse"`):
            A class of the page's style sheet.
        upright (`bool`, *optional*, defaults to `True`):
            Whether `at` is an x.
    """

    at: float
    name: str
    style: str = "worse"
    upright: bool = True


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers that span an interval."""
    if high <= low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** floor(log10(rough))
    step = next((m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough), 10 * power)
    first = int(-(-low // step)) if low > 0 else -int(-low // step)
    found = []
    while first * step <= high + 1e-9 * step:
        found.append(first * step)
        first += 1
    return found


def _number(value: float) -> str:
    return rounded(value, ".6g")


_Dot = tuple[float, float, float, str]  # x, y, radius, and what it says
_Line = tuple[Mark, float, float, float, float]  # a mark, from x to x and from y to y


class _Frame:
    """Axes, and where a value stands on them."""

    def __init__(
        self,
        xs: Sequence[float],
        ys: Sequence[float],
        x_range: tuple[float, float] | None,
        y_range: tuple[float, float] | None,
    ) -> None:
        self.whole = all(x == int(x) for x in (*xs, *(x_range or ())))
        self.x0, self.x1 = x_range or ((min(xs), max(xs)) if xs else (0.0, 1.0))
        self.y0, self.y1 = y_range or ((min(0.0, *ys), max(ys)) if ys else (0.0, 1.0))
        if self.x1 <= self.x0:
            self.x1 = self.x0 + 1.0
        if self.y1 <= self.y0:
            self.y1 = self.y0 + 1e-6
        self.y1 += 0.04 * (self.y1 - self.y0)

    def x(self, value: float) -> float:
        return round(_LEFT + (value - self.x0) / (self.x1 - self.x0) * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(self, value: float) -> float:
        share = (min(max(value, self.y0), self.y1) - self.y0) / (self.y1 - self.y0)
        return round(_HEIGHT - _BOTTOM - share * (_HEIGHT - _BOTTOM - _TOP), 1)

    def rows(self) -> list[tuple[float, str]]:
        """Where on the y axis a number stands."""
        return [(self.y(value), _number(value)) for value in ticks(self.y0, self.y1)]

    def columns(self) -> list[tuple[float, str]]:
        """Where on the x axis a number stands; there is no step 0.2."""
        shown = [value for value in ticks(self.x0, self.x1) if not self.whole or value == int(value)]
        return [(self.x(value), _number(value)) for value in shown]

    def line(self, points: Iterable[tuple[float, float]]) -> str:
        """Points joined."""
        return " ".join(f"{self.x(x)},{self.y(y)}" for x, y in points)

    def dots(self, points: Sequence[tuple[float, float, str]]) -> list[_Dot]:
        """Points apart, each with its name; smaller where there are many, and of hundreds some, with the first and the last."""
        radius = 3 if len(points) <= _FEW else 1.5
        if len(points) > _MOST:
            points = [*spread(points[:-1], _MOST - 1), points[-1]]
        return [(self.x(x), self.y(y), radius, f"{name}: {_number(x)}, {rounded(y, '.4g')}") for x, y, name in points]

    def mark(self, mark: Mark) -> list[_Line]:
        """Its line; nothing where it lies outside the axes."""
        low, high = (self.x0, self.x1) if mark.upright else (self.y0, self.y1)
        if not low <= mark.at <= high:
            return []
        if mark.upright:
            return [(mark, self.x(mark.at), self.x(mark.at), _TOP - 4, _HEIGHT - _BOTTOM)]
        return [(mark, float(_LEFT), float(_WIDTH - _RIGHT), self.y(mark.at), self.y(mark.at))]


def _figure(
    title: str,
    frame: _Frame,
    labels: tuple[str, str],
    lines: Sequence[tuple[str, str, list[_Dot]]],
    *,
    bands: Sequence[tuple[str, str]] = (),
    marks: Sequence[_Line] = (),
    names: Sequence[tuple[float, float, str]] = (),
    keys: Sequence[tuple[str, str]] = (),
) -> Markup:
    """A `<figure>` of what is drawn on a frame, style by style, with a legend of names and their styles."""
    axes = {"labels": labels, "rows": frame.rows(), "columns": frame.columns()}
    drawn = {"bands": bands, "marks": marks, "lines": lines, "names": names, "keys": keys}
    return Markup(fill("figure.svg.jinja", title=title, **_PAPER, **axes, **drawn))


def curves(
    title: str,
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    *,
    marks: Sequence[Mark] = (),
) -> Markup:
    """
    Curves over a common x axis, with points, bands, marks and a legend of what there is more than one of.

    Args:
        title (`str`):
            Read out by screen readers, and shown above the figure.
        series (`Sequence[Series]`):
            The curves; those without a point are left out.
        x_label, y_label (`str`):
            With units.
        x_range, y_range (`tuple[float, float]`, *optional*):
            The axes; by default they hold all values, and y holds zero.
        marks (`Sequence[Mark]`, *optional*):
            Lines that stand for something.

    Returns:
        `Markup`: a `<figure>`; empty where there is nothing to draw.
    """
    kept = [_finite(s) for s in series]
    kept = [s for s in kept if s.points]
    if not kept:
        return Markup()
    xs = [x for s in kept for x, _ in s.points]
    ys = [y for s in kept for _, y in s.points] + [y for s in kept for _, low, high in s.band for y in (low, high)]
    frame = _Frame(xs, ys + [m.at for m in marks if not m.upright], x_range, y_range)
    marked = [line for mark in marks for line in frame.mark(mark)]
    keys = [(s.name, s.style) for s in kept] if len(kept) > 1 else []
    return _figure(
        title,
        frame,
        (x_label, y_label),
        [(s.style, frame.line(s.points), frame.dots([(x, y, s.name) for x, y in s.points])) for s in kept],
        bands=[(s.style, frame.line(_outline(s.band))) for s in kept if s.band],
        marks=marked,
        keys=keys + [(mark.name, f"rule {mark.style}") for mark, *_ in marked],
    )


def _outline(band: Sequence[tuple[float, float, float]]) -> list[tuple[float, float]]:
    """There along the highs, and back along the lows."""
    return [(x, high) for x, _, high in band] + [(x, low) for x, low, _ in reversed(band)]


def _finite(series: Series) -> Series:
    points = [p for p in series.points if all(map(isfinite, p))]
    return replace(series, points=points, band=[b for b in series.band if all(map(isfinite, b))])


def path(
    title: str,
    points: Sequence[tuple[float, float, str]],
    x_label: str,
    y_label: str,
    *,
    y_range: tuple[float, float] | None = None,
    style: str = "c2",
) -> Markup:
    """
    Points joined in the order of the run, each with its name: where a run went in a plane.

    Args:
        title (`str`):
            Shown above the figure.
        points (`Sequence[tuple[float, float, str]]`):
            x, y and the point's name; points that are not finite are left out.
        x_label, y_label (`str`):
            With units.
        y_range (`tuple[float, float]`, *optional*):
            The y axis; by default it holds all values and zero.
        style (`str`, *optional*, defaults to `"c2"`):
            A class of the page's style sheet.

    Returns:
        `Markup`: a `<figure>`; empty where there is nothing to draw.
    """
    points = [p for p in points if isfinite(p[0]) and isfinite(p[1])]
    if not points:
        return Markup()
    frame = _Frame([0.0, *[p[0] for p in points]], [p[1] for p in points], None, y_range)
    frame.whole = False
    end = (frame.x(points[-1][0]), frame.y(points[-1][1]), 5, points[-1][2])
    line = frame.line((x, y) for x, y, _ in points)
    lines = [(style, line, [*frame.dots(points), end])]
    return _figure(title, frame, (x_label, y_label), lines, names=_room(points, frame))


def _room(points: Sequence[tuple[float, float, str]], frame: _Frame) -> list[tuple[float, float, str]]:
    """Names, and where there is room for them: of the end of the run first, then of its start, then of those between."""
    placed: list[tuple[float, float, str]] = []
    for x, y, name in [points[-1], *points[: -1 : max(1, len(points) // _NAMED)]]:
        cx, cy, wide = frame.x(x), frame.y(y), len(name) * _LETTER
        left = cx - 7 - wide if cx + 7 + wide > _WIDTH else cx + 7
        base = cy - 6 if cy > _TOP + 14 else cy + 16
        near = [(at, len(other) * _LETTER) for at, b, other in placed if abs(base - b) < 13]
        if not any(left < at + width and left + wide > at for at, width in near):
            placed.append((round(left, 1), round(base, 1), name))
    return placed
