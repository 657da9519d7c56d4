"""The model: one step or many, one sentence or many, its options, and the mistakes that its configuration catches."""

from __future__ import annotations

import math
from typing import Any

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from nmt.errors import ConfigError
from nmt.model.attention import Attention
from nmt.model.decoder import DecoderState
from nmt.model.rnn import RecurrentLayer, reversal
from nmt.model.seq2seq import Seq2Seq
from nmt.text.tokenizer import BOS, EOS, PAD

VOCABULARY = 40
SHAPES = {
    "plain": [],
    "deep, mixed cells": ["encoder.layers=3", "encoder.cell=[lstm,gru,rnn]", "decoder.layers=3", "decoder.cell=[gru,rnn,lstm]"],
    "unequal widths": ["encoder.hidden=[6,10]", "decoder.hidden=[8,12]", "encoder.layer_norm=true", "decoder.layer_norm=true"],
    "one layer": ["encoder.layers=1", "decoder.layers=1", "attention_heads=1", "tie_embeddings=none"],
    "both ways": ["encoder.bidirectional=all", "decoder.residual=false", "tie_embeddings=output"],
}  # fmt: skip
shapes = pytest.mark.parametrize("overrides", SHAPES.values(), ids=SHAPES.keys())


def batch(lengths: list[int], seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random source ids, right-padded, with their end marks."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.full((len(lengths), max(lengths)), PAD)
    for row, length in enumerate(lengths):
        ids[row, : length - 1] = torch.randint(EOS + 1, VOCABULARY, (length - 1,), generator=generator)
        ids[row, length - 1] = EOS
    return ids, torch.tensor(lengths)


def targets(rows: int, steps: int) -> Tensor:
    """Random target input that begins with the begin mark."""
    ids = torch.randint(EOS + 1, VOCABULARY, (rows, steps), generator=torch.Generator().manual_seed(1))
    ids[:, 0] = BOS
    return ids


# --- one or many ----------------------------------------------------------------------------------------------------


@shapes
def test_many_steps_equal_one_step_at_a_time(overrides: list[str]) -> None:
    tiny.check_steps(tiny.model(tiny.model_config(*overrides)), batch([5, 2, 7]), targets(3, 6))


@shapes
def test_a_sentence_alone_equals_it_in_a_padded_batch(overrides: list[str]) -> None:
    model = tiny.model(tiny.model_config(*overrides))
    lengths = [5, 1, 9, 3]
    source, source_lengths = batch(lengths)
    target = targets(4, 4)
    vectors = model(source, source_lengths, target)
    assert vectors.shape == (4, 4, 6)
    for row, length in enumerate(lengths):
        alone = model(source[row : row + 1, :length], source_lengths[row : row + 1], target[row : row + 1])
        torch.testing.assert_close(alone[0], vectors[row])


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(1, 12), min_size=2, max_size=6), st.integers(0, 1000))
def test_the_other_sentences_of_any_batch_change_nothing(lengths: list[int], seed: int) -> None:
    model = tiny.model()
    source, source_lengths = batch(lengths, seed)
    target = targets(len(lengths), 3)
    vectors = model(source, source_lengths, target)
    shuffled = torch.randperm(len(lengths), generator=torch.Generator().manual_seed(seed))
    again = model(source[shuffled], source_lengths[shuffled], target[shuffled])
    torch.testing.assert_close(again, vectors[shuffled])
    alone = model(source[:1, : lengths[0]], source_lengths[:1], target[:1])
    torch.testing.assert_close(alone[0], vectors[0])


def test_what_stands_in_the_padding_changes_nothing() -> None:
    model = tiny.model()
    source, lengths = batch([3, 8])
    other = source.clone()
    other[0, 3:] = 17
    target = targets(2, 4)
    assert torch.equal(model(source, lengths, target), model(other, lengths, target))


def test_every_source_word_and_every_earlier_target_word_counts_and_no_later_one() -> None:
    model = tiny.model()
    source, lengths = batch([6])
    target = targets(1, 5)
    vectors = model(source, lengths, target)
    for position in range(6):
        other = source.clone()
        other[0, position] = 5 if source[0, position] != 5 else 6
        assert not torch.allclose(model(other, lengths, target), vectors)
    for position in range(5):
        other = target.clone()
        other[0, position] = 5 if target[0, position] != 5 else 6
        changed = (model(source, lengths, other) != vectors).any(-1)[0]
        assert changed.tolist() == [step >= position for step in range(5)]


