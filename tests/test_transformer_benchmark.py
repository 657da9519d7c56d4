"""The Transformer of the benchmarks: a Seq2Seq to trainer and search, of the size of the recurrent model."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from conftest import ROOT

from nmt.errors import ConfigError
from nmt.inference.types import DecodeOptions
from nmt.model.seq2seq import Seq2Seq
from nmt.text.tokenizer import BOS, EOS
from nmt.training.config import RunConfig

V = 40


@pytest.fixture(scope="module")
def benchmark() -> Any:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield importlib.import_module("transformer")
    sys.path.remove(str(ROOT / "benchmarks"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.prepared(tmp_path_factory.mktemp("transformer"))


def config(*overrides: str) -> RunConfig:
    return tiny.run_config(Path("corpus"), Path("run"), "model.embedding=8", *overrides)


def small(benchmark: Any, sharpness: float = 1.0, **shape: int) -> Seq2Seq:
    """A random Transformer of 2 layers in evaluation mode; `sharpness` multiplies what meets the vocabulary."""
    torch.manual_seed(3)
    made: Seq2Seq = benchmark.make_transformer(config(), benchmark.Shape(2, inner=12, **shape), (V, V))
    with torch.no_grad():
        made.output.mul_(sharpness)
    return made.eval().requires_grad_(False)


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Padded sources (3, 6), their lengths, targets (3, 5)."""
    generator = torch.Generator().manual_seed(5)
    source, target = (torch.randint(EOS + 1, V, (3, steps), generator=generator) for steps in (6, 5))
    lengths = torch.tensor([6, 2, 4])
    target[:, 0] = BOS
    return source.masked_fill(torch.arange(6) >= lengths[:, None], 0), lengths, target


def test_one_step_at_a_time_is_teacher_forcing(benchmark: Any) -> None:
    model, (source, lengths, target) = small(benchmark), batch()
    whole = model.logits(model(source, lengths, target))
    memory = model.encode(source, lengths)
    state, steps = memory.state, []
    for step in range(target.shape[1]):
        logits, state = model.decode(target[:, step : step + 1], memory, state)
        steps.append(logits)
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, atol=1e-5, rtol=1e-4)
    in_two, _ = model.decode(target[:, 2:], memory, model.decode(target[:, :2], memory, memory.state)[1])
    torch.testing.assert_close(in_two, whole[:, 2:], atol=1e-5, rtol=1e-4)


def test_a_step_sees_no_later_word_and_no_padding(benchmark: Any) -> None:
    model, (source, lengths, target) = small(benchmark), batch()
    whole = model(source, lengths, target)
    changed = target.clone()
    changed[:, 3:] = EOS + 1
    torch.testing.assert_close(model(source, lengths, changed)[:, :3], whole[:, :3])
    assert not torch.allclose(model(source, lengths, changed)[:, 3:], whole[:, 3:])
    for row, length in enumerate(lengths.tolist()):
        alone = model(source[row : row + 1, :length], lengths[row : row + 1], target[row : row + 1])
        torch.testing.assert_close(alone, whole[row : row + 1], atol=1e-5, rtol=1e-4)


def test_the_order_of_words_counts(benchmark: Any) -> None:
    model, (source, lengths, target) = small(benchmark), batch()
    swapped = source[:, [1, 0, 2, 3, 4, 5]]
    assert not torch.allclose(model(swapped, lengths, target), model(source, lengths, target), atol=1e-3)


