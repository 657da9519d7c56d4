"""The family of models: every preset at a tiny size, from one step of decoding to an answer over HTTP, and full size on paper."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor
from torch.nn import functional as F

import nmt.config
from nmt.corpus.store import PreparedCorpus
from nmt.inference.bundle import Bundle
from nmt.inference.output import Vocabularies
from nmt.inference.torch_backend import TorchBackend, load_model
from nmt.inference.translator import Translator
from nmt.inference.types import Translation
from nmt.inference.weights import Storage
from nmt.model.config import ModelConfig
from nmt.model.presets import PRESETS
from nmt.model.seq2seq import Seq2Seq
from nmt.text.tokenizer import EOS, PAD
from nmt.training.bundling import BundleOptions, make_bundle
from nmt.training.checkpoint import Checkpoints, averaged_weights

VOCABULARY = 40
SMALL = {2048: 16, 2000: 16, 1024: 8, 1000: 8, 620: 6, 512: 8}  # for the widths of the presets
UNLIKE = {  # the two sides as unlike as they can be
    "encoder": {"layers": 3, "hidden": [6, 10, 4], "cell": ["gru", "lstm", "rnn"], "bidirectional": [False, True, False]},
    "decoder": {"layers": 2, "hidden": [8, 6], "cell": ["lstm", "gru_before"]},
    "attention_heads": 2,
}  # fmt: skip

presets = pytest.mark.parametrize("preset", PRESETS)
sides = pytest.mark.parametrize("changes", [{}, UNLIKE], ids=["as it is", "unlike sides"])


def shrunk(preset: str, times: int = 1) -> dict[str, Any]:
    """A configuration that names the preset and changes its sizes alone: wiring, depth, cells and all else stay."""

    def small(width: Any) -> Any:
        return [SMALL[item] * times for item in width] if isinstance(width, list) else SMALL[width] * times

    full = PRESETS[preset]
    sizes: dict[str, Any] = {side: {"hidden": small(full[side]["hidden"])} for side in ("encoder", "decoder")}
    sizes |= {"preset": preset, "embedding": small(full["embedding"])}
    return sizes | ({"attention_heads": 2, "feed_forward": 12 * times} if "feed_forward" in full else {})


def parsed(data: dict[str, Any]) -> ModelConfig:
    return nmt.config.parse(ModelConfig, data, "model")


def made(preset: str, changes: dict[str, Any]) -> Seq2Seq:
    """A tiny model whose weights decide something, in float64, where only a wrong formula makes a difference."""
    return tiny.model(parsed(nmt.config.merge(shrunk(preset), changes)), VOCABULARY, sharpness=3.0).double()


def batch(lengths: list[int]) -> tuple[Tensor, Tensor]:
    """Random source ids, right-padded, with their end marks."""
    ids = torch.full((len(lengths), max(lengths)), PAD)
    for row, length in enumerate(lengths):
        ids[row, : length - 1] = torch.randint(EOS + 1, VOCABULARY, (length - 1,))
        ids[row, length - 1] = EOS
    return ids, torch.tensor(lengths)


def targets(rows: int, steps: int) -> Tensor:
    return torch.randint(EOS + 1, VOCABULARY, (rows, steps))


# --- one or many ----------------------------------------------------------------------------------------------------


@presets
@sides
def test_many_steps_equal_one_step_at_a_time(preset: str, changes: dict[str, Any]) -> None:
    tiny.check_steps(made(preset, changes), batch([5, 2, 7]), targets(3, 6))


@presets
@sides
def test_a_sentence_alone_equals_it_in_a_padded_batch(preset: str, changes: dict[str, Any]) -> None:
    model = made(preset, changes)
    lengths = [5, 1, 9, 3]
    source, source_lengths = batch(lengths)
    target = targets(4, 4)
    together = model(source, source_lengths, target)
    assert not torch.allclose(together[0], together[1], rtol=1e-3)
    other = torch.where(source == PAD, 17, source)  # and whatever stands in the padding
    torch.testing.assert_close(model(other, source_lengths, target), together)
    for row, length in enumerate(lengths):
        alone = model(source[row : row + 1, :length], source_lengths[row : row + 1], target[row : row + 1])
        torch.testing.assert_close(alone[0], together[row])


@presets
@sides
def test_rows_are_selected_from_memory_and_state(preset: str, changes: dict[str, Any]) -> None:
    model = made(preset, changes)
    memory = model.encode(*batch([5, 2, 7]))
    target = targets(3, 4)
    _, state = model.decode(target[:, :2], memory, memory.state)
    whole, _ = model.decode(target[:, 2:], memory, state)
    rows = torch.tensor([2, 0, 0])
    chosen, _ = model.decode(target[rows, 2:], memory.select(rows), state.select(rows))
    torch.testing.assert_close(chosen, whole[rows])


@presets
@sides
def test_every_source_word_and_every_earlier_target_word_counts_and_no_later_one(
    preset: str, changes: dict[str, Any]
) -> None:
    model = made(preset, changes)
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


# --- training -------------------------------------------------------------------------------------------------------


@presets
@sides
def test_a_gradient_reaches_every_parameter(preset: str, changes: dict[str, Any]) -> None:
    model = made(preset, changes).requires_grad_(True)
    logits = model.logits(model(*batch([6, 4, 9]), targets(3, 5)))
    F.cross_entropy(logits.flatten(0, 1), torch.randint(4, VOCABULARY, (15,))).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@presets
def test_the_first_loss_is_that_of_a_guess_among_all_words(preset: str) -> None:
    model = tiny.model(parsed(shrunk(preset, times=8)), vocabulary=5000)
    logits = model.logits(model(*batch([9, 5, 12, 7]), targets(4, 50)))
    loss = F.cross_entropy(logits.flatten(0, 1), torch.randint(4, 5000, (200,)))
    assert loss.item() == pytest.approx(math.log(5000), abs=0.6)


@presets
@pytest.mark.parametrize("part", ["embedding", "layer", "output", "word"])
def test_each_kind_of_dropout_acts_in_training_and_never_otherwise(preset: str, part: str) -> None:
    rates = {"embedding": 0.0, "layer": 0.0, "output": 0.0, part: 0.5}
    model = tiny.model(parsed(shrunk(preset) | {"dropout": rates}))
    source, lengths = batch([6, 4])
    target = targets(2, 4)
    assert torch.equal(model(source, lengths, target), model(source, lengths, target))
    model.train()
    assert not torch.equal(model(source, lengths, target), model(source, lengths, target))


@presets
@sides
def test_half_precision_stays_near_in_many_steps_and_in_one_and_trains(preset: str, changes: dict[str, Any]) -> None:
    model = made(preset, changes).float().requires_grad_(True)
    source, lengths = batch([6, 4, 9])
    target = targets(3, 5)
    exact = model.logits(model(source, lengths, target)).detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        memory = model.encode(source, lengths)
        near, _ = model.decode(target, memory, memory.state)
        state, steps = memory.state, []
        for step in range(5):
            logits, state = model.decode(target[:, step : step + 1], memory, state)
            steps.append(logits)
    for found in (near, torch.cat(steps, dim=1)):
        assert (found.float() - exact).abs().max() < 0.1 * exact.abs().max()
    near.float().pow(2).mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


# --- from training to an answer -------------------------------------------------------------------------------------

TEXTS = ["the cat sees the dog.", "the old tree has the small bird.", "", "the red fish " * 10]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.prepared(tmp_path_factory.mktemp("family"))


def rounded(value: Tensor, storage: Storage) -> Tensor:
    """A weight as the storage can hold it."""
    if storage == "fp16":
        return value.half().float()
    if value.dim() != 2:
        return value
    scale = value.abs().amax(1, keepdim=True) / 127
    return (value / scale).round() * scale


def in_memory(corpus: Path, run: Path, storage: Storage, bundle: Path) -> Translator:
    """A translator of the trained weights that has never been a bundle."""
    prepared = PreparedCorpus.open(corpus)
    tokenizers = Vocabularies(prepared.source_tokenizer, prepared.target_tokenizer)
    config = Bundle.open(bundle).config
    model = Seq2Seq(config.model, len(tokenizers.source), len(tokenizers.target)).requires_grad_(False)
    checkpoints = Checkpoints(run, keep=1)
    step = checkpoints.best()
    assert step is not None
    weights = averaged_weights(checkpoints.load(step)[0])
    for name, parameter in model.named_parameters():
        parameter.copy_(rounded(weights[name], storage))
    return Translator(TorchBackend(model), tokenizers, tiny.info(), config.decode, config.max_source_tokens)


def served(bundle: Path, texts: list[str]) -> list[str]:
    """What a translator replica answers, through the gateway's HTTP surface, without Ray in between."""
    pytest.importorskip("ray.serve")
    from fastapi.testclient import TestClient

    from serving.app import TranslatorReplica
    from serving.config import ServeConfig
    from serving.gateway import create_app
    from serving.protocol import Overrides, Refusal, ServedModel

    config = ServeConfig(models=[str(bundle)])
    replica = TranslatorReplica(str(bundle), 1, config)

    class Backend:
        async def models(self) -> list[ServedModel]:
            return [await replica.describe()]

        async def ready(self) -> list[str]:
            return []

        async def translate(
            self, model: str, texts: list[str], overrides: Overrides, timeout_s: float
        ) -> list[Translation]:
            answer = await replica.translate(texts, overrides, timeout_s)
            assert not isinstance(answer, Refusal), answer
            return answer

    with TestClient(create_app(Backend(), config)) as client:
        response = client.post("/v1/translate", json={"text": texts, "source": "en", "target": "de"})
    assert response.status_code == 200, response.text
    answer: list[str] = response.json()["translation"]
    return answer


