"""Figures: one look for all of them, no global state, no display needed."""

from __future__ import annotations

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from nmt.errors import NMTError

# Distinct in colour, in grey and to colour-blind readers (Okabe and Ito 2008).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def figure(width: float = 8.0, height: float = 4.5) -> Figure:
    """An empty figure of `width` x `height` inches."""
    made = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(made)
    return made


def save(made: Figure, path: Path) -> None:
    """Write the figure as PNG; raise `NMTError` when the place cannot be written to."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        made.savefig(path, format="png", dpi=120)
    except OSError as error:
        raise NMTError(f"{path}: the figure could not be written ({error.strerror or error})") from None
