"""The HTTP surface over a backend without Ray: shapes, limits, words for every bad input, readiness, draining, overload."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from serving_fakes import LIMITS, SECRET, FakeBackend, model

import nmt.config
from nmt.errors import BundleError, ConfigError, InputError
from nmt.inference.types import DecodeOptions
from serving.config import ServeConfig, ServeFile, check_models, load
from serving.errors import Refused
from serving.gateway import create_app
from serving.middleware import ControlHeaders, clean_request_id
from serving.protocol import Overrides
from serving.schema import TranslateRequest
from serving.service import Activity
from serving.v1 import parse

CONFIG = ServeConfig(models=["unused"], deadline_s=0.5, limits=LIMITS)


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend()


def translate(client: TestClient, **body: Any) -> Any:
    return client.post("/v1/translate", json=body)


def problem(response: Any) -> tuple[int, str, str]:
    """Status, code and message; every error has exactly this shape."""
    body = response.json()
    assert list(body) == ["error"]
    assert sorted(body["error"]) == ["code", "message"]
    assert response.headers["content-type"] == "application/json"
    assert SECRET not in response.text
    return response.status_code, body["error"]["code"], body["error"]["message"]


def test_the_answer_has_the_shape_of_the_question(client: TestClient) -> None:
    one = translate(client, text="hello").json()
    detail = {"score": 0.0, "truncated": False, "segments": 1, "source_tokens": 3, "target_tokens": 4}
    assert one == {"translation": "HELLO", "model": "base", "details": [detail]}
    several = translate(client, text=["a", "", "c"]).json()
    assert several["translation"] == ["A", "", "C"]
    assert len(several["details"]) == 3
    assert translate(client, text=[]).json() == {"translation": [], "model": "base", "details": []}
    assert translate(client, text="").json()["translation"] == ""


def test_options_reach_the_model_and_alternatives_come_back(client: TestClient, backend: FakeBackend) -> None:
    answer = translate(client, text="a", beam_size=5, n_best=2, length_penalty=0, source="en", target="de").json()
    assert backend.calls == [("base", ["a"], Overrides(5, 2, 0.0))]
    assert answer["details"][0]["alternatives"] == [{"text": "A", "score": 0.0}, {"text": "A", "score": -1.0}]


@pytest.mark.parametrize(
    "text",
    [
        "\u200f\u202eabc",
        "e\u0301\u0323",
        "🙂🙂🙂",
        "1234567890",
        "<b>unclosed",
        "a\r\n\tb",
        "\ufeffbom",
        "<" * 90,
        "\x00nul",
    ],
)
def test_odd_text_is_text(client: TestClient, backend: FakeBackend, text: str) -> None:
    assert translate(client, text=text).json()["translation"] == text.upper()
    assert backend.calls[0][1] == [text]


BAD_JSON = {
    "empty body": b"",
    "not JSON": SECRET.encode(),
    "cut off": b'{"text": "s3cret-Geheimnis',
    "lone surrogate": b'{"text": "s3cret-Geheimnis\\ud800"}',
    "NaN": b'{"text": "a", "length_penalty": NaN}',
    "not UTF-8": b'{"text": "s3cret-Geheimnis\xff"}',
    "UTF-16": '{"text": "a"}'.encode("utf-16"),
    "deep": b'{"text": ' + b"[" * 2000 + b"]" * 2000 + b"}",
    "two documents": b'{"text": "a"}{"text": "b"}',
    "bare control character": b'{"text": "a\nb"}',
}


@pytest.mark.parametrize("body", BAD_JSON.values(), ids=BAD_JSON.keys())
def test_a_body_that_is_not_json_is_refused(client: TestClient, backend: FakeBackend, body: bytes) -> None:
    response = client.post("/v1/translate", content=body, headers={"Content-Type": "application/json"})
    status, code, message = problem(response)
    assert (status, code) in ((400, "invalid_json"), (422, "invalid_request"))
    assert message
    assert not backend.calls


BAD_VALUES: dict[str, tuple[Any, str]] = {
    "list at the top": ([SECRET], "the body must be a JSON object"),
    "string at the top": (SECRET, "the body must be a JSON object"),
    "no text": ({"target": "de"}, "missing key 'text'"),
    "number": ({"text": 5}, "text: expected a string or a list of strings"),
    "null": ({"text": None}, "text: expected a string or a list of strings"),
    "object": ({"text": {SECRET: SECRET}}, "text: expected a string or a list of strings"),
    "number in the list": ({"text": ["a", SECRET, 5]}, "text: item 3 is not a string"),
    "list in the list": ({"text": [["a"]]}, "text: item 1 is not a string"),
    "null in the list": ({"text": ["a", None]}, "text: item 2 is not a string"),
    "unknown key": ({"text": "a", "sorce": SECRET}, "unknown key (did you mean 'source'?)"),
    "strange key": ({"text": "a", SECRET: 1}, "unknown key; known keys: text, source"),
    "beam of a string": ({"text": "a", "beam_size": "5"}, "beam_size: "),
    "beam of a bool": ({"text": "a", "beam_size": True}, "beam_size: "),
    "beam of a float": ({"text": "a", "beam_size": 1.5}, "beam_size: "),
    "beam of zero": ({"text": "a", "beam_size": 0}, "beam_size: "),
    "huge integer": ({"text": "a", "beam_size": 10**400}, "beam_size"),
    "beam above the limit": ({"text": "a", "beam_size": 9}, "beam_size is too large; at most 8 is allowed"),
    "n_best above the limit": ({"text": "a", "n_best": 10000}, "n_best is too large; at most 4 is allowed"),
    "n_best above beam_size": ({"text": "a", "beam_size": 2, "n_best": 3}, "raise beam_size"),
    "penalty above the range": ({"text": "a", "length_penalty": 5.5}, "length_penalty: "),
    "source of a list": ({"text": "a", "source": [SECRET]}, "source: "),
    "refused by the model": ({"text": "refuse"}, "the text cannot be translated"),
}


@pytest.mark.parametrize(("body", "words"), BAD_VALUES.values(), ids=BAD_VALUES.keys())
def test_a_wrong_request_is_refused_in_clear_words(client: TestClient, body: Any, words: str) -> None:
    status, code, message = problem(client.post("/v1/translate", json=body))
    assert (status, code) == (422, "invalid_request")
    assert words in message
    assert len(message) < 300


def test_infinity_is_not_a_penalty(client: TestClient) -> None:
    response = client.post(
        "/v1/translate", content='{"text": "a", "length_penalty": 1e999}', headers={"Content-Type": "application/json"}
    )
    assert problem(response)[0] in (400, 422)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x" * 101, "the text has 101 characters; at most 100 are allowed"),
        (["a", "x" * 101], "text 2 has 101 characters; at most 100 are allowed"),
        (["a"] * 5, "5 texts in one request; at most 4 are allowed"),
        (["x" * 90] * 3, "270 characters in all; at most 250 are allowed in one request"),
        ("x" * 5000, "the body is larger than 4096 bytes"),
    ],
)
def test_above_a_limit_is_413(client: TestClient, backend: FakeBackend, text: Any, words: str) -> None:
    status, code, message = problem(translate(client, text=text))
    assert (status, code) == (413, "too_large")
    assert words in message
    assert not backend.calls


def call(app: Any, receive: Any) -> list[Any]:
    """POST to the app without a server; return the messages that it sends."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/v1/translate", "query_string": b"", "headers": headers}

    async def scenario() -> None:
        async with asyncio.timeout(5):
            await app(scope, receive, send)

    asyncio.run(scenario())
    return sent


