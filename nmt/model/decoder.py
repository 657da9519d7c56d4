"""What every decoder is to the rest of the system, and the decoder in the wiring of GNMT v2.

No input feeding: the attention query is a layer's own output, so a step depends on earlier contexts only through the layers'
states. Teacher forcing over T steps is one fused kernel call a layer, and the same code runs one step of search.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nmt.model.attention import Attention, make_attention
from nmt.model.config import DecoderConfig, ModelConfig
from nmt.model.dropout import Dropout, SharedDropout
from nmt.model.rnn import RecurrentLayer, State, shortcut


@dataclass(frozen=True)
class DecoderState:
    """The state of every decoder layer after some step: all that search must carry. Rows are sentences or hypotheses."""

    layers: tuple[State, ...]

    def select(self, rows: Tensor) -> DecoderState:
        """The state of `rows` (N,) of the batch, in that order; a row may be repeated or left out."""
        return DecoderState(tuple(tuple(part[rows] for part in layer) for layer in self.layers))

    def joined(self, other: DecoderState) -> DecoderState:
        """The rows of both, one after the other."""
        layers = zip(self.layers, other.layers, strict=True)
        return DecoderState(tuple(tuple(map(torch.cat, zip(*pair, strict=True))) for pair in layers))


@dataclass(frozen=True)
class Memory:
    """What the encoder leaves for the decoder: keys and values (B, A, S, H / A) of each attention, mask (B, S), first state."""

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    mask: Tensor
    state: DecoderState

    def select(self, rows: Tensor) -> Memory:
        """The memory of `rows` (N,) of the batch."""
        keys, values = (tuple(part[rows] for part in parts) for parts in (self.keys, self.values))
        return Memory(keys, values, self.mask[rows], self.state.select(rows))

    def widened(self, steps: int) -> Memory:
        """The same with room for so many source steps."""
        extra = steps - self.mask.shape[1]
        keys, values = (tuple(F.pad(part, (0, 0, 0, extra)) for part in parts) for parts in (self.keys, self.values))
        return Memory(keys, values, F.pad(self.mask, (0, extra)), self.state)

    def joined(self, other: Memory) -> Memory:
        """The rows of both, which have the same number of source steps, one after the other."""
        keys, values = (
            tuple(map(torch.cat, zip(mine, theirs, strict=True)))
            for mine, theirs in ((self.keys, other.keys), (self.values, other.values))
        )
        return Memory(keys, values, torch.cat((self.mask, other.mask)), self.state.joined(other.state))


class Bridge(nn.Module):
    """First decoder states from the mean of the encoder's outputs (Sutskever et al. 2014; mean as in Nematus, 2017)."""

    def __init__(self, memory_width: int, config: DecoderConfig) -> None:
        super().__init__()
        self.parts = tuple(2 if cell == "lstm" else 1 for cell in config.cells)
        self.widths = config.widths
        self.linear = nn.Linear(memory_width, sum(n * w for n, w in zip(self.parts, self.widths, strict=True)))
        nn.init.xavier_uniform_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, memory: Tensor, mask: Tensor) -> DecoderState:
        """States of every layer from `memory` (B, S, H), with `mask` (B, S)."""
        weights = mask.to(memory.dtype)
        mean = (memory * weights[:, :, None]).sum(1) / weights.sum(1, keepdim=True)  # (B, H)
        flat = torch.tanh(self.linear(mean))
        sizes = [w for n, w in zip(self.parts, self.widths, strict=True) for _ in range(n)]
        pieces = iter(torch.split(flat, sizes, dim=-1))
        return DecoderState(tuple(tuple(next(pieces) for _ in range(n)) for n in self.parts))


class Decoder(nn.Module):
    """Base of the decoders: encoder outputs in, then target steps from a state to vectors that meet the vocabulary."""

    bridge: Bridge
    steady = True  # whether the state has one size at every step, so that sentences can join others that are further on

    def attentions(self) -> Iterable[Attention]:
        """The attentions whose keys and values `Memory` holds, in its order; none where they are no `Attention`."""
        return ()

    def remember(self, encoded: Tensor, mask: Tensor) -> Memory:
        """Everything the decoder needs of `encoded` (B, S, H), projected once."""
        keys, values = zip(*(attention.project(encoded) for attention in self.attentions()), strict=True)
        return Memory(keys, values, mask, self.bridge(encoded, mask))

    def forward(self, embedded: Tensor, memory: Memory, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """Run T steps over `embedded` (B, T, E) from `state`; return vectors (B, T, E) and the state after them."""
        raise NotImplementedError


class GNMTDecoder(Decoder):
    """Attention queried by the bottom layer, whose context is an input of every layer above (Wu et al. 2016, as in GNMT v2)."""

    def __init__(self, config: ModelConfig, memory_width: int) -> None:
        super().__init__()
        stack = config.decoder
        widths = stack.widths
        context = widths[0]  # the context is as wide as the query
        inputs = (config.embedding, *(width + context for width in widths[:-1]))
        self.layers = nn.ModuleList(
            RecurrentLayer(cell, size, width) for cell, size, width in zip(stack.cells, inputs, widths, strict=True)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) if stack.layer_norm else nn.Identity() for width in widths[:-1])
        self.first_residual = stack.first_residual
        self.shortcuts = nn.ModuleList(
            shortcut(widths[i - 1], widths[i]) for i in range(stack.first_residual, stack.layers)
        )
        self.attention = make_attention(config, widths[0], memory_width)
        self.bridge = Bridge(memory_width, stack)
        self.combine = nn.Linear(widths[-1] + context, config.embedding)
        self.dropout = SharedDropout(config.dropout.layer)
        self.output_dropout = Dropout(config.dropout.output)
        nn.init.xavier_uniform_(self.combine.weight)
        nn.init.zeros_(self.combine.bias)

    def attentions(self) -> Iterable[Attention]:
        """The one attention."""
        return (self.attention,)

    def forward(self, embedded: Tensor, memory: Memory, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """As `Decoder.forward`; a vector is tanh(W [h; c]) of the top layer's output and the context (Luong 2015, eq. 5)."""
        output, final = self.layers[0](embedded, state=state.layers[0])
        finals = [final]
        x = self.dropout(output)  # (B, T, H)
        context = self.attention(x, memory.keys[0], memory.values[0], memory.mask)  # (B, T, H)
        for index, layer in enumerate(list(self.layers)[1:], start=1):
            below = torch.cat((self.norms[index - 1](x), context), dim=-1)
            output, final = layer(below, state=state.layers[index])
            output = self.dropout(output)
            if index >= self.first_residual:
                output = output + self.shortcuts[index - self.first_residual](x)
            x = output
            finals.append(final)
        vectors = torch.tanh(self.combine(torch.cat((x, context), dim=-1)))  # (B, T, E)
        return self.output_dropout(vectors), DecoderState(tuple(finals))
