"""An inspected sentence as one HTML page that needs nothing else: no script, no font, no network."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape

from torch import Tensor

from nmt.inspection.sentence import Inspection, activation, short
from nmt.pages import document, plain, table

_STYLE = """
.heat td { width: 1.7rem; min-width: 1.7rem; height: 1.5rem; padding: 0; border: 1px solid var(--paper); }
.heat thead th { writing-mode: vertical-rl; padding: .3rem 0; vertical-align: bottom; }
.bar { display: inline-block; height: .7rem; background: rgb(var(--blue)); }
"""


def page(found: Inspection, grid_png: bytes) -> str:
    """The page; `grid_png` is the picture of the layers, which it holds within itself."""
    score = f"log P {found.log_probability:.3f} in {len(found.steps)} subwords with the end mark"
    many = len(found.capture.attention) > 1
    parts = [
        f"<h1>{escape(found.model)}</h1>",
        f"<p>{plain(found.text)}<br/><b>{plain(found.translation)}</b><br/>"
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
    return document(f"{found.model}: {found.text}", "\n".join(part for part in parts if part), _STYLE)


def _subwords(found: Inspection) -> str:
    rows = []
    for step, (seen, weight) in zip(found.steps, found.looks_at(), strict=True):
        others = " &#160; ".join(f"{plain(name)} <small>{short(p)}</small>" for name, p in step.alternatives)
        bar = f'<span class="bar" style="width:{6 * step.probability:.2f}rem"></span>'
        rows.append(
            f'<tr><td class="word">{plain(step.subword)}</td><td>{short(step.probability)}</td><td class="word" '
            f'style="width:6rem">{bar}</td><td>{step.entropy:.2f}</td><td class="word">{plain(seen)}</td>'
            f'<td>{weight:.2f}</td><td class="word">{others}</td></tr>'
        )
    heads = ("subword", "probability", "", "entropy (bits)", "looks at most", "weight", "likeliest others")
    return table("numbers", heads, rows)


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
            f'<td style="background:rgb(var(--blue) / {min(1.0, value / most):.3f})" '
            f'title="{escape(name)}, {escape(other)}: {value:.3f}"></td>'
            for other, value in zip(across, row.tolist(), strict=True)
        )
        rows.append(f"<tr><th>{plain(name)}</th>{cells}</tr>")
    return table("heat", ("", *map(plain, across)), rows)
