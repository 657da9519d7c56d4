"""What benchmarks/serve_load.py puts under load: how servers are started and stopped, and what their processes use; the engine in process.

    python benchmarks/serve_sides.py bare|batched --port PORT [--ingress haproxy|proxy] [--bundle FOLDER] [--threads N]

is two servers to compare the service with: Ray Serve with nothing in it, and the model behind `@serve.batch`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import itertools
import json
import os
import queue
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import yaml

from nmt.inference.engine import Priority
from nmt.inference.translator import Pending, Translator
from serving import environment

ROOT = Path(__file__).resolve().parent.parent
BUNDLE = ROOT / "data/pretrained/tatoeba-en-de"
_UP_S, _DOWN_S = 180.0, 90.0
_MARK = "STRATA_BENCHMARK"
_TICKS = os.sysconf("SC_CLK_TCK")
ROLES = (  # the first pattern that the command line has
    ("raylet", r"^\S*/raylet\b"),
    ("gcs", r"^\S*gcs_server\b"),
    ("proxy", r"^\S*haproxy\b|ProxyActor|HAProxyManager"),
    ("gateway", r"ServeReplica\S*[:#]gateway"),
    ("translator", r"ServeReplica"),
    ("controller", r"ServeController"),
    ("agents", r"dashboard|agent|monitor"),
)


class StartFailed(Exception):
    """A program ended, or did not answer; the text is what it said."""


class Program:
    """A running server and all of its processes."""

    def __init__(self, command: Sequence[str], folder: Path, port: int, variables: Mapping[str, str]) -> None:
        """What it says goes to a file in `folder`."""
        self.port, self._mark = port, uuid.uuid4().hex
        self._said = folder / f"{self._mark}.log"
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables, _MARK: self._mark}
        for name in ("METRICS", "STATS"):  # Ray's defaults are the same for all of its clusters on a machine
            environment[f"RAY_SERVE_HAPROXY_{name}_PORT"] = str(free_port())
        self._began = time.perf_counter()
        with self._said.open("w", encoding="utf-8") as said:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=environment, cwd=ROOT, start_new_session=True
            )  # fmt: skip

    def wait(self, until: Callable[[int], bool]) -> float:
        """Seconds from its start until this is so of its port. Raises `StartFailed`."""
        while (now := time.perf_counter() - self._began) < _UP_S:
            if self.process.poll() is not None:
                raise StartFailed(self._said.read_text(encoding="utf-8").strip())
            if until(self.port):
                return time.perf_counter() - self._began
            time.sleep(0.05 if now < 60 else 0.5)
        raise StartFailed(f"no answer within {_UP_S:.0f} s")

    def pids(self) -> set[int]:
        """Its process and all below it, those too that were left by their parents."""
        found = {self.process.pid}
        parents = {pid: int(fields[1]) for pid, fields in _statistics().items()}
        mark = f"{_MARK}={self._mark}".encode()
        found |= {pid for pid in parents if mark in _read(pid, "environ")}
        while more := {pid for pid, parent in parents.items() if parent in found} - found:
            found |= more
        return found & parents.keys()

    def cpu(self) -> dict[tuple[int, str], tuple[str, float]]:
        """Role and processor seconds of each process, by its id and start."""
        fields, found = _statistics(), {}
        for pid in self.pids() & fields.keys():
            seconds = (int(fields[pid][11]) + int(fields[pid][12])) / _TICKS
            found[pid, fields[pid][19]] = (self._role(pid), seconds)
        return found

    def has(self, word: str) -> bool:
        """Whether the command line of one of its processes has that word."""
        return any(word.encode() in _read(pid, "cmdline") for pid in self.pids())

    def pss_mb(self, own: bool = False) -> float:
        """Memory of all its processes, what they share counted once; only their `own`, without files, which others may share."""
        kinds = "Pss_Anon|Pss_Shmem" if own else "Pss"
        texts = [_read(pid, "smaps_rollup").decode() for pid in self.pids()]
        return (
            sum(int(kb) for text in texts for kb in re.findall(rf"^(?:{kinds}):\s+(\d+) kB", text, re.M)) * 1024 / 1e6
        )

    def stop(self) -> int:
        """Ask it to stop, end what is left by id, and return the exit status."""
        before = set(self.cpu())
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.terminate()
            self.process.wait(_DOWN_S)
        time.sleep(0.5)
        before |= set(self.cpu())
        for pid, _ in _living(before):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        ends = time.monotonic() + 10
        while _living(before) and time.monotonic() < ends:
            time.sleep(0.05)
        return self.process.wait()

    def _role(self, pid: int) -> str:
        return "launcher" if pid == self.process.pid else role(_read(pid, "cmdline").replace(b"\0", b" ").decode())


class Launcher:
    """Starts the service by a file written in `folder`, and what it is compared with."""

    def __init__(self, bundle: Path, folder: Path, ingress: str | None = None) -> None:
        """`ingress`: haproxy or proxy; None leaves the choice to the service."""
        self._bundle, self._folder, self._ingress = bundle, folder, ingress

    def serve(self, fused: bool, threads: int, **args: Any) -> tuple[Program, float]:
        """The service, up, and the seconds until its first answer. Raises `StartFailed`."""
        return _up(self._service(fused, threads, args))

    def peer(self, what: str, ingress: str, threads: int) -> Program:
        """Another server, up: `bare` or `batched`. Raises `StartFailed`."""
        port = free_port()
        command = [sys.executable, str(Path(__file__).resolve()), what, "--port", str(port), "--ingress", ingress]
        command += ["--bundle", str(self._bundle), "--threads", str(threads)]
        return _up(Program(command, self._folder, port, {}), listens if what == "bare" else answers)[0]

    def _service(self, fused: bool, threads: int, args: Mapping[str, Any]) -> Program:
        port = free_port()
        limits = {"requests_per_minute": 10_000_000}
        wanted = {
            "models": [str(self._bundle)],
            "threads": threads,
            "fused": fused,
            "limits": limits,
            "cache": 0,
            **args,
        }
        path = self._folder / "serve.yaml"
        file = {"http_options": {"host": "127.0.0.1", "port": port}, "applications": [{"args": wanted}]}
        path.write_text(yaml.safe_dump(file), encoding="utf-8")
        command = [sys.executable, "-m", "serving", "--config", str(path), "--metrics-port", str(free_port())]
        return Program([*command, *(["--ingress", self._ingress] if self._ingress else [])], self._folder, port, {})


def _up(program: Program, until: Callable[[int], bool] | None = None) -> tuple[Program, float]:
    try:
        return program, program.wait(until or answers)
    except BaseException:
        program.stop()
        raise


def say(what: str) -> None:
    """Progress, for whoever waits."""
    print(what, file=sys.stderr, flush=True)


def used(before: Mapping[Any, tuple[str, float]], after: Mapping[Any, tuple[str, float]]) -> Counter[str]:
    """Processor seconds by role between two times."""
    found: Counter[str] = Counter()
    for key, (name, seconds) in after.items():
        found[name] += seconds - before.get(key, (name, 0.0))[1]  # type: ignore[assignment]
    return found


def role(command: str) -> str:
    """What a process is for, by its command line."""
    return next((name for name, pattern in ROLES if re.search(pattern, command)), "other")


def answers(port: int, text: str = "Good morning!") -> bool:
    """Whether the server at that port translates."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("POST", "/v1/translate", json.dumps({"text": [text]}), {"Content-Type": "application/json"})
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def listens(port: int) -> bool:
    """Whether there is something at that port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _statistics() -> dict[int, list[str]]:
    """The fields of /proc/PID/stat after the name, of every process that is not a zombie."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (text := _read(int(entry), "stat").decode(errors="replace")):
            fields = text.rpartition(")")[2].split()
            if fields[0] != "Z":
                found[int(entry)] = fields
    return found


