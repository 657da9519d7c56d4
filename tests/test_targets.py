"""One model for several target languages, from the recipe to HTTP: an invented language with two others behind a tag."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
from fastapi.testclient import TestClient

import nmt.config
from nmt.cli import main
from nmt.corpus.prepare import prepare
from nmt.corpus.recipe import Recipe
from nmt.corpus.store import PreparedCorpus
from nmt.errors import ConfigError, InputError
from nmt.evaluation.evaluate import corpus_test_set
from nmt.inference.bundle import Bundle, ModelInfo
from nmt.inference.translator import Translator
from nmt.inference.types import DecodeOptions
from nmt.text.tags import split_tag, tag
from nmt.training.bundling import BundleOptions, make_bundle
from serving.backend import Models
from serving.config import ServeConfig
from serving.errors import Refused
from serving.gateway import create_app
from serving.languages import pairs
from serving.protocol import ServedModel
from serving.replica import TranslatorReplica
from serving.routing import Wanted, choose

LANGUAGES = ("de", "fr")


def into(language: str, text: str) -> str:
    """The other invented language: each word of the first one backwards."""
    return text if language == "de" else " ".join(word[::-1] for word in text.split())


def recipe(folder: Path, **changes: Any) -> Recipe:
    data = tiny.sentence_pairs(330, seed=7)
    parts = {"train": data[:300], "validation": data[300:312], "test": data[312:]}
    said: dict[str, Any] = {
        "name": "several",
        "source_language": "en",
        "target_language": "de",
        "target_languages": LANGUAGES,
    }
    for split, its in parts.items():
        said[split] = [
            tiny.write_files(folder / language, split, [(source, into(language, target)) for source, target in its])
            | {"target": language}
            for language in LANGUAGES
        ]
    said |= {"tokenizer": {"vocab_size": 130}, "cleaning": {"max_tokens": 60}} | changes
    return nmt.config.parse(Recipe, said, "recipe")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("several")
    prepare(recipe(folder), folder / "corpus")
    return folder / "corpus"


@pytest.fixture(scope="module")
def bundle(corpus: Path) -> Path:
    model = ("model.embedding=48", "model.encoder.hidden=48", "model.decoder.hidden=48", "model.dropout.word=0")
    more = (
        "train.max_steps=260",
        "validation.every=260",
        "optimizer.lr=0.02",
        "train.batch_tokens=1024",
        "train.save_every=260",
    )
    run = tiny.trained(corpus, corpus.parent / "run", *model, *more)
    make_bundle(run, corpus.parent / "bundle", BundleOptions(weights="fp32"))
    return corpus.parent / "bundle"


@pytest.fixture(scope="module")
def translator(bundle: Path) -> Translator:
    return Translator.load(bundle, threads=1)


@pytest.fixture(scope="module")
def client(bundle: Path) -> Iterator[TestClient]:
    config = ServeConfig(models=[str(bundle)], deadline_s=20.0)
    with TestClient(create_app(Models({"several": TranslatorReplica(str(bundle), 1, config)}), config)) as client:
        yield client


def right(found: list[str], language: str, corpus: Path) -> float:
    """The share of words that are as the reference has them."""
    pairs = [each for each in PreparedCorpus.open(corpus).pairs("test") if each[0].startswith(tag(language))]
    words = [
        (a, b)
        for text, (_, reference) in zip(found, pairs, strict=True)
        for a, b in zip(text.split(), reference.split(), strict=False)
    ]
    return sum(a == b for a, b in words) / len(words)


def sources(corpus: Path) -> list[str]:
    """The test sentences, without tags."""
    return [split_tag(source)[1] for source, _ in PreparedCorpus.open(corpus).pairs("test")][:18]


def test_tags_are_a_subword_each(corpus: Path) -> None:
    store = PreparedCorpus.open(corpus)
    assert store.target_languages == LANGUAGES
    pieces = store.source_tokenizer.pieces(store.source_tokenizer.encode(["<2fr> the old cat"])[0])
    assert pieces[:2] == ["▁", "<2fr>"]
    first, second = store.train()[0][0], store.train()[0][300]
    assert store.source_tokenizer.pieces(first)[1] == "<2de>"
    assert store.source_tokenizer.pieces(second)[1] == "<2fr>"


@pytest.mark.timeout(600)
def test_each_language_is_said_when_it_is_asked_for(translator: Translator, corpus: Path) -> None:
    texts = sources(corpus)
    for language in LANGUAGES:
        options = translator.defaults.model_copy(update={"target": language})
        found = [each.text for each in translator.translate(texts, options)]
        assert right(found, language, corpus) > 0.8
        by_tag = translator.translate([f"{tag(language)} {text}" for text in texts])
        assert [each.text for each in by_tag] == found
    assert [each.text for each in translator.translate(texts)] == [
        each.text for each in translator.translate(texts, translator.defaults.model_copy(update={"target": "de"}))
    ]


def test_every_sentence_of_a_text_has_the_tag(translator: Translator, corpus: Path) -> None:
    one, two = sources(corpus)[:2]
    options = DecodeOptions(beam_size=2, target="fr", alignment=True)
    both = translator.translate([f"{one}\n\n{two}"], options)[0]
    alone = [translator.translate([text], options)[0].text for text in (one, two)]
    assert both.text == "\n\n".join(alone)
    assert both.source == f"{one}\n\n{two}"
    words = len(both.source.split())
    assert all(source < words for source, _ in both.hypotheses[0].alignment)
    assert both.source_subwords[:2] == ("▁", "<2fr>")


def test_scores_are_of_the_language(translator: Translator, corpus: Path) -> None:
    text = sources(corpus)[0]
    said = {language: translator.translate([text], DecodeOptions(target=language))[0].text for language in LANGUAGES}
    pending = {
        (asked, language): translator.begin_score([(text, said[language])], target=asked).results()[0].score
        for asked in LANGUAGES
        for language in LANGUAGES
    }
    assert pending["de", "de"] > pending["de", "fr"]
    assert pending["fr", "fr"] > pending["fr", "de"]


def test_what_is_not_spoken(translator: Translator) -> None:
    with pytest.raises(InputError, match="target 'it': this model translates into de, fr"):
        translator.translate(["the cat"], DecodeOptions(target="it"))


def test_the_bundle_and_the_command_line(bundle: Path, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opened = Bundle.open(bundle)
    assert opened.info.targets == LANGUAGES
    assert "language: [en, de, fr]" in (bundle / "README.md").read_text(encoding="utf-8")
    text = sources(corpus)[0]
    said = []
    for more in ([], ["--target", "de"], ["--target", "fr"]):
        assert main(["translate", str(bundle), "--text", text, *more]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] != said[2]
    assert main(["translate", str(bundle), "--text", text, "--target", "it"]) == 2
    assert "translates into de, fr" in capsys.readouterr().err
    assert main(["evaluate", str(bundle), "--corpus", str(corpus), "--json"]) == 0  # by the tags of its sentences
    assert '"exact_match"' in capsys.readouterr().out
    assert len(corpus_test_set(str(corpus), "test").pairs) == 36


def test_http(client: TestClient, translator: Translator, corpus: Path) -> None:
    text = sources(corpus)[0]
    expected = {
        language: translator.translate([text], DecodeOptions(target=language))[0].text for language in LANGUAGES
    }
    assert client.post("/v1/translate", json={"text": text}).json()["translation"] == expected["de"]
    for language in LANGUAGES:
        ours = client.post("/v1/translate", json={"text": text, "target": language}).json()
        assert ours["translation"] == expected[language]
        libre = client.post("/translate", json={"q": text, "source": "en", "target": language}).json()
        assert libre["translatedText"] == expected[language]
        deepl = client.post(
            "/v2/translate", json={"text": [text], "source_lang": "EN", "target_lang": language.upper()}
        ).json()
        assert deepl["translations"][0]["text"] == expected[language]
        pair = {"text": text, "translation": expected[language], "target": language}
        other = pair | {"target": "fr" if language == "de" else "de"}
        assert (
            client.post("/v1/score", json=pair).json()["score"] > client.post("/v1/score", json=other).json()["score"]
        )
    assert client.get("/v1/models").json()["models"][0]["targets"] == ["de", "fr"]
    assert client.get("/languages").json()[0] == {"code": "en", "name": "English", "targets": ["de", "fr"]}
    assert client.post("/v1/translate", json={"text": text, "target": "it"}).status_code == 404


# --- without a model --------------------------------------------------------------------------------------------------------


def served(name: str, source: str, *targets: str) -> ServedModel:
    several = targets if len(targets) > 1 else ()
    return ServedModel(ModelInfo(name, source, targets[0], "", 1, "", [], "", several), DecodeOptions())


def test_which_model_and_into_what() -> None:
    models = [served("many", "en", "de", "fr", "pt-BR"), served("back", "de", "en"), served("on", "fr", "it")]
    assert pairs(models, True) == {"en": ["de", "fr", "it", "pt-BR"], "de": ["en", "fr", "pt-BR"], "fr": ["it"]}

    def route(source: str, target: str) -> list[tuple[str, str]]:
        return [(model.info.name, model.info.target_language) for model in choose(Wanted(source, target), models)]

    assert route("en", "fr") == [("many", "fr")]
    assert route("en", "pt") == [("many", "pt-BR")]
    assert route("de", "fr") == [("back", "en"), ("many", "fr")]
    assert route("en", "it") == [("many", "fr"), ("on", "it")]
    with pytest.raises(Refused, match="several models fit"):
        choose(Wanted(), models)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"target_languages": ["de"]}, "two or more"),
        ({"target_languages": ["it", "fr"]}, "target_language among them"),
        ({"target_languages": []}, "`target` is one of target_languages"),
        ({"target_languages": ["de", "it"]}, "`target` is one of target_languages"),
    ],
)
def test_a_recipe_that_does_not_agree_with_itself(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        recipe(tmp_path, **changes)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("<2fr> a", ("fr", "a")),
        ("<2pt-BR>a", ("pt-BR", "a")),
        ("a <2fr>", (None, "a <2fr>")),
        ("<2> a", (None, "<2> a")),
    ],
)
def test_tags(text: str, found: tuple[str | None, str]) -> None:
    assert split_tag(text) == found