@presets
def test_it_trains_bundles_translates_and_serves(preset: str, corpus: Path, tmp_path: Path) -> None:
    run = tiny.trained(
        corpus,
        tmp_path / "run",
        f"model={json.dumps(shrunk(preset))}",
        "optimizer.lr=0.02",
        "train.max_steps=25",
        "train.save_every=25",
        "validation.every=25",
        "validation.metric=loss",
    )
    losses = [record["nll"] for record in tiny.records(run)]
    assert sum(losses[-5:]) / 5 < sum(losses[:5]) / 5 - 0.3
    found = {}
    for storage in ("fp16", "int8"):
        bundle = tmp_path / storage
        make_bundle(run, bundle, BundleOptions(weights=storage))  # type: ignore[arg-type]
        found[storage] = Translator.load(bundle).translate(TEXTS)
        exact = Translator.load(bundle, precision="fp32").translate(TEXTS)
        expected = in_memory(corpus, run, storage, bundle).translate(TEXTS)  # type: ignore[arg-type]
        assert [item.text for item in exact] == [item.text for item in expected]
        assert [item.score for item in exact] == pytest.approx([item.score for item in expected], abs=1e-4)
        assert found[storage][0].text
        assert found[storage][2].text == ""
        assert found[storage][3].segments > 1
    near, far = (load_model(Bundle.open(tmp_path / storage)) for storage in ("fp16", "int8"))
    source, lengths = batch([6, 4])
    target = targets(2, 5)
    assert (near.logits(near(source, lengths, target)) - far.logits(far(source, lengths, target))).abs().max() < 0.1
    assert served(tmp_path / "int8", TEXTS) == [item.text for item in found["int8"]]


