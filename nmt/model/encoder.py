"""The encoder: a stack of recurrent layers over the embedded source sentence."""

from __future__ import annotations

from torch import Tensor, nn

from nmt.model.config import EncoderConfig
from nmt.model.rnn import StackedRNN


class Encoder(nn.Module):
    """Deep recurrent encoder; its first layer usually reads both ways, so each position knows the whole sentence."""

    width: int  # of the outputs

    def __init__(self, config: EncoderConfig, inputs: int, dropout: float) -> None:
        super().__init__()
        self.stack = StackedRNN(config, inputs, dropout)
        self.width = config.widths[-1]

    def forward(self, embedded: Tensor, lengths: Tensor) -> Tensor:
        """Outputs (B, S, H) for `embedded` (B, S, E) with `lengths` (B,) real steps."""
        output: Tensor = self.stack(embedded, lengths).output
        return output
