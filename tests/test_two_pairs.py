"""Both bundled models in one service: languages, detection, swapping the two sides; and the reverse model by itself."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import deepl
import pytest
from conftest import ROOT
from libretranslatepy import LibreTranslateAPI
from serving_fakes import served

from nmt.cli import main
from nmt.inference.bundle import Bundle
from nmt.inference.client import Client
from nmt.inference.translator import Translator
from serving.backend import Models
from serving.config import ServeConfig
from serving.gateway import create_app
from serving.replica import TranslatorReplica

FOLDER = ROOT / "data/pretrained"
NAMES = ("tatoeba-en-de", "tatoeba-de-en")
ENGLISH, GERMAN = "Where is the station?", "Wo ist der Bahnhof?"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    config = ServeConfig(models=[str(FOLDER / name) for name in NAMES], deadline_s=60.0)
    models = Models({name: TranslatorReplica(str(FOLDER / name), 1, config) for name in NAMES})
    with served(create_app(models, config)) as address:
        yield address


def post(url: str, **body: Any) -> dict[str, Any]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        found: dict[str, Any] = json.loads(answer.read())
        return found


def test_languages_are_those_of_both_pairs(url: str) -> None:
    languages = {each["code"]: each["targets"] for each in LibreTranslateAPI(f"{url}/").languages()}
    assert languages == {"en": ["de"], "de": ["en"]}
    assert {(each["source"], each["target"]) for each in Client(url).models()} == {("en", "de"), ("de", "en")}


def test_each_text_is_translated_from_the_language_that_it_is_in(url: str) -> None:
    assert Client(url).detect([ENGLISH, GERMAN]) == ["en", "de"]
    found = post(f"{url}/translate", q=[GERMAN, ENGLISH], source="auto", target="en")
    assert found["translatedText"] == [ENGLISH, ENGLISH]  # what is in the target language already stays
    assert [each["language"] for each in found["detectedLanguage"]] == ["de", "en"]
    found = post(f"{url}/translate", q=ENGLISH, source="auto", target="de")
    assert (found["translatedText"], found["detectedLanguage"]["language"]) == (GERMAN, "en")


def test_the_sides_can_be_swapped(url: str) -> None:
    there = post(f"{url}/translate", q=ENGLISH, source="en", target="de")["translatedText"]
    assert there == GERMAN
    assert post(f"{url}/translate", q=there, source="de", target="en")["translatedText"] == ENGLISH


def test_deepl_asks_for_either_side(url: str) -> None:
    client = deepl.Translator("any", server_url=url)
    assert client.translate_text(ENGLISH, target_lang="DE").text == GERMAN
    back = client.translate_text(GERMAN, target_lang="EN-US")
    assert (back.text, back.detected_source_lang) == (ENGLISH, "DE")


def test_the_command_line_names_the_side(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    for source, target, text, said in (("en", "de", ENGLISH, GERMAN), ("de", "en", GERMAN, ENGLISH)):
        assert main(["translate", "--server", url, "--source", source, "--target", target, "--text", text]) == 0
        assert capsys.readouterr().out == f"{said}\n"


def test_the_reverse_model_is_small_measured_and_keeps_placeholders() -> None:
    path = FOLDER / "tatoeba-de-en"
    assert sum(file.stat().st_size for file in path.iterdir()) <= 20_000_000
    scores = {item["name"]: item["score"] for item in Bundle.open(Path(path)).info.scores}
    assert scores["BLEU"] > 45
    texts = ["Öffne {name} auf https://example.org!", "Es kostet 42 Euro."]
    said = [each.text for each in Translator.load(path, threads=1).translate(texts)]
    assert "{name}" in said[0]
    assert "https://example.org" in said[0]
    assert "42" in said[1]
