"""The service as it runs: the launcher, Ray Serve, HTTP. One Ray session for all of it, with the stub translator."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

pytest.importorskip("ray.serve")

from ray.exceptions import ActorDiedError, ActorUnavailableError
from serving_process import (
    UP_S,
    Service,
    configuration,
    free_port,
    is_ready,
    launch,
    processes_below,
    running,
    until,
)
from serving_stub import StubTranslator

from nmt.errors import InputError
from nmt.inference.types import Hypothesis, Translation
from serving.app import RESERVED_CORES
from serving.backend import Models, RemoteModel, shares
from serving.protocol import Overloaded, Overrides, Refusal, ServedModel, Unavailable

pytestmark = pytest.mark.alone

# Serve's own port of a replica, for which it has no setting; docs/serving.md names it.
OPEN = ("ServeReplica",)


@pytest.fixture(scope="module", params=["fused", "two hops"])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One hop behind Serve's own proxy, two behind HAProxy."""
    port, fused = free_port(), request.param == "fused"
    limits = {"texts": 16, "total_characters": 2000, "characters": 1000, "body_bytes": 10_000}
    path = configuration(
        tmp_path_factory.mktemp("serve"),
        port,
        limits=limits,
        queue={"texts": 100},
        deadline_s=40,
        drain_s=20,
        fused=fused,
    )
    with running(path, port, "--ingress", "proxy" if fused else "haproxy") as service:
        yield service


def test_it_translates_and_describes_itself(service: Service) -> None:
    assert service.translate("good morning").json()["translation"] == "GOOD MORNING"
    answer = service.translate(["one", "", "three"], n_best=2).json()
    assert answer["translation"] == ["ONE", "", "THREE"]
    assert len(answer["details"][0]["alternatives"]) == 2
    entries = httpx.get(f"{service.url}/v1/models").json()["models"]
    assert [(entry["name"], entry["source"], entry["target"]) for entry in entries] == [
        ("stub", "en", "de"),
        ("back", "de", "en"),
    ]
    assert service.translate("x", source="de").json()["model"] == "back"
    assert service.translate("x", source=None).status_code == 422
    assert httpx.get(f"{service.url}/healthz").status_code == 200
    assert httpx.get(f"{service.url}/docs").status_code == 200


def test_streams_and_documents_come_through_the_proxy(service: Service) -> None:
    body = {"text": ["one. two", "three"], "source": "en"}
    with httpx.stream(
        "POST", f"{service.url}/v1/translate", json=body, headers={"Accept": "application/x-ndjson"}, timeout=30
    ) as answer:
        *pieces, last = [json.loads(line) for line in answer.iter_lines()]
    assert [(piece["index"], piece["translation"]) for piece in pieces] == [(0, "ONE."), (0, " TWO"), (1, "THREE")]
    assert last["done"]
    form = {"files": {"file": ("a.html", b"<p>one <b>two</b></p>" + b"<!-- x -->" * 5000)}, "data": {"target": "de"}}
    link = httpx.post(f"{service.url}/translate_file", **form, timeout=30).json()["translatedFileUrl"]
    assert link.startswith(f"{service.url}/download_file/")
    assert httpx.get(link).content.startswith(b"<p>ONE <b>TWO</b></p>")


def test_errors_come_through_the_proxy_in_our_shape(service: Service) -> None:
    too_large = httpx.post(
        f"{service.url}/v1/translate", content=b" " * 5_000_000, headers={"Content-Type": "application/json"}
    )
    for response, status in (
        (service.translate("nul \x00"), 422),
        (service.translate("x" * 1001), 413),
        (service.translate(["x"] * 17), 413),
        (too_large, 413),
        (httpx.get(f"{service.url}/nope"), 404),
        (service.translate("boom"), 500),
    ):
        assert response.status_code == status
        assert sorted(response.json()["error"]) == ["code", "message"]
    headers = {"X-Request-ID": "<id>" * 1000, "X-Request-Timeout-Seconds": "0.000001"}
    response = httpx.post(f"{service.url}/v1/translate", json={"text": "a", "source": "en"}, headers=headers)
    assert response.status_code == 200, "a client cannot set Serve's timeout"
    [given] = response.headers.get_list("x-request-id")
    assert 0 < len(given) <= 128
    assert "<" not in given
    response = httpx.post(
        f"{service.url}/v1/translate", json={"text": "a", "source": "en"}, headers={"X-Request-ID": "my-Id-1"}
    )
    assert response.headers.get_list("x-request-id") == ["my-Id-1"]


def test_concurrent_requests_each_get_their_own_answer(service: Service) -> None:
    def request(number: int) -> None:
        texts = [f"text {number} {item}" for item in range(number % 3 + 1)]
        answer = service.translate(texts, n_best=number % 2 + 1)
        assert answer.status_code == 200
        assert answer.json()["translation"] == [text.upper() for text in texts]

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(request, range(100)))