def _living(processes: set[tuple[int, str]]) -> list[tuple[int, str]]:
    """Those of the processes, by id and start, that have not ended."""
    fields = _statistics()
    return [(pid, since) for pid, since in processes if pid in fields and fields[pid][19] == since]


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:  # it has ended
        return b""


def mixed(sentences: Sequence[str], seed: int = 1) -> list[list[str]]:
    """Requests of one text each: a sentence, or for 15 % of them, 3 to 6 sentences on end."""
    chance, requests = random.Random(seed), []
    for sentence in sentences:
        more = chance.choices(sentences, k=chance.randint(2, 5)) if chance.random() < 0.15 else []
        requests.append([" ".join([sentence, *more])])
    return requests


# --- what the service is compared with -----------------------------------------------------------------------------------


_loaded: list[Translator] = []  # in the process of `Inside`


class Inside:
    """The engine by itself, in a process and session of its own as servers are: Linux shares out a busy processor by sessions."""

    def __init__(self, bundle: Path, threads: int, texts: Sequence[str]) -> None:
        """Load it, and have it translate the texts once."""
        self._pool = ProcessPoolExecutor(1, get_context("spawn"), _load, (bundle, threads, list(texts)))

    def __call__(self, measure: Callable[..., Any], *arguments: Any) -> Any:
        """What `alone` or `alone_ms` finds there."""
        return self._pool.submit(_inside, measure, arguments).result()


