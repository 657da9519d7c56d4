"""The pictures of an inspected sentence, and the folder that holds all there is to say of it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from nmt.errors import NMTError
from nmt.figures import figure, save
from nmt.inspection.page import page
from nmt.inspection.sentence import Inspection, activation, record

ATTENTION, GRID, TOKENS, PAGE = "attention.png", "grid.png", "tokens.json", "index.html"


def write(found: Inspection, folder: Path) -> None:
    """Write attention.png, grid.png, tokens.json and index.html; raise `NMTError` where the folder can't be written to."""
    with warnings.catch_warnings():
        # The font may lack a script. The pictures then show boxes; the page has the text itself.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        save(attention_figure(found), folder / ATTENTION)
        save(grid_figure(found), folder / GRID)
    files = {
        TOKENS: json.dumps(record(found), ensure_ascii=False, indent=1) + "\n",
        PAGE: page(found, (folder / GRID).read_bytes()),
    }
    for name, text in files.items():
        try:
            (folder / name).write_text(text, encoding="utf-8")
        except OSError as error:
            raise NMTError(f"{folder / name}: could not be written ({error.strerror or error})") from None


def attention_figure(found: Inspection) -> Figure:
    """A heat map (T, S) for each attention, lowest first."""
    weights = found.capture.attention
    columns = min(len(weights), 4)
    rows = -(-len(weights) // columns)
    made = figure(columns * _inches(found.source) + 1.6, rows * (_inches(found.target) + 0.9))
    panels = list(made.subplots(rows, columns, squeeze=False).flat)
    for panel in panels[len(weights) :]:
        panel.set_axis_off()
    for number, (panel, values) in enumerate(zip(panels, weights, strict=False), start=1):
        image = panel.imshow(values.cpu().numpy(), cmap="Blues", vmin=0.0, vmax=1.0, aspect="auto")
        _name(panel, found.source, found.target)
        panel.set_title("attention" if len(weights) == 1 else f"attention of decoder layer {number}", fontsize=10)
        if number == len(weights):
            made.colorbar(image, ax=made.axes, fraction=0.03, pad=0.02, label="weight, mean of the heads")
    return made


def grid_figure(found: Inspection) -> Figure:
    """H_t^L of encoder (left) and decoder (right): every layer as its RMS at each step, lowest and highest layer unit by unit."""
    sides = (
        ("encoder", found.source, found.capture.encoder),
        ("decoder", found.target, found.capture.decoder),
    )
    deepest = max(len(layers) for _, _, layers in sides)
    shown = 2 if deepest > 1 else 1
    made = figure(max(8.0, _inches(found.source) + _inches(found.target) + 2.5), 1.4 + 0.3 * deepest + 2.5 * shown)
    panels = made.subplots(
        1 + shown,
        2,
        squeeze=False,
        width_ratios=[len(found.source), len(found.target)],
        height_ratios=[0.6 + 0.3 * deepest] + [2.0] * shown,
    )
    for column, (side, subwords, layers) in enumerate(sides):
        _map(panels[0][column], torch.stack([activation(layer) for layer in layers]), subwords)
        panels[0][column].set_title(f"{side}: root mean square of each layer", fontsize=10)
        panels[0][column].set_ylabel("layer")
        chosen = [0, len(layers) - 1][: 1 if len(layers) == 1 else 2]
        for row in range(shown):
            panel = panels[1 + row][column]
            if row >= len(chosen):
                panel.set_axis_off()
                continue
            _units(panel, layers[chosen[row]], subwords)
            panel.set_title(f"{side} layer {chosen[row] + 1}, unit by unit", fontsize=10)
    return made


def _map(panel: Axes, values: Tensor, subwords: Sequence[str]) -> None:
    """Layers (upwards) by steps, from 0 to the largest."""
    image = panel.imshow(values.cpu().numpy(), cmap="Blues", vmin=0.0, aspect="auto", origin="lower")
    _name(panel, subwords, [str(layer + 1) for layer in range(len(values))])
    panel.figure.colorbar(image, ax=panel, fraction=0.05, pad=0.02)


def _units(panel: Axes, layer: Tensor, subwords: Sequence[str]) -> None:
    """Units by steps, on one scale either side of zero that leaves out the highest hundredth.

    Units have no order of their own: they are sorted by the step of their largest value, so that each step's own lie together.
    """
    size = layer.float().abs()  # (steps, H)
    order = (size.argmax(dim=0) - size.amax(dim=0) / (1 + size.max())).argsort()  # the largest first within a step
    bound = float(size.flatten().quantile(0.99)) or 1.0
    image = panel.imshow(
        layer[:, order].float().cpu().numpy().T,
        cmap="RdBu_r",
        vmin=-bound,
        vmax=bound,
        aspect="auto",
        interpolation="nearest",
    )
    _name(panel, subwords, [])
    panel.set_ylabel("units, sorted")
    panel.figure.colorbar(image, ax=panel, fraction=0.05, pad=0.02, extend="both")


def _name(panel: Axes, across: Sequence[str], down: Sequence[str]) -> None:
    """Write the subwords beside the cells, as plain text: a dollar sign is no mathematics."""
    size = 9 if len(across) <= 40 else 6
    panel.set_xticks(range(len(across)), across, rotation=90, fontsize=size, parse_math=False)
    panel.set_yticks(range(len(down)), down, fontsize=9 if len(down) <= 40 else 6, parse_math=False)


def _inches(subwords: Sequence[str]) -> float:
    """Room for a cell each, within what a viewer can open."""
    return min(16.0, max(2.5, 0.32 * len(subwords)))
