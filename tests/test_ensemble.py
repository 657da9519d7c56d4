"""Ensembles: several models that translate as one, whose distribution is the mean of theirs."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nmt.cli import main
from nmt.errors import BundleError, ConfigError
from nmt.inference.ensemble import Ensemble
from nmt.inference.search import Candidate
from nmt.inference.translator import Translator
from nmt.inference.types import DecodeOptions
from nmt.model.seq2seq import Seq2Seq
from nmt.text.tokenizer import BOS, EOS
from nmt.training.bundling import BundleOptions, make_bundle
from nmt.training.trainer import Trainer

V = 24
# Of any depth, width and cell, and one of each class of decoder.
SHAPES = (
    (),
    ("encoder.cell=gru", "decoder.hidden=10", "decoder.layers=3"),
    ("wiring=deep", "encoder.layer_norm=true", "decoder.layer_norm=true", "attention=additive"),
    ("wiring=luong", "decoder.layers=1", "encoder.layers=1"),
)
TEXTS = [source for source, _ in tiny.sentence_pairs(12, seed=21)]


def member(seed: int, *overrides: str) -> Seq2Seq:
    """A random model whose choices are clear, and that likes to end a sentence."""
    model = tiny.model(tiny.model_config(*overrides), vocabulary=V, seed=seed, sharpness=2.0)
    model.output_bias[EOS] += 2.0
    return model


def members(count: int, seed: int = 0) -> list[Seq2Seq]:
    return [member(seed + number, *SHAPES[number % len(SHAPES)]) for number in range(count)]


def sentences(count: int, seed: int = 0) -> list[list[int]]:
    rng = random.Random(seed)
    return [[rng.randrange(EOS + 1, V) for _ in range(rng.randint(0, 9))] + [EOS] for _ in range(count)]


def options(beam: int) -> DecodeOptions:
    return DecodeOptions(beam_size=beam, max_length_ratio=1.0, max_length_extra=5)


def batch(rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Padded ids and lengths of `rows`."""
    lengths = torch.tensor([len(row) for row in rows])
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True), lengths


def probabilities(model: Seq2Seq | Ensemble, source: list[list[int]], target: Tensor) -> Tensor:
    """The distribution (B, T, V) after each of the `target` ids (B, T)."""
    memory = model.encode(*batch(source))
    return torch.softmax(model.decode(target, memory, memory.state)[0], dim=-1)  # type: ignore[arg-type]


def same(one: list[list[Candidate]], other: list[list[Candidate]]) -> bool:
    """Equal but for the last digits of scores."""
    return [[(c.ids, c.ended) for c in row] for row in one] == [
        [(c.ids, c.ended) for c in row] for row in other
    ] and all(
        a.score == pytest.approx(b.score, abs=1e-4)
        for left, right in zip(one, other, strict=True)
        for a, b in zip(left, right, strict=True)
    )


# --- decoding -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_distribution_is_the_mean_of_the_members_distributions(count: int) -> None:
    models, source = members(count), sentences(5)
    target = torch.randint(EOS + 1, V, (5, 7), generator=torch.Generator().manual_seed(1))
    expected = torch.stack([probabilities(model, source, target) for model in models]).mean(0)
    torch.testing.assert_close(probabilities(Ensemble(models), source, target), expected)


def test_what_is_decoded_are_logarithms_of_probabilities() -> None:
    ensemble = Ensemble(members(3))
    memory = ensemble.encode(*batch(sentences(4)))
    log_p, _ = ensemble.decode(torch.full((4, 1), BOS), memory, memory.state)
    torch.testing.assert_close(log_p.exp().sum(-1), torch.ones(4, 1))