def test_search_finds_what_greedy_decoding_of_whole_prefixes_finds(benchmark: Any) -> None:
    model = small(benchmark, sharpness=4.0)
    sources = [[7, 9, 11, EOS], [30, 5, EOS], [8, EOS]]
    options = DecodeOptions(beam_size=1, max_length_ratio=1.0, max_length_extra=4)
    for source, (candidate,) in zip(sources, tiny.beam_search(model, sources, options), strict=True):
        ids = [BOS]
        while len(ids) <= len(source) + 4:
            vectors = model(torch.tensor([source]), torch.tensor([len(source)]), torch.tensor([ids]))
            logits = model.logits(vectors)[0, -1]
            logits[:EOS] = float("-inf")
            ids.append(int(logits.argmax()))
            if ids[-1] == EOS:
                break
        assert candidate.ids == ids[1 : None if ids[-1] != EOS else -1]
    wide = tiny.beam_search(model, sources, DecodeOptions(beam_size=4, n_best=4))
    assert [len(candidates) for candidates in wide] == [4, 4, 4]


def test_by_default_it_has_as_many_parameters_as_the_recurrent_model(benchmark: Any) -> None:
    recurrent = config("model.embedding=16", "model.encoder.hidden=64", "model.decoder.hidden=64")
    wanted = benchmark.parameters(Seq2Seq(recurrent.model, V, V))
    found = benchmark.parameters(benchmark.make_transformer(recurrent, benchmark.Shape(3), (V, V)))
    assert found == pytest.approx(wanted, rel=0.02)


def test_the_published_tiny_transformer_has_its_published_shape(benchmark: Any) -> None:
    model = benchmark.make_transformer(config(), benchmark.Shape(4, 128, 4, 256), (10_000, 10_000))
    attention, feed_forward, norm = 4 * (128 * 128 + 128), 2 * 128 * 256 + 256 + 128, 2 * 128
    layers = 4 * (3 * attention + 2 * feed_forward + 5 * norm) + 2 * norm
    assert benchmark.parameters(model) == layers + 10_000 * 128 + 10_000


@pytest.mark.parametrize(
    ("shape", "words"),
    [({"heads": 3}, "--heads 3 does not divide the width 8"), ({"layers": 20}, "20 layers of width 8 leave no room")],
)
def test_a_shape_that_cannot_be_is_a_config_error(benchmark: Any, shape: dict[str, int], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        benchmark.make_transformer(config(), benchmark.Shape(**shape), (V, V))


def test_it_trains_resumes_and_is_scored(
    benchmark: Any, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = tiny.run_config(corpus, tmp_path / "unused", "validation.every=20", "model.embedding=16")
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(settings.model_dump(mode="json")))
    command = [str(path), "--run", str(tmp_path / "run"), "--layers", "2", "--ff", "24"]
    assert benchmark.main([*command, "--set", "train.max_steps=5"]) == 0
    assert benchmark.main([*command, "--set", "train.max_steps=40", "--set", "train.log_every=5"]) == 0
    records = tiny.records(tmp_path / "run")
    assert records[-1]["step"] == 40
    assert records[-1]["nll"] < records[0]["nll"] - 0.3
    capsys.readouterr()
    assert benchmark.main([*command, "--score-only"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["updates"] == 40
    assert printed["parameters"] == 90 * 17 + 2 * 32 + 2 * (3 * 4 * 17 * 16 + 2 * (2 * 16 * 24 + 40) + 5 * 32)
    manifest = json.loads((corpus / "manifest.json").read_text())
    epoch = sum(manifest["tokens"].values()) + 2 * manifest["splits"]["train"]  # two end marks a pair
    assert printed["subwords seen"] == pytest.approx(epoch * records[-1]["epoch"], rel=5e-3)
    assert [item["name"] for item in printed["scores"]] == ["BLEU", "chrF2", "chrF2++", "TER", "BLEU tok-lc"]
    assert printed["scores"][0]["search"].startswith("beam 5")


def test_scoring_before_training_is_an_error_in_one_line(
    benchmark: Any, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(tiny.run_config(corpus, tmp_path, "model.embedding=8").model_dump(mode="json")))
    assert benchmark.main([str(path), "--run", str(tmp_path / "run"), "--ff", "8", "--score-only"]) == 2
    assert "no checkpoint to score: train first" in capsys.readouterr().err