# --- full size ------------------------------------------------------------------------------------------------------


def gnmt(layers: int) -> dict[str, tuple[int, ...]]:
    """Wu et al. 2016, as in NVIDIA's GNMT v2; an LSTM's four gates lie one upon the other."""
    width, gates = 1024, 4 * 1024
    shapes: dict[str, tuple[int, ...]] = {
        "encoder.stack.layers.0.forwards.weight_ih_l0": (gates, width),
        "encoder.stack.layers.0.backwards.weight_ih_l0": (gates, width),
        "encoder.stack.layers.1.forwards.weight_ih_l0": (gates, 2 * width),  # both directions of the layer below
        f"encoder.stack.layers.{layers - 1}.forwards.weight_ih_l0": (gates, width),
        "decoder.layers.0.forwards.weight_ih_l0": (gates, width),
        "decoder.attention.query.weight": (width, width),
        "decoder.attention.v": (1, width),
        "output": (32000, width),
    }
    above = {
        f"decoder.layers.{i}.forwards.weight_ih_l0": (gates, 2 * width) for i in range(1, layers)
    }  # and the context
    return shapes | above


PUBLISHED: dict[str, dict[str, tuple[int, ...]]] = {
    "gnmt-4x1024": gnmt(4),
    "gnmt-8x1024": gnmt(8),
    "deep": {
        "encoder.recurrences.3.layer.backwards.weight_hh_l0": (4 * 256, 256),
        "encoder.feed_forwards.3.rise.weight": (1024, 512),
        "decoder.recurrences.3.layer.forwards.weight_hh_l0": (4 * 512, 512),
        "decoder.cross.3.attention.key_value.weight": (2 * 512, 512),
        "decoder.feed_forwards.3.fall.weight": (512, 1024),
    },
    "luong-2x512": {
        "encoder.stack.layers.1.forwards.weight_hh_l0": (4 * 512, 512),
        "decoder.cells.0.weight_ih": (4 * 512, 512 + 512),  # the word and the vector that is fed
        "decoder.cells.1.weight_ih": (4 * 512, 512),
        "decoder.combine.weight": (512, 512 + 512),
    },
    "bahdanau-1x1000": {
        "source_embedding.weight": (32000, 620),
        "encoder.stack.layers.0.backwards.weight_ih_l0": (3 * 1000, 620),
        "decoder.cells.0.weight_hh": (3 * 1000, 1000),
        "decoder.attention.query.weight": (1000, 1000),
        "decoder.attention.key_value.weight": (2 * 1000, 2000),
        "decoder.attention.v": (1, 1000),
    },
}


@presets
def test_full_size_presets_have_the_published_shapes(preset: str) -> None:
    with torch.device("meta"):
        model = Seq2Seq(parsed({"preset": preset}), 32000, 32000)
    shapes = {name: tuple(value.shape) for name, value in model.named_parameters()}
    assert {name: shapes.get(name) for name in PUBLISHED[preset]} == PUBLISHED[preset]
    assert not any("shortcut" in name for name in shapes), "no published residual connection has a projection"
    for side in ("encoder", "decoder"):
        depth = PRESETS[preset][side]["layers"]
        numbers = {
            int(part) for name in shapes if name.startswith(side) for part in name.split(".") if part.isdecimal()
        }
        assert numbers == set(range(depth)), f"{side} of {depth} layers"


@pytest.mark.parametrize(
    ("preset", "first"), [("gnmt-4x1024", 3), ("gnmt-8x1024", 3), ("deep", 2), ("luong-2x512", None)]
)
def test_residual_connections_begin_where_they_were_published(preset: str, first: int | None) -> None:
    config = parsed({"preset": preset})
    for stack in (config.encoder, config.decoder):
        assert stack.first_residual == (stack.layers if first is None else first - 1)
