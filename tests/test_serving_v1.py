"""What our own API says beside the text, streams, scores; by the bundled model, without Ray."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import ROOT
from fastapi.testclient import TestClient
from serving_fakes import FakeBackend
from test_serving_gateway import problem

from serving.backend import Models
from serving.config import ServeConfig
from serving.gateway import create_app
from serving.replica import TranslatorReplica

BUNDLE = str(ROOT / "data/pretrained/tatoeba-en-de")
CONFIG = ServeConfig(models=[BUNDLE], deadline_s=20.0)
TEXT = "The old man drinks tea. Where is the station?\n\n- I'm tired.\t%s\n"


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    backend = Models({"bundled": TranslatorReplica(BUNDLE, 1, CONFIG)})
    with TestClient(create_app(backend, CONFIG), raise_server_exceptions=False) as client:
        yield client


def translated(client: TestClient, **body: Any) -> Any:
    response = client.post("/v1/translate", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def test_what_is_not_asked_for_is_not_said(client: TestClient) -> None:
    (detail,) = translated(client, text="I am tired.")["details"]
    assert sorted(detail) == ["score", "segments", "source_tokens", "target_tokens", "truncated"]


def test_subwords_with_their_probabilities(client: TestClient) -> None:
    answer = translated(client, text="I am tired.", tokens=True, length_penalty=1.0)
    (detail,) = answer["details"]
    pieces, scores = zip(*detail["tokens"], strict=True)
    assert "".join(pieces).replace("▁", " ").strip() == f"{answer['translation']}</s>"
    assert detail["score"] == pytest.approx(sum(scores) / len(scores), abs=1e-4)


def test_alignment_and_attention(client: TestClient) -> None:
    answer = translated(client, text="I saw Tom in Boston.", alignment=True, attention=True, n_best=2, beam_size=4)
    (detail,) = answer["details"]
    source, target = ["I", "saw", "Tom", "in", "Boston."], answer["translation"].split()
    linked = {(source[one], target[other]) for one, other in detail["alignment"]}
    assert ("Tom", "Tom") in linked
    assert any(one == other == "Boston." or (one, other) == ("Boston.", "Boston") for one, other in linked)
    (rows,) = detail["attention"]
    assert len(rows) == detail["target_tokens"] + 1
    assert all(len(row) == len(detail["source_subwords"]) for row in rows)
    assert all(sum(row) == pytest.approx(1.0, abs=0.01) for row in rows)
    assert [sorted(each) for each in detail["alternatives"]] == [
        ["alignment", "anchors", "attention", "score", "text"]
    ] * 2


def test_a_prefix_and_a_glossary(client: TestClient) -> None:
    assert translated(client, text="I am tired.", prefix="Ich fühle")["translation"].startswith("Ich fühle")
    answer = translated(client, text="I like the cat.", glossary={"cat": "Mieze"})
    assert "Mieze" in answer["translation"]
    assert "Mieze" not in translated(client, text="I like the cat.")["translation"]
    for body, said in (
        ({"prefix": "x" * 1000}, "the prefix of text 1 has"),
        ({"prefix": "Ja", "text": "a\nb"}, "is divided into 2 parts"),
        ({"glossary": {"": "a"}}, "empty side"),
        ({"glossary": {"a": 5}}, "glossary"),
        ({"glossary": ["a"]}, "glossary"),
    ):
        status, _, message = problem(client.post("/v1/translate", json={"text": "a", **body}))
        assert (status, said in message) == (422, True), message


def test_html_keeps_its_tags(client: TestClient) -> None:
    page = '<p>The <b>old man</b> drinks <a href="x?a=1&amp;b=2">tea</a>.</p>\n<pre>I am</pre>'
    answer = translated(client, text=page, format="html")["translation"]
    assert answer == '<p>Der <b>alte Mann</b> trinkt <a href="x?a=1&amp;b=2">Tee</a>.</p>\n<pre>I am</pre>'
    assert translated(client, text="<br><hr/>", format="html")["translation"] == "<br><hr/>"


@pytest.mark.parametrize("kind", ["application/x-ndjson", "text/event-stream"])
def test_a_stream_joined_is_the_translation(client: TestClient, kind: str) -> None:
    texts = [TEXT, "", "No!", " \n", "https://example.org"]
    with client.stream(
        "POST", "/v1/translate", json={"text": texts, "tokens": True}, headers={"Accept": kind}
    ) as response:
        assert response.headers["content-type"].startswith(kind)
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    *pieces, last = map(json.loads, lines)
    assert last == {"done": True, "model": "tatoeba-en-de"}
    joined = [
        "".join(piece["translation"] for piece in pieces if piece["index"] == index) for index in range(len(texts))
    ]
    assert joined == translated(client, text=texts)["translation"]
    assert [piece["index"] for piece in pieces] == sorted(piece["index"] for piece in pieces)
    assert sum("detail" in piece for piece in pieces) == 4
    assert all(piece["detail"]["tokens"] for piece in pieces if "detail" in piece)


def test_what_is_wrong_with_a_stream(client: TestClient) -> None:
    headers = {"Accept": "application/x-ndjson"}
    status, _, message = problem(client.post("/v1/translate", json={"text": "a", "n_best": 2}, headers=headers))
    assert (status, "can't be streamed" in message) == (422, True)
    status, _, _ = problem(client.post("/v1/translate", json={"text": "a", "target": "zz"}, headers=headers))
    assert status == 404


def test_an_error_in_the_middle_is_the_last_line_of_a_stream() -> None:
    with TestClient(create_app(FakeBackend(), CONFIG), raise_server_exceptions=False) as client:
        response = client.post(
            "/v1/translate", json={"text": ["a", "crash", "b"]}, headers={"Accept": "application/x-ndjson"}
        )
    first, last = map(json.loads, response.text.splitlines())
    assert first["translation"] == "A"
    assert last == {"error": {"code": "internal_error", "message": "internal error; the server's log has the details"}}


def test_scores_are_those_of_translating(client: TestClient) -> None:
    texts = ["I am tired.", "Where is the station?"]
    found = translated(client, text=texts, split_sentences=False)
    body = {"text": texts, "translation": found["translation"], "alignment": True, "tokens": True}
    scored = client.post("/v1/score", json=body).json()
    assert scored["score"] == pytest.approx([each["score"] for each in found["details"]], abs=1e-4)
    assert scored["model"] == "tatoeba-en-de"
    assert all(detail["alignment"] and detail["tokens"] for detail in scored["details"])
    wrong = client.post("/v1/score", json={"text": texts[0], "translation": "Banane Hund."}).json()["score"]
    assert wrong < scored["score"][0] - 1


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"text": "a"}, "missing key 'translation'"),
        ({"text": "a", "translation": ["b"]}, "the same shape"),
        ({"text": ["a"], "translation": ["b", "c"]}, "the same shape"),
        ({"text": "", "translation": "b"}, "no text on one of its sides"),
        ({"text": "a", "translation": ["b", 5]}, "translation: item 2 is not a string"),
        ({"text": "a", "translation": "b", "beam_size": 3}, "unknown key"),
    ],
)
def test_what_is_wrong_with_a_score(client: TestClient, body: dict[str, Any], said: str) -> None:
    status, code, message = problem(client.post("/v1/score", json=body))
    assert (status, code) == (422, "invalid_request")
    assert said in message


def test_what_the_layers_do(client: TestClient) -> None:
    found = client.post("/v1/activations", json={"text": "I am tired."}).json()
    assert found["translation"] == "Ich bin müde."
    assert [len(layer) for layer in found["encoder"]] == [len(found["source_subwords"])] * 3
    assert [len(layer) for layer in found["decoder"]] == [len(found["target_subwords"])] * 3
    assert {len(step) for layer in found["encoder"] for step in layer} == {len(found["encoder"][0][0])}
    given = client.post("/v1/activations", json={"text": "I am tired.", "translation": "Ja."}).json()
    assert given["translation"] == "Ja."
    assert given["encoder"] == found["encoder"]
    assert given["decoder"][0][1] != found["decoder"][0][1]
    for body, status, said in (
        ({"text": ""}, 422, "the text is empty"),
        ({"text": "a", "translation": "ja " * 2000}, 422, "the translation has"),
        ({"text": "cat " * 2000}, 422, "are looked into in one piece"),
        ({"text": ["a"]}, 422, "text"),
        ({"text": "a", "target": "zz"}, 404, "no model"),
        ({"text": "a", "tokens": True}, 422, "unknown key"),
    ):
        answer = problem(client.post("/v1/activations", json=body))
        assert (answer[0], said in answer[2]) == (status, True), answer


def test_what_this_installation_can_not_do_is_501() -> None:
    with TestClient(create_app(FakeBackend(), CONFIG), raise_server_exceptions=False) as client:
        found = problem(client.post("/v1/activations", json={"text": "no torch"}))
        assert found == (501, "not_available", "activations need PyTorch")


def test_health_by_its_other_name(client: TestClient) -> None:
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