def test_a_client_that_hangs_up_stops_its_work(service: Service) -> None:
    with pytest.raises(httpx.ReadTimeout):
        service.translate("sleep:30", timeout=0.5)
    started = time.monotonic()
    assert service.translate("next").status_code == 200
    assert time.monotonic() - started < 10


def test_overload_is_refused_quickly_and_passes(service: Service) -> None:
    with ThreadPoolExecutor(12) as pool:
        blocker = pool.submit(service.translate, "sleep:4")
        time.sleep(0.5)
        started = time.monotonic()
        futures = [pool.submit(service.translate, [f"{number}"] * 16) for number in range(10)]
        short = pool.submit(service.translate, "short")
        refused = [future for future in futures if future.result().status_code == 429]
        assert len(refused) >= 5, "160 texts do not fit into a queue of 100"
        assert len(refused) == 6, "and long requests leave a quarter of it to short ones"
        assert short.result().status_code == 200
        for future in refused:
            assert int(future.result().headers["retry-after"]) >= 1
            assert future.result().json()["error"]["code"] == "overloaded"
            assert future.result().elapsed.total_seconds() < 2.5
        assert time.monotonic() - started < 30
        assert blocker.result().status_code == 200
        assert all(future.result().status_code in (200, 429) for future in futures)
    assert service.translate("after").status_code == 200


def listening(root: int) -> list[tuple[str, int, str]]:
    """Address, port and command of everything that `root` and its descendants listen on."""
    owners = {}
    for pid, command in {root: "-m serving", **processes_below(root)}.items():
        for link in Path(f"/proc/{pid}/fd").iterdir():
            target = os.readlink(link) if link.is_symlink() else ""
            if target.startswith("socket:["):
                owners[target[8:-1]] = command
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in owners:
                address, port = fields[1].split(":")
                found.append((address, int(port, 16), owners[fields[9]]))
    return found


def test_nothing_but_what_is_documented_is_open_to_other_machines(service: Service) -> None:
    sockets = listening(service.process.pid)
    assert service.port in {number for address, number, _ in sockets if address.endswith("7F")}
    far = [(number, command) for address, number, command in sockets if not address.endswith("7F")]
    assert [each for each in far if not any(name in each[1] for name in OPEN)] == []
    assert not any("haproxy" in command for _, command in far), "its pages have no password"
    for number, command in far:
        with grpc.insecure_channel(f"127.0.0.1:{number}") as channel:
            with pytest.raises(grpc.RpcError) as refused:
                channel.unary_unary("/ray.serve.ASGIService/HandleRequest")(b"", timeout=20)
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED, f"{command}: it asks for no token"
    metrics = httpx.get(f"http://127.0.0.1:{service.port + 1}/metrics", timeout=20)
    assert metrics.status_code == 200


def test_what_is_before_the_gateway_is_back_within_ten_seconds(service: Service) -> None:
    [pid, *_] = service.pids("bin/haproxy", "-db") or service.pids("ProxyActor")
    os.kill(pid, signal.SIGKILL)
    started = time.monotonic()
    until(lambda: is_ready(service.url), 60, "an answer")
    assert time.monotonic() - started < 10
    assert service.translate("again").status_code == 200


def test_sigterm_finishes_what_is_in_flight_and_refuses_the_rest(service: Service) -> None:
    below = processes_below(service.process.pid)
    with ThreadPoolExecutor(1) as pool:
        in_flight = pool.submit(service.translate, "sleep:3")
        time.sleep(1)
        form = {"files": {"file": ("a.txt", b"sleep:1")}, "data": {"source": "en", "target": "de"}}
        document = f"{service.url}/v1/documents/{httpx.post(f'{service.url}/v1/documents', **form).json()['id']}"
        service.process.send_signal(signal.SIGTERM)
        time.sleep(0.7)
        refused = service.translate("too late")
        assert refused.status_code == 503
        assert "retry-after" in refused.headers
        assert httpx.get(f"{service.url}/readyz").status_code == 503
        assert in_flight.result().status_code == 200
        assert in_flight.result().json()["translation"] == "SLEEP:3"
        until(lambda: httpx.get(document).json()["state"] == "done", 30, "the document")
        assert httpx.get(f"{document}/result").text == "SLEEP:1"
    out, err = service.process.communicate(timeout=60)
    assert service.process.returncode == 0
    assert f"""curl -s {service.url}/v1/translate -H 'Content-Type: application/json' -d '{{"text": """ in out
    assert '"model": "stub"' in out
    assert "Traceback" not in out + err
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in below) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [command for pid, command in below.items() if Path(f"/proc/{pid}").exists()] == []