def test_select_gives_the_rows_asked_for_in_their_order() -> None:
    model = tiny.model()
    memory = model.encode(*batch([5, 2, 7]))
    target = targets(3, 2)
    logits, state = model.decode(target, memory, memory.state)
    rows = torch.tensor([2, 0, 0])
    chosen = memory.select(rows)
    again, after = model.decode(target[rows], chosen, chosen.state)
    torch.testing.assert_close(again, logits[rows])
    for mine, theirs in zip(after.layers, state.select(rows).layers, strict=True):
        for part, other in zip(mine, theirs, strict=True):
            torch.testing.assert_close(part, other)
    assert torch.equal(chosen.mask, memory.mask[rows])


def test_decoding_leaves_nothing_on_the_model_and_changes_no_argument() -> None:
    model = tiny.model()
    memory = model.encode(*batch([5, 2]))
    kept = [part.clone() for layer in memory.state.layers for part in layer]
    first, _ = model.decode(targets(2, 3), memory, memory.state)
    model.encode(*batch([9]))
    second, _ = model.decode(targets(2, 3), memory, memory.state)
    assert torch.equal(first, second)
    assert all(
        torch.equal(a, b) for a, b in zip(kept, (p for layer in memory.state.layers for p in layer), strict=True)
    )


# --- the first state ----------------------------------------------------------------------------------


def test_the_decoder_begins_from_the_mean_of_the_real_steps() -> None:
    model = tiny.model()
    source, lengths = batch([3, 6])
    mask = torch.arange(6) < lengths[:, None]
    encoded = model.encoder(model.source_embedding(source) * math.sqrt(6), lengths)
    bridge = model.decoder.bridge
    mean = torch.stack([encoded[row, :length].mean(0) for row, length in enumerate(lengths.tolist())])
    flat = torch.tanh(mean @ bridge.linear.weight.T + bridge.linear.bias)
    (h0, c0), (h1, c1) = model.encode(source, lengths).state.layers
    assert mask.sum() == 9
    torch.testing.assert_close(torch.cat((h0, c0, h1, c1), dim=1), flat)


# --- the wirings ----------------------------------------------------------------------------------------------------


def wired(*overrides: str) -> tuple[Any, Tensor, Tensor, Any]:
    """A decoder of that wiring in float64, words (B, T, E), the vectors it makes of them, and the memory it reads."""
    model = tiny.model(tiny.model_config(*overrides), sharpness=2.0).double()
    memory = model.encode(*batch([5, 2, 7]))
    words = torch.randn(3, 4, 6, dtype=torch.float64)
    return model.decoder, words, model.decoder(words, memory, memory.state)[0], memory


def attended(attention: Attention, query: Tensor, memory: Any, index: int = 0) -> Tensor:
    """The context of `query`, (B, T, H) or (B, H), over the real source steps."""
    steps = query if query.dim() == 3 else query[:, None]
    context = attention(steps, memory.keys[index], memory.values[index], memory.mask)
    return context if query.dim() == 3 else context[:, 0]


def test_in_gnmt_the_bottom_layer_asks_and_every_layer_above_reads_the_answer() -> None:
    decoder, words, vectors, memory = wired("decoder.layers=3", "decoder.layer_norm=true", "decoder.residual=3")
    bottom = decoder.layers[0](words, state=memory.state.layers[0])[0]
    context = attended(decoder.attention, bottom, memory)
    middle = decoder.layers[1](torch.cat((decoder.norms[0](bottom), context), -1), state=memory.state.layers[1])[0]
    top = (
        decoder.layers[2](torch.cat((decoder.norms[1](middle), context), -1), state=memory.state.layers[2])[0] + middle
    )
    torch.testing.assert_close(vectors, torch.tanh(decoder.combine(torch.cat((top, context), -1))))


def test_in_deep_every_layer_adds_recurrence_attention_and_feed_forward_each_of_what_is_normalised() -> None:
    layer_norm = ("encoder.layer_norm=true", "decoder.layer_norm=true")
    decoder, x, vectors, memory = wired("wiring=deep", *layer_norm, "feed_forward=10")
    for index in range(2):
        recurrence, cross, block = decoder.recurrences[index], decoder.cross[index], decoder.feed_forwards[index]
        output = recurrence.layer(recurrence.norm(x), state=memory.state.layers[index])[0]
        x = output + (x @ recurrence.shortcut.weight.T if index == 0 else x)  # 6 words wide, 8 units
        x = x + cross.mix(attended(cross.attention, cross.norm(x), memory, index))
        x = x + block.fall(torch.relu(block.rise(block.norm(x))))
        assert block.rise.out_features == 10
    torch.testing.assert_close(vectors, decoder.combine(decoder.norm(x)))


