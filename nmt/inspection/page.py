"""An inspected sentence as one HTML page that needs nothing else: no script, no font, no network."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape

from torch import Tensor

from nmt.inspection.sentence import Inspection, activation, short

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #1b1b1b; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; } th { font-weight: normal; color: #444; text-align: start; white-space: nowrap; }
td, th { padding: .15rem .5rem; } .wide { overflow-x: auto; }
.numbers td { text-align: end; font-variant-numeric: tabular-nums; } .numbers td.word { text-align: start; }
.numbers tr:nth-child(even) { background: #f6f7f9; }
.heat td { width: 1.7rem; min-width: 1.7rem; height: 1.5rem; padding: 0; border: 1px solid #fff; }
.heat thead th { writing-mode: vertical-rl; padding: .3rem 0; vertical-align: bottom; }
.bar { display: inline-block; height: .7rem; background: #0072B2; } .word { white-space: nowrap; }
small { color: #555; } img { max-width: 100%; }
"""


def page(found: Inspection, grid_png: bytes) -> str:
    """The page; `grid_png` is the picture of the layers, which it holds within itself."""
    score = f"log P {found.log_probability:.3f} in {len(found.steps)} subwords with the end mark"
    many = len(found.capture.attention) > 1
    parts = [
        f"<h1>{escape(found.model)}</h1>",
        f'<p><bdi dir="auto">{escape(found.text)}</bdi><br/><b><bdi dir="auto">{escape(found.translation)}</bdi></b><br/>'
        f"<small>{'The translation was given' if found.given else 'Translated by beam search'}; {score}.</small></p>",
        "" if found.ended else "<p>The search met its length limit before the model ended the sentence.</p>",
        "<h2>Subwords</h2>",
        _subwords(found),
        "<h2>Attention</h2>",
        "<p><small>Rows are target subwords, columns what they looked at in the source; mean of the heads.</small></p>",
        *(
            (f"<h3>Decoder layer {number}</h3>" if many else "") + _heat(weights, found.target, found.source, 1.0)
            for number, weights in enumerate(found.capture.attention, start=1)
        ),
        "<h2>Layers</h2>",
        "<p><small>H at each step and layer: the root mean square of a layer's outputs, residual connections included.</small></p>",
        _layers("encoder", found.capture.encoder, found.source),
        _layers("decoder", found.capture.decoder, found.target),
        "<p><small>The lowest and the highest layer unit by unit, sorted by the step of a unit's largest value:</small></p>",
        f'<img alt="activations of the layers" src="data:image/png;base64,{base64.b64encode(grid_png).decode()}"/>',
    ]
    body = "\n".join(part for part in parts if part)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width"/>'
        f"<title>{escape(found.model)}: {escape(found.text)}</title><style>{_STYLE}</style></head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _subwords(found: Inspection) -> str:
    rows = []
    for step, (seen, weight) in zip(found.steps, found.looks_at(), strict=True):
        others = " &#160; ".join(f"{_word(name)} <small>{short(p)}</small>" for name, p in step.alternatives)
        bar = f'<span class="bar" style="width:{6 * step.probability:.2f}rem"></span>'
        rows.append(
            f'<tr><td class="word">{_word(step.subword)}</td><td>{short(step.probability)}</td><td class="word" '
            f'style="width:6rem">{bar}</td><td>{step.entropy:.2f}</td><td class="word">{_word(seen)}</td>'
            f'<td>{weight:.2f}</td><td class="word">{others}</td></tr>'
        )
    heads = ("subword", "probability", "", "entropy (bits)", "looks at most", "weight", "likeliest others")
    return _table("numbers", heads, rows)


def _layers(side: str, layers: Sequence[Tensor], subwords: Sequence[str]) -> str:
    values = [activation(layer) for layer in layers]
    names = [f"layer {number}" for number in range(1, len(layers) + 1)]
    most = max(float(row.max()) for row in values) or 1.0
    return f"<h3>{side}</h3>" + _heat(list(reversed(values)), list(reversed(names)), subwords, most)


def _heat(values: Iterable[Tensor], down: Sequence[str], across: Sequence[str], most: float) -> str:
    """A table whose cells are coloured from 0 to `most`; the number is in the cell's title."""
    rows = []
    for name, row in zip(down, values, strict=True):
        cells = "".join(
            f'<td style="background:rgba(0,114,178,{min(1.0, value / most):.3f})" '
            f'title="{escape(name)}, {escape(other)}: {value:.3f}"></td>'
            for other, value in zip(across, row.tolist(), strict=True)
        )
        rows.append(f"<tr><th>{_word(name)}</th>{cells}</tr>")
    return _table("heat", ("", *map(_word, across)), rows)


def _table(kind: str, heads: Sequence[str], rows: Sequence[str]) -> str:
    head = "".join(f"<th>{head}</th>" for head in heads)
    return f'<div class="wide"><table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _word(text: str) -> str:
    """Text of any script and direction that leaves its surroundings alone."""
    return f'<bdi dir="auto">{escape(text)}</bdi>'