def test_the_body_limit_holds_while_streaming() -> None:
    received = 0

    async def receive() -> Any:
        nonlocal received
        received += 1000
        return {"type": "http.request", "body": b"x" * 1000, "more_body": True}

    sent = call(create_app(FakeBackend(), CONFIG), receive)
    assert sent[0]["status"] == 413
    assert json.loads(sent[1]["body"])["error"]["code"] == "too_large"
    assert received == 5000


def test_a_body_that_does_not_come_is_408() -> None:
    async def receive() -> Any:
        await asyncio.sleep(100)

    limits = LIMITS.model_copy(update={"body_seconds": 0.05})
    sent = call(create_app(FakeBackend(), CONFIG.model_copy(update={"limits": limits})), receive)
    assert sent[0]["status"] == 408
    assert json.loads(sent[1]["body"])["error"]["code"] == "request_timeout"


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json; charset=latin-1"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
        {},
    ],
)
def test_what_is_not_plain_json_is_415(client: TestClient, headers: dict[str, str]) -> None:
    response = client.post("/v1/translate", content=b'{"text": "a"}', headers=headers)
    assert problem(response)[:2] == (415, "unsupported_media_type")


def test_other_paths_and_methods_answer_in_the_same_shape(client: TestClient) -> None:
    assert problem(client.get("/nope"))[:2] == (404, "not_found")
    assert problem(client.get("/docs/../../etc/passwd"))[0] == 404
    response = client.get("/v1/translate")
    assert problem(response)[:2] == (405, "method_not_allowed")
    assert response.headers["allow"] == "POST"


