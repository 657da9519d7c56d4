"""The pictures of an evaluation as inline SVG: scores with intervals, scores by length, confidence against what is right."""

from __future__ import annotations

from collections.abc import Sequence

from nmt.evaluation.calibration import BINS, Calibration
from nmt.evaluation.lengths import Bucket, Estimate
from nmt.evaluation.results import Measured
from nmt.pages import safe
from nmt.study.drawing import Scale, colour, keys, picture, tick_label

_WIDTH, _HEIGHT = 440, 276
_LEFT, _RIGHT, _TOP = 44, 12, 10  # around the field
_BOTTOM, _STRIP, _LABELS = 196, 254, 272  # of the field, of the counts below it, of the words below those
_TALLEST = 34  # of a count's bar
_ROWS = (28, 72)  # of a score: at least, at most
_POINTS = 3000  # of a scatter; of more, every so many-th is drawn

STYLE = """
.bar { fill: var(--c0); fill-opacity: .55; } .count { fill: var(--soft); fill-opacity: .45; } svg .small { font-size: 10.5px; }
.span { stroke-width: 2; } .dots { fill: var(--c0); fill-opacity: .3; } .even { stroke: var(--soft); stroke-dasharray: 6 4; }
svg .value { fill: var(--ink); }
"""


def score_chart(scores: Sequence[Measured]) -> str:
    """Each score as a point on its 95 % interval, all on one scale; empty without scores."""
    if not scores:
        return ""
    values = [value for one in scores for value in (one.score, one.low, one.high) if value is not None]
    room = 0.06 * (max(values) - min(values)) or 5.0
    scale = Scale(min(values) - room, max(values) + room)
    row = min(_ROWS[1], max(_ROWS[0], (_HEIGHT - 40) // len(scores)))
    left, right, size = 92, _WIDTH - 128, (_WIDTH, row * len(scores) + 40)
    made = []
    for value in scale.ticks():
        x = left + scale.place(value) * (right - left)
        made.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="4" y2="{size[1] - 26}"/>')
        made.append(f'<text x="{x:.1f}" y="{size[1] - 8}" text-anchor="middle">{tick_label(value)}</text>')
    words = []
    for number, one in enumerate(scores):
        y = 8 + (number + 0.5) * row
        said = f"{one.score:.1f}" if one.low is None or one.high is None else f"{one.score:.1f} ({_ends(one)})"
        words.append(f"{one.name} {said}")
        ends = [left + scale.place(value) * (right - left) for value in (one.low, one.high) if value is not None]
        x = left + scale.place(one.score) * (right - left)
        made.append(f'<text class="value" x="4" y="{y + 4}">{safe(one.name[:14])}</text>')
        made.append(_span(x, y, ends, colour(number), across=True, title=words[-1]))
        made.append(f'<text class="value" x="{_WIDTH - 4}" y="{y + 4}" text-anchor="end">{said}</text>')
    note = "Line: 95 % of bootstrap resamples." if any(one.low is not None for one in scores) else "No intervals."
    if any(one.name.startswith("TER") for one in scores):
        note += " Of TER less is better, of the others more."
    return picture("Scores", "", "".join(made), size, "; ".join(words), note=note)


def _ends(one: Measured | Estimate) -> str:
    return f"{one.low:.1f} – {one.high:.1f}"


def _span(x: float, y: float, ends: Sequence[float], tint: str, across: bool, title: str) -> str:
    """A point, and a line between two ends through it; hollow where there are none."""
    line = ""
    if len(ends) == 2:
        x1, x2, y1, y2 = (*ends, y, y) if across else (x, x, *ends)
        line = f'<line class="span" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}" style="stroke:{tint}"/>'
    look = f"fill:{tint}" if line else f"fill:var(--paper);stroke:{tint};stroke-width:1.6"
    return f'<g><title>{safe(title)}</title>{line}<circle cx="{x:.1f}" cy="{y:.1f}" r="3.6" style="{look}"/></g>'


# --- columns with counts below ------------------------------------------------------------------------------------------


def length_chart(buckets: Sequence[Bucket], unit: str) -> str:
    """Corpus BLEU and mean chrF2++ of each bucket with intervals, and how many sentences it has; `unit` is that of the lengths."""
    series: list[tuple[str, str, list[Estimate | None], float]] = [
        ("mean sentence chrF2++", colour(1), [one.chrf for one in buckets], 5.0)
    ]
    if any(one.bleu for one in buckets):
        series.insert(0, ("corpus BLEU", colour(0), [one.bleu for one in buckets], -5.0))
    top = max(e.high or e.value for _, _, values, _ in series for e in values if e)
    scale = Scale(0.0, max(top, 10.0) * 1.04)
    made, step = [_grid(scale)], (_WIDTH - _LEFT - _RIGHT) / max(1, len(buckets))
    for name, tint, values, aside in series:
        for number, (one, value) in enumerate(zip(buckets, values, strict=True)):
            if value:
                x = _LEFT + (number + 0.5) * step + (aside if len(series) > 1 else 0)
                ends = [_y(scale, end) for end in (value.low, value.high) if end is not None]
                said = f"{value.value:.1f}" + (f" ({_ends(value)})" if ends else "")
                title = f"{name} of {one.sentences:,} sentences of {one.label} {unit}: {said}"
                y = _y(scale, value.value)
                made.append(_span(x, y, ends, tint, across=False, title=title))
    labels = [one.label for one in buckets]
    made.append(_strip([one.sentences for one in buckets], labels, 1 / max(1, len(buckets)), "sentences"))
    note = (
        f"By {unit} of the source. Lines: 95 % intervals; hollow: fewer than ten sentences. Below: how many sentences."
    )
    words = "; ".join(f"{one.label} {unit}: chrF2++ {one.chrf.value:.1f}" for one in buckets)
    legend = keys([(name, tint, False) for name, tint, *_ in series])
    return picture("By length", "", "".join(made), (_WIDTH, _HEIGHT), f"By length: {words}", legend, note)


def reliability_chart(found: Calibration, unit: str) -> str:
    """Share of right words in each bin of probability against the diagonal of a model that is as sure as it is right."""
    scale = Scale(0.0, 1.0)
    width = (_WIDTH - _LEFT - _RIGHT) / BINS
    made, counts = [_grid(scale)], [0] * BINS
    for one in found.bins:
        number = round(one.low * BINS)
        counts[number] = one.words
        x, y = _LEFT + number * width + 2, _y(scale, one.share)
        title = f"probability {one.low:.1f} to {one.high:.1f}, mean {one.confidence:.3f}: {one.share:.1%} of {one.words:,} right"
        made.append(
            f'<g><title>{title}</title><rect class="bar" x="{x:.1f}" y="{y:.1f}" width="{width - 4:.1f}" '
            f'height="{_BOTTOM - y:.1f}"/><circle cx="{_LEFT + one.confidence * width * BINS:.1f}" cy="{y:.1f}" r="2.6" '
            'style="fill:var(--ink)"/></g>'
        )
    made.append(f'<line class="even" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{_BOTTOM}" y2="{_TOP}"/>')
    made.append(_strip(counts, [f"{number / BINS:.1f}" for number in range(BINS + 1)], 1 / BINS, unit, edges=True))
    tilt = found.confidence - found.accuracy
    lean = "about as sure as it is right" if abs(tilt) < 0.01 else "too sure" if tilt > 0 else "not sure enough"
    note = (
        f"Bars: share of the {unit} that are right, by the probability that the model gave them; dots at its mean in the bin; dashed: "
        f"a model that is as sure as it is right. Expected calibration error <b>{found.error:.3f}</b> over {found.words:,} {unit}: "
        f"mean probability {found.confidence:.3f}, right {found.accuracy:.3f}, so the model is {lean}."
    )
    words = f"Calibration: expected calibration error {found.error:.3f} over {found.words} {unit}"
    return picture("Calibration", "", "".join(made), (_WIDTH, _HEIGHT), words, note=note)


def _y(scale: Scale, value: float) -> float:
    return _BOTTOM - scale.place(value) * (_BOTTOM - _TOP)


def _grid(scale: Scale) -> str:
    made = []
    for value in scale.ticks():
        y = _y(scale, value)
        made.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        made.append(f'<text x="{_LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{tick_label(value)}</text>')
    return "".join(made)


def _strip(counts: Sequence[int], labels: Sequence[str], share: float, unit: str, edges: bool = False) -> str:
    """Counts as bars below the field, columns `share` of it wide, with labels below the columns or at their edges."""
    width, most = share * (_WIDTH - _LEFT - _RIGHT), max(counts, default=0) or 1
    made = []
    for number, count in enumerate(counts):
        x, height = _LEFT + number * width, _TALLEST * count / most
        made.append(
            f'<rect class="count" x="{x + 2:.1f}" y="{_STRIP - height:.1f}" width="{max(1.0, width - 4):.1f}" height="{height:.1f}">'
            f"<title>{count:,} {unit}</title></rect>"
            f'<text class="small" x="{x + width / 2:.1f}" y="{_STRIP - height - 4:.1f}" text-anchor="middle">{_brief(count)}</text>'
        )
    for number, label in enumerate(labels):
        x = _LEFT + (number + (0 if edges else 0.5)) * width
        made.append(f'<text class="small" x="{x:.1f}" y="{_LABELS - 2}" text-anchor="middle">{label}</text>')
    return "".join(made)


def _brief(count: int) -> str:
    return f"{count:,}" if count < 10_000 else f"{count / 1000:.0f}k"


# --- points -------------------------------------------------------------------------------------------------------------


def scatter_chart(pairs: Sequence[tuple[float, float]], note: str) -> str:
    """chrF2++ of sentences (upwards) over the score that the model gave them; empty without any."""
    if not pairs:
        return ""
    drawn = pairs[:: -(-len(pairs) // _POINTS)]
    values = sorted(score for score, _ in pairs)
    low, high = values[len(values) // 200], values[-1]  # the lowest 0.5 % lie at the edge
    room = 0.04 * (high - low) or 0.1
    across, up, bottom = Scale(low - room, high + room), Scale(0.0, 104.0), _HEIGHT - 44
    places = (
        (_LEFT + max(0.0, across.place(x)) * (_WIDTH - _LEFT - _RIGHT), bottom - up.place(y) * (bottom - _TOP))
        for x, y in drawn
    )
    made = []
    for value in up.ticks():
        y = bottom - up.place(value) * (bottom - _TOP)
        made.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        made.append(f'<text x="{_LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{tick_label(value)}</text>')
    for value in across.ticks():
        x = _LEFT + across.place(value) * (_WIDTH - _LEFT - _RIGHT)
        made.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{tick_label(value)}</text>')
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.2"/>' for x, y in places)
    made.append(
        f'<text x="{(_LEFT + _WIDTH) / 2:.0f}" y="{bottom + 36}" text-anchor="middle">score of the model</text>'
    )
    drawing = f'{"".join(made)}<g class="dots">{dots}</g>'
    some = f" {len(drawn):,} of {len(pairs):,} are drawn." if len(drawn) < len(pairs) else ""
    words = f"chrF2++ of {len(pairs)} sentences over the score of the model"
    return picture("Sentences", "chrF2++ by the model's score", drawing, (_WIDTH, _HEIGHT), words, note=note + some)
