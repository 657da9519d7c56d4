"""What benchmarks/serve_load.py measures: the cases, and the server that they are put to."""

from __future__ import annotations

import argparse
import functools
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import serve_sides as sides
from loadgen import GOOD, HUNG_UP, SENTENCES, Plan, Report, measure, percentile
from serve_sides import Launcher, Program, StartFailed, used

from nmt.corpus.store import PreparedCorpus

CLIENTS, BATCH, DOCUMENT, SHORT = 64, 16, 128, "Where is the nearest station?"
REFUSED = ("429", "503")


@dataclass
class Round:
    """What a case found once: figures, and the processor cores that each role used during its load."""

    figures: dict[str, float]
    cpu: dict[str, float] = field(default_factory=dict)


@dataclass
class Bench:
    """One mode while it is measured."""

    options: argparse.Namespace
    mode: str
    launcher: Launcher
    sentences: Sequence[str]
    server: Program | None = None
    ingress: str = ""
    who: str = ""  # of whom unexpected outcomes are told
    capacity: float = 0.0  # sentences a second by requests of one
    sent: list[dict[str, Any]] = field(default_factory=list)  # the open loads, for the peer
    unexpected: Counter[str] = field(default_factory=Counter)
    found: dict[str, list[Round]] = field(default_factory=dict)

    @property
    def threads(self) -> int:
        """Of the engine; by default as many as there are cores, as the service has it."""
        return int(self.options.threads or len(os.sched_getaffinity(0)))

    @functools.cached_property
    def inside(self) -> sides.Inside:
        """The engine by itself."""
        return sides.Inside(self.options.bundle, self.threads, self.sentences[:CLIENTS])

    @contextmanager
    def serving(self, **args: Any) -> Iterator[float]:
        """The service while it is wanted; gives the seconds until its first answer. Raises `StartFailed`."""
        self.server, seconds = self.launcher.serve(self.mode == "fused", self.threads, **args)
        self.ingress = "haproxy" if self.server.has("haproxy") else "proxy"
        with self._stopping():
            yield seconds

    @contextmanager
    def peer(self, what: str) -> Iterator[None]:
        """Another server in its place, behind the same ingress."""
        self.server, self.who = self.launcher.peer(what, self.ingress, self.threads), f"{what}: "
        with self._stopping():
            yield

    @contextmanager
    def _stopping(self) -> Iterator[None]:
        try:
            yield
        finally:
            assert self.server is not None
            self.server.stop()
            self.server, self.who = None, ""

    def load(self, requests: Sequence[Sequence[str]], seconds: float, **plan: Any) -> tuple[Report, dict[str, float]]:
        """Load the server; what came of it, and the cores that each role used."""
        assert self.server is not None
        before = self.server.cpu()
        report = measure(Plan(self.server.port, requests, seconds, **plan))
        spent = used(before, self.server.cpu())
        for what in report.outcomes().keys() - {GOOD, HUNG_UP, *REFUSED}:
            self.unexpected[f"{self.who}{what}"] += report.outcomes()[what]
        cores = {name: seconds / report.wall_s for name, seconds in spent.items()}
        return report, cores | {"load generator": report.cpu_s / report.wall_s}

    def memory_mb(self) -> float:
        """Of all processes of the server."""
        assert self.server is not None
        return self.server.pss_mb()

    def of_one(self, seconds: float) -> tuple[Report, dict[str, float]]:
        """64 clients with one sentence a request, which is what `capacity` comes from."""
        report, cpu = self.load(grouped(self.sentences, 1), seconds, clients=CLIENTS)
        self.capacity = in_time(report)
        return report, cpu


def warm(seconds: float) -> float:
    """How much of a load at the beginning does not count."""
    return min(1.0, seconds / 5)


def sentences_of(corpus: Path) -> list[str]:
    """The test sentences of a prepared corpus, or our own where it is not there."""
    return [source for source, _ in PreparedCorpus.open(corpus).pairs("test")] if corpus.is_dir() else list(SENTENCES)


def grouped(sentences: Sequence[str], size: int) -> list[list[str]]:
    """Requests of so many sentences each."""
    return [list(sentences[at : at + size]) for at in range(0, len(sentences) - size + 1, size)]


def in_time(report: Report) -> float:
    """Sentences a second of a closed load, which there must be. Raises `StartFailed`."""
    if rate := report.rate(warm(report.seconds)):
        return rate
    raise StartFailed(f"nothing was answered within {report.seconds:g} s: {dict(report.outcomes())}; more --seconds?")


def throughput_batch(bench: Bench, seconds: float) -> Round:
    """Lists."""
    requests = grouped(bench.sentences, BATCH)
    inside = bench.inside(sides.alone, requests, CLIENTS, seconds, warm(seconds))
    report, cpu = bench.load(requests, seconds, clients=CLIENTS)
    return Round(compared(report, inside), cpu)


def throughput_single(bench: Bench, seconds: float) -> Round:
    """Sentences one by one."""
    inside = bench.inside(sides.alone, grouped(bench.sentences, 1), CLIENTS, seconds, warm(seconds))
    report, cpu = bench.of_one(seconds)
    return Round(compared(report, inside), cpu)


def compared(report: Report, inside: float) -> dict[str, float]:
    """A closed load beside the rate in process."""
    served = in_time(report)
    figures = {"served, sentences/s": served, "in process, sentences/s": inside, "served / in process": served / inside}
    return figures | {"p50, ms": percentile(report.latencies(), 0.5), "not answered 200, share": 1 - report.share()}


