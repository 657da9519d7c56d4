"""Line charts over the steps of a run as inline SVG: sharp at any size, in the colours of the page, light or dark."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from nmt.study import drawing
from nmt.study.drawing import Scale, in_words, tick_label
from nmt.study.run_log import Series

_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 18, 8, 24  # around the field
_ROOM = 5  # around the field, for the marks at its edge
_MOST = 300  # points of a line; of more, the lowest and the highest of each stretch are drawn
_MARKED = 40  # points up to which each has a mark with its value
_LEAST = 1e-60  # on a logarithmic scale: a gradient that is smaller is none
_WARMUP = 0.1  # of the steps, which a focused chart leaves out of account


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


def shade(index: int, count: int) -> str:
    """A colour of the row from blue (first) to orange (last), for lines with an order; all are as light as each other."""
    return f"oklch(64% 0.15 {265 - 215 * index / max(1, count - 1):.0f})"


def keys(lines: Sequence[Line]) -> str:
    """What the colours stand for."""
    return drawing.keys([(line.label, line.colour, line.dashed) for line in lines])


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
    frame = _Frame(*asked.size, Scale(0.0, float(max(asked.end, 1))), _range(lines, asked))
    ends = "; ".join(f"{line.label} {in_words(line.points[-1][1])} at step {line.points[-1][0]:,}" for line in lines)
    named = keys(lines) if asked.keys and len(lines) > 1 else ""
    drawn = _grid(frame) + _field(lines, frame, asked.ring)
    return drawing.picture(asked.title, asked.unit, drawn, asked.size, f"{asked.title}: {ends}", named, asked.note)


# --- scales -------------------------------------------------------------------------------------------------------------


def _fits(value: float, log: bool) -> bool:
    return math.isfinite(value) and (value > _LEAST or not log)


def _range(lines: Sequence[Line], asked: Chart) -> Scale:
    """A scale for all lines, with some room."""
    begin = _WARMUP * asked.end if asked.focus else 0.0
    values = [value for line in lines for step, value in line.points if step >= begin]
    values = values or [value for line in lines for _, value in line.points]
    low, high = min(values), max(values)
    if asked.log:
        room = min(max((high / low) ** 0.05, 1.1), 10.0)
        return Scale(low / room, high * room, log=True)
    room = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return Scale(max(0.0, low - room) if low >= 0 else low - room, high + room)


# --- drawing ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Frame:
    """Where things are in a picture of this size."""

    width: int
    height: int
    across: Scale
    up: Scale

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
        made.append(f'<text x="{_LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{tick_label(value, small)}</text>')
    bottom = frame.height - _BOTTOM + 17
    made.append(f'<text x="{_LEFT - 7}" y="{bottom}" text-anchor="end">step</text>')
    made += (
        f'<text x="{frame.x(step):.1f}" y="{bottom}" text-anchor="middle">{tick_label(step, False)}</text>'
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
                f"<title>{escape(line.label)} at step {step:,}: {in_words(value)}</title></circle>"
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
