"""Documents in the service, by its three surfaces, with clients that others wrote; and what is wrong with them."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import deepl
import libretranslate_aio
import pytest
from fastapi.testclient import TestClient
from serving_fakes import FILES, LIMITS, SECRET, FakeBackend, served

from serving.config import ServeConfig
from serving.gateway import create_app
from serving.service import Activity

CONFIG = ServeConfig(models=["unused"], deadline_s=5.0, limits=LIMITS, files=FILES)
PAGE = "<p>The house is <b>big</b>.</p>\n<script>x</script>"
TRANSLATED = "<p>THE HOUSE IS <b>BIG</b>.</p>\n<script>x</script>"


def sent(
    client: TestClient, path: str = "/v1/documents", name: str = "a.html", content: bytes = PAGE.encode(), **fields: str
) -> Any:
    return client.post(path, files={"file": (name, content)}, data={"target": "de", **fields})


def finished(client: TestClient, number: str) -> Any:
    ends = time.monotonic() + 10
    while time.monotonic() < ends:
        state = client.get(f"/v1/documents/{number}").json()
        if state["state"] in ("done", "error"):
            return state
        time.sleep(0.02)
    raise AssertionError(state)


# --- ways -------------------------------------------------------------------------------------------------------------------


def test_a_document_is_taken_looked_after_fetched_and_forgotten(client: TestClient, backend: FakeBackend) -> None:
    taken = sent(client)
    assert taken.status_code == 202
    state = finished(client, taken.json()["id"])
    assert (state["state"], state["passages"], state["done"], state["characters"], state["source"]) == (
        "done",
        1,
        1,
        17,
        "en",
    )
    assert (state["name"], state["target"], state["truncated"]) == ("a.html", "de", 0)
    assert backend.calls[-1][2].alignment
    result = client.get(f"/v1/documents/{state['id']}/result")
    assert result.text == TRANSLATED
    assert result.headers["content-type"].startswith("text/html")
    assert result.headers["content-disposition"] == "attachment; filename*=UTF-8''a.html"
    assert result.headers["x-content-type-options"] == "nosniff"
    assert client.delete(f"/v1/documents/{state['id']}").status_code == 204
    assert client.get(f"/v1/documents/{state['id']}").status_code == 404
    assert client.get(f"/v1/documents/{state['id']}/result").json()["error"]["code"] == "unknown_document"


def test_their_client_of_deepl(backend: FakeBackend, tmp_path: Path) -> None:
    page, result = tmp_path / "page.html", tmp_path / "result.html"
    page.write_text(PAGE, encoding="utf-8")
    with served(create_app(backend, CONFIG)) as url:
        theirs = deepl.DeepLClient("any key", server_url=url)
        status = theirs.translate_document_from_filepath(page, result, source_lang="EN", target_lang="DE")
        assert result.read_text(encoding="utf-8") == TRANSLATED
        assert (status.done, status.billed_characters) == (True, 17)
        with pytest.raises(deepl.DeepLException, match=r"\.xyz can't be translated"):
            theirs.translate_document_upload(b"x", target_lang="DE", filename="a.xyz")
        command = [sys.executable, "-m", "deepl", "--server-url", url, "--auth-key", "any key", "document"]
        subprocess.run([*command, "--to", "DE", str(page), str(tmp_path / "out")], check=True, timeout=60)
        assert (tmp_path / "out" / "page.html").read_text(encoding="utf-8") == TRANSLATED


def test_their_client_of_libretranslate(backend: FakeBackend, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"The house is big.\n\nYes")
    with served(create_app(backend, CONFIG)) as url, libretranslate_aio.LibreTranslate(url) as theirs:
        assert ".docx" in theirs.frontend_settings().supported_files_format
        found = theirs.translate_file(tmp_path / "a.txt", source="en", target="de")
        with urllib.request.urlopen(found.translated_file_url, timeout=10) as answer:
            assert answer.read() == b"THE HOUSE IS BIG.\n\nYES"


def test_a_file_by_the_form_of_libretranslate(client: TestClient) -> None:
    answer = sent(client, "/translate_file", "täxt.txt", b"The house is big.\n\nYes\t1\n", source="auto")
    assert answer.status_code == 200, answer.text
    url = answer.json()["translatedFileUrl"]
    assert url.startswith("http://testserver/download_file/")
    assert client.get(url).text == "THE HOUSE IS BIG.\n\nYES\t1\n"


def test_the_link_is_as_the_caller_knows_the_service(backend: FakeBackend) -> None:
    config = CONFIG.model_copy(update={"proxies": 1})
    with TestClient(create_app(backend, config), base_url="http://translate.example") as client:
        form = {"files": {"file": ("a.txt", b"Yes")}, "data": {"source": "en", "target": "de"}}
        answer = client.post("/translate_file", headers={"X-Forwarded-Proto": "https"}, **form)
        assert answer.json()["translatedFileUrl"].startswith("https://translate.example/download_file/")


def test_by_two_models_through_a_language_between(client: TestClient, backend: FakeBackend) -> None:
    state = finished(client, sent(client, source="de", target="fr").json()["id"])
    assert state["state"] == "done"
    assert [call[0] for call in backend.calls[-2:]] == ["back", "on"]


# --- what is wrong ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "fields", "status", "said"),
    [
        ("a.xyz", b"x", {}, 422, ".xyz can't be translated; what can: .csv"),
        ("a", b"x", {}, 422, "a file without an ending can't be translated"),
        ("a.txt", b"\xff\xfa\x00", {}, 422, "not UTF-8"),
        ("a.docx", b"no zip", {}, 422, "zip"),
        ("a.txt", b"x" * 20_001, {}, 422, "the file has 20001 bytes; at most 20000 are allowed"),
        ("a.txt", b"word " * 500, {}, 422, "the document has 2499 characters; at most 2000 are allowed"),
        ("a.txt", b"x", {"target": "zz"}, 404, "no model for these languages"),
        ("a.txt", b"x", {"source": "zz"}, 404, "no model for these languages"),
        ("a.txt", b"x", {"target": ""}, 422, "missing key 'target'"),
        ("a.txt", b"x", {"source": "x" * 300}, 422, "a field of the form is too long"),
    ],
)
def test_what_can_not_be_translated_is_said_at_once(
    client: TestClient, name: str, content: bytes, fields: dict[str, str], status: int, said: str
) -> None:
    ours = sent(client, "/v1/documents", name, content, **fields)
    assert (ours.status_code, said in ours.json()["error"]["message"]) == (status, True), ours.text
    theirs = sent(client, "/translate_file", name, content, **fields)
    assert theirs.status_code == 400
    assert said in theirs.json()["error"]
    deepls = client.post(
        "/v2/document",
        files={"file": (name, content)},
        data={f"{key}_lang": value for key, value in ({"target": "de"} | fields).items()},
    )
    assert deepls.status_code == 400
    assert said.replace("'target'", "'target_lang'") in deepls.json()["message"]


def test_forms_that_are_none(client: TestClient) -> None:
    for request, status, said in (
        ({"json": {"target": "de"}}, 415, "send a form as multipart/form-data"),
        ({"content": b"--x", "headers": {"Content-Type": "multipart/form-data"}}, 400, "the form can't be read"),
        ({"data": {"target": "de"}, "files": {"other": ("a", b"x")}}, 422, "missing key 'file'"),
        (
            {"data": {f"k{n}": "x" for n in range(30)}, "files": {"file": ("a.txt", b"x")}},
            400,
            "the form can't be read",
        ),
        (
            {"content": b"x" * 200_000, "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
            413,
            "larger than",
        ),
    ):
        response = client.post("/v1/documents", **request)
        assert (response.status_code, said in response.json()["error"]["message"]) == (status, True), response.text


def test_a_name_can_not_lead_elsewhere(client: TestClient) -> None:
    state = sent(client, name="../../etc/pass\r\nwd: <x>.txt", content=b"x").json()
    assert not {"/", "\r", "\n", "<", ">", ":"} & set(state["name"])
    assert state["name"].endswith(".txt")


def test_a_failure_is_the_state_and_tells_no_secret(client: TestClient) -> None:
    state = finished(client, sent(client, name="a.txt", content=b"crash").json()["id"])
    assert (state["state"], state["error"]) == ("error", "internal error; the server's log has the details")
    refused = client.get(f"/v1/documents/{state['id']}/result")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "not_finished")
    assert SECRET not in refused.text
    theirs = sent(client, "/translate_file", "a.txt", b"crash")
    assert (theirs.status_code, theirs.json()["error"]) == (400, "internal error; the server's log has the details")


def test_what_is_not_finished_is_not_there_and_too_many_are_refused(client: TestClient) -> None:
    numbers = [sent(client, name="a.txt", content=b"hang").json()["id"] for _ in range(3)]
    assert client.get(f"/v1/documents/{numbers[0]}/result").status_code == 409
    full = sent(client, name="a.txt", content=b"x")
    assert full.status_code == 429
    assert int(full.headers["Retry-After"]) >= 1
    for number in numbers:
        assert client.delete(f"/v1/documents/{number}").status_code == 204
    assert sent(client, name="a.txt", content=b"x").status_code == 202


def test_another_key_of_deepls_document_is_refused(client: TestClient) -> None:
    ticket = client.post("/v2/document", files={"file": ("a.txt", b"hang")}, data={"target_lang": "DE"}).json()
    number = ticket["document_id"]
    assert client.post(f"/v2/document/{number}", json={"document_key": "x"}).status_code == 404
    assert client.post(f"/v2/document/{number}", json={}).status_code == 404
    key = {"document_key": ticket["document_key"]}
    assert client.post(f"/v2/document/{number}", json=key).json()["status"] in ("queued", "translating")
    assert client.post(f"/v2/document/{number}/result", data=key).status_code == 503
    wrong = client.post(
        "/v2/document", files={"file": ("a.txt", b"x")}, data={"target_lang": "DE", "output_format": "pdf"}
    )
    assert (wrong.status_code, "output_format" in wrong.json()["message"]) == (400, True)


def test_a_quota_counts_documents(backend: FakeBackend) -> None:
    config = CONFIG.model_copy(update={"limits": LIMITS.model_copy(update={"characters_per_month": 20})})
    with TestClient(create_app(backend, config), raise_server_exceptions=False) as client:
        assert sent(client).status_code == 202
        refused = sent(client)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "quota_exceeded")
        theirs = client.post("/v2/document", files={"file": ("a.html", PAGE.encode())}, data={"target_lang": "DE"})
        assert theirs.status_code == 456


def test_a_gateway_that_stops_refuses_documents_and_gives_those_that_it_has(backend: FakeBackend) -> None:
    activity = Activity(4)
    with TestClient(create_app(backend, CONFIG, activity), raise_server_exceptions=False) as client:
        number = finished(client, sent(client).json()["id"])["id"]
        activity.draining = True
        for path, fields in (("/v1/documents", {}), ("/translate_file", {}), ("/v2/document", {"target_lang": "de"})):
            refused = sent(client, path, **fields)
            assert (refused.status_code, "the service is stopping" in refused.text) == (503, True)
            assert int(refused.headers["Retry-After"]) >= 1
        assert client.get(f"/v1/documents/{number}/result").text == TRANSLATED


def test_a_document_that_another_gateway_had_is_lost_and_all_surfaces_say_so(
    client: TestClient, backend: FakeBackend
) -> None:
    ticket = client.post("/v2/document", files={"file": ("a.txt", b"yes")}, data={"target_lang": "DE"}).json()
    link = sent(client, "/translate_file", "a.txt", b"yes").json()["translatedFileUrl"]
    number, key = ticket["document_id"], {"document_key": ticket["document_key"]}
    with TestClient(create_app(backend, CONFIG), raise_server_exceptions=False) as other:
        answers = [
            other.get(f"/v1/documents/{number}"),
            other.get(f"/v1/documents/{number}/result"),
            other.get(link),
            other.post(f"/v2/document/{number}", json=key),
            other.post(f"/v2/document/{number}/result", json=key),
        ]
    assert [answer.status_code for answer in answers] == [404, 404, 400, 404, 404]
    words = [answer.json() for answer in answers]
    said = [each["error"]["message"] for each in words[:2]] + [
        words[2]["error"],
        *(each["message"] for each in words[3:]),
    ]
    assert all(each.endswith("send it again") for each in said), said


def test_methods_that_a_path_has_are_named(client: TestClient) -> None:
    answer = client.put("/v1/documents/x")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "DELETE, GET")
    assert client.get("/v1/translate").headers["Allow"] == "POST"
