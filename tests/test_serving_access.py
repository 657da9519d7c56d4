"""Keys and rates at the HTTP surface; no Ray."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from serving_fakes import LIMITS, FakeBackend

from serving.config import ServeConfig
from serving.gateway import create_app
from serving.keys import PREFIX

KEY, SLOW = f"{PREFIX}{'k' * 43}", f"{PREFIX}{'s' * 43}"


def client_of(tmp_path: Path | None = None, per_minute: int = 6000, **args: Any) -> TestClient:
    if tmp_path is not None:
        lines = [
            f"{name} {hashlib.sha256(key.encode()).hexdigest()} {rate}"
            for name, key, rate in (("a", KEY, ""), ("slow", SLOW, 2))
        ]
        (tmp_path / "keys").write_text("\n".join(lines))
        args["keys"] = str(tmp_path / "keys")
    limits = LIMITS.model_copy(update={"requests_per_minute": per_minute})
    return TestClient(create_app(FakeBackend(), ServeConfig(models=["unused"], limits=limits, **args)))


def ask(client: TestClient, headers: dict[str, str] | None = None, **body: Any) -> Any:
    return client.post("/v1/translate", json={"text": "a", **body}, headers=headers)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"Authorization": f"Bearer {KEY}"}, {}),
        ({"authorization": f"bearer {KEY}"}, {}),
        ({"Authorization": f"DeepL-Auth-Key {KEY}"}, {}),
        ({}, {"api_key": KEY}),
    ],
)
def test_a_key_is_taken_as_each_kind_of_client_sends_it(
    tmp_path: Path, headers: dict[str, str], body: dict[str, str]
) -> None:
    assert ask(client_of(tmp_path), headers, **body).status_code == 200


def test_without_a_key_401_with_a_wrong_one_403_and_neither_is_repeated(tmp_path: Path) -> None:
    client = client_of(tmp_path)
    response = ask(client)
    assert (response.status_code, response.json()["error"]["code"]) == (401, "no_key")
    assert response.headers["www-authenticate"] == "Bearer"
    for headers, body in (
        ({"Authorization": "Bearer nonsense"}, {}),
        ({}, {"api_key": "nonsense"}),
        ({}, {"api_key": ""}),
    ):
        response = ask(client, headers, **body)
        assert response.status_code in (401, 403)
        assert "nonsense" not in response.text
    assert ask(client, {"Authorization": "Bearer nonsense"}).status_code == 403
    assert client.get("/healthz").status_code == 200
    assert client.get("/v1/models").status_code == 200


def test_a_key_has_a_rate_of_its_own(tmp_path: Path) -> None:
    client = client_of(tmp_path)
    found = [ask(client, {"Authorization": f"Bearer {SLOW}"}) for _ in range(3)]
    assert [response.status_code for response in found] == [200, 200, 429]
    assert found[2].json()["error"]["code"] == "rate_limited"
    assert 1 <= int(found[2].headers["retry-after"]) <= 30
    assert ask(client, {"Authorization": f"Bearer {KEY}"}).status_code == 200


def test_keys_cannot_be_tried_without_end(tmp_path: Path) -> None:
    client = client_of(tmp_path, per_minute=3)
    found = [ask(client, {"Authorization": f"Bearer {number}"}).status_code for number in range(5)]
    assert found == [403, 403, 403, 429, 429]
    assert ask(client, {"Authorization": f"Bearer {KEY}"}).status_code == 200, (
        "another's tries are not held against a key"
    )


def test_an_address_has_a_rate_and_cannot_name_itself() -> None:
    client = client_of(per_minute=2)
    found = [ask(client, {"X-Forwarded-For": f"10.0.0.{number}"}).status_code for number in range(3)]
    assert found == [200, 200, 429]


def test_behind_proxies_the_address_is_what_the_outermost_of_them_says() -> None:
    client = client_of(per_minute=1, proxies=2)
    for told, status in (
        ("9.9.9.9, 10.0.0.1, 10.1.1.1", 200),
        ("8.8.8.8, 10.0.0.1, 10.1.1.2", 429),  # the first is the client's own word, and the last the inner proxy's
        ("8.8.8.8, 10.0.0.2, 10.1.1.2", 200),
        ("2001:db8::1, 10.1.1.2", 200),
        ("2001:db8::2, 10.1.1.2", 429),  # a network of IPv6 is one caller
        ("2001:db8:0:1::2, 10.1.1.2", 200),
        ("nonsense, 10.1.1.2", 200),  # then who the connection is from
        ("other, 10.1.1.2", 429),
    ):
        assert ask(client, {"X-Forwarded-For": told}).status_code == status, told


def test_haproxy_counts_as_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "1")
    client = client_of(per_minute=1)
    assert ask(client, {"X-Forwarded-For": "10.0.0.1"}).status_code == 200
    assert ask(client, {"X-Forwarded-For": "10.0.0.2"}).status_code == 200
    assert ask(client, {"X-Forwarded-For": "10.0.0.3, 10.0.0.2"}).status_code == 429
