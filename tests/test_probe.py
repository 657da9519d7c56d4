"""`nmt inspect --probe`: labels and where they lie, probes that find what is there and nothing else, and the conclusion."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
import yaml
from conftest import ROOT

from nmt.cli import main
from nmt.corpus.reviews import reviews
from nmt.corpus.store import PreparedCorpus, write_pairs
from nmt.errors import DataError
from nmt.inspection.probe import SPLITS, Probed, accuracies, check, control_labels, features, split_items, untrained
from nmt.inspection.probe_report import conclusion, findings
from nmt.inspection.probe_tasks import (
    Item,
    Material,
    Task,
    corpus_materials,
    negation,
    question,
    review_material,
    tense,
)
from nmt.inspection.sentence import spans
from nmt.model.capture import encoder_grid
from nmt.text.tokenizer import EOS, Tokenizer
from nmt.training.bundling import BundleOptions, make_bundle


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.prepared(tmp_path_factory.mktemp("probe"))


@pytest.fixture(scope="module")
def bundle(corpus: Path) -> Path:
    """A tiny bundle whose configuration lets it read reviews, long as they are in its few subwords."""
    run = tiny.trained(corpus, corpus.parent / "run", "train.max_steps=2")
    folder = corpus.parent / "bundle"
    make_bundle(run, folder, BundleOptions(weights="fp32"))
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    (folder / "config.yaml").write_text(yaml.safe_dump(config | {"max_source_tokens": 200}), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def tokenizer(corpus: Path) -> Tokenizer:
    return PreparedCorpus.open(corpus).source_tokenizer


# --- labels ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "asked", "negated", "when"),
    [
        ("Do you know him?", "question", "plain", "present"),
        ('He asked, "Why?" and left.', None, "plain", "past"),
        ("I never went there.", "statement", "negated", "past"),
        ("He doesn't want it.", "statement", "negated", "present"),
        ("Tom walked home.", "statement", "plain", "past"),
        ("I need a hundred dollars.", "statement", "plain", None),
        ("We are late because it was raining.", "statement", "plain", None),
        ("Nothing will change.", "statement", "negated", None),
        ("I've lost it.", "statement", "plain", None),
        ("It is known!", "statement", "plain", "present"),
    ],
)
def test_the_rules_for_english_sentences(text: str, asked: str | None, negated: str, when: str | None) -> None:
    assert (question(text), negation(text), tense(text)) == (asked, negated, when)


def test_the_steps_of_words_and_clauses_are_those_of_their_subwords() -> None:
    tokenizer = Tokenizer.load(ROOT / "data" / "pretrained" / "tatoeba-en-de" / "tokenizer.model")
    offered = reviews(40, seed=3)
    material = review_material(tokenizer, offered, 40, limit=1000, seed=0)
    assert [task.level for task in material.tasks] == ["word", "clause", "sentence"]
    words, clauses, whole = material.tasks
    for task in (words, clauses):
        for item in task.items:
            text = offered[item.text].text
            covered = _covered(tokenizer, text, material.sentences[item.text], item)
            assert covered.lower().replace(" ", "") == item.form.lower().replace(" ", "")
    for item in whole.items:
        assert (item.first, item.last) == (0, len(material.sentences[item.text]) - 1)
        assert material.sentences[item.text][item.last] == EOS
        assert item.label == ("positive" if offered[item.text].positive else "negative")


def _covered(tokenizer: Tokenizer, text: str, ids: list[int], item: Item) -> str:
    """The text of the item's steps."""
    where = spans(tokenizer, ids[:-1], text)
    assert where is not None
    return text[where[item.first][0] : where[item.last][1]]


def test_reviews_that_the_model_would_cut_are_left_out_and_labels_are_even(tokenizer: Tokenizer) -> None:
    offered = reviews(300, seed=0)
    lengths = sorted(len(ids) for ids in tokenizer.encode([review.text for review in offered]))
    material = review_material(tokenizer, offered, 1000, limit=lengths[150], seed=0)
    assert len(material.sentences) == sum(length <= lengths[150] for length in lengths)
    assert max(map(len, material.sentences)) == lengths[150] + 1
    for task in material.tasks:
        assert len(set(Counter(item.label for item in task.items).values())) == 1
    assert len(review_material(tokenizer, offered, 20, limit=1000, seed=0).sentences) == 20


