"""Curves as SVG, drawn by hand: they need no script, no network, and follow the page's colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from math import floor, isfinite, log10

_WIDTH, _HEIGHT = 440, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 14, 24, 40
_NAMED = 8
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
            A class of the page's style sheet: `c1`, `c2`, ... for colours.
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
    return f"{value:.6g}"


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
        return _LEFT + (value - self.x0) / (self.x1 - self.x0) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        share = (min(max(value, self.y0), self.y1) - self.y0) / (self.y1 - self.y0)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _BOTTOM - _TOP)

    def axes(self, x_label: str, y_label: str) -> list[str]:
        parts = []
        for value in ticks(self.y0, self.y1):
            y = self.y(value)
            parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(
                f'<text class="tick" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_number(value)}</text>'
            )
        for value in ticks(self.x0, self.x1):
            if self.whole and value != int(value):  # there is no step 0.2
                continue
            x = self.x(value)
            parts.append(
                f'<text class="tick" x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">{_number(value)}</text>'
            )
        middle = (_LEFT + _WIDTH - _RIGHT) / 2
        parts.append(
            f'<text class="label" x="{middle:.0f}" y="{_HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>'
        )
        parts.append(f'<text class="label" x="4" y="13">{escape(y_label)}</text>')
        return parts

    def mark(self, mark: Mark) -> str:
        """Its line; nothing where it lies outside the axes."""
        low, high = (self.x0, self.x1) if mark.upright else (self.y0, self.y1)
        if not low <= mark.at <= high:
            return ""
        x0 = x1 = self.x(mark.at)
        y0 = y1 = self.y(mark.at)
        if mark.upright:
            y0, y1 = _TOP - 4, _HEIGHT - _BOTTOM
        else:
            x0, x1 = _LEFT, _WIDTH - _RIGHT
        at = f'x1="{x0:.1f}" x2="{x1:.1f}" y1="{y0:.1f}" y2="{y1:.1f}"'
        return f'<line class="mark {mark.style}" {at}><title>{escape(mark.name)}</title></line>'


def _dot(x: float, y: float, radius: float, style: str, title: str) -> str:
    return f'<circle class="dot {style}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}"><title>{escape(title)}</title></circle>'


def _figure(title: str, parts: Sequence[str], keys: Sequence[tuple[str, str]] = ()) -> str:
    """A `<figure>` of drawn parts, with a legend of names and their styles."""
    legend = "".join(f'<span class="key {style}">{escape(name)}</span>' for name, style in keys)
    return (
        f"<figure><figcaption>{escape(title)}</figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
        + (f'<div class="legend">{legend}</div>' if legend else "")
        + "</figure>"
    )


def curves(
    title: str,
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    *,
    marks: Sequence[Mark] = (),
) -> str:
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
        `str`: a `<figure>`; empty where there is nothing to draw.
    """
    kept = [_finite(s) for s in series]
    kept = [s for s in kept if s.points]
    if not kept:
        return ""
    xs = [x for s in kept for x, _ in s.points]
    ys = [y for s in kept for _, y in s.points] + [y for s in kept for _, low, high in s.band for y in (low, high)]
    frame = _Frame(xs, ys + [m.at for m in marks if not m.upright], x_range, y_range)
    parts = frame.axes(x_label, y_label)
    for s in kept:
        if s.band:
            there = " ".join(f"{frame.x(x):.1f},{frame.y(high):.1f}" for x, _, high in s.band)
            back = " ".join(f"{frame.x(x):.1f},{frame.y(low):.1f}" for x, low, _ in reversed(s.band))
            parts.append(f'<polygon class="band {s.style}" points="{there} {back}"/>')
    drawn = [(mark, frame.mark(mark)) for mark in marks]
    parts += [line for _, line in drawn]
    for s in kept:
        line = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in s.points)
        parts.append(f'<polyline class="line {s.style}" points="{line}"/>')
        radius = 3 if len(s.points) <= 60 else 1.5
        for x, y in s.points:
            parts.append(_dot(frame.x(x), frame.y(y), radius, s.style, f"{s.name}: {_number(x)}, {y:.4g}"))
    keys = [(s.name, s.style) for s in kept] if len(kept) > 1 else []
    return _figure(title, parts, keys + [(mark.name, f"rule {mark.style}") for mark, line in drawn if line])


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
) -> str:
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
        `str`: a `<figure>`; empty where there is nothing to draw.
    """
    points = [p for p in points if isfinite(p[0]) and isfinite(p[1])]
    if not points:
        return ""
    frame = _Frame([0.0, *[p[0] for p in points]], [p[1] for p in points], None, y_range)
    frame.whole = False
    parts = frame.axes(x_label, y_label)
    line = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y, _ in points)
    parts.append(f'<polyline class="line {style}" points="{line}"/>')
    taken: list[tuple[float, float, float]] = []
    few = len(points) <= 60
    for x, y, name in points:
        parts.append(_dot(frame.x(x), frame.y(y), 3 if few else 1.5, style, f"{name}: {_number(x)}, {y:.4g}"))
    parts.append(_dot(frame.x(points[-1][0]), frame.y(points[-1][1]), 5, style, points[-1][2]))
    # the end of the run is named first, then its start: where there is no room, those between go without
    for x, y, name in [points[-1], *points[: -1 : max(1, len(points) // _NAMED)]]:
        cx, cy = frame.x(x), frame.y(y)
        wide = len(name) * _LETTER
        left = cx - 7 - wide if cx + 7 + wide > _WIDTH else cx + 7
        base = cy - 6 if cy > _TOP + 14 else cy + 16
        if any(abs(base - b) < 13 and left < r and left + wide > t for t, r, b in taken):
            continue
        taken.append((left, left + wide, base))
        parts.append(f'<text class="tick" x="{left:.1f}" y="{base:.1f}">{escape(name)}</text>')
    return _figure(title, parts)
