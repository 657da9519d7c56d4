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
- document: sentences one by one at random times, at a fifth of the capacity; then the same beside two clients with lists of 128 sentences;
- start: until the first answer, and idle memory beside that of Ray Serve with nothing in it.

The test sentences of data/prepared/tatoeba-en-de are sent, or some of our own. Requests are checked for a translation of each sentence.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import shlex
import signal
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

import serve_sides as sides
from loadgen import percentile
from serve_cases import BATCH, CASES, CLIENTS, Bench, Round, sentences_of
from serve_sides import BUNDLE, ROOT, Launcher, StartFailed, say

MODES = ("fused", "two-hop")
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
    parser.add_argument("--threads", type=int, help="of the engine (default: all cores, as the service takes)")
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