def test_questions_are_probed_without_their_final_punctuation(corpus: Path, tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    shutil.copytree(corpus, folder)
    write_pairs(
        folder / "test.jsonl", [("has the cat a house?", ""), ("the cat has a house.", ""), ("the dog? no.", "")]
    )
    write_pairs(folder / "validation.jsonl", [("is the old house not red?!", ""), ("the dog loves no tree!", "")])
    opened = PreparedCorpus.open(folder)
    found = {
        material.tasks[0].name: material for material in corpus_materials(opened, opened.source_tokenizer, 100, 60, 0)
    }
    asked = found["question"]
    labels = {opened.source_tokenizer.decode(asked.sentences[item.text]): item.label for item in asked.tasks[0].items}
    assert labels == {
        "has the cat a house": "question",
        "the cat has a house": "statement",
        "is the old house not red": "question",
        "the dog loves no tree": "statement",
    }
    assert len(found["negation"].tasks[0].items) == 4  # of five sentences, as many of either answer


# --- probes ---------------------------------------------------------------------------------------------------------


def task(labels: list[str], forms: list[str], texts: list[int] | None = None) -> Task:
    rows = zip(texts or range(len(labels)), labels, forms, strict=True)
    return Task("made up", "word", "", tuple(Item(text, 0, 0, label, form) for text, label, form in rows))


def numbers(labels: list[str]) -> np.ndarray:
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)


def test_a_probe_finds_a_label_that_is_coded_linearly_and_none_that_is_not_there() -> None:
    rng = np.random.default_rng(0)
    labels = [str(label) for label in rng.integers(0, 2, 600)]
    asked = task(labels, [str(i) for i in range(600)])
    values = rng.normal(size=(600, 20)).astype(np.float32) * 100 + 7
    control = numbers(control_labels(asked, 0))
    hidden, _ = accuracies(values, numbers(labels), control, split_items(asked, 0))
    assert 0.35 < hidden < 0.65
    values += 150 * np.outer(numbers(labels) * 2 - 1, rng.normal(size=20)).astype(np.float32)
    found, of_control = accuracies(values, numbers(labels), control, split_items(asked, 0))
    assert found > 0.97
    assert found - of_control > 0.3  # selective: the probe can't learn whatever it is told


def test_a_label_that_is_merely_learned_by_heart_is_not_selective() -> None:
    rng = np.random.default_rng(0)
    forms = [str(form) for form in rng.integers(0, 12, 600)]
    codes = rng.normal(size=(12, 20)).astype(np.float32)  # each form has a vector of its own, and any label at all
    asked = task([str(int(form) % 2) for form in forms], forms)
    values = codes[[int(form) for form in forms]]
    right = numbers([item.label for item in asked.items])
    found, of_control = accuracies(values, right, numbers(control_labels(asked, 1)), split_items(asked, 0))
    assert found > 0.97
    assert abs(found - of_control) < 0.03


def test_the_scale_and_the_offset_of_a_unit_change_nothing() -> None:
    rng = np.random.default_rng(0)
    values, right = rng.normal(size=(400, 10)).astype(np.float32), rng.integers(0, 2, 400)
    values[:, 0] += right
    asked = task([str(label) for label in right], [str(i) for i in range(400)])
    control = numbers(control_labels(asked, 0))
    plain = accuracies(values, right, control, split_items(asked, 0))
    scales = np.array([1e-3, *[1e3] * 9], np.float32)
    assert accuracies(values * scales + 5 * scales, right, control, split_items(asked, 0)) == pytest.approx(
        plain, abs=0.02
    )


def test_control_labels_belong_to_forms_and_are_as_frequent_as_the_right_ones() -> None:
    forms = [str(i % 400) for i in range(2000)]
    asked = task(["rare" if i % 4 == 0 else "common" for i in range(2000)], forms)
    drawn = control_labels(asked, 0)
    assert all(
        len({label for label, other in zip(drawn, forms, strict=True) if other == form}) == 1 for form in set(forms)
    )
    assert 0.17 < Counter(drawn)["rare"] / 2000 < 0.33
    assert drawn == control_labels(asked, 0) != control_labels(asked, 1)


