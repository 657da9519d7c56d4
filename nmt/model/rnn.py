"""Stacked recurrent networks on PyTorch's fused whole-sequence kernels, one call a layer and direction (`gru_before` alone loops).

Layer L at step t is H_t^L; for the simple cell H_t^L = tanh(W^L H_{t-1}^L + U^L H_t^{L-1} + B^L) (Elman 1990; stacking as in
Graves 2013, "Speech recognition with deep recurrent neural networks", eq. 11). A ragged batch is padded, not packed: the
forward direction never sees padding before a real token, the backward direction runs forward over each row reversed within its
own length. Both are exact, and keep the fused padded kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from nmt.errors import ConfigError
from nmt.model.config import Cell, StackConfig
from nmt.model.dropout import SharedDropout
from nmt.model.gru import ResetBeforeGRU
from nmt.model.initialise import initialise

State = tuple[Tensor, ...]  # (h, c) of an LSTM, (h,) of the other cells; each (B, H)

_KERNELS: dict[Cell, Callable[..., nn.RNNBase]] = {
    "lstm": nn.LSTM,
    "gru": nn.GRU,
    "rnn": nn.RNN,
    "rnn_relu": partial(nn.RNN, nonlinearity="relu"),
    "gru_before": ResetBeforeGRU,
}


class RecurrentLayer(nn.Module):
    """One layer: a recurrent kernel in one direction or in both, outputs of both directions side by side."""

    def __init__(self, cell: Cell, inputs: int, width: int, bidirectional: bool = False) -> None:
        """`width` is the width of the output; each direction of a bidirectional layer has half of it."""
        super().__init__()
        units = width // 2 if bidirectional else width
        self.forwards = _KERNELS[cell](inputs, units, batch_first=True)
        self.backwards = _KERNELS[cell](inputs, units, batch_first=True) if bidirectional else None
        initialise(self, "orthogonal")

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


def shortcut(inputs: int, width: int) -> nn.Module:
    """What adds an input of width `inputs` to an output of `width`: the input itself, or a projection where they differ."""
    return nn.Identity() if inputs == width else nn.Linear(inputs, width, bias=False)


@dataclass(frozen=True)
class StackOutput:
    """What a stack returns.

    `output` is the top layer's: (B, S, H), or (B, H) with `return_sequences=False`. `grid`, where asked for, is H_t^L: the
    outputs (B, S, H^L) of every layer, lowest first. Both are arbitrary at padding.
    """

    output: Tensor
    grid: tuple[Tensor, ...] = ()


class StackedRNN(nn.Module):
    """Any number of recurrent layers, each with its own cell, width and direction.

    A layer's output, after dropout, is added to its input where the configuration says residual, through a projection where the
    widths differ; its input is normalised first where it says `layer_norm` (pre-LN: Xiong et al. 2020).
    """

    def __init__(
        self,
        config: StackConfig,
        inputs: int,
        dropout: float = 0.0,
        return_sequences: bool | Sequence[bool] = True,
        return_grid: bool = False,
    ) -> None:
        """`inputs` is the width of the input; `dropout` is on every layer's output, one mask for all steps.

        `return_sequences` is as in Keras, for the last layer or as a list for every layer: True gives all steps, False the state
        after the last real step alone (a backward direction's is at the first). Raises `ConfigError` when it is False below the
        last layer, which would leave the layer above without a sequence, or lists too few or too many layers.
        """
        super().__init__()
        self.return_sequences = _checked(return_sequences, config.layers)
        self.return_grid = return_grid
        self.forward_units = config.widths[-1] // (2 if config.both_ways(config.layers - 1) else 1)
        widths = (inputs, *config.widths)
        self.layers = nn.ModuleList(
            RecurrentLayer(config.cells[i], widths[i], widths[i + 1], config.both_ways(i)) for i in range(config.layers)
        )
        self.norms = nn.ModuleList(
            nn.LayerNorm(widths[i]) if config.layer_norm and i else nn.Identity() for i in range(config.layers)
        )
        self.first_residual = config.first_residual
        self.shortcuts = nn.ModuleList(
            shortcut(widths[i], widths[i + 1]) for i in range(config.first_residual, config.layers)
        )
        self.dropout = SharedDropout(dropout)

    def forward(self, x: Tensor, lengths: Tensor) -> StackOutput:
        """Run over `x` (B, S, inputs), whose rows have `lengths` (B,) real steps, at least one each."""
        reverse = reversal(lengths, x.shape[1])
        grid = []
        for index, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            output = self.dropout(layer(norm(x), reverse)[0])
            if index >= self.first_residual:
                output = output + self.shortcuts[index - self.first_residual](x)
            x = output
            if self.return_grid:
                grid.append(x)
        return StackOutput(x if self.return_sequences else self._last(x, lengths), tuple(grid))

    def _last(self, x: Tensor, lengths: Tensor) -> Tensor:
        """The state (B, H) after the last real step; the backward half has read everything at the first."""
        last = x[torch.arange(len(x), device=x.device), lengths - 1]
        return torch.cat((last[:, : self.forward_units], x[:, 0, self.forward_units :]), dim=-1)


def _checked(return_sequences: bool | Sequence[bool], layers: int) -> bool:
    if isinstance(return_sequences, bool):
        return return_sequences
    if len(return_sequences) != layers:
        raise ConfigError(f"return_sequences lists {len(return_sequences)} values for {layers} layers")
    for layer, whole in enumerate(return_sequences[:-1]):
        if not whole:
            raise ConfigError(
                f"return_sequences is False in layer {layer + 1} of {layers}: layer {layer + 2} would get one state instead of a "
                "sequence, and the vertical connection would break; only the last layer may return its last state alone"
            )
    return return_sequences[-1]
