"""Starts the service as its user does, for the tests of it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

TESTS = Path(__file__).parent
UP_S = 200  # generous: the tests may share the machine


def free_port() -> int:
    """A port that is free, as is the next one."""
    while True:
        with socket.socket() as probe, socket.socket() as other, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", 0))
            other.bind(("127.0.0.1", probe.getsockname()[1] + 1))
            return int(probe.getsockname()[1])


def processes_below(root: int) -> dict[int, str]:
    """Process ids and command lines of all descendants of `root`."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found: dict[int, str] = {}
    pending = [root]
    while pending:
        for child in parents.get(pending.pop(), []):
            try:
                found[child] = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
            except OSError:
                continue
            pending.append(child)
    return found


@dataclass
class Service:
    """A running launcher; metrics are at the next port."""

    process: subprocess.Popen[str]
    url: str
    client: httpx.Client
    port: int

    def translate(self, text: str | list[str], timeout: float = 60, **body: Any) -> httpx.Response:
        return self.client.post(
            f"{self.url}/v1/translate", json={"text": text, "source": "en", **body}, timeout=timeout
        )

    def pids(self, *words: str) -> list[int]:
        """Processes of the service whose command line has all of the words."""
        found = processes_below(self.process.pid)
        return [pid for pid, command in found.items() if all(word in command for word in words)]

    def replicas(self, name: str) -> list[int]:
        return self.pids("ServeReplica", name)


def launch(*arguments: str, **variables: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]), **variables}
    return subprocess.Popen(
        [sys.executable, "-m", "serving", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )


def configuration(folder: Path, port: int, location: str = "EveryNode", tracing: bool = False, **args: Any) -> Path:
    """A Serve file for the stub, whose model folders are made beside it."""
    models = [folder / "stub_en_de", folder / "back_de_en"]
    for model in models:
        model.mkdir(exist_ok=True)
    application = {
        "name": "strata",
        "route_prefix": "/",
        "import_path": "serving.app:build",
        "args": {"models": list(map(str, models)), "loader": "serving_stub:StubTranslator", **args},
    }
    file: dict[str, Any] = {"proxy_location": location, "http_options": {"port": port}, "applications": [application]}
    if tracing:
        file["tracing_config"] = {"enabled": True, "sampling_ratio": 1.0}
    path = folder / "serve.yaml"
    path.write_text(yaml.safe_dump(file))
    return path


@contextmanager
def running(config: Path, port: int, *arguments: str, **variables: str) -> Iterator[Service]:
    """The service of a file while it is wanted; nothing of it is left over."""
    process = launch("--config", str(config), *arguments, **variables)
    service, started = Service(process, f"http://127.0.0.1:{port}", httpx.Client(), port), time.monotonic()
    below: dict[int, str] = {}
    try:
        while not is_ready(service.url):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() - started < UP_S
            time.sleep(0.2)
        yield service
    finally:
        below |= processes_below(process.pid)
        process.kill()
        process.communicate()
        for pid in below:
            if Path(f"/proc/{pid}").exists():
                os.kill(pid, signal.SIGKILL)


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


@dataclass
class Load:
    """What became of requests that were sent at a steady rate."""

    sent: int = 0
    answers: list[tuple[float, int, str]] = field(
        default_factory=list
    )  # when it was answered, status, 0 for none, text

    @property
    def failed(self) -> list[tuple[float, int, str]]:
        return [answer for answer in self.answers if answer[1] != 200]


@contextmanager
def under_load(service: Service, per_second: float = 20.0, text: str = "text", **body: Any) -> Iterator[Load]:
    """Requests of a text each, every one by its own thread and connection, until the block ends; all are answered then."""
    load, stop = Load(), threading.Event()

    def ask(number: int) -> None:
        request = json.dumps({"text": f"{text} {number}", "source": "en", **body})
        connection = http.client.HTTPConnection(
            "127.0.0.1", service.port, timeout=60
        )  # httpx takes a core for 20 a second
        try:
            connection.request("POST", "/v1/translate", request, {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer, status = response.read().decode(), response.status
            if status == 200 and json.loads(answer)["translation"] != f"{text} {number}".upper():
                status = -1
        except (OSError, http.client.HTTPException) as error:
            answer, status = repr(error), 0
        finally:
            connection.close()
        load.answers.append((time.monotonic(), status, answer))

    def send(pool: ThreadPoolExecutor) -> None:
        number, due = 0, time.monotonic()
        while not stop.is_set():
            pool.submit(ask, number)
            load.sent += 1
            number, due = number + 1, due + 1 / per_second
            stop.wait(max(0.0, due - time.monotonic()))

    with ThreadPoolExecutor(128) as pool:
        sender = threading.Thread(target=send, args=(pool,))
        sender.start()
        try:
            yield load
        finally:
            stop.set()
            sender.join()


def until(condition: Callable[[], Any], seconds: float, what: str) -> None:
    """Wait for it; fail where it doesn't come."""
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, f"{what}: not within {seconds} s"
        time.sleep(0.1)
