"""Width, then depth: recurrent networks tell two interleaved spirals apart.

    python examples/spirals.py --output runs/spirals

Two spirals of 97 points each wind three times around each other (Lang and Witbrock 1988, "Learning to tell two spirals apart"); the
test points lie halfway between neighbours of a spiral. A point becomes a sequence by being shown at every one of T steps: the
network keeps looking at it while it thinks. What it says comes from the last state of the top layer, H_T^L, so T + L - 1 cells
lie on the longest way from input to answer: steps and layers are two kinds of depth, the first one with shared weights.

First one layer gets wider, then layers of a fixed width get more; every setting runs from several seeds. Writes `spirals.png`: accuracy
by setting, and what the best network of either kind makes of the plane (the best on the test points, so its number flatters).
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.axes import Axes
from torch import Tensor, nn
from tqdm import tqdm

from nmt import figures
from nmt.errors import NMTError
from nmt.model.config import StackConfig
from nmt.model.rnn import StackedRNN

WIDTHS, DEPTHS, FIXED_WIDTH, STEPS, RATE = (2, 4, 8, 16, 32), (1, 2, 3, 4), 8, 4, 0.02


class Network(nn.Module):
    """A stack of simple recurrent layers, and a linear answer from the last state of its top layer."""

    def __init__(self, layers: int, width: int) -> None:
        super().__init__()
        self.stack = StackedRNN(StackConfig(layers=layers, hidden=width, cell="rnn"), 2, return_sequences=False)
        self.answer = nn.Linear(width, 1)

    def forward(self, points: Tensor) -> Tensor:
        """Logits (N,) of belonging to the first spiral, for `points` (N, 2)."""
        shown = points[:, None].expand(-1, STEPS, -1).contiguous()  # (N, T, 2)
        logits: Tensor = self.answer(self.stack(shown, torch.full((len(points),), STEPS)).output)  # (N, 1)
        return logits.squeeze(-1)


class Setting(NamedTuple):
    """Layers, width, parameters; % right on training and test points for each seed; the best network on the test points."""

    layers: int
    width: int
    parameters: int
    training: Tensor
    test: Tensor
    best: Network

    @property
    def name(self) -> str:
        return f"{self.layers} x {self.width} units"


def spirals(index: Tensor) -> tuple[Tensor, Tensor]:
    """Points (2N, 2) at the places `index` (N,) of both spirals, 0 outermost and 96 innermost, and whether of the first."""
    angle, radius = index * math.pi / 16, (104 - index) / 104
    first = torch.stack((radius * angle.sin(), radius * angle.cos()), dim=-1)
    return torch.cat((first, -first)), torch.arange(2 * len(index)) < len(index)


def accuracy(network: Network, points: Tensor, first: Tensor) -> float:
    with torch.no_grad():
        return 100 * float(((network(points) > 0) == first).float().mean())


def train(layers: int, width: int, updates: int, seed: int) -> Network:
    """Adam on all points at once; the learning rate rises and falls once."""
    torch.manual_seed(seed)
    network = Network(layers, width)
    points, first = spirals(torch.arange(97.0))
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=updates, pct_start=0.1)
    for _ in tqdm(range(updates), f"{layers} x {width}, seed {seed}", leave=False, disable=None):
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.binary_cross_entropy_with_logits(network(points), first.float()))
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return network


def measure(layers: int, width: int, options: argparse.Namespace) -> Setting:
    """Train one setting from every seed, and print its line of the table."""
    started = time.process_time()
    networks = [train(layers, width, options.steps, options.seed + run) for run in range(options.runs)]
    seconds = (time.process_time() - started) / options.runs
    seen, unseen = spirals(torch.arange(97.0)), spirals(torch.arange(96.0) + 0.5)
    training, test = (torch.tensor([accuracy(network, *points) for network in networks]) for points in (seen, unseen))
    size = sum(parameter.numel() for parameter in networks[0].parameters())
    spread = f"{test.min():5.1f} to {test.max():5.1f}"
    print(f"{layers:6} {width:6} {size:11} {training.mean():11.1f} {test.mean():7.1f} {spread:>14} {seconds:8.1f}")
    return Setting(layers, width, size, training, test, networks[int(test.argmax())])


def draw(wide: list[Setting], deep: list[Setting], path: Path) -> None:
    """Width on the left, depth on the right; accuracy above, and below what the best network makes of the plane."""
    made = figures.figure(9, 8)
    above, below = made.subplots(2, 2, height_ratios=(2, 3))
    draw_accuracy(above[0], wide, WIDTHS)
    draw_accuracy(above[1], deep, DEPTHS)
    above[0].set(xlabel="width of one layer", ylabel="points classified right, %")
    above[1].set(xlabel=f"layers of {FIXED_WIDTH} units")
    above[0].legend(frameon=False)
    for axes, settings in zip(below, (wide, deep), strict=True):
        draw_regions(axes, max(settings, key=lambda setting: float(setting.test.max())))
    figures.save(made, path)


def draw_accuracy(axes: Axes, settings: list[Setting], sizes: Sequence[int]) -> None:
    """Mean over the runs, and the band from the worst to the best of them."""
    for colour, name in zip(figures.COLOURS, ("training", "test"), strict=False):
        right = torch.stack([getattr(setting, name) for setting in settings]).numpy()  # (settings, runs)
        axes.fill_between(range(len(sizes)), right.min(1), right.max(1), color=colour, alpha=0.2)
        axes.plot(right.mean(1), color=colour, marker="o", label=name)
    axes.set_xticks(range(len(sizes)), [str(size) for size in sizes])
    axes.set_ylim(45, 102)


def draw_regions(axes: Axes, setting: Setting) -> None:
    """The answer of the best network of a setting at every point of the plane, and the training points."""
    line = torch.linspace(-1.1, 1.1, 200)
    with torch.no_grad():
        answers = setting.best(torch.cartesian_prod(line, line)).sigmoid().view(200, 200).T.numpy()
    axes.imshow(answers, origin="lower", extent=(-1.1, 1.1, -1.1, 1.1), cmap="RdBu", vmin=-0.2, vmax=1.2)
    for spiral, colour in zip(spirals(torch.arange(97.0))[0].numpy().reshape(2, 97, 2), figures.COLOURS, strict=False):
        axes.scatter(spiral[:, 0], spiral[:, 1], s=12, color=colour, edgecolor="black", linewidth=0.5)
    axes.set_title(f"{setting.name}: {setting.test.max():.1f} % of the test points")
    axes.set_axis_off()


def conclusion(wide: list[Setting], deep: list[Setting]) -> str:
    """What these runs show and no more: one setting beats another where its worst run beats the other's best."""

    def beats(one: Setting, other: Setting) -> str:
        if len(one.test) == 1:
            return "one run cannot settle it"
        if one.test.min() > other.test.max():
            return "better in every run"
        return "worse in every run" if one.test.max() < other.test.min() else "the runs overlap"

    widest, deepest = (
        max(settings, key=lambda setting: float(setting.test.mean())) for settings in (wide[1:], deep[1:])
    )
    equal = min(wide, key=lambda setting: abs(setting.parameters - deepest.parameters))
    rows = {
        "Width": (widest, wide[0]),
        "Depth": (deepest, deep[0]),
        "Depth against width, at the nearest number of parameters": (deepest, equal),
    }
    return "\n".join(
        f"{what}: {one.test.mean():.1f} % with {one.name}, {other.test.mean():.1f} % with {other.name}; {beats(one, other)}."
        for what, (one, other) in rows.items()
    )


def compare(options: argparse.Namespace) -> None:
    """Train every setting; print the table and what follows from it, and draw."""
    print("layers  width  parameters  training %  test %  worst to best  seconds")
    wide = [measure(1, width, options) for width in WIDTHS]
    deep = [setting for setting in wide if setting.width == FIXED_WIDTH]
    deep += [measure(layers, FIXED_WIDTH, options) for layers in DEPTHS[1:]]
    print(f"Means over {options.runs} seeds, the worst and the best of them; seconds are processor time.")
    print(conclusion(wide, deep))
    draw(wide, deep, options.output / "spirals.png")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("runs/spirals"), help="folder of the figure")
    parser.add_argument("--steps", type=int, default=500, help="updates of a run")
    parser.add_argument("--runs", type=int, default=3, help="runs of every setting, from seeds --seed, --seed + 1, ...")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    if options.steps < 10 or options.runs < 1:
        parser.error("at least 10 steps and 1 run are needed")
    try:
        options.output.mkdir(parents=True, exist_ok=True)  # before the work, not after it
    except OSError as error:
        parser.error(f"--output: {error}")
    torch.set_num_threads(1)  # on tensors this small more threads only wait for each other
    try:
        compare(options)
    except NMTError as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
