"""Draws results as SVG: bars for candidates beside each other, curves for what depends on a size.

Readable on light and dark pages, and without colours: every bar has its figure, every curve its own mark.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

Curve = Sequence[tuple[float, float]]

_WIDTH = 760
_STYLE = """
    text { font: 13px system-ui, sans-serif; fill: #1f2328; }
    .title { font-weight: 600; font-size: 15px; }
    .quiet { fill: #59636e; }
    .rule { stroke: #d1d9e0; fill: none; }
    .s0 { fill: #0969da; stroke: #0969da; } .s1 { fill: #9a6700; stroke: #9a6700; }
    .s2 { fill: #1a7f37; stroke: #1a7f37; } .s3 { fill: #cf222e; stroke: #cf222e; }
    .s4 { fill: #8250df; stroke: #8250df; } .s5 { fill: #59636e; stroke: #59636e; }
    .curve { fill: none; stroke-width: 2; }
    @media (prefers-color-scheme: dark) {
      text { fill: #f0f6fc; } .quiet { fill: #9198a1; } .rule { stroke: #3d444d; }
      .s0 { fill: #4493f8; stroke: #4493f8; } .s1 { fill: #d29922; stroke: #d29922; }
      .s2 { fill: #3fb950; stroke: #3fb950; } .s3 { fill: #f85149; stroke: #f85149; }
      .s4 { fill: #ab7df8; stroke: #ab7df8; } .s5 { fill: #9198a1; stroke: #9198a1; }
      .curve { fill: none; }
    }
"""
_COLOURS = 6


def bars(title: str, unit: str, values: Mapping[str, float], baseline: str) -> str:
    """A bar for each candidate, from zero, with its value and its ratio to the ``baseline``."""
    left, row, top = 250, 26, 56
    longest = max(values.values())
    scale = (_WIDTH - left - 150) / longest
    shapes = []
    for number, (name, value) in enumerate(values.items()):
        y = top + number * row
        ratio = f"{value / values[baseline]:.2f} ×" if values[baseline] else "–"
        shapes += [
            _text(left - 8, y + 14, name, anchor="end"),
            f'<rect class="s0" stroke="none" x="{left}" y="{y}" width="{value * scale:.1f}" height="18"/>',
            _text(left + value * scale + 6, y + 14, f"{value:,.0f} ({ratio})", kind="quiet"),
        ]
    told = "; ".join(f"{name}: {value:,.0f}" for name, value in values.items())
    heading = [_text(12, 24, title, kind="title"), _text(12, 43, f"{unit}; × {baseline}", kind="quiet")]
    return _svg(title, f"Bars, {unit}. {told}.", top + len(values) * row + 12, heading + shapes)


def curves(title: str, x_label: str, y_label: str, series: Mapping[str, Curve]) -> str:
    """A curve for each candidate, over axes that are both logarithmic. Values have to be above zero."""
    left, top, width, height = 74, 60, 440, 300
    across = _Axis([x for curve in series.values() for x, _ in curve], left, width)
    up = _Axis([y for curve in series.values() for _, y in curve], top + height, -height)
    shapes = [
        *(_text(across.at(x), top + height + 20, _short(x), anchor="middle") for x in across.given),
        *(f'<line class="rule" x1="{left}" x2="{left + width}" {_level(up.at(y))}/>' for y in up.ticks),
        *(_text(left - 8, up.at(y) + 4, _short(y), anchor="end") for y in up.ticks),
        _text(left + width / 2, top + height + 42, x_label, anchor="middle", kind="quiet"),
        _text(12, 43, y_label, kind="quiet"),
    ]
    for number, (name, curve) in enumerate(series.items()):
        colour = f"s{number % _COLOURS}"
        points = [(across.at(x), up.at(y)) for x, y in curve]
        joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        shapes += [
            f'<polyline class="{colour} curve" points="{joined}"/>',
            *(_mark(number, x, y, colour) for x, y in points),
            _mark(number, left + width + 24, top + 12 + number * 22, colour),
            _text(left + width + 36, top + 16 + number * 22, name),
        ]
    told = "; ".join(
        f"{name}: " + ", ".join(f"{_short(y)} at {_short(x)}" for x, y in curve)
        for name, curve in series.items()
    )
    heading = [_text(12, 24, title, kind="title")]
    return _svg(title, f"Curves of {y_label} over {x_label}. {told}.", top + height + 58, heading + shapes)


class _Axis:
    """Where a value lies, on a logarithmic scale that begins at ``start`` and is ``length`` pixels long."""

    def __init__(self, values: Sequence[float], start: float, length: float) -> None:
        self.given = sorted(set(values))
        lowest, highest = self.given[0], self.given[-1]
        self.ticks = _ticks(lowest, highest)
        self._low = math.log10(min(lowest, *self.ticks))
        self._high = math.log10(max(highest, *self.ticks))
        self._start, self._length = start, length

    def at(self, value: float) -> float:
        share = (math.log10(value) - self._low) / ((self._high - self._low) or 1)
        return self._start + share * self._length


def _ticks(lowest: float, highest: float) -> list[float]:
    """1, 2 and 5 times powers of ten, from the last one below to the first one above."""
    decades = range(math.floor(math.log10(lowest)) - 1, math.ceil(math.log10(highest)) + 1)
    steps = [step * 10.0**decade for decade in decades for step in (1, 2, 5)]
    first = max(i for i, step in enumerate(steps) if step <= lowest * 1.000001)
    last = min(i for i, step in enumerate(steps) if step >= highest * 0.999999)
    return steps[first : last + 1]


def _mark(number: int, x: float, y: float, colour: str) -> str:
    around = [
        f'<circle class="{colour}" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>',
        f'<rect class="{colour}" x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8"/>',
        f'<path class="{colour}" d="M{x:.1f} {y - 5:.1f}l5 9h-10z"/>',
        f'<path class="{colour}" d="M{x:.1f} {y - 6:.1f}l5 6-5 6-5-6z"/>',
        f'<path class="{colour}" d="M{x:.1f} {y + 5:.1f}l5-9h-10z"/>',
        f'<path class="{colour} curve" d="M{x - 5:.1f} {y - 5:.1f}l10 10m0-10l-10 10"/>',
    ]
    return around[number % len(around)]


def _level(y: float) -> str:
    return f'y1="{y:.1f}" y2="{y:.1f}"'


def _short(value: float) -> str:
    """1,000 as 1k; no more than three digits."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def _text(x: float, y: float, words: str, *, anchor: str = "start", kind: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text{named} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _svg(title: str, description: str, height: float, shapes: Sequence[str]) -> str:
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}" '
            f'width="{_WIDTH}" height="{height:.0f}" role="img" aria-labelledby="title description">',
            f'<title id="title">{escape(title)}</title>',
            f'<desc id="description">{escape(description)}</desc>',
            f"<style>{_STYLE}</style>",
            *shapes,
            "</svg>\n",
        ]
    )