def test_a_deep_encoder_layer_adds_recurrence_and_feed_forward() -> None:
    layer_norm = ("encoder.layer_norm=true", "decoder.layer_norm=true")
    encoder: Any = tiny.model(tiny.model_config("wiring=deep", *layer_norm)).encoder
    x, lengths = torch.randn(2, 5, 6), torch.tensor([5, 3])
    encoded = encoder(x, lengths)
    for recurrence, block in zip(encoder.recurrences, encoder.feed_forwards, strict=True):
        output = recurrence.layer(recurrence.norm(x), reversal(lengths, 5))[0]
        x = output + recurrence.shortcut(x)
        x = x + block.fall(torch.relu(block.rise(block.norm(x))))
        assert block.rise.out_features == 16  # twice the layer's width
    torch.testing.assert_close(encoded, encoder.norm(x))


def test_in_luong_the_vector_of_a_step_is_fed_to_the_next() -> None:
    decoder, words, vectors, memory = wired("wiring=luong", "decoder.residual=false", "attention=dot")
    (h0, c0), (h1, c1), (fed,) = memory.state.layers
    assert not fed.any()
    for step in range(4):
        h0, c0 = decoder.cells[0](torch.cat((words[:, step], fed), -1), (h0, c0))
        h1, c1 = decoder.cells[1](h0, (h1, c1))
        fed = torch.tanh(decoder.combine(torch.cat((attended(decoder.attention, h1, memory), h1), -1)))
        torch.testing.assert_close(vectors[:, step], fed)


def test_in_bahdanau_the_previous_state_asks_and_a_maxout_layer_answers() -> None:
    decoder, words, vectors, memory = wired(
        "wiring=bahdanau", "decoder.cell=gru", "decoder.residual=false", "attention=additive"
    )
    (h0,), (h1,) = memory.state.layers
    for step in range(4):
        context = attended(decoder.attention, h1, memory)
        h0 = decoder.cells[0](torch.cat((words[:, step], context), -1), h0)
        h1 = decoder.cells[1](h0, h1)
        pairs = decoder.readout(torch.cat((h1, words[:, step], context), -1))
        torch.testing.assert_close(vectors[:, step], torch.maximum(pairs[:, ::2], pairs[:, 1::2]))


@pytest.mark.parametrize("wiring", ["luong", "bahdanau"])
def test_a_landmarks_layers_are_residual_and_normalised_as_a_stacks(wiring: str) -> None:
    decoder, words, vectors, memory = wired(
        f"wiring={wiring}", "decoder.hidden=[8,6]", "decoder.cell=gru", "decoder.layer_norm=true"
    )
    (h0,), (h1,), *_ = memory.state.layers
    fed = torch.zeros(3, 6) if wiring == "luong" else attended(decoder.attention, h1, memory)
    h0 = decoder.cells[0](torch.cat((words[:, 0], fed), -1), h0)
    h1 = decoder.cells[1](decoder.norms[0](h0), h1)
    top = h1 + h0 @ decoder.shortcuts[0].weight.T
    if wiring == "luong":
        first = torch.tanh(decoder.combine(torch.cat((attended(decoder.attention, top, memory), top), -1)))
    else:
        first = decoder.readout(torch.cat((top, words[:, 0], fed), -1)).unflatten(-1, (-1, 2)).amax(-1)
    torch.testing.assert_close(vectors[:, 0], first)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn", "rnn_relu", "gru_before"])
def test_a_landmarks_cell_is_one_step_of_the_layer_of_that_name(cell: str) -> None:
    model = tiny.model(tiny.model_config("wiring=luong", f"decoder.cell={cell}"))
    stepped: Any = model.decoder
    layer = RecurrentLayer(model.config.decoder.cells[1], 8, 8).requires_grad_(False)
    for name, value in stepped.cells[1].named_parameters():
        layer.forwards.get_parameter(f"{name}_l0").copy_(nn.init.normal_(value))
    x, state = torch.randn(3, 1, 8), tuple(torch.randn(3, 8) for _ in range(2 if cell == "lstm" else 1))
    after = stepped.cells[1](x[:, 0], state if cell == "lstm" else state[0])
    final = after if isinstance(after, tuple) else (after,)
    for part, expected in zip(final, layer(x, state=state)[1], strict=True):
        torch.testing.assert_close(part, expected)


