"""Line charts over the steps of a run as inline SVG: sharp at any size, in the colours of the page, light or dark."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from nmt.study.run_log import Series

_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 18, 8, 24  # around the field
_ROOM = 5  # around the field, for the marks at its edge
_MOST = 300  # points of a line; of more, the lowest and the highest of each stretch are drawn
_MARKED = 40  # points up to which each has a mark with its value
_LEAST = 1e-60  # on a logarithmic scale: a gradient that is smaller is none
_WARMUP = 0.1  # of the steps, which a focused chart leaves out of account

# Okabe and Ito 2008, as in nmt.figures, and a lighter set for dark pages.
STYLE = """
:root { --c0: #0072B2; --c1: #D55E00; --c2: #009E73; --c3: #CC79A7; --c4: #B98900; --c5: #3A9BD1; }
@media (prefers-color-scheme: dark) {
  :root { --c0: #5AB0E8; --c1: #FF9152; --c2: #35C79C; --c3: #E5A3C7; --c4: #EDBE4A; --c5: #A3D8F7; } }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); gap: 1rem; }
.charts.small { grid-template-columns: repeat(auto-fill, minmax(min(100%, 14.5rem), 1fr)); }
figure { display: flex; flex-direction: column; margin: 0; padding: .7rem .8rem .5rem;
  border: 1px solid var(--line); border-radius: .5rem; min-width: 0; }
figcaption { line-height: 1.35; } figure > svg { width: 100%; height: auto; margin-top: auto; padding-top: .4rem; }
figure > small { line-height: 1.35; overflow-wrap: anywhere; }
.small figcaption { font-size: .93em; }
.keys { display: flex; flex-wrap: wrap; gap: 0 .9rem; font-size: .87em; }
.keys i { display: inline-block; width: 1.3em; border-top: 2.5px solid; vertical-align: middle; margin-right: .35em; }
.keys i.dashed { border-top-style: dashed; }
svg text { font: 12px system-ui, sans-serif; fill: var(--soft); } svg .grid { stroke: var(--line); }
svg polyline { fill: none; stroke-width: 1.8; stroke-linejoin: round; } svg .dashed { stroke-dasharray: 6 4; }
"""


@dataclass(frozen=True)
class Line:
    """A series, its name, and its colour in CSS; a dashed one is a limit to compare with."""

    label: str
    points: Series
    colour: str
    dashed: bool = False


@dataclass(frozen=True)
class Chart:
    """Lines over the steps from 0 to `end`. `note` is HTML below them; `size` in pixels, where the page leaves so much room.

    `log`: values on a logarithmic scale. `focus`: the scale fits what comes after the first tenth of the steps, and lines may leave
    it before. `ring` marks a point and says what it is.
    """

    title: str
    unit: str
    lines: Sequence[Line]
    end: int
    note: str = ""
    log: bool = False
    focus: bool = False
    ring: tuple[int, float, str] | None = None
    keys: bool = True  # name the lines, where there are several
    size: tuple[int, int] = (440, 236)


def colour(index: int) -> str:
    """One of six colours that are told apart, for lines without an order."""
    return f"var(--c{index % 6})"


def shade(index: int, count: int) -> str:
    """A colour of the row from blue (first) to orange (last), for lines with an order; all are as light as each other."""
    return f"oklch(64% 0.15 {265 - 215 * index / max(1, count - 1):.0f})"


def keys(lines: Sequence[Line]) -> str:
    """What the colours stand for."""
    items = (
        f'<span><i class="{"dashed" if line.dashed else "solid"}" style="border-color:{line.colour}"></i>{escape(line.label)}</span>'
        for line in lines
    )
    return f'<div class="keys">{"".join(items)}</div>'


def chart(asked: Chart) -> str:
    """The chart as an HTML figure; an empty text where there is nothing to draw."""
    lines = [
        Line(
            line.label,
            [(step, value) for step, value in line.points if _fits(value, asked.log)],
            line.colour,
            line.dashed,
        )
        for line in asked.lines
    ]
    lines = [line for line in lines if line.points]
    if all(line.dashed for line in lines):
        return ""
    frame = _Frame(*asked.size, _Scale(0.0, float(max(asked.end, 1))), _range(lines, asked))
    ends = "; ".join(f"{line.label} {_value(line.points[-1][1])} at step {line.points[-1][0]:,}" for line in lines)
    named = keys(lines) if asked.keys and len(lines) > 1 else ""
    unit = f" <small>{escape(asked.unit)}</small>" if asked.unit else ""
    note = f"<small>{asked.note}</small>" if asked.note else ""
    return (
        f"<figure><figcaption><b>{escape(asked.title)}</b>{unit}{named}</figcaption>"
        f'<svg viewBox="0 0 {frame.width} {frame.height}" role="img" aria-label="{escape(f"{asked.title}: {ends}")}">'
        f"{_grid(frame)}{_field(lines, frame, asked.ring)}</svg>{note}</figure>"
    )


# --- scales -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float
    log: bool = False

    def place(self, value: float) -> float:
        """Where a value lies, from 0 (lowest) to 1."""
        if self.log:
            return (math.log10(value) - math.log10(self.low)) / self.decades
        return (value - self.low) / (self.high - self.low)

    @property
    def decades(self) -> float:
        """Powers of ten from the lowest to the highest."""
        return math.log10(self.high) - math.log10(self.low)

    def ticks(self) -> list[float]:
        """Round values, three to six."""
        if self.log and self.decades >= 1:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            each = (1, 2, 5) if self.decades < 2 else (1,)
            found = [factor * 10.0**power for power in range(first, last + 1) for factor in each]
            found = [value for value in found if self.low <= value <= self.high]
            return found[:: -(-len(found) // 6)]
        rough = (self.high - self.low) / 5
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
        return [number * step for number in range(math.ceil(self.low / step), math.floor(self.high / step + 1e-9) + 1)]


def _fits(value: float, log: bool) -> bool:
    return math.isfinite(value) and (value > _LEAST or not log)


def _range(lines: Sequence[Line], asked: Chart) -> _Scale:
    """A scale for all lines, with some room."""
    begin = _WARMUP * asked.end if asked.focus else 0.0
    values = [value for line in lines for step, value in line.points if step >= begin]
    values = values or [value for line in lines for _, value in line.points]
    low, high = min(values), max(values)
    if asked.log:
        room = min(max((high / low) ** 0.05, 1.1), 10.0)
        return _Scale(low / room, high * room, log=True)
    room = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return _Scale(max(0.0, low - room) if low >= 0 else low - room, high + room)


def _value(value: float) -> str:
    """A value in words: four digits or so."""
    if value and abs(value) < 0.001:
        return f"{value:.2e}"
    return f"{value:,.4g}" if abs(value) < 10_000 else f"{value:,.0f}"


def _label(value: float, small: bool) -> str:
    """A tick's text; `small` where all of them are."""
    if small and value:
        digits, power = f"{value:.2e}".split("e")
        return f"{float(digits):g}e{int(power)}"
    if abs(value) >= 1e6:
        return f"{value / 1e6:,.6g}M"
    return f"{value / 1e3:,.6g}k" if abs(value) >= 1e5 else f"{value:,.6g}"


# --- drawing ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Frame:
    """Where things are in a picture of this size."""

    width: int
    height: int
    across: _Scale
    up: _Scale

    def x(self, step: float) -> float:
        return _LEFT + self.across.place(step) * (self.width - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return self.height - _BOTTOM - self.up.place(value) * (self.height - _TOP - _BOTTOM)


def _grid(frame: _Frame) -> str:
    """Lines and numbers behind the field."""
    made, ticks, right = [], frame.up.ticks(), frame.width - _RIGHT
    small = max(map(abs, ticks), default=1.0) < 0.01 or (frame.up.log and frame.up.low < 0.001)
    for value in ticks:
        y = frame.y(value)
        made.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        made.append(f'<text x="{_LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{_label(value, small)}</text>')
    bottom = frame.height - _BOTTOM + 17
    made.append(f'<text x="{_LEFT - 7}" y="{bottom}" text-anchor="end">step</text>')
    made += (
        f'<text x="{frame.x(step):.1f}" y="{bottom}" text-anchor="middle">{_label(step, False)}</text>'
        for step in frame.across.ticks()
    )
    return "".join(made)


def _field(lines: Sequence[Line], frame: _Frame, ring: tuple[int, float, str] | None) -> str:
    """The lines and marks, in an SVG of its own that cuts off what leaves the scale."""
    left, top = _LEFT - _ROOM, _TOP - _ROOM
    width, height = frame.width - left - _RIGHT + _ROOM, frame.height - top - _BOTTOM + _ROOM
    made = []
    for line in lines:
        places = [(frame.x(step), frame.y(value)) for step, value in _thinned(line.points)]
        kind = ' class="dashed"' if line.dashed else ""
        text = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        made.append(f'<polyline{kind} style="stroke:{line.colour}" points="{text}"/>')
        if len(line.points) <= _MARKED and not line.dashed:
            made += (
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" style="fill:{line.colour}">'
                f"<title>{escape(line.label)} at step {step:,}: {_value(value)}</title></circle>"
                for (x, y), (step, value) in zip(places, line.points, strict=True)
            )
    if ring is not None:
        step, value, words = ring
        made.append(
            f'<circle cx="{frame.x(step):.1f}" cy="{frame.y(value):.1f}" r="4.6" '
            f'style="fill:none;stroke:var(--ink);stroke-width:1.6"><title>{escape(words)}</title></circle>'
        )
    size = f'x="{left}" y="{top}" width="{width}" height="{height}" viewBox="{left} {top} {width} {height}"'
    return f"<svg {size}>{''.join(made)}</svg>"


def _thinned(points: Series) -> Iterable[tuple[int, float]]:
    """The points, or of too many the lowest and the highest of each stretch, so that no peak is lost."""
    if len(points) <= _MOST:
        return points
    size = -(-2 * len(points) // _MOST)
    stretches = (points[start : start + size] for start in range(0, len(points), size))
    return [
        point
        for stretch in stretches
        for point in sorted({min(stretch, key=lambda p: p[1]), max(stretch, key=lambda p: p[1])})
    ]