def open_loop(bench: Bench, seconds: float) -> Round:
    """Random arrivals of texts of every length."""
    requests = sides.mixed(bench.sentences)
    half = max(3.0, seconds / 2)
    capacity = in_time(bench.load(requests, half, clients=CLIENTS)[0])
    bench.sent.append({"requests": requests, "rate": 0.7 * capacity, "seed": len(bench.sent) + 1})
    report, cpu = bench.load(seconds=seconds, **bench.sent[-1])
    p50, p95, p99 = (percentile(report.latencies(since_due=True), share) for share in (0.5, 0.95, 0.99))
    figures = {"capacity, requests/s": capacity, "sent, requests/s": len(report.answers) / seconds}
    figures |= {"p50, ms": p50, "p95, ms": p95, "p99, ms": p99, "p99 / p50": p99 / p50}
    alone = bench.inside(
        sides.alone_ms, requests, seconds
    )  # with nothing else to do: how different the texts themselves are
    figures |= {"p99 / p50 of each alone, in process": percentile(alone, 0.99) / percentile(alone, 0.5)}
    return Round(figures | {"sent late p99, ms": report.lag_ms(), "not answered 200, share": 1 - report.share()}, cpu)


def latency_single(bench: Bench, seconds: float) -> Round:
    """One client."""
    inside = percentile(bench.inside(sides.alone_ms, [[SHORT]], seconds / 2), 0.5)
    report, cpu = bench.load([[SHORT]], seconds, clients=1)
    served = percentile(report.latencies(), 0.5)
    figures = {"served p50, ms": served, "in process p50, ms": inside, "more than in process, ms": served - inside}
    return Round(figures | {"served p99, ms": percentile(report.latencies(), 0.99)}, cpu)


def overload(bench: Bench, seconds: float) -> Round:
    """Five times too much."""
    if not bench.capacity:
        bench.of_one(max(3.0, seconds / 2))
    report, cpu = bench.load(grouped(bench.sentences, 1), seconds, rate=5 * bench.capacity)
    refused = [each for each in report.answers if each.outcome in REFUSED]
    told = sum(each.retry_after for each in refused) / len(refused) if refused else float("nan")
    shares = {f"answered {status}, share": report.share(status) for status in (GOOD, *REFUSED)}
    figures = {
        "sent, requests/s": len(report.answers) / seconds,
        **shares,
        "otherwise, share": 1 - sum(shares.values()),
    }
    figures |= {"refusals p99, ms": percentile(report.latencies(REFUSED), 0.99)}
    figures |= {"refusals with Retry-After, share": told, "answers p99, ms": percentile(report.latencies(), 0.99)}
    goodput = report.rate(warm(seconds))
    figures |= {"goodput, requests/s": goodput, "goodput / capacity": goodput / bench.capacity}
    return Round(figures | {"sent late p99, ms": report.lag_ms()}, cpu)


def storm(bench: Bench, seconds: float) -> Round:
    """Clients that hang up, and what it is like after."""
    requests, normal = grouped(bench.sentences, 1), {"seconds": max(1.0, seconds / 2), "clients": 8}
    before, _ = bench.load(requests, **normal)
    during, cpu = bench.load(requests, seconds, clients=200, hang_up_share=0.8)
    after, _ = bench.load(requests, **normal)
    p50 = [percentile(report.latencies(), 0.5) for report in (before, after)]
    figures = {"hung up, requests/s": during.outcomes()[HUNG_UP] / seconds, "answered 200 after, share": after.share()}
    return Round(figures | {"p50 before, ms": p50[0], "p50 after, ms": p50[1], "after / before": p50[1] / p50[0]}, cpu)


def document(bench: Bench, seconds: float) -> Round:
    """Sentences one by one, alone and then beside documents."""
    if not bench.capacity:
        bench.of_one(max(3.0, seconds / 2))
    single: dict[str, Any] = {"requests": grouped(bench.sentences, 1), "seconds": seconds, "rate": 0.2 * bench.capacity}
    alone, _ = bench.load(**single)
    assert bench.server is not None
    plan, documents = Plan(bench.server.port, grouped(bench.sentences, DOCUMENT), seconds, clients=2), list[Report]()
    job = threading.Thread(target=lambda: documents.append(measure(plan)))
    job.start()
    beside, cpu = bench.load(**single)
    job.join()
    figures = {"documents, sentences/s": documents[0].rate(warm(seconds))}
    figures |= {"documents not answered 200, share": 1 - documents[0].share()}
    for share, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99")):
        before, after = (percentile(report.latencies(since_due=True), share) for report in (alone, beside))
        figures |= {f"{name} alone, ms": before, f"{name} beside, ms": after, f"{name} beside / alone": after / before}
    return Round(figures | {"not answered 200, share": 1 - beside.share()}, cpu)


def start(bench: Bench, _: float) -> Round:
    """A start from nothing."""
    with bench.serving() as seconds:
        time.sleep(3)
        ours = bench.memory_mb()
    with bench.peer("bare"):
        time.sleep(3)
        bare = bench.memory_mb()
    figures = {"first answer, s": seconds, "idle memory, MB": ours, "bare Ray Serve, MB": bare}
    return Round(figures | {"more than bare Ray Serve, MB": ours - bare})


CASES: dict[str, Callable[[Bench, float], Round]] = {
    "throughput-batch": throughput_batch,
    "throughput-single": throughput_single,
    "open-loop": open_loop,
    "latency-single": latency_single,
    "overload": overload,
    "storm": storm,
    "document": document,
    "start": start,
}
