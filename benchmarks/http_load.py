"""Load a running translation server and print sentences per second and latencies at several concurrencies.

    python benchmarks/http_load.py http://127.0.0.1:8000 [--file sentences.txt] [--concurrency 1 8 64]

Each of the N clients sends its next request when it has its answer. A level ends after --requests requests or --seconds,
whichever comes first; the first --warmup requests are not measured. Requests that do not answer 200 are counted apart.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import itertools
import os
import platform
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import httpx

SENTENCES = (
    "Good morning!",
    "I would like a cup of coffee, please.",
    "The train leaves at half past seven.",
    "Where is the nearest station?",
    "She has been reading that book since last week.",
    "If it rains tomorrow, we will stay at home and play cards.",
    "He did not know what to say.",
    "The children were so tired that they fell asleep in the car.",
)


@dataclass
class Level:
    """What was measured at one concurrency: seconds of each good answer, and the statuses of the others."""

    concurrency: int
    seconds: list[float] = field(default_factory=list)
    sentences: int = 0
    wall: float = 0.0
    failures: collections.Counter[str] = field(default_factory=collections.Counter)

    def row(self) -> str:
        """One line of the table."""
        if not self.seconds:
            return f"{self.concurrency:>11}  no good answer: {dict(self.failures)}"
        ordered = sorted(self.seconds)
        p50, p95, p99 = (
            1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in (0.5, 0.95, 0.99)
        )
        return (
            f"{self.concurrency:>11} {len(ordered):>9} {sum(self.failures.values()):>7} "
            f"{self.sentences / self.wall:>12.1f} {p50:>8.1f} {p95:>8.1f} {p99:>8.1f}"
        )


async def measure(url: str, requests: Iterator[list[str]], concurrency: int, options: argparse.Namespace) -> Level:
    """Send requests by `concurrency` clients until the count or the time is used up."""
    level = Level(concurrency)
    limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    async with httpx.AsyncClient(limits=limits, timeout=options.timeout) as client:
        for _ in range(options.warmup):
            await client.post(url, json={"text": next(requests)})
        started = time.perf_counter()
        ends, left = started + options.seconds, itertools.count()

        async def one_client() -> None:
            while time.perf_counter() < ends and next(left) < options.requests:
                await one_request(client, url, next(requests), level)

        await asyncio.gather(*(one_client() for _ in range(concurrency)))
        level.wall = time.perf_counter() - started
    return level


async def one_request(client: httpx.AsyncClient, url: str, texts: list[str], level: Level) -> None:
    """Send one request and note how it went."""
    started = time.perf_counter()
    try:
        response = await client.post(url, json={"text": texts})
    except httpx.HTTPError as error:
        level.failures[type(error).__name__] += 1
        return
    if response.status_code == 200:
        level.seconds.append(time.perf_counter() - started)
        level.sentences += len(texts)
    else:
        level.failures[str(response.status_code)] += 1


def read_sentences(path: Path | None) -> Sequence[str]:
    """The lines of a file that hold text, or the built-in sentences."""
    if path is None:
        return SENTENCES
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("url", help="address of the server, such as http://127.0.0.1:8000")
    parser.add_argument("--file", type=Path, help="sentences, one a line (default: eight built-in ones)")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 64], help="clients at the same time")
    parser.add_argument("--batch", type=int, default=1, help="sentences of one request")
    parser.add_argument("--requests", type=int, default=1000, help="at most this many requests a level")
    parser.add_argument("--seconds", type=float, default=20.0, help="at most this long a level")
    parser.add_argument("--warmup", type=int, default=5, help="requests before each level that are not measured")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds to wait for an answer")
    return parser


def describe(models: Any) -> str:
    """The circumstances of the measurement."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("strata-nmt", "torch", "ray", "fastapi", "httpx"))
    served = "; ".join(f"{m['name']}: {m['architecture']}, beam {m['beam_size']}" for m in models["models"])
    return (
        f"command: python {shlex.join(sys.argv)}\nmodels:  {served}\n"
        f"client:  {versions}, Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )


def version(name: str) -> str:
    """The installed version of a package."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "(not installed)"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit status, 1 when a request failed."""
    options = parser().parse_args(argv)
    base = options.url.rstrip("/")
    try:
        models = httpx.get(f"{base}/v1/models", timeout=30).raise_for_status().json()
        sentences = read_sentences(options.file)
    except (httpx.HTTPError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(describe(models))
    print(
        f"\n{'concurrency':>11} {'requests':>9} {'failed':>7} {'sentences/s':>12} {'p50 ms':>8} {'p95 ms':>8} {'p99 ms':>8}"
    )
    endless = itertools.cycle(sentences)
    requests = (list(itertools.islice(endless, options.batch)) for _ in itertools.count())
    failures: collections.Counter[str] = collections.Counter()
    for concurrency in options.concurrency:
        level = asyncio.run(measure(f"{base}/v1/translate", requests, concurrency, options))
        failures += level.failures
        print(level.row(), flush=True)
    if failures:
        print(f"\nnot answered 200: {dict(failures)}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
