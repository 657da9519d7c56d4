"""The `deep` wiring: every layer is a chain of residual pre-LN blocks (Domhan 2018, "How much attention do you need?", section 4).

An encoder layer is recurrence, then feed-forward; a decoder layer is recurrence, then multi-head attention over the encoder, then
feed-forward. Each block reads its input normalised and adds to it: x + dropout(block(LN(x))). No input feeding, so every
recurrence is one fused call over all steps.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from nmt.model.attention import Attention, make_attention
from nmt.model.config import ModelConfig
from nmt.model.decoder import Bridge, Decoder, DecoderState, Memory
from nmt.model.dropout import Dropout, SharedDropout
from nmt.model.rnn import RecurrentLayer, State, reversal, shortcut


class FeedForward(nn.Module):
    """x + dropout(W2 relu(W1 LN(x))) at every step (Vaswani 2017, eq. 2, pre-LN)."""

    def __init__(self, width: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.rise, self.fall = nn.Linear(width, inner), nn.Linear(inner, width)
        self.dropout = SharedDropout(dropout)
        for linear in (self.rise, self.fall):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """`x` and the result are (B, steps, H)."""
        inner = self.dropout(torch.relu(self.rise(self.norm(x))))
        return x + self.dropout(self.fall(inner))  # type: ignore[no-any-return]


class Recurrence(nn.Module):
    """x + dropout(RNN(LN(x))), with a projection of x where the layer changes the width."""

    def __init__(self, layer: RecurrentLayer, inputs: int, width: int, dropout: float) -> None:
        super().__init__()
        self.norm, self.layer, self.shortcut = nn.LayerNorm(inputs), layer, shortcut(inputs, width)
        self.dropout = SharedDropout(dropout)

    def forward(self, x: Tensor, reverse: Tensor | None = None, state: State | None = None) -> tuple[Tensor, State]:
        """`x` (B, steps, inputs) to (B, steps, width), and the state after the last step; arguments as `RecurrentLayer`."""
        output, final = self.layer(self.norm(x), reverse, state)
        return self.shortcut(x) + self.dropout(output), final


class CrossAttention(nn.Module):
    """x + dropout(W attention(LN(x)))."""

    def __init__(self, config: ModelConfig, width: int, memory_width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = make_attention(config, width, memory_width)
        self.mix = nn.Linear(width, width, bias=False)
        self.dropout = SharedDropout(config.dropout.layer)
        nn.init.xavier_uniform_(self.mix.weight)

    def forward(self, x: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        """`x` (B, T, H) to (B, T, H); key, value and mask as `Attention.forward`."""
        return x + self.dropout(self.mix(self.attention(self.norm(x), key, value, mask)))  # type: ignore[no-any-return]


class DeepEncoder(nn.Module):
    """Layers of recurrence and feed-forward, normalised at the end."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        stack, rate = config.encoder, config.dropout.layer
        self.width = stack.widths[-1]
        widths = (config.embedding, *stack.widths)
        self.recurrences = nn.ModuleList(
            Recurrence(
                RecurrentLayer(stack.cells[i], widths[i], widths[i + 1], stack.both_ways(i)),
                widths[i],
                widths[i + 1],
                rate,
            )
            for i in range(stack.layers)
        )
        self.feed_forwards = nn.ModuleList(FeedForward(width, inner_width(config, width), rate) for width in widths[1:])
        self.norm = nn.LayerNorm(self.width)

    def forward(self, embedded: Tensor, lengths: Tensor) -> Tensor:
        """Outputs (B, S, H) for `embedded` (B, S, E) with `lengths` (B,) real steps."""
        reverse = reversal(lengths, embedded.shape[1])
        x = embedded
        for recurrence, feed_forward in zip(self.recurrences, self.feed_forwards, strict=True):
            x = feed_forward(recurrence(x, reverse)[0])
        return self.norm(x)  # type: ignore[no-any-return]


class DeepDecoder(Decoder):
    """Layers of recurrence, attention and feed-forward."""

    def __init__(self, config: ModelConfig, memory_width: int) -> None:
        super().__init__()
        stack, rate = config.decoder, config.dropout.layer
        widths = (config.embedding, *stack.widths)
        self.recurrences = nn.ModuleList(
            Recurrence(RecurrentLayer(stack.cells[i], widths[i], widths[i + 1]), widths[i], widths[i + 1], rate)
            for i in range(stack.layers)
        )
        self.cross = nn.ModuleList(CrossAttention(config, width, memory_width) for width in widths[1:])
        self.feed_forwards = nn.ModuleList(FeedForward(width, inner_width(config, width), rate) for width in widths[1:])
        self.norm = nn.LayerNorm(widths[-1])
        self.bridge = Bridge(memory_width, stack)
        # Without this projection a tied output would meet the input word, which the residual stream still holds, and predict it.
        self.combine = nn.Linear(widths[-1], config.embedding)
        self.output_dropout = Dropout(config.dropout.output)
        nn.init.xavier_uniform_(self.combine.weight)
        nn.init.zeros_(self.combine.bias)

    def attentions(self) -> Iterable[Attention]:
        """One a layer, lowest first."""
        blocks: Iterable[nn.Module] = self.cross
        for block in blocks:
            assert isinstance(block, CrossAttention)
            yield block.attention

    def forward(self, embedded: Tensor, memory: Memory, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """As `Decoder.forward`."""
        x, finals = embedded, []
        for index, recurrence in enumerate(self.recurrences):
            x, final = recurrence(x, state=state.layers[index])
            x = self.cross[index](x, memory.keys[index], memory.values[index], memory.mask)
            x = self.feed_forwards[index](x)
            finals.append(final)
        return self.output_dropout(self.combine(self.norm(x))), DecoderState(tuple(finals))


def inner_width(config: ModelConfig, width: int) -> int:
    """Inner width of a feed-forward block at a layer of `width`."""
    return config.feed_forward or 2 * width
