"""How gradients, updates and gates went in a training run: the health lines of its log as a table and as a figure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from matplotlib import colormaps
from matplotlib.axes import Axes

from nmt.errors import NMTError
from nmt.figures import COLOURS, figure, save

FIGURE = "flow.png"
_OTHERS = "other parts"
_ROWS = {
    "gradient_rms": "gradient of weights\n(rms)",
    "flow": "gradient of outputs\n(rms)",
    "update_ratio": "update ratio\n(change / weights)",
    "saturation": "share of saturated\ngates or units",
}

Series = list[tuple[int, float]]  # (step, value)


@dataclass(frozen=True)
class FlowLog:
    """What the log of a run says of each part of the model: recurrent layers first, lowest first.

    `parts[name][figure]` is a series; names and figures are those of `nmt.training.flow.LayerHealth`. `warnings` are the last record's.
    """

    parts: dict[str, dict[str, Series]]
    warnings: list[str]

    def render(self) -> str:
        """The last record: a table, and its warnings."""
        last = {name: {item: series[-1][1] for item, series in figures.items()} for name, figures in self.parts.items()}
        step = max(series[-1][0] for figures in self.parts.values() for series in figures.values())
        return "\n".join([f"step {step}", *table(last), *(f"warning: {item}" for item in self.warnings)])


def table(parts: Mapping[str, Mapping[str, float]]) -> list[str]:
    """The figures of each part of a model as lines of text; what a part does not have is left empty."""
    width = max(map(len, parts))
    lines = [f"{'':{width}}  gradient rms  dloss/dH rms  reach  update ratio  saturated"]
    shape = {
        "gradient_rms": (12, ".1e"),
        "flow": (12, ".1e"),
        "reach": (5, ".0e"),
        "update_ratio": (12, ".1e"),
        "saturation": (9, ".0%"),
    }
    for name, figures in parts.items():
        cells = [
            f"{figures[item]:{size}{form}}" if item in figures else " " * size for item, (size, form) in shape.items()
        ]
        lines.append("  ".join([f"{name:{width}}", *cells]).rstrip())
    return lines


def read(run: Path) -> FlowLog:
    """The health lines of the log in the run folder `run`; raise `NMTError` when there is no log or it has none."""
    path = run / "log.jsonl"
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise NMTError(f"{path}: {error.strerror or error}: give the folder of a training run") from None
    parts: dict[str, dict[str, Series]] = {}
    warnings: list[str] = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line) if line else {}
        except ValueError:
            if number < len(lines):  # the last may be cut short: the run may be going on
                raise NMTError(f"{path}, line {number}: not JSON: give the log of a training run") from None
            continue
        if record.get("kind") != "health":
            continue
        warnings = record["warnings"]
        for key, value in record.items():
            name, slash, item = key.partition("/")
            if slash:
                parts.setdefault(name.replace("_", " "), {}).setdefault(item, []).append((record["step"], value))
    if not parts:
        raise NMTError(f"{path}: no health lines: train with train.health_every, such as --set train.health_every=500")
    return FlowLog(parts, warnings)


def draw(log: FlowLog, path: Path) -> None:
    """Small multiples over the steps: a column for each stack and one for the other parts, a row for each figure."""
    columns: dict[str, list[str]] = {}
    for name in log.parts:
        stack, layer, _ = f" {name}".rpartition(" layer ")
        columns.setdefault(stack.strip() or "stack" if layer else _OTHERS, []).append(name)
    made = figure(1.2 + 3.4 * len(columns), 1.2 + 1.9 * len(_ROWS))
    panels = made.subplots(len(_ROWS), len(columns), sharex=True, sharey="row", squeeze=False)
    for column, (title, names) in enumerate(columns.items()):
        colours = _colours(len(names), ordered=title != _OTHERS)
        for row, item in enumerate(_ROWS):
            panel = panels[row][column]
            for name, colour in zip(names, colours, strict=True):
                _line(panel, log.parts[name].get(item, []), colour, name.removeprefix(f"{title} "))
            if not panel.lines:
                panel.set_axis_off()
                continue
            panel.grid(alpha=0.3)
            panel.tick_params(which="both", labelsize=8, labelbottom=True)
            if item != "saturation":
                panel.set_yscale("log")
        panels[0][column].set_title(title, fontsize=10)
        panels[0][column].legend(fontsize=7, ncols=2, framealpha=0.6, loc="best")
        shown = [panels[row][column] for row in range(len(_ROWS)) if panels[row][column].axison]
        shown[-1].set_xlabel("step", fontsize=9)
    for row, label in enumerate(_ROWS.values()):
        panels[row][0].set_ylabel(label, fontsize=9)
    panels[-1][0].set_ylim(0.0, None)
    save(made, path)


def _colours(count: int, ordered: bool) -> list[str | tuple[float, ...]]:
    """From dark (lowest layer) to light where there is an order."""
    if not ordered:
        return [COLOURS[index % len(COLOURS)] for index in range(count)]
    return [colormaps["viridis"](0.9 * index / max(1, count - 1)) for index in range(count)]


def _line(panel: Axes, series: Series, colour: str | tuple[float, ...], label: str) -> None:
    if series:
        steps, values = zip(*series, strict=True)
        panel.plot(steps, values, color=colour, linewidth=1.3, marker="o", markersize=2.5, label=label)
