"""Where gradients vanish: deep stacks of each cell learn to recall the first symbol of a sequence, or cannot.

The task has one label a sequence, at its far end, so the gradient has to come down through every layer and back through every step.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nmt.figures import figure, save
from nmt.model.config import Initialisation, StackConfig
from nmt.model.initialise import initialise
from nmt.model.rnn import StackedRNN
from nmt.study.flow import table
from nmt.training.flow import FlowMonitor, LayerHealth, gradient_map
from nmt.training.health import FlowWarning, flow_warnings

FIGURE = "gradients.png"
UPDATES = 400  # enough for the stacks that can
_SYMBOLS, _BATCH, _RATE, _CLIP = 8, 32, 2e-3, 1.0
_DECADES = 8  # that the figure shows below its strongest gradient


@dataclass(frozen=True)
class Case:
    """A stack to be tried."""

    title: str
    config: StackConfig
    init: Initialisation = "orthogonal"


def cases(layers: int = 10, hidden: int = 32) -> tuple[Case, ...]:
    """The textbook's deep simple RNN, and each cell in a stack as `StackConfig` makes it: residual, orthogonal weights."""
    plain = StackConfig(layers=layers, hidden=hidden, cell="rnn", residual=False)
    return (
        Case("simple RNN, not residual, weights in +-0.08", plain, 0.08),
        Case("simple RNN, residual", StackConfig(layers=layers, hidden=hidden, cell="rnn")),
        Case("GRU, residual", StackConfig(layers=layers, hidden=hidden, cell="gru")),
        Case("LSTM, residual", StackConfig(layers=layers, hidden=hidden, cell="lstm")),
    )


@dataclass(frozen=True)
class Trial:
    """How a case went: the last update's health and warnings, accuracy over the last updates, and |dloss/dH_t^L| (L + 1, S).

    The lowest row of `gradients` is the embedded input.
    """

    case: Case
    healths: list[LayerHealth]
    warnings: list[FlowWarning]
    accuracy: float
    gradients: Tensor

    def render(self) -> str:
        """A table of the layers, and the warnings."""
        lines = [
            f"{self.case.title}: recalls {self.accuracy:.0%} (by chance {1 / _SYMBOLS:.0%})",
            *(f"  {line}" for line in table({health.name: health.figures() for health in self.healths})),
            *(f"  warning: {item}" for item in self.warnings),
        ]
        return "\n".join(lines)


class Recall(nn.Module):
    """Symbols in, the first of them out: embedding, a stack whose last output is kept, a linear layer."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        width = case.config.widths[0]
        self.embedding = nn.Embedding(_SYMBOLS, width)
        self.stack = StackedRNN(case.config, width, return_sequences=False, return_grid=True)
        initialise(self.stack, case.init)
        self.output = nn.Linear(case.config.widths[-1], _SYMBOLS)

    def forward(self, symbols: Tensor) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
        """Logits (B, symbols) for `symbols` (B, S); the embedded input and every layer's outputs; lengths (B,)."""
        lengths = torch.full((len(symbols),), symbols.shape[1])
        embedded = self.embedding(symbols)
        found = self.stack(embedded, lengths)
        return self.output(found.output), (embedded, *found.grid), lengths


def try_case(
    case: Case, updates: int = UPDATES, steps: int = 40, seed: int = 1, progress: Callable[[], object] = lambda: None
) -> Trial:
    """Train `case` for `updates` on sequences of `steps` random symbols, and watch the last update."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Recall(case)
        optimizer = torch.optim.Adam(model.parameters(), lr=_RATE)
        monitor, gradients, right = FlowMonitor(model), torch.empty(0), []
        for left in reversed(range(updates)):
            symbols = torch.randint(_SYMBOLS, (_BATCH, steps))
            optimizer.zero_grad()
            with nullcontext() if left else monitor:
                logits, grid, lengths = model(symbols)
                loss = F.cross_entropy(logits, symbols[:, 0])
                if not left:
                    gradients = gradient_map(loss, grid, lengths)
                loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), _CLIP)
            optimizer.step()
            right.append(float((logits.argmax(-1) == symbols[:, 0]).float().mean()))
            progress()
    healths = monitor.healths()
    late = right[-20:]
    return Trial(case, healths, flow_warnings(healths, _CLIP), sum(late) / len(late), gradients)


def draw(trials: list[Trial], path: Path) -> None:
    """Layer by time maps of |dloss/dH_t^L| side by side on one scale, each relative to its own strongest."""
    made = figure(2.9 * len(trials) + 1.2, 4.2)
    panels = made.subplots(1, len(trials), sharey=True, squeeze=False)[0]
    images = []
    for panel, trial in zip(panels, trials, strict=True):
        relative = (trial.gradients / trial.gradients.max()).clamp(min=10.0 ** -(_DECADES + 1)).log10()
        rows, steps = relative.shape
        image = panel.imshow(
            relative.numpy(),
            cmap="viridis",
            vmin=-_DECADES,
            vmax=0,
            aspect="auto",
            origin="lower",
            interpolation="nearest",
            extent=(0.5, steps + 0.5, -0.5, rows - 0.5),
        )
        images.append(image)
        panel.set_title(f"{trial.case.title.replace(', ', chr(10), 1)}\nrecalls {trial.accuracy:.0%}", fontsize=9)
        panel.set_xlabel("step t")
        panel.set_xticks([1, *range(10, steps + 1, 10)])
        panel.set_yticks(range(rows), ["input", *(str(layer) for layer in range(1, rows))], fontsize=8)
    panels[0].set_ylabel("layer L")
    made.suptitle(
        "The loss is on the last step of the top layer; the answer stands at step 1 of the input", fontsize=10
    )
    ticks = range(-_DECADES, 1, 2)
    bar = made.colorbar(images[0], ax=list(panels), extend="min", pad=0.01, fraction=0.03, ticks=list(ticks))
    bar.ax.set_yticklabels(["1" if tick == 0 else f"$10^{{{tick}}}$" for tick in ticks])
    bar.set_label(r"$|\partial\,\mathrm{loss}\,/\,\partial H_t^L|$, strongest = 1")
    save(made, path)
