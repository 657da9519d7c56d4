"""LibreTranslate's API: clients that others wrote, unchanged, and what their server would have said to what is wrong."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libretranslate_aio
import pytest
from deep_translator import LibreTranslator
from fastapi.testclient import TestClient
from libretranslatepy import LibreTranslateAPI
from serving_fakes import LIMITS, SECRET, FakeBackend, served

from serving.config import ServeConfig
from serving.gateway import create_app

CONFIG = ServeConfig(models=["unused"], deadline_s=5.0, limits=LIMITS)


@pytest.fixture
def url(backend: FakeBackend) -> Iterator[str]:
    with served(create_app(backend, CONFIG)) as address:
        yield address


# --- clients -----------------------------------------------------------------------------------------------------------


def test_libretranslatepy(url: str, backend: FakeBackend) -> None:
    api = LibreTranslateAPI(url)
    assert api.translate("Good morning & <welcome>!", "en", "de") == "GOOD MORNING & <WELCOME>!"
    assert backend.calls[-1][0] == "there"
    assert api.translate("Guten Morgen", "de", "fr") == "GUTEN MORGEN"  # by way of English
    assert [call[0] for call in backend.calls[-2:]] == ["back", "on"]
    assert api.detect("Wo ist der Bahnhof?")[0]["language"] == "de"
    assert api.languages() == [
        {"code": "en", "name": "English", "targets": ["de", "fr"]},
        {"code": "de", "name": "German", "targets": ["en", "fr"]},
        {"code": "fr", "name": "French", "targets": []},
    ]


def test_libretranslate_aio(url: str) -> None:
    with libretranslate_aio.LibreTranslate(url) as api:
        one = api.translate("Good morning", "auto", "de", alternatives=2)
        assert one.translated_text == "GOOD MORNING"
        assert one.alternatives == ["GOOD MORNING", "GOOD MORNING"]
        assert one.detected_language.language == "en"
        assert 0 < one.detected_language.confidence <= 100
        several = api.translate(["Good morning", "Thank you very much"], "en", "de")
        assert several.translated_text == ["GOOD MORNING", "THANK YOU VERY MUCH"]
        assert api.detect("This is the house of my father.")[0].language == "en"
        assert [language.code for language in api.languages()] == ["en", "de", "fr"]
        settings = api.frontend_settings()
        assert settings.char_limit == LIMITS.characters
        assert api.health()
        with pytest.raises(libretranslate_aio.BadRequestError, match="no model for these languages"):
            api.translate("Good morning", "en", "zz")


def test_deep_translator_sends_all_of_it_in_the_query(url: str) -> None:
    translator = LibreTranslator(source="en", target="de", base_url=f"{url}/", custom_url=f"{url}/", api_key="none")
    assert translator.translate("Where is the station?") == "WHERE IS THE STATION?"


# --- shapes ------------------------------------------------------------------------------------------------------------


def post(client: TestClient, path: str = "/translate", **body: Any) -> Any:
    return client.post(path, json=body)


def test_the_answer_has_what_was_asked_for_and_no_more(client: TestClient) -> None:
    assert post(client, q="hello", source="en", target="de").json() == {"translatedText": "HELLO"}
    assert post(client, q=[], source="en", target="de").json() == {"translatedText": []}
    assert post(client, q=["a", ""], source="en", target="de", alternatives=1).json() == {
        "translatedText": ["A", ""],
        "alternatives": [["A"], [""]],
    }
    form = client.post("/translate", data={"q": ["one", "two"], "source": "en", "target": "de", "alternatives": "1"})
    assert form.json() == {"translatedText": ["ONE", "TWO"], "alternatives": [["ONE"], ["TWO"]]}


def test_each_text_is_told_by_itself(client: TestClient, backend: FakeBackend) -> None:
    texts = [
        "This is the house of my father.",
        "Das Haus ist alt und steht am Fluss.",
        "12:30",
        "Je ne sais pas quoi dire.",
    ]
    answer = post(client, q=texts, target="de").json()
    found = [each["language"] for each in answer["detectedLanguage"]]
    assert found[:2] == ["en", "de"]
    assert answer["detectedLanguage"][2] == {"confidence": 0.0, "language": "en"}
    assert answer["translatedText"][0] == texts[0].upper()
    assert answer["translatedText"][1] == texts[1], "it is in German already"
    assert [call[0] for call in backend.calls] == ["there"]


def test_detecting(client: TestClient) -> None:
    [first, *_] = post(client, "/detect", q="Wo ist der Bahnhof?").json()
    assert first["language"] == "de"
    assert first["confidence"] > 50
    both = post(client, "/detect", q=["Wo ist der Bahnhof?", "1234"]).json()
    assert both[0][0] == first
    assert both[1] == [{"confidence": 0.0, "language": "en"}]


def test_state(client: TestClient) -> None:
    assert client.get("/health").json() == {"status": "ok"}
    settings = client.get("/frontend/settings").json()
    assert settings["language"] == {
        "source": {"code": "auto", "name": "Auto Detect"},
        "target": {"code": "de", "name": "German"},
    }
    assert settings["keyRequired"] is False
    assert "/translate" in client.get("/spec").json()["paths"]


# --- what is wrong -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"target": "de"}, 400, "missing key 'q'"),
        ({"q": "a"}, 400, "missing key 'target'"),
        ({"q": 1, "target": "de"}, 400, "q: expected a string or a list of strings"),
        ({"q": ["a", None], "target": "de"}, 400, "q: item 2 is not a string"),
        ({"q": ["a", {"b": 1}], "target": "de"}, 400, "q: item 2 is not a string"),
        ({"q": "a", "target": "de", "alternatives": "x"}, 400, "alternatives"),
        ({"q": "a", "target": "de", "alternatives": -1}, 400, "alternatives"),
        ({"q": "a", "target": "de", "alternatives": 10_000}, 400, "n_best is too large"),
        ({"q": "a", "target": "de", "format": "htm"}, 400, "format"),
        ({"q": "a", "source": "en", "target": "zz"}, 400, "no model for these languages"),
        ({"q": "a", "source": "auto", "target": "zz"}, 400, "no model for these languages"),
        ({"q": "x" * 101, "target": "de"}, 413, "the text has 101 characters"),
        ({"q": "refuse", "source": "en", "target": "de"}, 400, "the text cannot be translated"),
        ({"q": "full", "source": "en", "target": "de"}, 429, "900 texts are waiting already"),
        ({"q": "crash", "source": "en", "target": "de"}, 500, "internal error"),
    ],
)
def test_what_is_wrong_is_said_in_its_shape(client: TestClient, body: dict[str, Any], status: int, words: str) -> None:
    response = client.post("/translate", json=body)
    assert response.status_code == status
    assert list(response.json()) == ["error"]
    assert words in response.json()["error"]
    assert SECRET not in response.text
    assert ("retry-after" in response.headers) == (status == 429)


@pytest.mark.parametrize(
    ("content", "kind", "words"),
    [
        (b"{", "application/json", "not valid JSON"),
        (b"[1]", "application/json", "must be a JSON object"),
        (b"q=%ff&target=de", "application/x-www-form-urlencoded", "not UTF-8"),
        (b"q=\xff&target=de", "application/x-www-form-urlencoded", "not UTF-8"),
        (b"hello", "text/plain", "send JSON, or a form"),
    ],
)
def test_a_body_that_can_not_be_read(client: TestClient, content: bytes, kind: str, words: str) -> None:
    response = client.post("/translate", content=content, headers={"Content-Type": kind})
    assert response.status_code == 400
    assert words in response.json()["error"]


def test_faults_by_the_hundred_thousand_are_told_at_once(client: TestClient) -> None:
    small = CONFIG.model_copy(update={"limits": LIMITS.model_copy(update={"body_bytes": 4_000_000})})
    client = TestClient(create_app(FakeBackend(), small))
    started = time.monotonic()
    assert client.post("/translate", json={"q": [1] * 500_000, "target": "de"}).status_code == 400
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    for content in ("q=a&" * 500_000, "q=a&" * 9_000 + "target=de&source=en"):
        assert client.post("/translate", content=content, headers=form).status_code in (400, 413)
    assert time.monotonic() - started < 5.0


def test_a_key_may_be_in_the_field_or_the_query_and_is_missed_by_403(tmp_path: Path, backend: FakeBackend) -> None:
    (tmp_path / "keys").write_text(f"shop {hashlib.sha256(b'opensesame').hexdigest()}")
    client = TestClient(create_app(backend, CONFIG.model_copy(update={"keys": str(tmp_path / "keys")})))
    body = {"q": "a", "source": "en", "target": "de"}
    assert post(client, **body, api_key="opensesame").json() == {"translatedText": "A"}
    assert client.post("/translate", params=body | {"api_key": "opensesame"}).json() == {"translatedText": "A"}
    for wrong in ({}, {"api_key": "other"}):
        response = post(client, **body, **wrong)
        assert (response.status_code, list(response.json())) == (403, ["error"])
    assert client.get("/frontend/settings").json()["keyRequired"] is True
