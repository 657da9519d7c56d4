"""Stacked recurrent networks on PyTorch's fused whole-sequence kernels, one call a layer and direction.

Layer L at step t is H_t^L; for the simple cell H_t^L = tanh(W^L H_{t-1}^L + U^L H_t^{L-1} + B^L) (Elman 1990; stacking as in
Graves 2013, "Speech recognition with deep recurrent neural networks", eq. 11). A ragged batch is padded, not packed: the
forward direction never sees padding before a real token, the backward direction runs forward over each row reversed within its
own length. Both are exact, and keep the fused padded kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nmt.model.config import Cell, StackConfig

State = tuple[Tensor, ...]  # (h, c) of an LSTM, (h,) of the other cells; each (B, H)

_KERNELS: dict[Cell, Callable[..., nn.RNNBase]] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


class SharedDropout(nn.Module):
    """Dropout whose mask is drawn once a sequence and shared by all its steps (Gal and Ghahramani 2016)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """`x` is (B, S, H); the mask is (B, 1, H)."""
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        return x * x.new_empty(x.shape[0], 1, x.shape[2]).bernoulli_(keep).div_(keep)


class RecurrentLayer(nn.Module):
    """One layer: a recurrent kernel in one direction or in both, outputs of both directions side by side."""

    def __init__(self, cell: Cell, inputs: int, width: int, bidirectional: bool = False) -> None:
        """`width` is the width of the output; each direction of a bidirectional layer has half of it."""
        super().__init__()
        units = width // 2 if bidirectional else width
        self.forwards = _KERNELS[cell](inputs, units, batch_first=True)
        self.backwards = _KERNELS[cell](inputs, units, batch_first=True) if bidirectional else None
        for kernel in (self.forwards, self.backwards):
            if kernel is not None:
                initialise(kernel)

    def forward(self, x: Tensor, reverse: Tensor | None = None, state: State | None = None) -> tuple[Tensor, State]:
        """Run over `x` (B, S, inputs) and return the outputs (B, S, width) and the state after the last step.

        `reverse` (B, S) are the positions that reverse each row within its length (`reversal`), needed by a bidirectional
        layer. `state` is the state before the first step, zeros by default; a bidirectional layer's is that of its forward
        direction.
        """
        output, final = self.forwards(x, _native(state))
        if self.backwards is not None:
            assert reverse is not None, "a bidirectional layer needs the lengths"
            backward, _ = self.backwards(_reorder(x, reverse))
            output = torch.cat((output, _reorder(backward, reverse)), dim=-1)  # (B, S, H)
        parts = final if isinstance(final, tuple) else (final,)
        return output, tuple(part.squeeze(0) for part in parts)


def initialise(kernel: nn.RNNBase) -> None:
    """Glorot-uniform input weights, orthogonal recurrent weights, zero biases, and an LSTM's forget-gate bias 1."""
    gates = {"LSTM": 4, "GRU": 3}.get(kernel.mode, 1)
    units = kernel.hidden_size
    with torch.no_grad():
        for name, value in kernel.named_parameters():
            if name.startswith("bias"):
                value.zero_()
                continue
            for gate in range(gates):
                block = value[gate * units : (gate + 1) * units]
                nn.init.orthogonal_(block) if name.startswith("weight_hh") else nn.init.xavier_uniform_(block)
        if kernel.mode == "LSTM":  # gates lie in the order input, forget, cell, output (Jozefowicz et al. 2015)
            kernel.get_parameter("bias_ih_l0")[units : 2 * units].fill_(1.0)


def reversal(lengths: Tensor, steps: int) -> Tensor:
    """Positions (B, steps) that reverse each row within its length (B,) and leave padding where it is."""
    positions = torch.arange(steps, device=lengths.device).expand(len(lengths), steps)
    return torch.where(positions < lengths[:, None], lengths[:, None] - 1 - positions, positions)


def _reorder(x: Tensor, positions: Tensor) -> Tensor:
    return x.gather(1, positions[:, :, None].expand(-1, -1, x.shape[2]))


def _native(state: State | None) -> Tensor | tuple[Tensor, ...] | None:
    if state is None:
        return None
    parts = tuple(part.unsqueeze(0).contiguous() for part in state)
    return parts if len(parts) > 1 else parts[0]


@dataclass(frozen=True)
class StackOutput:
    """What a stack returns: the top layer's outputs (B, S, H) and, where asked for, every layer's, lowest first."""

    top: Tensor
    grid: tuple[Tensor, ...]


class StackedRNN(nn.Module):
    """Any number of recurrent layers, each with its own cell and width; residual from the second, pre-LN if asked for."""

    def __init__(self, config: StackConfig, inputs: int, dropout: float = 0.0) -> None:
        """`inputs` is the width of the input; `dropout` is on every layer's output."""
        super().__init__()
        widths = (inputs, *config.widths)
        self.layers = nn.ModuleList(
            RecurrentLayer(config.cells[i], widths[i], widths[i + 1], config.both_ways(i)) for i in range(config.layers)
        )
        self.norms = nn.ModuleList(
            nn.LayerNorm(widths[i]) if config.layer_norm and i else nn.Identity() for i in range(config.layers)
        )
        self.shortcuts = nn.ModuleList(
            nn.Identity() if widths[i] == widths[i + 1] else nn.Linear(widths[i], widths[i + 1], bias=False)
            for i in range(1, config.layers if config.residual else 1)
        )
        self.dropout = SharedDropout(dropout)

    def forward(self, x: Tensor, lengths: Tensor) -> StackOutput:
        """Run over `x` (B, S, inputs), whose rows have `lengths` (B,) real steps; outputs at padding are arbitrary."""
        reverse = reversal(lengths, x.shape[1])
        grid = []
        for index, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            output = self.dropout(layer(norm(x), reverse)[0])
            if index and len(self.shortcuts):
                output = output + self.shortcuts[index - 1](x)
            x = output
            grid.append(x)
        return StackOutput(x, tuple(grid))