def test_control_labels_that_are_all_the_same_are_no_accident() -> None:
    rng = np.random.default_rng(0)
    values, right = rng.normal(size=(100, 4)).astype(np.float32), np.arange(100) % 2
    parts = split_items(task(["a"] * 100, ["a"] * 100), 0)
    assert accuracies(values, right, np.zeros(100, np.int64), parts)[1] == 1.0


def test_what_is_in_one_sentence_is_in_one_part() -> None:
    asked = task(["a"] * 300, ["a"] * 300, texts=[i // 3 for i in range(300)])
    parts = split_items(asked, 0)
    texts = [{asked.items[i].text for i in part} for part in parts]
    assert [len(part) for part in texts] == [60, 20, 20]
    assert sum(map(len, parts)) == 300
    assert not texts[0] & texts[1] | texts[0] & texts[2] | texts[1] & texts[2]
    assert any((one != other).any() for one, other in zip(parts, split_items(asked, 1), strict=True))


def test_features_are_the_grids_of_each_sentence_alone() -> None:
    config = tiny.model_config("encoder.layers=3", "encoder.hidden=[8,6,6]", "encoder.bidirectional=[true,false,true]")
    model = tiny.model(config)
    generator = torch.Generator().manual_seed(0)
    sentences = tuple(
        [*torch.randint(4, 40, (int(n),), generator=generator).tolist(), EOS] for n in torch.arange(70) % 9 + 2
    )
    word = Task("w", "word", "", tuple(Item(i, 1, 1, "", "") for i in range(0, 70, 3)))
    clause = Task("c", "clause", "", tuple(Item(i, 0, 2, "", "") for i in (69, 3, 3, 40)))
    found = {(t.name, readout): layers for t, readout, layers in features(model, Material(sentences, (word, clause)))}
    assert set(found) == {("w", "last"), ("c", "last"), ("c", "mean")}
    for asked in (word, clause):
        for place, item in enumerate(asked.items):
            ids = torch.tensor([sentences[item.text]])
            grid = [
                layer[0, item.first : item.last + 1] for layer in encoder_grid(model, ids, torch.tensor([ids.shape[1]]))
            ]
            for level, own in enumerate(grid):
                half = (
                    own.shape[1] // 2 if level in (1, 3) else own.shape[1]
                )  # the backward half ends at the first step
                last = torch.cat((own[-1, :half], own[0, half:]))
                np.testing.assert_allclose(found[asked.name, "last"][level][place], last.numpy(), atol=1e-5)
                if asked is clause:
                    np.testing.assert_allclose(found["c", "mean"][level][place], own.mean(0).numpy(), atol=1e-5)


def test_the_untrained_network_has_the_shape_and_nothing_else_of_the_trained_one() -> None:
    model = tiny.model(seed=1)
    before = torch.get_rng_state()
    other, again = untrained(model, seed=5), untrained(model, seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    for (name, mine), theirs, same in zip(
        model.named_parameters(), other.parameters(), again.parameters(), strict=True
    ):
        assert mine.shape == theirs.shape
        assert torch.equal(theirs, same)
        assert "weight" not in name or not torch.equal(mine, theirs), name


def test_too_few_items_are_refused() -> None:
    few = task(["a", "b"] * 12, [str(i) for i in range(24)])
    one_sided = task(["a"] * 300 + ["b"] * 3, [str(i) for i in range(303)])
    for asked in (few, one_sided, task([], [])):
        with pytest.raises(DataError, match="too few sentences to probe 'made up'"):
            check(asked, split_items(asked, 0))
    enough = task(["a", "b"] * 100, [str(i) for i in range(200)])
    check(enough, split_items(enough, 0))


# --- conclusion -----------------------------------------------------------------------------------------------------


def probed(level: str, network: str, *layers: float, spread: float = 0.002) -> Probed:
    accuracy = tuple((a - spread, a, a + spread) for a in layers)
    half = tuple((0.5,) * SPLITS for _ in layers)
    return Probed(f"a {level}", level, "last", network, 5000, accuracy, half, half[0])  # type: ignore[arg-type]


LEVEL = (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("words", "sentences", "untaught", "outcome"),
    [
        ((0.9, 0.9, 0.8), (0.6, 0.7, 0.9), LEVEL, "holds"),
        ((0.9, 0.8, 0.9), (0.6, 0.7, 0.9), LEVEL, "does not hold"),
        ((0.9, 0.9, 0.8), (0.6, 0.9, 0.7), LEVEL, "does not hold"),
        ((0.9, 0.9, 0.9), (0.6, 0.7, 0.9), LEVEL, "is not shown"),
        ((0.9, 0.9, 0.8), (0.5, 0.5, 0.51), LEVEL, "is not shown"),  # chance everywhere
        ((0.9, 0.9, 0.8), (0.6, 0.7, 0.9), (0.5, 0.6, 0.8), "is not shown"),  # without training it rises as much
    ],
)
def test_the_conclusion_follows_from_the_numbers(
    words: tuple[float, ...], sentences: tuple[float, ...], untaught: tuple[float, ...], outcome: str
) -> None:
    found = [probed("word", "trained", *words), probed("sentence", "trained", *sentences)]
    found += [probed("word", "untrained", *LEVEL), probed("sentence", "untrained", *untaught)]
    assert f'see the sentence" {outcome} for this model and its 2 encoder layers' in conclusion(found)[-1]


def test_a_difference_within_the_spread_of_the_splits_counts_for_nothing() -> None:
    half = (0.5,) * SPLITS
    steady, shaken = ((0.8, 0.8, 0.8), (0.9, 0.9, 0.9)), ((0.7, 0.9, 0.8), (0.9, 0.8, 1.0))
    for layers, trend in ((steady, 1), (shaken, 0)):
        found = [
            Probed("made up", "sentence", "mean", "trained", 5000, (half, *layers), (half,) * 3, half),
            Probed("made up", "sentence", "mean", "untrained", 5000, (half,) * 3, (half,) * 3, half),
        ]
        assert [finding.trend for finding in findings(found)] == [trend]


def test_one_layer_has_nothing_to_be_compared_with() -> None:
    found = [probed("word", network, 0.9, 0.8) for network in ("trained", "untrained")]
    assert "the claim can't be told" in " ".join(conclusion(found))


# --- the command ----------------------------------------------------------------------------------------------------


def test_the_command_writes_table_figure_page_and_numbers(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["inspect", str(bundle), "--probe", "--sentences", "100", "--seed", "4", "--threads", "1"]
    assert main([*arguments, "--output", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    record = json.loads((tmp_path / "probes.json").read_text(encoding="utf-8"))
    page = (tmp_path / "probes.md").read_text(encoding="utf-8")
    assert (tmp_path / "probes.png").read_bytes().startswith(b"\x89PNG")
    assert len(record["results"]) == 2 * 5  # networks; one readout of words, two of clauses and of reviews
    for result in record["results"]:
        assert np.array(result["accuracy"]).shape == np.array(result["control"]).shape == (3, SPLITS)
        if result["level"] == "sentence" and result["readout"] == "last":  # an end mark's embedding tells nothing
            assert all(abs(accuracy - 0.5) < 0.25 for accuracy in result["accuracy"][0])
        assert result["task"] in shown
    assert "--sentences 100 --seed 4" in record["command"]
    assert record["command"] in page
    for line in record["conclusion"]:
        assert line in page
        assert line in shown


def test_too_few_sentences_are_one_error_before_any_work(
    bundle: Path, corpus: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nmt.inference.torch_backend.load_model", lambda *_: pytest.fail("the model was loaded"))
    for arguments, named in (
        (["--sentences", "12"], "'word category'"),
        (["--sentences", "0"], "'word category'"),
        (["--sentences", "150", "--corpus", str(corpus)], "'question'"),  # its 24 sentences hold none
    ):
        assert main(["inspect", str(bundle), "--probe", *arguments]) == 2
        error = capsys.readouterr().err
        assert f"too few sentences to probe {named}" in error
        assert error.count("\n") == 1


def test_only_models_that_read_english_are_probed(
    bundle: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "bundle"
    shutil.copytree(bundle, other)
    config = yaml.safe_load((other / "config.yaml").read_text(encoding="utf-8"))
    for language, words in (("de", "reads 'de'"), ("en-GB", "its source language is 'en', the model's is 'en-GB'")):
        (other / "config.yaml").write_text(yaml.safe_dump(config | {"source_language": language}), encoding="utf-8")
        assert main(["inspect", str(other), "--probe", "--corpus", str(corpus)]) == 2
        assert words in capsys.readouterr().err
