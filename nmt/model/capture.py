"""What a model computes on the way: attention weights, the outputs of every layer, the next-token distribution.

Forward hooks record the calls of the modules that matter while the model runs as it always does; they are gone afterwards, so the
model itself needs no switches.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nmt.model.attention import Attention
from nmt.model.decoder import GNMTDecoder
from nmt.model.deep import DeepDecoder, DeepEncoder
from nmt.model.encoder import Encoder
from nmt.model.landmarks import StepDecoder
from nmt.model.rnn import StackedRNN
from nmt.model.seq2seq import Seq2Seq
from nmt.text.tokenizer import BOS, EOS


@dataclass(frozen=True)
class Call:
    """One call of a module: its positional arguments and what it returned."""

    arguments: tuple[Any, ...]
    result: Any


@contextmanager
def recorded(modules: Iterable[nn.Module]) -> Iterator[dict[nn.Module, list[Call]]]:
    """The calls of each of `modules` while the context is open, in order."""
    calls: dict[nn.Module, list[Call]] = {module: [] for module in modules}

    def note(module: nn.Module, arguments: tuple[Any, ...], result: Any) -> None:
        calls[module].append(Call(arguments, result))

    handles = [module.register_forward_hook(note) for module in calls]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class Capture:
    """One sentence of S source ids on its way to T target ids, end marks included.

    `attention` are the weights (T, S) of each attention, lowest first, averaged over the heads. `encoder` and `decoder` are H_t^L:
    what each layer hands on at each step, (S, H^L) and (T, H^L), lowest layer first. `log_probabilities` (T, V) are natural.
    """

    attention: tuple[Tensor, ...]
    encoder: tuple[Tensor, ...]
    decoder: tuple[Tensor, ...]
    log_probabilities: Tensor


def capture(model: Seq2Seq, source: Sequence[int], target: Sequence[int]) -> Capture:
    """One teacher-forced pass over `source` and `target` (ids without marks) in evaluation mode, on the model's device.

    Row t belongs to the t-th predicted id: the attention and the layers that led to it; the last predicts the end mark.
    """
    device = model.device
    ids, given = (torch.tensor([row], device=device) for row in ([*source, EOS], [BOS, *target]))
    attentions = list(model.decoder.attentions())
    layers = [*_layers(model.encoder), *_layers(model.decoder)]
    with evaluating(model), recorded([*attentions, *layers]) as calls:
        memory = model.encode(ids, torch.tensor([ids.shape[1]], device=device))
        logits, _ = model.decode(given, memory, memory.state)
        return Capture(
            attention=tuple(_weights(attention, calls[attention])[0] for attention in attentions),
            encoder=tuple(layer[0] for layer in _grid(model.encoder, calls)),
            decoder=tuple(layer[0] for layer in _grid(model.decoder, calls)),
            log_probabilities=torch.log_softmax(logits[0].float(), dim=-1),
        )


def encoder_grid(model: Seq2Seq, source: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
    """The embedded `source` ids (B, S) and what each encoder layer makes of them: (B, S, E), (B, S, H^1), ..., (B, S, H^L).

    `lengths` (B,) as in `Seq2Seq.encode`; steps beyond them are arbitrary.
    """
    with evaluating(model), recorded([model.encoder, *_layers(model.encoder)]) as calls:
        model.encode(source, lengths)
        return (calls[model.encoder][0].arguments[0], *_grid(model.encoder, calls))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Run without dropout and gradients, and leave the model in the mode it was in."""
    before = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(before)


def _weights(attention: Attention, calls: list[Call]) -> Tensor:
    """The weights (B, T, S) of all calls: one for all T steps, or one a step."""
    rows = []
    for call in calls:
        query, key, _, mask = call.arguments
        rows.append(attention.weights(query, key, mask))
    return torch.cat(rows, dim=1)


_Stack = StackedRNN | DeepEncoder | GNMTDecoder | DeepDecoder | StepDecoder


def _stack(part: nn.Module) -> _Stack:
    """The module of an encoder or decoder that holds its layers."""
    stack = part.stack if isinstance(part, Encoder) else part
    assert isinstance(stack, _Stack)
    return stack


def _layers(part: nn.Module) -> list[nn.Module]:
    """The modules whose outputs are the layers' own, lowest first."""
    stack = _stack(part)
    if isinstance(stack, DeepEncoder | DeepDecoder):
        return list(stack.feed_forwards)  # the last block of a layer
    return list(stack.cells if isinstance(stack, StepDecoder) else stack.layers)


def _grid(part: nn.Module, calls: dict[nn.Module, list[Call]]) -> list[Tensor]:
    """What each layer hands on, (B, steps, H^L), lowest first: its own output, with its input where it is residual."""
    outputs = [_outputs(calls[layer]) for layer in _layers(part)]
    stack = _stack(part)
    if isinstance(stack, DeepEncoder | DeepDecoder):
        return outputs  # the blocks have added their inputs themselves
    grid: list[Tensor] = []
    for index, output in enumerate(outputs):
        if index >= stack.first_residual:
            output = output + stack.shortcuts[index - stack.first_residual](grid[-1])
        grid.append(output)
    return grid


def _outputs(calls: list[Call]) -> Tensor:
    """The outputs (B, steps, H) of a layer that was called once for all steps, or of a cell that was called at each."""
    results = [call.result[0] if isinstance(call.result, tuple) else call.result for call in calls]
    return torch.stack(results, dim=1) if results[0].dim() == 2 else torch.cat(results, dim=1)
