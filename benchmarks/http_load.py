"""Load a running translation server and print sentences per second and latencies at several concurrencies.

    python benchmarks/http_load.py http://127.0.0.1:8000 [--file sentences.txt] [--concurrency 1 8 64]

Each of the N clients sends its next request when it has its answer (`loadgen.py`). Requests that are not answered 200 are counted apart.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import math
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import loadgen

_COLUMNS = ("concurrency", "requests", "failed", "sentences/s", "p50 ms", "p95 ms", "p99 ms")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("url", help="address of the server, such as http://127.0.0.1:8000")
    parser.add_argument("--file", type=Path, help="sentences, one a line (default: some built-in ones)")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 64], help="clients at the same time")
    parser.add_argument("--batch", type=int, default=1, help="sentences of one request")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each level")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds to wait for an answer")
    return parser


def row(concurrency: int, report: loadgen.Report) -> str:
    """One line of the table."""
    good = report.latencies()
    failed = len(report.answers) - len(good)
    spans = " ".join(f"{loadgen.percentile(good, share):>11.1f}" for share in (0.5, 0.95, 0.99))
    return f"{concurrency:>11} {len(good):>11} {failed:>11} {report.rate():>11.1f} {spans}"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit status, 1 when a request failed."""
    options = parser().parse_args(argv)
    base = urlsplit(options.url)
    try:
        served = httpx.get(f"{options.url.rstrip('/')}/v1/models", timeout=30).raise_for_status().json()["models"]
        lines = options.file.read_text(encoding="utf-8").splitlines() if options.file else loadgen.SENTENCES
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, LookupError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    texts = [line.strip() for line in lines if line.strip()]
    endless = itertools.cycle(texts)  # requests begin anew when each sentence has been at each place of one
    count = math.lcm(len(texts), options.batch) // options.batch
    requests = [list(itertools.islice(endless, options.batch)) for _ in range(count)]
    print(f"command: python {shlex.join(sys.argv)}")
    print("models: ", "; ".join(f"{each['name']}: {each['architecture']}, beam {each['beam_size']}" for each in served))
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("strata-nmt", "ray", "fastapi"))
    print(
        f"client:  {versions}, Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n"
    )
    print(" ".join(f"{name:>11}" for name in _COLUMNS))
    outcomes = collections.Counter[str]()
    path, port = f"{base.path.rstrip('/')}/v1/translate", base.port or 80
    for clients in options.concurrency:
        plan = loadgen.Plan(port, requests, options.seconds, clients=clients, timeout_s=options.timeout)
        plan.host, plan.path = base.hostname or "", path
        report = loadgen.measure(plan)
        outcomes += report.outcomes()
        print(row(clients, report), flush=True)
    del outcomes[loadgen.GOOD]
    if outcomes:
        print(f"\nnot answered 200: {dict(outcomes)}")
    return 1 if outcomes else 0


if __name__ == "__main__":
    sys.exit(main())