def test_a_defect_is_500_without_its_details(client: TestClient) -> None:
    assert problem(translate(client, text="crash"))[:2] == (500, "internal_error")
    assert translate(client, text="next").status_code == 200


def test_overload_is_429_and_the_deadline_is_503_both_with_retry_after(client: TestClient) -> None:
    response = translate(client, text="full")
    assert problem(response)[:2] == (429, "overloaded")
    assert response.headers["retry-after"] == "3"
    response = translate(client, text="hang")
    assert problem(response)[:2] == (503, "deadline_exceeded")
    assert int(response.headers["retry-after"]) >= 1


def test_more_requests_than_the_limit_are_refused_and_the_count_comes_back() -> None:
    activity = Activity(1)
    with TestClient(create_app(FakeBackend(), CONFIG, activity)) as client:
        with activity.request():
            response = translate(client, text="a")
            assert problem(response)[:2] == (429, "overloaded")
            assert "retry-after" in response.headers
        assert translate(client, text="a").status_code == 200
        assert translate(client, text="hang").status_code == 503
        assert activity.in_flight == 0


def test_health_and_readiness(backend: FakeBackend) -> None:
    activity = Activity(4)
    with TestClient(create_app(backend, CONFIG, activity)) as client:
        assert client.get("/readyz").json() == {"status": "ready"}
        backend.missing = ["base"]
        response = client.get("/readyz")
        assert problem(response)[0] == 503
        assert "base" in response.text
        assert "retry-after" in response.headers
        backend.missing = []
        activity.draining = True
        assert problem(client.get("/readyz"))[0] == 503
        assert problem(translate(client, text="a"))[0] == 503
        assert client.get("/healthz").json() == {"status": "ok"}


def test_the_language_pair_or_the_name_chooses_the_model() -> None:
    backend = FakeBackend(
        model("a", "en", "de"), model("b", "de", "en"), model("c", "en", "pt-BR"), model("d", "en", "pt")
    )
    with TestClient(create_app(backend, CONFIG)) as client:
        for body, name in (
            ({"model": "b"}, "b"),
            ({"source": "de"}, "b"),
            ({"source": "EN", "target": "de"}, "a"),
            ({"source": "en-GB", "target": "de_AT"}, "a"),
            ({"target": "pt-br"}, "c"),
            ({"target": "pt"}, "d"),
        ):
            assert translate(client, text="x", **body).json()["model"] == name
        for body, status, code in (
            ({}, 422, "ambiguous_model"),
            ({"source": "en"}, 422, "ambiguous_model"),
            ({"target": SECRET}, 404, "unknown_model"),
            ({"model": SECRET}, 404, "unknown_model"),
            ({"model": "a", "source": "de"}, 404, "unknown_model"),
        ):
            found = problem(translate(client, text="x", **body))
            assert found[:2] == (status, code)
            assert "b (de-en)" in found[2]


def test_two_models_translate_through_the_language_between() -> None:
    backend = FakeBackend(model("a", "en", "de"), model("b", "de", "fr-FR"), model("c", "es", "en"))
    with TestClient(create_app(backend, CONFIG)) as client:
        found = translate(client, text=["x", "y"], source="EN", target="fr", n_best=2).json()
        assert (found["model"], found["pivot"], found["translation"]) == ("a > b", "de", ["X", "Y"])
        assert len(found["details"][0]["alternatives"]) == 2
        assert [(name, texts, each.n_best) for name, texts, each in backend.calls] == [
            ("a", ["x", "y"], None),
            ("b", ["X", "Y"], 2),
        ]
        assert "pivot" not in translate(client, text="x", source="en", target="de").json()
        for body in (
            {"source": "es", "target": "fr"},
            {"source": "fr", "target": "en"},
            {"target": "fr", "model": "a"},
        ):
            assert translate(client, text="x", **body).status_code == 404
    with TestClient(create_app(backend, CONFIG.model_copy(update={"pivot": False}))) as client:
        assert translate(client, text="x", source="en", target="fr").status_code == 404


def test_models_are_listed_without_the_paths_of_the_server(client: TestClient) -> None:
    response = client.get("/v1/models")
    [entry] = response.json()["models"]
    assert (entry["name"], entry["source"], entry["target"], entry["parameters"]) == ("base", "en", "de", 12)
    assert "/secret" not in response.text


