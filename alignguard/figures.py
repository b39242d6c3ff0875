"""Curves as SVG, drawn by hand: they need no script, no network, and follow the page's colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import floor, isfinite, log10

_WIDTH, _HEIGHT = 460, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 14, 38


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

    def draw(self, x_label: str, y_label: str) -> list[str]:
        parts = []
        for value in ticks(self.y0, self.y1):
            y = self.y(value)
            parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(
                f'<text class="tick" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_number(value)}</text>'
            )
        for value in ticks(self.x0, self.x1, 6):
            x = self.x(value)
            parts.append(
                f'<text class="tick" x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 15}" text-anchor="middle">{_number(value)}</text>'
            )
        middle = (_LEFT + _WIDTH - _RIGHT) / 2
        parts.append(
            f'<text class="label" x="{middle:.0f}" y="{_HEIGHT - 5}" text-anchor="middle">{escape(x_label)}</text>'
        )
        parts.append(f'<text class="label" x="{_LEFT - 44}" y="10">{escape(y_label)}</text>')
        return parts


def _svg(title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title, quote=True)}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )


def curves(
    title: str,
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
) -> str:
    """
    Curves over a common x axis, with points, bands and, for more than one, a legend.

    Args:
        title (`str`):
            Read out by screen readers, and shown above the figure.
        series (`Sequence[Series]`):
            The curves.
        x_label, y_label (`str`):
            With units.
        x_range, y_range (`tuple[float, float]`, *optional*):
            The axes; by default they hold all values, and y holds zero.

    Returns:
        `str`: a `<figure>`.
    """
    kept = [Series(s.name, [p for p in s.points if isfinite(p[0]) and isfinite(p[1])], s.style, s.band) for s in series]
    xs = [x for s in kept for x, _ in s.points]
    ys = [y for s in kept for _, y in s.points] + [y for s in kept for _, low, high in s.band for y in (low, high)]
    frame = _Frame(xs, ys, x_range, y_range)
    parts = frame.draw(x_label, y_label)
    for s in kept:
        if s.band:
            there = " ".join(f"{frame.x(x):.1f},{frame.y(high):.1f}" for x, _, high in s.band)
            back = " ".join(f"{frame.x(x):.1f},{frame.y(low):.1f}" for x, low, _ in reversed(s.band))
            parts.append(f'<polygon class="band {s.style}" points="{there} {back}"/>')
        line = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in s.points)
        parts.append(f'<polyline class="line {s.style}" points="{line}"/>')
        for x, y in s.points:
            name = f"{s.name}: {_number(x)}, {y:.4g}"
            parts.append(
                f'<circle class="dot {s.style}" cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="3">'
                f"<title>{escape(name)}</title></circle>"
            )
    legend = ""
    if len(kept) > 1:
        items = "".join(f'<span class="key {s.style}">{escape(s.name)}</span>' for s in kept)
        legend = f'<div class="legend">{items}</div>'
    return f"<figure><figcaption>{escape(title)}</figcaption>{_svg(title, parts)}{legend}</figure>"


def path(title: str, points: Sequence[tuple[float, float, str]], x_label: str, y_label: str) -> str:
    """
    Points joined in the order of the run, each with its name: where a run went in a plane.

    Args:
        title (`str`):
            Shown above the figure.
        points (`Sequence[tuple[float, float, str]]`):
            x, y and the point's name.
        x_label, y_label (`str`):
            With units.

    Returns:
        `str`: a `<figure>`.
    """
    points = [p for p in points if isfinite(p[0]) and isfinite(p[1])]
    frame = _Frame([p[0] for p in points], [p[1] for p in points], None, None)
    parts = frame.draw(x_label, y_label)
    line = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y, _ in points)
    parts.append(f'<polyline class="line c2" points="{line}"/>')
    for x, y, name in points:
        cx, cy = frame.x(x), frame.y(y)
        parts.append(f'<circle class="dot c2" cx="{cx:.1f}" cy="{cy:.1f}" r="4"><title>{escape(name)}</title></circle>')
        side = 'text-anchor="end" x="' + f'{cx - 6:.1f}"' if cx > _WIDTH - 60 else f'x="{cx + 6:.1f}"'
        parts.append(f'<text class="tick" {side} y="{cy - 6:.1f}">{escape(name)}</text>')
    return f"<figure><figcaption>{escape(title)}</figcaption>{_svg(title, parts)}</figure>"