def refusal(*arguments: str) -> str:
    """The one line that a launcher that cannot start prints."""
    process = launch(*arguments)
    out, err = process.communicate(timeout=UP_S)
    assert process.returncode == 2, out + err
    assert out == ""
    [line] = err.splitlines()
    return line


def test_what_is_wrong_is_said_in_one_line_before_ray_starts(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        path = configuration(tmp_path, port)
        assert "the port is in use" in refusal("--config", str(path))
    assert "nmt train" in refusal("--config", str(path), str(tmp_path / "none"))
    path.write_text("applicatons: []")
    assert "did you mean 'applications'?" in refusal("--config", str(path))


def test_a_model_that_cannot_be_loaded_is_said_in_one_line(tmp_path: Path) -> None:
    path = configuration(tmp_path, free_port())
    (tmp_path / "stub_en_de" / "broken").touch()
    assert "stub_en_de: broken on purpose" in refusal("--config", str(path))


class Handle:
    """Stands for a Serve handle: each call takes the next outcome; an exception is raised."""

    def __init__(self, *outcomes: Any) -> None:
        self.outcomes = list(outcomes)
        self.calls: list[Any] = []
        self.translate = self.describe = self

    async def remote(self, *arguments: Any) -> Any:
        self.calls.append(arguments)
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def described() -> ServedModel:
    stub = StubTranslator(Path("stub_en_de"), None)
    return ServedModel(stub.info, stub.defaults)


def translation(text: str) -> Translation:
    return Translation(text, (Hypothesis(text.upper(), 0.0),), 1, 1)


def ask(handle: Handle, texts: list[str] | None = None) -> Any:
    models = Models({"stub": RemoteModel("stub", handle)})
    models._known["stub"] = described()
    return asyncio.run(models.translate("stub", texts or ["a"], Overrides(), 30.0))


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.backend._BACKOFF_S", 0.001)
    monkeypatch.setattr("serving.backend._READY_TIMEOUT_S", 0.05)


@pytest.mark.usefixtures("at_once")
def test_a_request_is_sent_again_when_its_replica_dies() -> None:
    handle = Handle(ActorDiedError(), ActorUnavailableError("gone", None), ["answer"])
    assert ask(handle) == ["answer"]
    assert len(handle.calls) == 3
    times = [left for _, _, left in handle.calls]
    assert times == sorted(times, reverse=True), "each attempt gets only what is left of the time"


@pytest.mark.usefixtures("at_once")
def test_a_request_that_kills_every_replica_is_given_up() -> None:
    handle = Handle(*[ActorDiedError() for _ in range(20)])
    with pytest.raises(Unavailable):
        ask(handle)
    assert len(handle.calls) == 5


@pytest.mark.parametrize(
    ("outcome", "error"),
    [
        (Refusal("input", "bad"), InputError),
        (Refusal("overloaded", "full", 7.0), Overloaded),
        (Refusal("deadline", "late"), Unavailable),
        (ValueError("a defect"), ValueError),
    ],
)
def test_what_a_replica_refuses_is_not_tried_again(outcome: Any, error: type[Exception]) -> None:
    handle = Handle(outcome)
    with pytest.raises(error):
        ask(handle)
    assert len(handle.calls) == 1


@pytest.mark.usefixtures("at_once")
def test_a_long_list_goes_in_several_calls_and_comes_back_in_order() -> None:
    texts = [f"t{i}" for i in range(130)]
    handle = Handle(*[[translation(text) for text in some] for some in shares(texts)])
    assert [each.text for each in ask(handle, texts)] == [text.upper() for text in texts]
    assert [len(some) for some, _, _ in handle.calls] == [43, 43, 44]
    assert [text for some, _, _ in handle.calls for text in some] == texts


@pytest.mark.parametrize("count", [0, 1, 64, 65, 128, 1000])
def test_calls_have_equal_parts_of_at_most_64(count: int) -> None:
    parts = shares([str(i) for i in range(count)])
    assert [text for part in parts for text in part] == [str(i) for i in range(count)]
    assert max(map(len, parts)) <= 64
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.usefixtures("at_once")
def test_readiness_names_the_model_that_does_not_answer() -> None:
    down = RemoteModel("down", Handle(*[ActorDiedError()] * 9))
    assert asyncio.run(Models({"up": RemoteModel("up", Handle(described())), "down": down}).ready()) == ["down"]


@pytest.mark.parametrize("cores", [1.0, 2.0, 7.0, 64.0])
@pytest.mark.parametrize("processes", [1, 3, 40])
def test_all_replicas_and_their_replacements_find_room(cores: float, processes: int) -> None:
    assert 2 * processes * RESERVED_CORES <= cores