def test_a_landmark_drops_the_same_units_at_every_step() -> None:
    model = tiny.model(tiny.model_config("wiring=luong", "dropout.layer=0.5", "decoder.hidden=64")).train()
    decoder: Any = model.decoder
    seen: list[Tensor] = []
    decoder.cells[1].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0] == 0))
    model(*batch([5, 2]), targets(2, 6))
    assert len(seen) == 6
    assert all(torch.equal(gone, seen[0]) for gone in seen)
    assert not torch.equal(seen[0][0], seen[0][1])
    assert 10 < seen[0][0].sum() < 54


# --- options --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("tie", ["none", "output", "all"])
@pytest.mark.parametrize("layer_norm", ["true", "false"])
@pytest.mark.parametrize(
    "widths", [["encoder.hidden=8", "decoder.hidden=8"], ["encoder.hidden=[4,6]", "decoder.hidden=[6,8]"]]
)
@pytest.mark.parametrize(
    "wiring", [["encoder.bidirectional=all"], ["encoder.residual=false", "decoder.residual=false"]]
)
def test_every_combination_trains_every_parameter(
    cell: str, tie: str, layer_norm: str, widths: list[str], wiring: list[str]
) -> None:
    torch.manual_seed(0)
    cells = [f"encoder.cell={cell}", f"decoder.cell={cell}"]
    norms = [f"encoder.layer_norm={layer_norm}", f"decoder.layer_norm={layer_norm}"]
    config = tiny.model_config(*cells, *norms, *widths, *wiring, f"tie_embeddings={tie}", "dropout.word=0.1")
    model = Seq2Seq(config, VOCABULARY, VOCABULARY)
    source, lengths = batch([6, 4, 9])
    logits = model.logits(model(source, lengths, targets(3, 5)))
    F.cross_entropy(logits.flatten(0, 1), torch.randint(4, VOCABULARY, (15,))).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize(("tie", "tables"), [("none", 3), ("output", 2), ("all", 1)])
def test_tied_weights_are_one_parameter(tie: str, tables: int) -> None:
    model = tiny.model(tiny.model_config(f"tie_embeddings={tie}"))
    found = [p for p in model.parameters() if p.shape == (VOCABULARY, 6)]
    assert len(found) == tables
    assert (model.output is model.target_embedding.weight) == (tie != "none")
    assert (model.source_embedding is model.target_embedding) == (tie == "all")


def test_separate_vocabularies_have_their_own_sizes() -> None:
    model = Seq2Seq(tiny.model_config("tie_embeddings=output"), 30, 50)
    assert model.source_embedding.weight.shape == (30, 6)
    assert model.output.shape == (50, 6)


@pytest.mark.parametrize("vocabulary", [50, 5000])
@pytest.mark.parametrize("tie", ["none", "all"])
def test_the_first_loss_is_that_of_a_guess_among_all_words(vocabulary: int, tie: str) -> None:
    config = tiny.model_config("embedding=64", "encoder.hidden=64", "decoder.hidden=64", f"tie_embeddings={tie}")
    model = tiny.model(config, vocabulary)
    source, lengths = batch([9, 5, 12, 7])
    labels = torch.randint(4, vocabulary, (4, 10))
    logits = model.logits(model(source, lengths, targets(4, 10)))
    assert F.cross_entropy(logits.flatten(0, 1), labels.flatten()).item() == pytest.approx(
        math.log(vocabulary), abs=0.35
    )


@pytest.mark.parametrize("part", ["embedding", "layer", "output", "word"])
def test_each_kind_of_dropout_acts_in_training_and_never_otherwise(part: str) -> None:
    model = tiny.model(tiny.model_config(f"dropout.{part}=0.5"))
    source, lengths = batch([6, 4])
    target = targets(2, 4)
    assert torch.equal(model(source, lengths, target), model(source, lengths, target))
    model.train()
    assert not torch.equal(model(source, lengths, target), model(source, lengths, target))


# --- mistakes -------------------------------------------------------------------------------------------------------


def test_one_embedding_for_two_vocabularies_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="tie_embeddings: all needs a joint vocabulary, but the sizes are 30 and 50"):
        Seq2Seq(tiny.model_config(), 30, 50)


def test_states_are_values() -> None:
    state = DecoderState(((torch.zeros(1, 2),),))
    with pytest.raises(AttributeError):
        state.layers = ()  # type: ignore[misc]