def _load(bundle: Path, threads: int, texts: Sequence[str]) -> None:
    os.setsid()
    _loaded.append(Translator.load(bundle, threads=threads))
    _loaded[0].translate(texts)


def _inside(measure: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    return measure(_loaded[0], *arguments)


def alone(
    translator: Translator, requests: Sequence[Sequence[str]], clients: int, seconds: float, warm: float
) -> float:
    """Sentences a second when so many requests are kept in hand; the first `warm` seconds don't count."""
    finished: queue.SimpleQueue[Pending] = queue.SimpleQueue()
    priority = Priority.DOCUMENT if len(requests[0]) > 8 else Priority.INTERACTIVE  # as the service has it
    endless = itertools.cycle(requests)

    def begin() -> None:
        pending = translator.begin(next(endless), None, priority)
        done = itertools.count(1)

        def one_done(_: object) -> None:
            if next(done) == len(pending.futures):
                finished.put(pending)

        for each in pending.futures:
            each.add_done_callback(one_done)

    sentences, started = 0, time.perf_counter()
    for _ in range(clients):
        begin()
    while time.perf_counter() - started < seconds:
        found = finished.get().results()
        now = time.perf_counter() - started
        sentences += len(found) * (warm < now <= seconds)
        begin()
    for _ in range(clients):
        finished.get()
    return sentences / (seconds - warm)


def alone_ms(translator: Translator, requests: Sequence[Sequence[str]], seconds: float) -> list[float]:
    """Milliseconds for each of the requests, one after the other and over and over."""
    times, ends = list[float](), time.perf_counter() + seconds
    for request in itertools.cycle(requests):
        if (started := time.perf_counter()) > ends:
            return times
        translator.begin(request).results()
        times.append(1e3 * (time.perf_counter() - started))
    return times


def peer(options: argparse.Namespace) -> int:
    """Run Ray Serve as the launcher does, with nothing in it or with the model behind `@serve.batch`, until SIGTERM."""
    with tempfile.TemporaryDirectory(prefix="strata-") as folder:
        environment.prepare(Path(folder), options.ingress, 100_000)
        import ray
        from ray import serve

        def stop(*_: object) -> None:
            raise KeyboardInterrupt

        ray.init("local", include_dashboard=False, object_store_memory=128 * 1024 * 1024, log_to_driver=False)
        signal.signal(signal.SIGTERM, stop)
        try:
            serve.start(proxy_location="EveryNode", http_options={"host": "127.0.0.1", "port": options.port})
            if options.what == "batched":
                serve.run(_batched(options.bundle, options.threads), name="batched", route_prefix="/")
            while True:
                signal.pause()
        except KeyboardInterrupt:
            return 0
        finally:
            ray.shutdown()


def _batched(bundle: Path, threads: int) -> Any:
    from ray import serve
    from starlette.requests import Request

    @serve.deployment(name="translator", max_ongoing_requests=4096, ray_actor_options={"num_cpus": 0})
    class Batched:
        def __init__(self) -> None:
            self._translator = Translator.load(bundle, threads=threads)

        @serve.batch(max_batch_size=32, batch_wait_timeout_s=0.01)  # type: ignore[untyped-decorator]
        async def translate(self, texts: list[str]) -> list[str]:
            return [one.text for one in await asyncio.to_thread(self._translator.translate, texts)]

        async def __call__(self, request: Request) -> dict[str, list[str]]:
            texts = (await request.json())["text"]
            return {"translation": list(await asyncio.gather(*map(self.translate, texts)))}

    return Batched.bind()  # type: ignore[attr-defined]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one of the two."""
    parser = argparse.ArgumentParser(description="Ray Serve bare, or the model behind @serve.batch.")
    parser.add_argument("what", choices=("bare", "batched"))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ingress", choices=("haproxy", "proxy"), default="proxy")
    parser.add_argument("--bundle", type=Path, default=BUNDLE)
    parser.add_argument("--threads", type=int, default=1)
    return peer(parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
