"""The landmarks with input feeding: decoders whose step needs the previous step's context, so they loop over time.

They are here to be compared with. Training one is slower by the loop; search, which goes step by step anyway, is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from nmt.model.attention import Attention, make_attention
from nmt.model.config import Cell, ModelConfig
from nmt.model.decoder import Bridge, Decoder, DecoderState, Memory
from nmt.model.dropout import Dropout, SharedDropout
from nmt.model.gru import ResetBeforeGRUCell
from nmt.model.initialise import initialise
from nmt.model.rnn import State, shortcut

_CELLS: dict[Cell, Callable[[int, int], nn.RNNCellBase]] = {
    "lstm": nn.LSTMCell,
    "gru": nn.GRUCell,
    "rnn": nn.RNNCell,
    "rnn_relu": lambda inputs, width: nn.RNNCell(inputs, width, nonlinearity="relu"),
    "gru_before": ResetBeforeGRUCell,
}


class StepDecoder(Decoder):
    """A stack of cells that is run one step at a time; what feeds the first cell beside the word is up to the landmark."""

    def __init__(self, config: ModelConfig, memory_width: int, fed: int) -> None:
        """`fed` is the width of what is fed to the first layer beside the embedded word."""
        super().__init__()
        stack = config.decoder
        self.embedding, self.widths = config.embedding, stack.widths
        inputs = (config.embedding + fed, *stack.widths[:-1])
        self.cells = nn.ModuleList(
            _CELLS[cell](size, width) for cell, size, width in zip(stack.cells, inputs, stack.widths, strict=True)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(size) if stack.layer_norm else nn.Identity() for size in inputs[1:])
        self.first_residual = stack.first_residual
        self.shortcuts = nn.ModuleList(
            shortcut(stack.widths[i - 1], stack.widths[i]) for i in range(stack.first_residual, stack.layers)
        )
        self.attention = make_attention(config, stack.widths[-1], memory_width)
        self.bridge = Bridge(memory_width, stack)
        self.dropout = SharedDropout(config.dropout.layer)
        self.output_dropout = Dropout(config.dropout.output)
        for cell in self.cells:
            initialise(cell, "orthogonal")

    def attentions(self) -> Iterable[Attention]:
        """The one attention."""
        return (self.attention,)

    def forward(self, embedded: Tensor, memory: Memory, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """As `Decoder.forward`, step after step."""
        batch, steps, _ = embedded.shape
        masks = [self.dropout(embedded.new_ones(batch, 1, width))[:, 0] for width in self.widths]
        vectors = []
        for step in range(steps):
            vector, state = self.step(embedded[:, step], memory, state, masks)
            vectors.append(vector)
        return self.output_dropout(torch.stack(vectors, dim=1)), state  # (B, T, E)

    def step(
        self, word: Tensor, memory: Memory, state: DecoderState, masks: list[Tensor]
    ) -> tuple[Tensor, DecoderState]:
        """One step for the embedded `word` (B, E): the vector (B, E) and the next state; `masks` (B, H) drop out layers."""
        raise NotImplementedError

    def _attend(self, query: Tensor, memory: Memory) -> Tensor:
        """The context (B, H) of `query` (B, H)."""
        context: Tensor = self.attention(query[:, None], memory.keys[0], memory.values[0], memory.mask)
        return context[:, 0]

    def _climb(self, x: Tensor, layers: tuple[State, ...], masks: list[Tensor]) -> tuple[Tensor, tuple[State, ...]]:
        """One step up the stack from the input `x` (B, inputs): the top output (B, H) and every layer's next state."""
        finals = []
        for index, cell in enumerate(self.cells):
            before = layers[index]
            below = self.norms[index - 1](x) if index else x
            after = cell(below, before if len(before) > 1 else before[0])
            final: State = after if isinstance(after, tuple) else (after,)
            output = final[0] * masks[index]
            if index >= self.first_residual:
                output = output + self.shortcuts[index - self.first_residual](x)
            x = output
            finals.append(final)
        return x, tuple(finals)


class LuongDecoder(StepDecoder):
    """h_t = LSTM([y_{t-1}; a_{t-1}]), c_t = attention(h_t), a_t = tanh(W [c_t; h_t]) (Luong et al. 2015, eq. 5 and section 3.3).

    The fed vector a is the last entry of the state.
    """

    def __init__(self, config: ModelConfig, memory_width: int) -> None:
        super().__init__(config, memory_width, fed=config.embedding)
        self.combine = nn.Linear(2 * config.decoder.widths[-1], config.embedding)

    def remember(self, encoded: Tensor, mask: Tensor) -> Memory:
        """As `Decoder.remember`; nothing has been fed yet."""
        memory = super().remember(encoded, mask)
        fed = encoded.new_zeros(len(encoded), self.embedding)
        return Memory(memory.keys, memory.values, mask, DecoderState((*memory.state.layers, (fed,))))

    def step(
        self, word: Tensor, memory: Memory, state: DecoderState, masks: list[Tensor]
    ) -> tuple[Tensor, DecoderState]:
        """As `StepDecoder.step`."""
        *layers, (fed,) = state.layers
        top, finals = self._climb(torch.cat((word, fed.to(word.dtype)), dim=-1), tuple(layers), masks)
        vector = torch.tanh(self.combine(torch.cat((self._attend(top, memory), top), dim=-1)))
        return vector, DecoderState((*finals, (vector,)))


class BahdanauDecoder(StepDecoder):
    """c_t = attention(s_{t-1}), s_t = GRU([y_{t-1}; c_t]), then a maxout layer of s_t, y_{t-1} and c_t (Bahdanau et al. 2015, A.2.2).

    The query is the top layer's state of the previous step.
    """

    def __init__(self, config: ModelConfig, memory_width: int) -> None:
        width = config.decoder.widths[-1]
        super().__init__(config, memory_width, fed=width)
        self.readout = nn.Linear(2 * width + config.embedding, 2 * config.embedding)  # pairs, of which the larger stays

    def step(
        self, word: Tensor, memory: Memory, state: DecoderState, masks: list[Tensor]
    ) -> tuple[Tensor, DecoderState]:
        """As `StepDecoder.step`."""
        context = self._attend(state.layers[-1][0], memory)
        top, finals = self._climb(torch.cat((word, context), dim=-1), state.layers, masks)
        pairs = self.readout(torch.cat((top, word, context), dim=-1))
        return pairs.unflatten(-1, (-1, 2)).amax(dim=-1), DecoderState(finals)
