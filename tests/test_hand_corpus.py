"""Text and bodies that have broken such services: each, by every surface, is an answer or a refusal in that surface's words; never a 5xx,
nothing lost, exactly one translation for each text. By the bundled model, at a real server."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from conftest import ROOT
from serving_fakes import served

from serving.backend import Models
from serving.config import Limits, ServeConfig
from serving.gateway import create_app
from serving.replica import TranslatorReplica

BUNDLE = str(ROOT / "data/pretrained/tatoeba-en-de")
TEXTS = {
    "empty": "",
    "white space": " \t\n\r\n\u00a0\u3000 ",
    "a token without end": "x" * 3000,
    "a sentence without end": "the cat and " * 250,
    "control characters": "a\0b\x07c\x1b[31md\x7f",
    "right to left": "\u202eabc\u202c שלום مرحبا",
    "zero width": "I\u200b am\ufeff ti\u200dred\u2060.",
    "combining": "Z" + "\u0301" * 300 + "algo",
    "emoji": "😀👩‍👩‍👧‍👦🏳️‍🌈🇩🇪" * 10,
    "digits": "0123456789 " * 60,
    "no letters": "?!.,;:-_()[]{}<>/\\|@#$%^&*+=~`'\"" * 20,
    "unclosed": "<b>I am <i>tired",
    "nested": "<b>" * 3000,
    "nested and closed": "<i>" * 900 + "tired" + "</i>" * 900,
    "entities": "&amp;&lt;&#0;&#x110000;&unknown; &amp",
    "comments": "<!-- I am <b> --> tired <!-",
    "cdata": "<![CDATA[ I am ]]> <?php tired ?> <!DOCTYPE x [<!ENTITY a 'b'>]> &a;",
    "percent": "%s%n%x%1$s%%%d%" * 50,
    "braces": "{{{{{x}}}}}" * 100,
    "new lines": "\n" * 3000,
    "other scripts": "我很累。Я устал. Είμαι κουρασμένος. ฉันเหนื่อย",
    "surrogates as text": "\\ud800 \\u0000",
    "noncharacters": "\ufffe\uffff\U0010ffff",
    "line separators": "I am tired.\u2028You are not.\u2029Yes.\x85No.",
    "private use": "\ue000 is \uf8ff {x} 😀",
    "sql and shell": "'; DROP TABLE x; -- $(reboot) `id`",
    "path": "../../etc/passwd\0.txt",
}
BODIES: dict[str, tuple[bytes, dict[str, str]]] = {
    "deep": (b'{"text": ' + b"[" * 20_000 + b"]" * 20_000 + b"}", {}),
    "deep objects": (b'{"a":' * 5000 + b"1" + b"}" * 5000, {}),
    "duplicate keys": (b'{"text": "a", "text": 5, "q": "a", "q": null}', {}),
    "not a number": (b'{"text": "a", "length_penalty": NaN}', {}),
    "infinite": (b'{"text": "a", "length_penalty": 1e999, "alternatives": 1e999}', {}),
    "huge number": (b'{"text": "a", "n_best": ' + b"9" * 5000 + b', "alternatives": ' + b"9" * 5000 + b"}", {}),
    "wrong types": (b'{"text": [null, 1, {}, []], "q": [null, 1, {}, []], "target": {}}', {}),
    "a lone surrogate": (b'{"text": "\\ud800", "q": "\\ud800", "target_lang": "DE", "target": "de"}', {}),
    "not UTF-8": (b'{"text": "\xff\xfe", "q": "\xff"}', {}),
    "UTF-16": ('{"text": "a"}'.encode("utf-16"), {}),
    "a bomb of gzip": (gzip.compress(b" " * 10_000_000), {"Content-Encoding": "gzip"}),
    "another charset": ('{"text": "ü"}'.encode("latin-1"), {"Content-Type": "application/json; charset=latin-1"}),
    "nothing": (b"", {}),
    "a null": (b"null", {}),
    "a list": (b"[1]", {}),
    "half": (b'{"text": "a', {}),
    "two": (b'{"text": "a"}{"text": "b"}', {}),
    "a form that is JSON": (b'{"text": "a"}', {"Content-Type": "application/x-www-form-urlencoded"}),
    "percent of a form": (
        b"q=%ff%zz&q=%&target=de&text=%ff&target_lang=DE",
        {"Content-Type": "application/x-www-form-urlencoded"},
    ),
    "many fields": (b"a=1&" * 20_000, {"Content-Type": "application/x-www-form-urlencoded"}),
    "headers": (b'{"text": "a"}', {f"X-Header-{number}": "x" * 50 for number in range(101)}),
    "a long header": (b'{"text": "a"}', {"X-Long": "x" * 60_000}),
    "a request id": (b'{"text": "a"}', {"X-Request-ID": "<script>" * 100, "serve_multiplexed_model_id": "x"}),
}
SURFACES = ("/v1/translate", "/translate", "/v2/translate")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    config = ServeConfig(models=[BUNDLE], deadline_s=60.0, limits=Limits(body_seconds=1.0))
    with served(create_app(Models({"bundled": TranslatorReplica(BUNDLE, 2, config)}), config)) as address:
        yield address


def asked(url: str, path: str, body: bytes, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json"} | (headers or {}))
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def question(path: str, texts: list[str], markup: bool) -> dict[str, Any]:
    kind = "html" if markup else "text"
    return {
        "/v1/translate": {"text": texts, "format": kind},
        "/translate": {"q": texts, "source": "en", "target": "de", "format": kind},
        "/v2/translate": {"text": texts, "source_lang": "EN", "target_lang": "DE"}
        | ({"tag_handling": "html"} if markup else {}),
    }[path]


def translations(path: str, answer: bytes) -> list[str]:
    data = json.loads(answer)
    if path == "/v2/translate":
        return [each["text"] for each in data["translations"]]
    found: list[str] = data["translation" if path == "/v1/translate" else "translatedText"]
    return found


@pytest.mark.parametrize("markup", [False, True], ids=["text", "html"])
@pytest.mark.parametrize("name", TEXTS)
def test_a_text_gives_one_translation(url: str, name: str, markup: bool) -> None:
    said = []
    for path in SURFACES:
        body = json.dumps(question(path, ["I am tired.", TEXTS[name], "Where is it?"], markup)).encode()
        status, answer = asked(url, path, body)
        assert status == 200, (path, answer[:300])
        said.append(translations(path, answer))
        assert len(said[-1]) == 3
        assert said[-1][0] == "Ich bin müde."
    assert said[0] == said[1] == said[2]
    if not any(map(str.isalnum, TEXTS[name])) and TEXTS[name].strip():
        assert said[0][1] == TEXTS[name]  # nothing to translate


@pytest.mark.parametrize("path", SURFACES)
@pytest.mark.parametrize("name", BODIES)
def test_a_body_is_answered_or_refused(url: str, name: str, path: str) -> None:
    body, headers = BODIES[name]
    status, answer = asked(url, path, body, headers)
    assert status == 200 or 400 <= status < 500, answer[:300]
    if status != 200 and not name.startswith("a long header"):  # which the server itself refuses
        error = json.loads(answer)
        shape = {"/v1/translate": ["error"], "/translate": ["error"], "/v2/translate": ["message"]}[path]
        assert list(error) == shape
    assert asked(url, path, json.dumps(question(path, ["I am tired."], False)).encode())[0] == 200  # it lives


def test_a_million_characters_are_refused_and_named(url: str) -> None:
    for path in SURFACES:
        status, answer = asked(url, path, json.dumps(question(path, ["x" * 900_000], False)).encode())
        assert status == 413
        assert b"900000 characters" in answer
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2000000\r\n\r\n"
        answer = _raw(url, head.encode() + b"{")  # before the rest is sent
        assert b" 413 " in answer.splitlines()[0]
        assert b"larger than" in answer


def test_who_sends_a_byte_at_a_time_is_let_go(url: str) -> None:
    started = time.monotonic()
    answer = _raw(
        url, b"POST /v1/translate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    )
    assert b" 408 " in answer.splitlines()[0]
    assert time.monotonic() - started < 10


def _raw(url: str, sent: bytes) -> bytes:
    """What the server answers to these bytes, without an end of the request."""
    host = urlsplit(url)
    answer = b""
    with socket.create_connection((host.hostname, host.port), timeout=20) as connection:
        connection.sendall(sent)
        while b"}" not in answer and (more := connection.recv(10_000)):
            answer += more
    return answer
