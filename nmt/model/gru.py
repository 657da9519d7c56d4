"""The GRU as first published, whose reset gate acts before the recurrent matrix product (Cho et al. 2014, eq. 8).

cuDNN, and so `torch.nn.GRU` and Keras with `reset_after=True`, multiply first: n = tanh(W x + b + r (U h + b')). No fused kernel
computes n = tanh(W x + b + U (r h)), so this one loops over time. It is here for weights trained elsewhere in that convention.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ResetBeforeGRU(nn.GRU):
    """One layer over whole sequences; parameters as in `torch.nn.GRU`, whose two biases here only ever count as their sum."""

    weight_ih_l0: Tensor
    weight_hh_l0: Tensor
    bias_ih_l0: Tensor
    bias_hh_l0: Tensor

    def forward(self, input: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Outputs (B, S, H) and last state (1, B, H) of `input` (B, S, inputs) from the state `hx` (1, B, H), zeros by default."""
        gates = F.linear(input, self.weight_ih_l0, self.bias_ih_l0)  # (B, S, 3 H)
        h = gates.new_zeros(len(input), self.hidden_size) if hx is None else hx[0]
        outputs = []
        for step in gates.unbind(1):
            h = _next(step, h, self.weight_hh_l0, self.bias_hh_l0)
            outputs.append(h)
        return torch.stack(outputs, dim=1), h[None]


class ResetBeforeGRUCell(nn.GRUCell):
    """One step; parameters as in `torch.nn.GRUCell`."""

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """The next state (B, H) from `input` (B, inputs) and the state `hx` (B, H), zeros by default."""
        gates = F.linear(input, self.weight_ih, self.bias_ih)
        h = gates.new_zeros(len(input), self.hidden_size) if hx is None else hx
        return _next(gates, h, self.weight_hh, self.bias_hh)


def _next(gates: Tensor, h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The state (B, H) after `h` (B, H), with W x + b in `gates` (B, 3 H): reset, update, candidate."""
    both = 2 * h.shape[-1]
    reset, update = torch.sigmoid(gates[:, :both] + F.linear(h, weight[:both], bias[:both])).chunk(2, dim=-1)
    candidate = torch.tanh(gates[:, both:] + F.linear(reset * h, weight[both:], bias[both:]))
    return candidate + update * (h - candidate)
