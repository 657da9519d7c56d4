"""Attention as a picture: which source subword each target subword looked at."""

from __future__ import annotations

from collections.abc import Sequence

from nmt.evaluation.results import Shown
from nmt.pages import safe

MOST = 120  # subwords on a side that are drawn
LEAST = 0.02  # weight that is drawn
_CELL = 19  # pixels
_LETTER = 7.6  # pixels, about
_LONGEST = 18  # characters of a subword that are shown
_END = "</s>"

Matrix = Sequence[Sequence[float]]

STYLE = """
.cells rect { fill: rgb(var(--blue)); } .cells path { stroke: var(--line); stroke-width: .5; fill: none; }
.cells text { fill: var(--ink); }
"""


def parts(shown: Shown) -> list[tuple[Matrix, list[str], list[str]]]:
    """The matrix of each part of the text that has one, with its target and source subwords; a subword that is not told is "?"."""
    sources = _split(shown.source_subwords)
    found: list[tuple[Matrix, list[str], list[str]]] = []
    row = column = 0
    for number, matrix in enumerate(shown.attention):
        across = len(matrix[0]) if matrix else 0
        names = sources[number] if len(sources) == len(shown.attention) else shown.source_subwords[column:]
        if across:
            found.append((matrix, _names(shown.target_subwords[row:], len(matrix)), _names(names, across)))
        row, column = row + len(matrix), column + across
    return found


def _split(subwords: Sequence[str]) -> list[list[str]]:
    """The subwords of each part, with its end mark."""
    found: list[list[str]] = [[]]
    for subword in subwords:
        found[-1].append(subword)
        if subword == _END:
            found.append([])
    return found if found[-1] else found[:-1]


def _names(subwords: Sequence[str], count: int) -> list[str]:
    return [*subwords[:count], *["?"] * (count - len(subwords))]


def cells(matrix: Matrix) -> int:
    """How many cells `heat_map` draws of it."""
    return sum(weight >= LEAST for row in matrix[:MOST] for weight in row[:MOST])


def heat_map(matrix: Matrix, down: Sequence[str], across: Sequence[str]) -> str:
    """Target subwords downwards, source subwords across; weight is opacity, and in each cell's title. Only the first 120 of each side are
    drawn, and weights from 0.02."""
    rows, columns = ([_short(name) for name in names[:MOST]] for names in (down, across))
    left = 14 + _LETTER * max(map(len, rows), default=0)
    top = 14 + _LETTER * max(map(len, columns), default=0)
    width, height = left + _CELL * len(columns) + 4, top + _CELL * len(rows) + 4
    made = []
    for number, name in enumerate(columns):
        x = left + (number + 0.5) * _CELL + 4
        made.append(f'<text transform="translate({x:.0f} {top - 5:.0f}) rotate(-90)">{safe(name)}</text>')
    for number, name in enumerate(rows):
        made.append(
            f'<text x="{left - 5:.0f}" y="{top + (number + 0.5) * _CELL + 4:.0f}" text-anchor="end">{safe(name)}</text>'
        )
    for i, (name, row) in enumerate(zip(rows, matrix, strict=False)):
        made += (
            f'<rect x="{left + j * _CELL:.0f}" y="{top + i * _CELL:.0f}" width="{_CELL}" height="{_CELL}" '
            f'opacity="{min(1.0, weight):.2f}"><title>{safe(name)} ← {safe(other)}: {weight:.2f}</title></rect>'
            for j, (other, weight) in enumerate(zip(columns, row, strict=False))
            if weight >= LEAST
        )
    right, bottom = left + _CELL * len(columns), top + _CELL * len(rows)
    lines = [f"M{left:.0f} {top + i * _CELL:.0f}H{right:.0f}" for i in range(len(rows) + 1)]
    lines += [f"M{left + j * _CELL:.0f} {top:.0f}V{bottom:.0f}" for j in range(len(columns) + 1)]
    made.append(f'<path d="{"".join(lines)}"/>')
    cut = max(len(down), len(across)) > MOST
    note = (
        f"<p><small>The first {MOST} subwords of each side, of {len(down)} and {len(across)}.</small></p>"
        if cut
        else ""
    )
    return (
        f'<div class="wide"><svg class="cells" width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'role="img" aria-label="attention of {len(down)} target subwords over {len(across)} source subwords">'
        f"{''.join(made)}</svg></div>{note}"
    )


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"
