"""DeepL's API: its own client and command line, unchanged, and what its server would have said to what is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import deepl
import pytest
from fastapi.testclient import TestClient
from serving_fakes import LIMITS, SECRET, FakeBackend, model, served

from serving.config import ServeConfig
from serving.gateway import create_app
from serving.keys import main as keys
from serving.quota import Quota

CONFIG = ServeConfig(models=["unused"], deadline_s=5.0, limits=LIMITS)


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend(model("there", "en", "de"), model("back", "de", "en"))


@pytest.fixture
def theirs(backend: FakeBackend) -> Iterator[deepl.DeepLClient]:
    """Their client at a real server."""
    with served(create_app(backend, CONFIG)) as url:
        yield deepl.DeepLClient("any key", server_url=url)


# --- their client ---------------------------------------------------------------------------------------------------------


def test_texts(theirs: deepl.DeepLClient, backend: FakeBackend) -> None:
    one = theirs.translate_text("Good morning", source_lang="EN", target_lang="DE")
    assert isinstance(one, deepl.TextResult)
    assert (one.text, one.detected_source_lang, one.billed_characters) == ("GOOD MORNING", "EN", 12)
    several = theirs.translate_text(["The house is big.", "Das Haus ist groß."], target_lang="DE")
    assert isinstance(several, list)
    assert [each.text for each in several] == ["THE HOUSE IS BIG.", "Das Haus ist groß."]  # which is German already
    assert [each.detected_source_lang for each in several] == ["EN", "DE"]
    theirs.translate_text("A.\nB", source_lang="EN", target_lang="DE", split_sentences="nonewlines")
    assert backend.calls[-1][1] == ["A. B"]
    theirs.translate_text("A. B", source_lang="EN", target_lang="DE", split_sentences="0", formality="prefer_more")
    assert backend.calls[-1][2].split_sentences is False
    british = theirs.translate_text(
        "Guten Morgen", source_lang="DE", target_lang="EN-GB", context="x", preserve_formatting=True
    )
    assert str(british) == "GUTEN MORGEN"


def test_markup(theirs: deepl.DeepLClient, backend: FakeBackend) -> None:
    page = "<p>One <b>two</b> <code>three</code></p>"
    found = theirs.translate_text(page, source_lang="EN", target_lang="DE", tag_handling="html")
    assert str(found) == "<p>ONE <b>TWO</b> <code>three</code></p>"
    text = "<doc><t>One <x>two</x> <k>three</k></t><t>four</t></doc>"
    found = theirs.translate_text(text, source_lang="EN", target_lang="DE", tag_handling="xml", ignore_tags=["k"])
    assert str(found) == "<doc><t>ONE <x>TWO</x> <k>three</k></t><t>FOUR</t></doc>"
    assert backend.calls[-1][1] == ["One two {{x0}}", "four"]
    theirs.translate_text(
        "<a>b <c>d</c></a>", source_lang="EN", target_lang="DE", tag_handling="xml", splitting_tags="c,q"
    )
    assert backend.calls[-1][1] == ["b", "d"]


def test_languages_and_usage(theirs: deepl.DeepLClient) -> None:
    assert [(each.code, each.name) for each in theirs.get_source_languages()] == [("DE", "German"), ("EN", "English")]
    targets = theirs.get_target_languages()
    assert [(each.code, each.supports_formality) for each in targets] == [("DE", False), ("EN", False)]
    theirs.translate_text("Good morning", target_lang="DE")
    assert theirs.get_usage().character.count == 12


def test_errors_are_those_that_it_knows(theirs: deepl.DeepLClient) -> None:
    with pytest.raises(deepl.DeepLException, match="no model for these languages"):
        theirs.translate_text("a", target_lang="ZH")
    with pytest.raises(deepl.DeepLException, match="formality is not supported"):
        theirs.translate_text("a", target_lang="DE", formality="more")


def test_its_command_line(backend: FakeBackend) -> None:
    with served(create_app(backend, CONFIG)) as url:
        command = [sys.executable, "-m", "deepl", "--server-url", url, "--auth-key", "any key"]
        said = subprocess.run(
            [*command, "text", "--to", "DE", "--from", "EN", "Good morning"],
            capture_output=True, text=True, check=True, timeout=60, env=dict(os.environ),
        )  # fmt: skip
        assert said.stdout.strip() == "GOOD MORNING"
        assert (
            "German"
            in subprocess.run([*command, "languages"], capture_output=True, text=True, check=True, timeout=60).stdout
        )


# --- shapes ---------------------------------------------------------------------------------------------------------------


def test_forms_and_the_key_in_the_body(client: TestClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    form = {"text": ["a", "b"], "target_lang": "DE", "source_lang": "EN", "preserve_formatting": "1"}
    answer = client.post("/v2/translate", data=form).json()
    assert [each["text"] for each in answer["translations"]] == ["A", "B"]
    file = tmp_path / "keys.yaml"
    assert keys(["add", str(file), "me"]) == 0
    key = capsys.readouterr().out.split()[-1]
    config = CONFIG.model_copy(update={"keys": str(file)})
    with TestClient(create_app(FakeBackend(), config), raise_server_exceptions=False) as locked:
        assert locked.post("/v2/translate", data=form).status_code == 403
        assert locked.post("/v2/translate", data={**form, "auth_key": key}).status_code == 200
        header = {"Authorization": f"DeepL-Auth-Key {key}"}
        assert (
            locked.post("/v2/translate", json={"text": ["a"], "target_lang": "DE"}, headers=header).status_code == 200
        )
        assert locked.get("/v2/usage", headers=header).json()["character_count"] == 3
        assert locked.get("/v2/languages").status_code == 403


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"text": ["a"]}, 400, "missing key 'target_lang'"),
        ({"target_lang": "DE"}, 400, "missing key 'text'"),
        ({"text": 5, "target_lang": "DE"}, 400, "text: expected a string or a list of strings"),
        ({"text": ["a", None], "target_lang": "DE"}, 400, "text: item 2 is not a string"),
        ({"text": ["a"], "target_lang": 5}, 400, "target_lang"),
        ({"text": ["a"], "target_lang": "ZZ"}, 400, "no model for these languages"),
        ({"text": ["a"], "target_lang": "DE", "source_lang": "ZZ"}, 400, "no model for these languages"),
        ({"text": ["a"], "target_lang": "DE", "split_sentences": "2"}, 400, "split_sentences"),
        ({"text": ["a"], "target_lang": "DE", "tag_handling": "md"}, 400, "tag_handling"),
        ({"text": ["a"], "target_lang": "DE", "glossary_id": "x"}, 404, "no such glossary"),
        ({"text": ["x" * 101], "target_lang": "DE"}, 413, "the text has 101 characters"),
        ({"text": ["full"], "target_lang": "DE", "source_lang": "EN"}, 429, "900 texts are waiting"),
        ({"text": ["crash"], "target_lang": "DE", "source_lang": "EN"}, 500, "internal error"),
    ],
)
def test_what_is_wrong_is_said_in_its_shape(client: TestClient, body: dict[str, Any], status: int, said: str) -> None:
    response = client.post("/v2/translate", json=body)
    assert response.status_code == status, response.text
    assert list(response.json()) == ["message"]
    assert said in response.json()["message"]
    assert SECRET not in response.text


def test_no_such_path_below_it(client: TestClient) -> None:
    assert client.get("/v2/nothing").json() == {"message": "no such path; see /docs"}
    assert client.get("/v2/languages?type=x").status_code == 400
    assert client.get("/v2/health/live").json() == {"live": True}


def test_a_quota_that_is_used_up() -> None:
    config = CONFIG.model_copy(update={"limits": LIMITS.model_copy(update={"characters_per_month": 20})})
    with TestClient(create_app(FakeBackend(), config), raise_server_exceptions=False) as client:
        body = {"text": ["a" * 12], "target_lang": "DE", "source_lang": "EN"}
        assert client.post("/v2/translate", json=body).status_code == 200
        assert client.get("/v2/usage").json() == {"character_count": 12, "character_limit": 20}
        refused = client.post("/v2/translate", json=body)
        assert refused.status_code == 456
        assert "quota" in refused.json()["message"]
        ours = client.post("/v1/translate", json={"text": "a" * 12})
        assert (ours.status_code, ours.json()["error"]["code"]) == (429, "quota_exceeded")
        assert client.post("/v2/translate", json=body | {"text": ["a" * 8]}).status_code == 200


def test_a_month_ends() -> None:
    month = ["2026-01"]
    quota = Quota(10, lambda: month[0])
    assert quota.take("a", 10)
    assert not quota.take("a", 1)
    assert quota.take("b", 1)
    month[0] = "2026-02"
    assert quota.used("a") == 0
    assert quota.take("a", 10)
