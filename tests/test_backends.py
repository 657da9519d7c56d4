"""The backends against each other and against the model in float64, for every wiring, cell and kind of attention."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import nmt.config
from nmt.errors import BundleError, ConfigError
from nmt.inference.backend import Backend
from nmt.inference.bundle import Bundle
from nmt.inference.onnx_backend import OnnxBackend, int8_is_exact
from nmt.inference.search import RunningBatch, Sentence, beam_search
from nmt.inference.torch_backend import TorchBackend
from nmt.inference.translator import Translator
from nmt.inference.types import DecodeOptions
from nmt.inference.weights import int8_rows
from nmt.model.seq2seq import Seq2Seq
from nmt.text.tokenizer import BOS, EOS
from nmt.training.config import RunConfig

V = 70  # more than one block of the vocabulary
DEEP = ("wiring=deep", "encoder.layer_norm=true", "decoder.layer_norm=true")
SHAPES: dict[str, tuple[str, ...]] = {
    "gnmt": (),
    "gnmt of unequal widths": (
        "encoder.layers=3",
        "encoder.hidden=[12, 8, 10]",
        "decoder.layers=3",
        "decoder.hidden=[8, 6, 10]",
    ),
    "gnmt, residual from 2, normalised, one head": (
        "decoder.layers=3",
        "decoder.layer_norm=true",
        "encoder.layer_norm=true",
        "attention_heads=1",
    ),
    "gnmt without residuals": ("encoder.residual=false", "decoder.residual=false", "encoder.bidirectional=none"),
    "gnmt, additive": ("attention=additive", "init=0.5"),
    "deep": (*DEEP, "encoder.bidirectional=all"),
    "deep, cells": (
        *DEEP,
        "encoder.cell=[gru, rnn]",
        "decoder.cell=[rnn_relu, gru]",
        "feed_forward=5",
        "attention=dot",
    ),
    "deep of unequal widths": (*DEEP, "encoder.hidden=[6, 10]", "decoder.hidden=[4, 12]", "attention=additive"),
    "gru_before": ("encoder.cell=gru_before", "decoder.cell=[gru_before, gru]"),
    "luong": ("wiring=luong", "attention=dot", "tie_embeddings=none", "decoder.residual=false"),
    "luong, gru": ("wiring=luong", "decoder.cell=gru", "decoder.layer_norm=true", "tie_embeddings=output"),
    "bahdanau": ("wiring=bahdanau", "attention=additive", "encoder.cell=gru", "decoder.cell=gru", "decoder.layers=1"),
    "bahdanau, two layers": ("wiring=bahdanau", "decoder.cell=[lstm, rnn]"),
}
SOURCES = [[5, 9, 33, 12, 69, 4, EOS], [7, EOS], [EOS], [8, 8, 30, EOS], [*list(range(10, 30)), EOS]]
TARGETS = np.array([[BOS, 6, 44, 9, 31, 17]] * len(SOURCES)) + np.arange(len(SOURCES))[:, None] * np.array(
    [0, 1, 2, 3, 4, 5]
)


def model_of(name: str, seed: int = 0) -> Seq2Seq:
    return tiny.model(tiny.model_config(*SHAPES[name]), vocabulary=V, seed=seed, sharpness=2.0)


def followed(backend: Backend, sources: Sequence[Sequence[int]], targets: NDArray[Any], beam: int = 1) -> NDArray[Any]:
    """Log probabilities (B, T, V) of all words when the `targets` (B, T) are fed, to each row of a beam the same."""
    rows = backend.running(beam, max(map(len, sources)) + 3)
    rows.insert(backend.encode(sources))
    found = []
    for step in range(targets.shape[1]):
        scores = rows.step(np.repeat(targets[:, step], beam), 5, whole=True)
        whole = scores.log_p
        assert whole is not None
        best = np.sort(whole, axis=1)[:, ::-1][:, :5]
        np.testing.assert_allclose(scores.best, best, atol=1e-6)
        np.testing.assert_allclose(np.take_along_axis(whole, scores.ids, axis=1), scores.best, atol=1e-6)
        found.append(whole[::beam])
    return np.stack(found, axis=1)


def exact(model: Seq2Seq) -> NDArray[Any]:
    """The same in float64 by teacher forcing, each sentence by itself."""
    double, found = model.double(), []
    for source, target in zip(SOURCES, TARGETS, strict=True):
        memory = double.encode(torch.tensor([source]), torch.tensor([len(source)]))
        logits, _ = double.decode(torch.tensor(target[None]), memory, memory.state)
        found.append(torch.log_softmax(logits, dim=-1).numpy()[0])
    return np.stack(found)


@pytest.mark.parametrize("name", SHAPES)
def test_both_backends_compute_the_model(name: str) -> None:
    model = model_of(name)
    found = [followed(backend, SOURCES, TARGETS) for backend in (TorchBackend(model), tiny.onnx_backend(model))]
    expected = exact(model)
    assert expected.std() > 0.3  # not a model that says the same of everything
    for each in found:
        np.testing.assert_allclose(each, expected, rtol=1e-5, atol=2e-5)


CONFIGS = sorted(path.stem for path in (ROOT / "configs").glob("*.yaml") if path.stem != "serve")


@pytest.mark.parametrize("name", CONFIGS)
def test_both_backends_compute_every_shipped_configuration(name: str) -> None:
    model = tiny.model(nmt.config.load(RunConfig, ROOT / f"configs/{name}.yaml").model, vocabulary=V, sharpness=1.5)
    found = [followed(backend, SOURCES, TARGETS) for backend in (TorchBackend(model), tiny.onnx_backend(model))]
    expected = exact(model)
    assert expected.std() > 0.3
    for each in found:
        np.testing.assert_allclose(each, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", SHAPES)
def test_int8_is_near_the_model_with_its_matrices_rounded(name: str) -> None:
    model = model_of(name)
    found = followed(tiny.onnx_backend(model, int8=True), SOURCES, TARGETS)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2 and min(parameter.shape) > 1:
                parameter.copy_(torch.from_numpy(int8_rows(parameter.numpy()).floats()))
    expected = exact(model)
    assert np.abs(found - expected).max() > 1e-6  # it is int8
    assert np.abs(found - expected).mean() < 0.05 * expected.std()
    assert np.corrcoef(found.reshape(-1), expected.reshape(-1))[0, 1] > 0.995


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("name", ["gnmt", "deep", "luong, gru", "bahdanau"])
def test_rows_of_a_beam_are_like_one(name: str, int8: bool) -> None:
    backend = tiny.onnx_backend(model_of(name), int8)
    alone, beam = followed(backend, SOURCES, TARGETS), followed(backend, SOURCES, TARGETS, beam=3)
    np.testing.assert_allclose(alone, beam, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("name", ["gnmt", "deep", "gru_before", "luong", "bahdanau"])
def test_a_neighbour_with_large_activations_changes_nothing_in_int8(name: str) -> None:
    model = model_of(name)
    model.source_embedding.weight[69] = 1000.0  # one scale for the batch would leave nothing of the others
    if model.config.tie_embeddings == "all":
        model.output_bias[69] = -1e4
    backend = tiny.onnx_backend(model, int8=True)
    quiet = [[5, 9, 33, EOS], [7, 12, EOS]]
    loud = [69] * 12 + [EOS]
    alone = followed(backend, quiet, TARGETS[:2])
    beside = followed(backend, [quiet[0], loud, quiet[1]], TARGETS[[0, 4, 1]])[[0, 2]]
    np.testing.assert_array_equal(alone, beside)


@pytest.mark.parametrize("kind", ["torch", "onnx", "int8"])
@settings(deadline=None, max_examples=12)
@given(seed=st.integers(0, 1000), beam=st.integers(1, 4), data=st.data())
def test_when_sentences_come_and_go_changes_nothing(kind: str, seed: int, beam: int, data: st.DataObject) -> None:
    model = model_of("deep" if seed % 2 else "gnmt", seed % 4)
    model.output_bias[EOS] += 2.0
    backend: Backend = TorchBackend(model) if kind == "torch" else tiny.onnx_backend(model, int8=kind == "int8")
    options = DecodeOptions(beam_size=beam, max_length_ratio=1.0, max_length_extra=4)
    rng = np.random.default_rng(seed)
    waiting = [Sentence([*rng.integers(EOS + 1, V, rng.integers(0, 8)).tolist(), EOS], options) for _ in range(7)]
    expected = [beam_search(backend, [sentence.ids], options)[0] for sentence in waiting]
    everyone, given_up = list(waiting), set()
    batch = RunningBatch(backend, beam, 16)
    while waiting or batch.sentences:
        count = data.draw(st.integers(0 if batch.sentences else min(1, len(waiting)), min(3, len(waiting))))
        if count:
            batch.join([waiting.pop(0) for _ in range(count)])
        if len(batch.sentences) > 1 and data.draw(st.integers(0, 9)) == 0:
            gone = data.draw(st.sampled_from(batch.sentences))
            given_up.add(id(gone))
            batch.leave([gone])
        batch.step()
    for sentence, candidates in zip(everyone, expected, strict=True):
        if id(sentence) in given_up:
            continue
        if (
            kind == "torch"
        ):  # whose sums depend on the number of rows in their last digits, which a random model makes much of
            assert sentence.finished[0].ids == candidates[0].ids
            assert sentence.finished[0].score == pytest.approx(candidates[0].score, abs=1e-4)
        else:
            assert sentence.finished == candidates  # to the bit


def test_products_of_int8_are_exact_here_one_way_or_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("gnmt")
    usual = followed(tiny.onnx_backend(model, int8=True), SOURCES, TARGETS)
    monkeypatch.setattr("nmt.inference.onnx_backend.int8_is_exact", lambda: not int8_is_exact())
    other = followed(tiny.onnx_backend(model, int8=True), SOURCES, TARGETS)
    np.testing.assert_allclose(usual, other, atol=1e-5)


def test_numbers_that_are_none_fail_the_sentence_alone() -> None:
    model = model_of("luong")  # whose embeddings are not tied
    model.source_embedding.weight[69] = float("nan")
    for backend in (TorchBackend(model), tiny.onnx_backend(model)):
        options = DecodeOptions(beam_size=2)
        sentences = [Sentence([5, 6, EOS], options), Sentence([69, EOS], options)]
        batch = RunningBatch(backend, 2, 8)
        batch.join(sentences)
        while batch.sentences:
            batch.step()
        assert sentences[0].error is None
        assert [c.ids for c in sentences[0].finished] == [
            c.ids for c in beam_search(backend, [[5, 6, EOS]], options)[0]
        ]
        assert "not numbers" in str(sentences[1].error)


# --- bundles --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundled() -> Path:
    return ROOT / "data/pretrained/tatoeba-en-de"


def test_a_translation_on_a_cpu_imports_no_pytorch(bundled: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from nmt.inference.translator import Translator\n"
        f"print(Translator.load(Path({str(bundled)!r}), threads=1).translate(['Good morning!'])[0].text)\n"
        "print([name for name in ('torch', 'datasets', 'sacrebleu', 'onnx', 'ray') if name in sys.modules])\n"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split("\n")
    assert output[0] == "Guten Morgen!"
    assert output[1] in ("[]", "['onnx']")


def test_precisions_of_a_bundle(bundled: Path) -> None:
    texts = ["I'd like to go to Boston with Tom.", "She has three children."]
    exact = Translator.load(bundled, precision="fp32").translate(texts)
    for kind in ("int8", "bf16"):
        for one, other in zip(Translator.load(bundled, precision=kind).translate(texts), exact, strict=True):  # type: ignore[arg-type]
            assert one.score != other.score
            assert one.score == pytest.approx(other.score, abs=0.1)
    with pytest.raises(ConfigError, match="precision 'int4': one of auto, fp32, int8, bf16, fp16"):
        Translator.load(bundled, precision="int4")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="int8 is for one model on a CPU"):
        Translator.load(bundled, ensemble=[bundled], precision="int8")


def test_a_bundle_of_the_first_format_still_loads() -> None:
    # Made by the version before format 2, with `nmt bundle --weights int8`; what that version said of these texts:
    translator = Translator.load(ROOT / "tests/bundles/format-1", threads=1)
    found = translator.translate(["the cat sees the dog.", "the old tree has the small bird."])
    assert [result.text for result in found] == ["das Katbt das Fuud.", "das Kluuuud."]
    assert [result.score for result in found] == pytest.approx([-1.466326, -1.735450], abs=1e-4)


def test_a_bundle_that_lacks_a_weight_is_an_error(bundled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nmt.inference import onnx_backend

    read = onnx_backend.read_stored
    monkeypatch.setattr(
        onnx_backend, "read_stored", lambda path: {n: s for n, s in read(path).items() if n != "decoder.norm.weight"}
    )
    with pytest.raises(BundleError, match=r"model\.safetensors: lacks 'decoder\.norm\.weight'"):
        OnnxBackend.load(Bundle.open(bundled))