def test_the_api_page_needs_no_other_host(client: TestClient) -> None:
    page = client.get("/docs").text
    assert "http://" not in page
    assert "https://" not in page
    for asset in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png"):
        assert f"docs/{asset}" in page
        assert client.get(f"/docs/{asset}").status_code == 200
    schema = client.get("/openapi.json").json()
    ours = {"/v1/translate", "/v1/score", "/v1/models", "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"}
    libre = {"/translate", "/detect", "/languages", "/frontend/settings", "/health"}
    assert ours | libre <= set(schema["paths"])
    assert "text" in json.dumps(schema["paths"]["/v1/translate"]["post"]["requestBody"])


def test_the_request_id_is_echoed_made_safe_or_made_up(client: TestClient) -> None:
    def echoed(value: str) -> str:
        return str(client.get("/healthz", headers={"X-Request-ID": value}).headers["x-request-id"])

    assert echoed("abc-123") == "abc-123"
    assert echoed("x" * 128) == "x" * 128
    for unsafe in ("a<b> c\"'", "x" * 129, ""):
        assert len(echoed(unsafe)) == 32
    assert len(client.get("/healthz").headers["x-request-id"]) == 32
    assert clean_request_id("<<>>") != clean_request_id("<<>>")


def test_the_proxy_takes_out_the_headers_that_control_serve() -> None:
    seen: dict[bytes, bytes] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.update(scope["headers"])

    headers = {
        b"x-request-timeout-seconds": b"0",
        b"X-Request-Disconnect-Disabled": b"?1",
        b"serve_multiplexed_model_id": b"m",
        b"x-session-id": b"s",
        b"x-request-id": b"a b" * 200,
        b"accept": b"*/*",
    }
    asyncio.run(ControlHeaders(app)({"type": "http", "headers": list(headers.items())}, None, None))  # type: ignore[arg-type]
    assert set(seen) == {b"accept", b"x-request-id"}
    assert len(seen[b"x-request-id"]) == 32


def test_overrides_grow_the_beam_only_when_it_was_not_asked_for() -> None:
    defaults = DecodeOptions(beam_size=4, n_best=2)
    assert Overrides().apply(defaults) == defaults
    assert Overrides(n_best=6).apply(defaults) == DecodeOptions(beam_size=6, n_best=6)
    assert Overrides(beam_size=1).apply(defaults) == DecodeOptions(beam_size=1, n_best=1)
    assert Overrides(length_penalty=0.0).apply(defaults).length_penalty == 0.0
    with pytest.raises(InputError):
        Overrides(beam_size=1, n_best=2).apply(defaults)


def test_the_shipped_file_is_valid_and_arguments_replace_its_values() -> None:
    path = nmt.config.shipped("configs") / "serve.yaml"
    file = load(path)
    assert (file.http_options.host, file.http_options.port) == ("127.0.0.1", 8000)
    shipped = file.application.args
    assert shipped == ServeConfig(models=shipped.models), "the file shows the defaults"
    changed = load(path, ["other"], "0.0.0.0", 9999)
    assert changed.application.args.models == ["other"]
    assert (changed.http_options.host, changed.http_options.port) == ("0.0.0.0", 9999)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"models": ["a"], "limit": {}}, "did you mean 'limits'?"),
        ({"models": ["a"], "limits": {"charactrs": 5}}, "did you mean 'characters'?"),
        ({"models": []}, "models"),
        ({}, "missing key 'applications.0.args.models'"),
        ({"models": ["a"], "queue": {"texts": 5}}, "would be refused forever"),
        ({"models": ["a"], "limits": {"n_best": 20}}, "beam_size"),
        ({"models": ["a", "a"]}, "twice"),
        ({"models": ["a"], "deadline_s": float("nan")}, "deadline_s"),
    ],
)
def test_a_wrong_configuration_says_what_is_wrong(args: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=r"serve\.yaml") as error:
        nmt.config.parse(ServeFile, {"applications": [{"args": args}]}, "serve.yaml")
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_model_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="nmt train"):
        check_models(ServeConfig(models=[str(tmp_path / "none")]))
    with pytest.raises(BundleError, match="not a model bundle"):
        check_models(ServeConfig(models=[str(tmp_path)]))


@pytest.mark.parametrize(
    "body",
    [
        b'{"text": [' + b"1," * 400_000 + b"1]}",
        b"{" + b",".join(b'"k%d": 1' % number for number in range(60_000)) + b"}",
    ],
    ids=["wrong items", "unknown keys"],
)
def test_a_body_full_of_faults_is_refused_at_the_first(body: bytes) -> None:
    started = time.process_time()
    with pytest.raises(Refused) as refused:
        parse(body, TranslateRequest)
    assert refused.value.status == 422
    assert time.process_time() - started < 1.0  # listing all of them takes several times as long