def test_one_step_at_a_time_is_all_steps_at_once() -> None:
    ensemble, source = Ensemble(members(4)), sentences(5)
    target = torch.randint(EOS + 1, V, (5, 6), generator=torch.Generator().manual_seed(2))
    memory = ensemble.encode(*batch(source))
    at_once, _ = ensemble.decode(target, memory, memory.state)
    state = memory.state
    for step in range(6):
        log_p, state = ensemble.decode(target[:, step : step + 1], memory, state)
        torch.testing.assert_close(log_p[:, 0], at_once[:, step], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("beam", [1, 4])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_model_with_itself_is_that_model(shape: tuple[str, ...], beam: int) -> None:
    model = member(3, *shape)
    alone = tiny.beam_search(model, sentences(6), options(beam))
    assert same(tiny.beam_search(Ensemble([model, model]), sentences(6), options(beam)), alone)


@pytest.mark.parametrize("beam", [1, 4])
def test_the_order_of_members_does_not_matter(beam: int) -> None:
    models = members(4)
    found = tiny.beam_search(Ensemble(models), sentences(6), options(beam))
    assert same(tiny.beam_search(Ensemble(models[::-1]), sentences(6), options(beam)), found)


def test_each_member_has_a_say() -> None:
    models, source = members(3), sentences(8)
    together = [row[0].ids for row in tiny.beam_search(Ensemble(models), source, options(3))]
    for left_out in range(3):
        rest = Ensemble([model for number, model in enumerate(models) if number != left_out])
        assert [row[0].ids for row in tiny.beam_search(rest, source, options(3))] != together


@settings(deadline=None, max_examples=5)
@given(st.integers(0, 1000), st.integers(1, 5))
def test_a_score_is_the_teacher_forced_one(seed: int, beam: int) -> None:
    ensemble, source = Ensemble(members(3, seed)), sentences(3, seed)
    for row, candidates in zip(source, tiny.beam_search(ensemble, source, options(beam)), strict=True):
        for candidate in candidates:
            ids = candidate.ids + [EOS] * candidate.ended
            p = probabilities(ensemble, [row], torch.tensor([[BOS, *ids[:-1]]]))[0]
            total = float(p[range(len(ids)), ids].log().sum())
            assert candidate.log_probability == pytest.approx(total, abs=1e-3)
            assert candidate.score == pytest.approx(total / len(ids), abs=1e-3)


@settings(deadline=None, max_examples=5)
@given(st.integers(0, 1000), st.integers(1, 4), st.integers(2, 6))
def test_what_else_is_in_the_batch_changes_nothing(seed: int, beam: int, count: int) -> None:
    ensemble, source = Ensemble(members(3, seed % 20)), sentences(count, seed)
    together = tiny.beam_search(ensemble, source, options(beam))
    order = random.Random(seed).sample(range(count), count)
    assert same(tiny.beam_search(ensemble, [source[i] for i in order], options(beam)), [together[i] for i in order])
    for index in order:
        assert same(tiny.beam_search(ensemble, [source[index]], options(beam)), [together[index]])


def test_members_of_other_vocabularies_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"one pair of vocabularies, found sizes 24 / 24 and 40 / 40"):
        Ensemble([tiny.model(vocabulary=24), tiny.model(vocabulary=40)])
    with pytest.raises(ConfigError, match="found sizes none"):
        Ensemble([])


# --- bundles and commands -------------------------------------------------------------------------------------------


