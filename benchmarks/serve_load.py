"""The service under load, beside the same engine in process: it is started here, loaded from a process of its own, and stopped.

    python benchmarks/serve_load.py                                   about a quarter of an hour on two quiet cores
    python benchmarks/serve_load.py --modes fused --cases overload storm --seconds 5 --rounds 1

Modes are how gateway and translator are put together: `fused` in one process, `two-hop` in two. Cases, each `--rounds` times:

- throughput-batch: 64 clients with 16 sentences a request; in process 64 requests of 16 are kept in hand, by turns with the server;
- throughput-single: the same with one sentence a request;
- open-loop: requests at random times (Poisson), at 70 % of what 64 clients get through, 15 % of them of 3 to 6 sentences in one text;
  latencies count from when a request was due. The same arrivals then go to the model behind `@serve.batch`;
- latency-single: one client, one short sentence;
- overload: five times as many requests as the service can answer, with its queue as it is by default;
- storm: 200 clients of whom 80 % hang up after 50 ms, and normal load before and after;
- start: until the first answer, and idle memory beside that of Ray Serve with nothing in it.

The test sentences of data/prepared/tatoeba-en-de are sent, or some of our own. Requests are checked for a translation of each sentence.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import platform
import shlex
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import serve_sides as sides
from loadgen import GOOD, HUNG_UP, SENTENCES, Plan, Report, measure, percentile
from serve_sides import BUNDLE, ROOT, Launcher, Program, StartFailed, say, used

from nmt.corpus.store import PreparedCorpus

MODES = ("fused", "two-hop")
CLIENTS, BATCH, SHORT = 64, 16, "Where is the nearest station?"
REFUSED = ("429", "503")
ROLES = ("load generator", *dict.fromkeys(("launcher", *(name for name, _ in sides.ROLES), "other")))
TARGETS: dict[tuple[str, str], tuple[str, float | dict[str, float]]] = {
    ("throughput-batch", "served / in process"): (">=", 0.9),
    ("throughput-single", "served / in process"): (">=", {"fused": 0.75, "two-hop": 0.5}),
    ("open-loop", "p99 / p50"): ("<=", 2.5),
    ("open-loop", "p95 / that of @serve.batch"): ("<=", 0.5),
    ("latency-single", "more than in process, ms"): ("<=", 3.0),
    ("overload", "refusals p99, ms"): ("<=", 50.0),
    ("overload", "refusals with Retry-After, share"): (">=", 1.0),
    ("overload", "goodput / capacity"): (">=", 0.9),
    ("storm", "answered 200 after, share"): (">=", 1.0),
    ("start", "first answer, s"): ("<=", 15.0),
    ("start", "more than bare Ray Serve, MB"): ("<=", 400.0),
}


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
        """Of the engine; by default those that the service takes: in two hops a core is left to the others."""
        cores = len(os.sched_getaffinity(0))
        return int(self.options.threads or (cores if self.mode == "fused" else max(1, cores - 1)))

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


# --- the cases -----------------------------------------------------------------------------------------------------------


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
    return Round(figures | {"sent late p99, ms": report.lag_ms(), "not answered 200, share": 1 - report.share()}, cpu)


def latency_single(bench: Bench, seconds: float) -> Round:
    """One client."""
    inside = bench.inside(sides.alone_ms, SHORT, seconds / 2)
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
    "start": start,
}


def batched(bench: Bench, rounds: Sequence[Round], seconds: float) -> None:
    """The arrivals of each round again, to the model behind `@serve.batch`; adds to the figures."""
    with bench.peer("batched"):
        for found, sent in zip(rounds, bench.sent, strict=True):
            report, _ = bench.load(seconds=seconds, **sent)
            p50, p95 = (percentile(report.latencies(since_due=True), share) for share in (0.5, 0.95))
            found.figures |= {"@serve.batch p50, ms": p50, "@serve.batch p95, ms": p95}
            found.figures |= {"p95 / that of @serve.batch": found.figures["p95, ms"] / p95}
            found.figures |= {"@serve.batch not answered 200, share": 1 - report.share()}


def run(bench: Bench) -> None:
    """All rounds of all cases that are wanted, into `bench.found`. Raises `StartFailed`."""
    seconds, rounds, found = bench.options.seconds, range(bench.options.rounds), bench.found
    cases = [name for name in CASES if name in bench.options.cases]

    def once(name: str) -> None:
        found.setdefault(name, []).append(CASES[name](bench, seconds))
        figures = ", ".join(f"{what} {number(value)}" for what, value in found[name][-1].figures.items())
        say(f"{bench.mode}, {name}, round {len(found[name])}: {figures}")

    if "throughput-batch" in cases:
        with bench.serving(queue={"texts": 2 * CLIENTS * BATCH}):  # the default has no room for all of them
            for _ in rounds:
                once("throughput-batch")
    if others := [name for name in cases if name not in ("throughput-batch", "start")]:
        with bench.serving():
            for _, name in itertools.product(rounds, others):
                once(name)
    if "open-loop" in cases:
        batched(bench, found["open-loop"], seconds)
    for _ in rounds if "start" in cases else ():
        once("start")


# --- the report ----------------------------------------------------------------------------------------------------------


def number(value: float) -> str:
    """Three digits, and all those before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def target(mode: str, case: str, figure: str, value: float) -> str:
    """What is aimed at, and whether it was reached; "" where there is no aim."""
    if (case, figure) not in TARGETS:
        return ""
    relation, aim = TARGETS[case, figure]
    aim = aim[mode] if isinstance(aim, dict) else aim
    met = value >= aim if relation == ">=" else value <= aim
    return f"{relation} {number(aim)}, {'met' if met else 'missed'}"


