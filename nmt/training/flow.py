"""How an update flows through a model: gradients, updates and saturated gates of every layer, and H_t^L by H_t^L.

They vanish in two directions (Bengio et al. 1994; Pascanu et al. 2013). Through depth, when each layer passes less down than it was
given: residual connections, normalised inputs and orthogonal weights prevent that, gates do not. Through time, when each step
passes less back: gates prevent that, residual connections do not. So a layer has two figures for it: `flow`, to be compared with
other layers, and `reach`, which compares its steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from nmt.model.rnn import RecurrentLayer
from nmt.model.seq2seq import Seq2Seq
from nmt.text.tokenizer import PAD

# Where the weights lie that are in no recurrent layer: words in the names of parameters; "other" holds the rest.
_PARTS = {
    "embedding": ("embedding",),
    "attention": ("attention", "cross"),
    "feed-forward": ("feed_forward",),
    "output": ("output", "combine", "readout"),
}
_FLAT = 0.05  # an activation this near to an end of its range, which is 1 wide, lets little gradient through
_TENTHS = 10


@dataclass(frozen=True)
class LayerHealth:
    """One update, as seen by one recurrent layer, or by all weights of one other part of the model.

    `gradient_norm` and `weight_norm` are L2 norms over the part's `weights` weights, the gradient's before clipping; `update_ratio` is
    |w after - w before| / |w before|, None where that is 0. The rest is of recurrent layers alone, over real steps, None elsewhere:
    `saturation`, the share of an LSTM's or GRU's sigmoid gates below 0.05 or above 0.95, of a tanh layer's outputs beyond
    +-0.95, of a relu layer's outputs that are 0; `flow`, the root mean square of dloss/dH, the gradient that arrives at the
    layer's outputs (all of it from above where the layer is one fused call, from the next step too where it is a cell);
    `reach`, the gradient at the inputs of the first tenth of the steps relative to that of the strongest tenth.
    """

    name: str
    weights: int
    gradient_norm: float
    weight_norm: float
    update_ratio: float | None
    saturation: float | None = None
    flow: float | None = None
    reach: float | None = None

    @property
    def gradient_rms(self) -> float:
        """Root mean square of the gradient: comparable between layers of different size."""
        return self.gradient_norm / math.sqrt(self.weights)

    def figures(self) -> dict[str, float]:
        """What there is of gradient_norm, gradient_rms, update_ratio, saturation, flow and reach, rounded to four digits."""
        names = ("gradient_norm", "gradient_rms", "update_ratio", "saturation", "flow", "reach")
        values = {name: getattr(self, name) for name in names}
        return {name: float(f"{value:.4g}") for name, value in values.items() if value is not None}


class FlowMonitor(AbstractContextManager["FlowMonitor"]):
    """Watches one update of any module: a translation model, a bare `StackedRNN`, a classifier.

        with FlowMonitor(model) as monitor:
            criterion(model(x), y).backward()
        optimizer.step()
        for health in monitor.healths(): ...

    The context holds every forward and backward pass of the update. Results are the same, to the bit, as without it, and nothing stays
    on the module. Where a layer is not told the lengths, all steps count as real; the decoder of a `Seq2Seq` goes by its target ids.
    """

    def __init__(self, module: nn.Module) -> None:
        """Recurrent layers are every `RecurrentLayer` and PyTorch cell within `module`, numbered from the lowest."""
        self._module = module
        self._layers = recurrent_layers(module)
        self._tallies = {layer: _Tally() for layer in self._layers.values()}
        self._weights = parts(module)
        self._before: dict[str, list[Tensor]] = {}
        self._gradients: dict[str, float] = {}
        self._handles: list[RemovableHandle] = []
        self._target: Tensor | None = None  # (B, T) of the Seq2Seq that runs: which steps are real
        self._steps: dict[nn.Module, int] = {}  # how often each cell has run in it

    def __enter__(self) -> FlowMonitor:
        self._before = {name: [weight.detach().clone() for weight in part] for name, part in self._weights.items()}
        for child in self._module.modules():
            if isinstance(child, Seq2Seq):
                self._handles.append(child.register_forward_pre_hook(self._begin, with_kwargs=True))
        for layer in self._layers.values():
            see: Callable[..., None] = self._see_layer if isinstance(layer, RecurrentLayer) else self._see_cell
            self._handles.append(layer.register_forward_hook(see, with_kwargs=True))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles, self._target = [], None
        self._gradients = gradient_norms(self._weights)

    def healths(self) -> list[LayerHealth]:
        """Recurrent layers, lowest first, then the other parts; update ratios are of the updates made since the context began."""
        found = []
        for name, part in self._weights.items():
            before = self._before[name]
            weight_norm = float(_norm(before))
            moved = float(_norm(now.detach() - then for now, then in zip(part, before, strict=True)))
            tally = self._tallies[self._layers[name]] if name in self._layers else _Tally()
            found.append(
                LayerHealth(
                    name=name,
                    weights=sum(weight.numel() for weight in part),
                    gradient_norm=self._gradients[name],
                    weight_norm=weight_norm,
                    update_ratio=moved / weight_norm if weight_norm else None,
                    saturation=tally.saturation(),
                    flow=tally.flow(),
                    reach=tally.reach(),
                )
            )
        return found

    # --- hooks --------------------------------------------------------------------------------------------------------

    def _begin(self, model: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        target: Tensor = arguments[2] if len(arguments) > 2 else named["target"]
        self._target, self._steps = target != PAD, {}

    def _see_layer(self, layer: RecurrentLayer, arguments: tuple[Any, ...], named: dict[str, Any], result: Any) -> None:
        given = dict(zip(("x", "reverse", "state"), arguments, strict=False)) | named
        x, reverse, state = given["x"], given.get("reverse"), given.get("state")
        output, tally = result[0], self._tallies[layer]
        real = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        if reverse is not None:  # its first column is where each row's last step stands
            real = torch.arange(x.shape[1], device=x.device) <= reverse[:, :1]
        elif self._target is not None and self._target.shape == real.shape:
            real = self._target
        into, halves = x.detach(), output.detach().split(layer.forwards.hidden_size, dim=-1)
        start = torch.zeros_like(halves[0][:, 0])
        tally.add_gates(layer.forwards, into, _before(halves[0], start if state is None else state[0]), halves[0], real)
        if layer.backwards is not None:
            assert reverse is not None
            order = reverse[:, :, None]  # in which the backward direction reads
            into, back = into.take_along_dim(order, dim=1), halves[1].take_along_dim(order, dim=1)
            tally.add_gates(layer.backwards, into, _before(back, start), back, real)
        if output.requires_grad:
            self._handles.append(output.register_hook(partial(tally.add_flow, real=real)))
        if x.requires_grad:
            self._handles.append(x.register_hook(partial(tally.add_reach, real=real)))

    def _see_cell(self, cell: nn.RNNCellBase, arguments: tuple[Any, ...], named: dict[str, Any], result: Any) -> None:
        given = dict(zip(("input", "hx"), arguments, strict=False)) | named
        x, state, output = given["input"], given.get("hx"), result[0] if isinstance(result, tuple) else result
        before = state[0] if isinstance(state, tuple) else torch.zeros_like(output) if state is None else state
        step = self._steps[cell] = self._steps.get(cell, -1) + 1
        real = torch.ones(len(x), dtype=torch.bool, device=x.device)
        if self._target is not None and len(self._target) == len(x) and step < self._target.shape[1]:
            real = self._target[:, step]
        self._tallies[cell].add_gates(cell, x, before, output, real)
        if output.requires_grad:
            self._handles.append(output.register_hook(partial(self._tallies[cell].add_flow, real=real)))


def _before(output: Tensor, start: Tensor) -> Tensor:
    """The state before each step of `output` (B, S, H), of which `start` (B, H) is the first."""
    return torch.cat((start.detach()[:, None].to(output.dtype), output[:, :-1]), dim=1)


@dataclass
class _Tally:
    """Sums over the steps of one recurrent layer, of all forward passes."""

    flat: Tensor | float = 0.0
    activations: int = 0
    squares: Tensor | float = 0.0
    gradients: Tensor | float = 0.0
    tenths: Tensor | None = None  # (2, 10): sum of squares of the inputs' gradient, and number of steps

    @torch.no_grad()
    def add_gates(
        self, kernel: nn.RNNBase | nn.RNNCellBase, x: Tensor, before: Tensor, after: Tensor, real: Tensor
    ) -> None:
        """Count what is saturated on the way from the states `before` (..., H) and inputs `x` to the states `after`."""
        with torch.autocast(x.device.type, enabled=False):
            flat = saturated(kernel, x[real], before[real], after[real])
        self.flat, self.activations = self.flat + flat.sum(), self.activations + flat.numel()

    def add_flow(self, gradient: Tensor, real: Tensor) -> None:
        """Take in the gradient (..., H) of outputs."""
        kept = gradient[real].float()
        self.squares, self.gradients = self.squares + kept.square().sum(), self.gradients + kept.numel()

    def add_reach(self, gradient: Tensor, real: Tensor) -> None:
        """Take in the gradient (B, S, inputs) of inputs, by tenths of each row's real steps."""
        squares = gradient.float().square().mean(dim=-1)[real]
        steps = torch.arange(real.shape[1], device=real.device)
        tenth = (steps * _TENTHS // real.sum(dim=1, keepdim=True).clamp(min=1))[real]
        sums = squares.new_zeros(2, _TENTHS)
        sums[0].index_add_(0, tenth, squares)
        sums[1].index_add_(0, tenth, torch.ones_like(squares))
        self.tenths = sums if self.tenths is None else self.tenths + sums

    def saturation(self) -> float | None:
        return float(self.flat) / self.activations if self.activations else None

    def flow(self) -> float | None:
        return math.sqrt(float(self.squares) / float(self.gradients)) if self.gradients else None

    def reach(self) -> float | None:
        if self.tenths is None:
            return None
        means = (self.tenths[0] / self.tenths[1].clamp(min=1)).tolist()
        return math.sqrt(means[0] / max(means)) if max(means) > 0 else None


def saturated(kernel: nn.RNNBase | nn.RNNCellBase, x: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """Which activations (N, units) of a one-layer kernel are where their function is flat, as told in `LayerHealth.saturation`.

    `x` (N, inputs) and `before` (N, H) are what steps were computed from, `after` (N, H) is what came out; gates are computed anew.
    """
    if isinstance(kernel, nn.RNN | nn.RNNCell):
        return after == 0 if kernel.nonlinearity == "relu" else after.abs() > 1 - _FLAT
    layer = "_l0" if isinstance(kernel, nn.RNNBase) else ""
    gates: Tensor | float = 0.0
    for value, side in ((x, "ih"), (before, "hh")):
        weight, bias = getattr(kernel, f"weight_{side}{layer}"), getattr(kernel, f"bias_{side}{layer}")
        gates = gates + F.linear(value.to(weight.dtype), weight, bias)
    assert isinstance(gates, Tensor)
    units = kernel.hidden_size
    if isinstance(kernel, nn.LSTM | nn.LSTMCell):  # input, forget, cell, output
        gates = torch.cat((gates[:, : 2 * units], gates[:, 3 * units :]), dim=-1)
    else:  # reset, update, candidate
        gates = gates[:, : 2 * units]
    gates = torch.sigmoid(gates)
    return (gates < _FLAT) | (gates > 1 - _FLAT)


def gradient_map(loss: Tensor, grid: Sequence[Tensor], lengths: Tensor) -> Tensor:
    """|dloss/dH_t^L| as (L, S): root mean square over units and over the rows that have a step t; nan where none has.

    `grid` are outputs (B, S, H^L), lowest layer first, as from a `StackedRNN` with `return_grid`, or the input and then those;
    `lengths` (B,). The graph of `loss` stays, and no `.grad` is touched. A whole layer being one fused call, what counts is the
    gradient that arrives from above; what a layer passes back through its own steps shows in the row below it.
    """
    gradients = torch.autograd.grad(loss, list(grid), retain_graph=True)
    steps = torch.arange(grid[0].shape[1], device=lengths.device)
    real = (steps < lengths[:, None]).float()  # (B, S)
    rows = [(gradient.square().mean(dim=-1) * real).sum(0) / real.sum(0) for gradient in gradients]
    return torch.stack(rows).sqrt()


def recurrent_layers(module: nn.Module) -> dict[str, nn.Module]:
    """The recurrent layers within `module` by name: the attribute of `module` that holds them, and a number from the lowest."""
    found: dict[str, nn.Module] = {}
    counts: dict[str, int] = {}
    for path, child in module.named_modules():
        if isinstance(child, RecurrentLayer | nn.RNNCellBase):
            holder = path.partition(".")[0]
            if holder and (holder.isdecimal() or isinstance(getattr(module, holder), nn.ModuleList | RecurrentLayer)):
                holder = ""
            counts[holder] = counts.get(holder, 0) + 1
            found[f"{holder} layer {counts[holder]}".strip()] = child
    return found


def parts(module: nn.Module) -> dict[str, list[nn.Parameter]]:
    """The trained weights of each recurrent layer and of each other part, each weight once; a shared one under the first that fits."""
    layers = recurrent_layers(module)
    owners = {weight: name for name, layer in layers.items() for weight in layer.parameters()}
    names: dict[nn.Parameter, str] = {}
    for name, weight in module.named_parameters(remove_duplicate=False):
        names[weight] = f"{names.get(weight, '')} {name}"
    found: dict[str, list[nn.Parameter]] = {name: [] for name in (*layers, *_PARTS, "other")}
    for weight, name in names.items():
        fits = (part for part, words in _PARTS.items() if any(word in name for word in words))
        if weight.requires_grad:
            found[owners.get(weight) or next(fits, "other")].append(weight)
    return {name: part for name, part in found.items() if part}


def gradient_norms(found: Mapping[str, Iterable[nn.Parameter]]) -> dict[str, float]:
    """The L2 norm of the gradient of each of the `parts` of a module, as it is now."""
    return {
        name: float(_norm(weight.grad for weight in part if weight.grad is not None)) for name, part in found.items()
    }


def _norm(tensors: Iterable[Tensor]) -> Tensor:
    squares = [tensor.float().square().sum() for tensor in tensors]
    return torch.stack(squares).sum().sqrt() if squares else torch.zeros(())