def bundled(corpus: Path, folder: Path, *overrides: str) -> Path:
    """A bundle of a model trained for a few steps."""
    Trainer(tiny.run_config(corpus, folder / "run", *overrides)).run()
    make_bundle(folder / "run", folder / "bundle", BundleOptions(weights="fp32"))
    return folder / "bundle"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.prepared(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def bundles(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three models of one corpus: two of a shape, trained from different seeds, and one of another shape."""
    changes = (("seed=1",), ("seed=2",), ("seed=3", "model.decoder.layers=1", "model.decoder.hidden=12"))
    return [bundled(corpus, tmp_path_factory.mktemp("bundle"), *change) for change in changes]


def mistake(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a command that must fail with exit 2 and one line; return the line."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1, captured.err
    return captured.err


def test_a_bundle_with_itself_translates_as_it_does_alone(bundles: list[Path]) -> None:
    alone = Translator.load(bundles[0]).translate(TEXTS)
    twice = Translator.load(bundles[0], ensemble=[bundles[0]]).translate(TEXTS)
    assert [item.text for item in twice] == [item.text for item in alone]
    assert [item.score for item in twice] == pytest.approx([item.score for item in alone], abs=1e-4)


def test_an_ensemble_of_bundles_says_what_it_is(bundles: list[Path]) -> None:
    translator = Translator.load(bundles[0], ensemble=bundles[1:])
    singles = [Translator.load(bundle).info for bundle in bundles]
    assert translator.info.architecture.startswith("ensemble of 3: ")
    assert translator.info.parameters == sum(info.parameters for info in singles)
    assert translator.info.scores == []
    assert len({info.digest for info in singles} | {translator.info.digest}) == 4


def test_long_text_is_split_by_the_shortest_limit_of_the_members(bundles: list[Path], tmp_path: Path) -> None:
    short = changed(bundles[1], tmp_path / "short", "max_source_tokens: ", "max_source_tokens: 9\n#")
    for order in ([bundles[0], short], [short, bundles[0]]):
        assert Translator.load(order[0], ensemble=order[1:]).max_source_tokens == 9


def test_translate_and_evaluate_take_an_ensemble(
    bundles: list[Path], corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, *others = map(str, bundles)
    ensemble = [word for other in others for word in ("--ensemble", other)]
    text = [word for item in TEXTS for word in ("--text", item)]
    assert main(["translate", first, *ensemble, *text]) == 0
    expected = Translator.load(bundles[0], ensemble=bundles[1:]).translate(TEXTS)
    assert capsys.readouterr().out.splitlines() == [item.text for item in expected]
    assert main(["evaluate", first, *ensemble, "--corpus", str(corpus), "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)["scores"]
    assert {item["search"] for item in scores} == {"ensemble of 3, beam 5, length penalty 1"}
    assert main(["evaluate", first, "--corpus", str(corpus)]) == 0
    assert "ensemble" not in capsys.readouterr().out


def test_scores_of_an_ensemble_are_not_recorded_in_one_bundle(
    bundles: list[Path], corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (bundles[0] / "metrics.json").read_bytes()
    command = ("evaluate", bundles[0], "--ensemble", bundles[1], "--corpus", corpus, "--record")
    assert "scores of one bundle" in mistake(capsys, *command)
    assert (bundles[0] / "metrics.json").read_bytes() == before
    server = ("evaluate", "--server", "http://127.0.0.1:9", "--ensemble", bundles[1], "--corpus", corpus)
    assert "--ensemble adds to a bundle" in mistake(capsys, *server)


def changed(bundle: Path, copy: Path, old: str, new: str) -> Path:
    """A copy of a bundle whose `config.yaml` says something else."""
    shutil.copytree(bundle, copy)
    text = (copy / "config.yaml").read_text()
    assert old in text
    (copy / "config.yaml").write_text(text.replace(old, new))
    return copy


@pytest.mark.parametrize("joint", [True, False])
def test_a_bundle_with_another_tokenizer_is_refused(
    bundles: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], joint: bool
) -> None:
    pairs = tiny.prepared(tmp_path / "corpus", joint)
    if joint:  # as large a vocabulary, learned on other text
        recipe = json.loads((pairs / "manifest.json").read_text())["recipe"] | {"holdout": None}
        recipe["train"] = [recipe["train"][0] | {"limit": 150}]
        (tmp_path / "other.yaml").write_text(json.dumps({k: v for k, v in recipe.items() if v is not None}))
        assert main(["prepare", str(tmp_path / "other.yaml"), "--output", str(pairs)]) == 0
    overrides = () if joint else ("model.tie_embeddings=output",)
    other = bundled(pairs, tmp_path / "other", *overrides, "train.max_steps=1")
    with pytest.raises(BundleError, match=f"{other}/(tokenizer|source).model: not the tokenizer of {bundles[0]}"):
        Translator.load(bundles[0], ensemble=[bundles[1], other])
    line = mistake(capsys, "translate", bundles[0], "--ensemble", other, "--text", "the cat.")
    assert "not the tokenizer of" in line


def test_a_bundle_of_other_languages_is_refused(bundles: list[Path], tmp_path: Path) -> None:
    other = changed(bundles[1], tmp_path / "fr", "target_language: de", "target_language: fr")
    with pytest.raises(BundleError, match=f"{other}/config.yaml: translates en to fr, but {bundles[0]} en to de"):
        Translator.load(bundles[0], ensemble=[other])


def test_a_member_that_is_missing_or_damaged_is_named(
    bundles: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing = tmp_path / "nothing"
    line = mistake(capsys, "translate", bundles[0], "--ensemble", nothing, "--text", "a")
    assert f"{nothing}: no such bundle" in line
    damaged = shutil.copytree(bundles[1], tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(b"cut")
    line = mistake(capsys, "translate", bundles[0], "--ensemble", damaged, "--text", "a")
    assert f"{damaged}/model.safetensors: damaged" in line