def table(mode: str, found: Mapping[str, Sequence[Round]]) -> str:
    """Figures of a mode, then what used the processor."""
    lines = ["| case | figure | median | range | target |", "|---|---|---|---|---|"]
    for case, rounds in found.items():
        for figure in rounds[0].figures if rounds else ():
            values = [each.figures.get(figure, float("nan")) for each in rounds]
            middle = statistics.median(values)
            span = f"{number(min(values))} to {number(max(values))}"
            lines.append(f"| {case} | {figure} | {number(middle)} | {span} | {target(mode, case, figure, middle)} |")
    lines += ["", f"| cores used | {' | '.join(ROLES)} |", f"|{'---|' * (len(ROLES) + 1)}"]
    for case, rounds in found.items():
        if rounds[0].cpu:
            cores = [statistics.median(each.cpu.get(name, 0.0) for each in rounds) for name in ROLES]
            lines.append(f"| {case} | {' | '.join(f'{each:.2f}' for each in cores)} |")
    return "\n".join(lines)


def circumstances(bench: Bench) -> str:
    """What was measured, and on what."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    cores = f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f} before"
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("ray", "fastapi", "onnxruntime"))
    return "\n".join(
        (
            f"- command: `python {shlex.join(sys.argv)}`",
            f"- machine: {names[0].partition(':')[2].strip() if names else platform.machine()}, {cores}",
            f"- versions: Python {platform.python_version()}, {versions}",
            f"- {len(bench.sentences)} sentences, {bench.options.seconds:g} s a load, {bench.options.rounds} rounds",
        )
    )


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--ingress", choices=("haproxy", "proxy"), help="default: as `nmt serve` chooses")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each load")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, help="of the engine (default: all cores; in two hops all but one)")
    parser.add_argument("--bundle", type=Path, default=BUNDLE)
    parser.add_argument("--corpus", type=Path, default=ROOT / "data/prepared/tatoeba-en-de", help="prepared")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print; 1 where a mode could not be started or a request came to what it should not."""
    options, failed, result = parser().parse_args(arguments), 0, {}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server is stopped too
    sentences = sentences_of(options.corpus)
    with tempfile.TemporaryDirectory(prefix="serve-load-") as folder:
        launcher = Launcher(options.bundle.resolve(), Path(folder), options.ingress)
        benches = [Bench(options, mode, launcher, sentences) for mode in options.modes]
        print(circumstances(benches[0]), flush=True)
        for bench in benches:
            try:
                run(bench)
            except StartFailed as error:
                print(f"\n{bench.mode} was not measured, or not all of it: {error}", flush=True)
                failed = 1
            if bench.found:
                title = f"{bench.mode}, {bench.ingress}, threads: {bench.threads}"
                print(f"\n### {title}\n\n{table(bench.mode, bench.found)}", flush=True)
                result[title] = {case: [asdict(each) for each in rounds] for case, rounds in bench.found.items()}
            if bench.unexpected:
                print(f"\nunexpected: {dict(bench.unexpected)}", flush=True)
                failed = 1
    if options.json:
        options.json.write_text(f"{json.dumps(result, indent=1)}\n", encoding="utf-8")
    return failed


if __name__ == "__main__":
    sys.exit(main())
