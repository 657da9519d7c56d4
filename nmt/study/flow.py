"""How gradients, updates and gates went in a training run: the health lines of its log as series and as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nmt.errors import NMTError
from nmt.study.run_log import LOG, RunLog, Series, read_log

FIGURE = "flow.png"
OTHERS = "other parts"
ROWS = {  # what is drawn of each part
    "gradient_rms": "gradient of weights\n(rms)",
    "flow": "gradient of outputs\n(rms)",
    "update_ratio": "update ratio\n(change / weights)",
    "saturation": "share of saturated\ngates or units",
}


@dataclass(frozen=True)
class FlowLog:
    """What the log of a run says of each part of the model: recurrent layers first, lowest first.

    `parts[name][figure]` is a series; names and figures are those of `nmt.training.flow.LayerHealth`. `warnings` are the last record's.
    """

    parts: dict[str, dict[str, Series]]
    warnings: list[str]

    def stacks(self) -> dict[str, list[str]]:
        """The names of the parts, by stack; those that are no layers together at the end."""
        found: dict[str, list[str]] = {}
        for name in self.parts:
            stack, layer, _ = f" {name}".rpartition(" layer ")
            found.setdefault(stack.strip() or "stack" if layer else OTHERS, []).append(name)
        return found

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


def health(log: RunLog) -> FlowLog:
    """The health lines of a log; no parts where it has none."""
    parts: dict[str, dict[str, Series]] = {}
    records = log.of("health")
    for record in records:
        for key, value in record.items():
            name, slash, item = key.partition("/")
            if slash and isinstance(value, int | float):
                parts.setdefault(name.replace("_", " "), {}).setdefault(item, []).append((record["step"], value))
    return FlowLog(parts, [text for step, text in log.warnings() if step == records[-1]["step"]])


def read(run: Path) -> FlowLog:
    """The health lines of the log in the run folder `run`; raise `NMTError` when there is no log or it has none."""
    found = health(read_log(run))
    if not found.parts:
        raise NMTError(
            f"{run / LOG}: no health lines: train with train.health_every, such as --set train.health_every=500"
        )
    return found
