"""Warnings where gradients vanish or explode, and the record of the flow through a run's layers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from nmt.training.flow import FlowMonitor, LayerHealth, gradient_norms, parts
from nmt.training.journal import Journal

# Measured: the first update of every wiring, cell (lstm, gru, rnn) and initialisation, with 2 and 8 residual layers, and a trained LSTM
# have flows of 0.05 to 1 of the strongest, a reach of 0.6 to 1, and norms of 0.1 to 6. In stacks that must recall the first of
# 40 symbols (`nmt study flow --demo`), those that learn to begin with a reach of 5e-3 or more; a simple RNN has 3e-5 or less and
# does not. Eight LSTM layers without residuals, with PyTorch's initial weights, have a flow of 5e-5 and don't either; with 1e-3 they do.
_VANISHING = 1e-4  # of the strongest layer, or of the strongest tenth of the steps
_EXPLODING = 100.0  # times the norm that gradients are clipped to


@dataclass(frozen=True)
class FlowWarning:
    """What is wrong with the flow, in which layers, and what to do."""

    kind: Literal["vanishing", "fading", "exploding"]
    layers: tuple[str, ...]
    message: str

    def __str__(self) -> str:
        return self.message


def flow_warnings(healths: Sequence[LayerHealth], clip_norm: float = 1.0) -> list[FlowWarning]:
    """What to say about one update, of which `clip_norm` is the norm that gradients are clipped to; nothing when all is well."""
    return [
        *_vanishing(healths),
        *_fading(healths),
        *_exploding({health.name: health.gradient_norm for health in healths}, clip_norm),
    ]


def _vanishing(healths: Sequence[LayerHealth]) -> Iterable[FlowWarning]:
    flows = {health.name: health.flow for health in healths if health.flow is not None}
    if not flows or not any(flows.values()):
        return
    strongest = max(flows, key=lambda name: flows[name])
    weak = [name for name, flow in flows.items() if flow < _VANISHING * flows[strongest]]
    if weak:
        ratio = min(flows[name] for name in weak) / flows[strongest]
        yield FlowWarning(
            "vanishing",
            tuple(weak),
            f"gradients vanish in {_listed(weak)}: as little as {ratio:.0e} of what reaches {strongest} arrives, so they hardly learn "
            "(residual: true, layer_norm: true and init: orthogonal let it through, or use fewer layers)",
        )


def _fading(healths: Sequence[LayerHealth]) -> Iterable[FlowWarning]:
    stacks: dict[str, dict[str, float]] = {}
    for health in healths:
        if health.reach is not None:
            stacks.setdefault(health.name.rpartition("layer")[0], {})[health.name] = health.reach
    for reaches in stacks.values():
        lowest = next(iter(reaches.values()))  # whatever is learned of a step passes here, so it alone decides
        if lowest < _VANISHING:
            weak = [name for name, reach in reaches.items() if reach < _VANISHING]
            yield FlowWarning(
                "fading",
                tuple(weak),
                f"gradients vanish through time in {_listed(weak)}: the first tenth of the steps gets {lowest:.0e} of what the "
                "strongest tenth gets, so what is far back is hardly learned (cell: lstm or gru remember longer; reading both ways or "
                "attention shorten the way)",
            )


def _exploding(norms: Mapping[str, float], clip_norm: float) -> Iterable[FlowWarning]:
    total = math.hypot(*norms.values())
    if not total <= _EXPLODING * clip_norm:  # or it is no number
        strongest = max(norms, key=lambda name: norms[name] if math.isfinite(norms[name]) else math.inf)
        yield FlowWarning(
            "exploding",
            (strongest,),
            f"gradients explode, most of all in {strongest}: their norm is {total:.1e}, of which clipping leaves {clip_norm:g} "
            "(layer_norm: true and init: orthogonal keep them in bounds, and so does a lower lr)",
        )


def _listed(names: Sequence[str]) -> str:
    """Names as in "encoder layers 1 to 3, decoder layer 1"."""
    runs: list[list[str]] = []
    for name in names:
        stack, _, number = name.rpartition(" ")
        if runs and runs[-1][0] == stack and int(runs[-1][-1]) + 1 == int(number):
            runs[-1].append(number)
        else:
            runs.append([stack, number])
    return ", ".join(" ".join(run) if len(run) == 2 else f"{run[0]}s {run[1]} to {run[-1]}" for run in runs)


class HealthRecorder:
    """Watches some of a run's updates, writes what it saw to the journal, and says each warning once for a layer and kind."""

    def __init__(self, model: nn.Module, every: int | None, clip_norm: float) -> None:
        """The first update is watched, then each `every`-th; none when that is None."""
        self._model, self._every, self._clip_norm = model, every, clip_norm
        self._monitor: FlowMonitor | None = None
        self._found: list[FlowWarning] = []
        self._said: set[tuple[str, str]] = set()

    def watching(self, step: int) -> AbstractContextManager[Any]:
        """The context for the forward and backward passes of update `step` (from 1)."""
        due = self._every is not None and (step == 1 or step % self._every == 0)
        self._monitor = FlowMonitor(self._model) if due else None
        return self._monitor or nullcontext()

    def clipped(self, norm: float) -> None:
        """After any update's gradient has been clipped from `norm`: explosions may be over when the next update is watched."""
        if self._every is not None and self._monitor is None and norm > _EXPLODING * self._clip_norm:
            norms = gradient_norms(parts(self._model))
            scale = norm / math.hypot(*norms.values())
            self._found = list(_exploding({name: scale * value for name, value in norms.items()}, self._clip_norm))

    def report(self, step: int, journal: Journal) -> None:
        """After update `step`: record what was seen of it, and warn."""
        if self._monitor is not None:
            healths, self._monitor = self._monitor.healths(), None
            self._found = flow_warnings(healths, self._clip_norm)
            values: dict[str, Any] = {
                f"{health.name.replace(' ', '_')}/{figure}": value
                for health in healths
                for figure, value in health.figures().items()
            }
            journal.write(step, "health", values | {"warnings": [str(item) for item in self._found]})
        for item in self._found:
            new = {(item.kind, name) for name in item.layers} - self._said
            if new:
                self._said |= new
                journal.say(f"step {step}: {item}")
        self._found = []
