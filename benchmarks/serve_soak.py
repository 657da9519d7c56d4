"""The service for a long time under requests of every length, a tenth of them given up: do memory and descriptors stay flat?

    python benchmarks/serve_soak.py --minutes 30

Starts `python -m serving` with the bundled model, as it starts by itself; prints a line a minute, and the slopes over the second half.
Memory is what the processes have of their own (anonymous and shared memory, what they share counted once): the pages of files, which are no
leak, come and go with whatever else runs on the machine.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import loadgen
import ray
from decode_soak import BUNDLE, slope
from serve_sides import Launcher, Program, mixed

from nmt.training.machine import processor


def descriptors(program: Program) -> int:
    """Open ones of all processes of the service."""
    found = 0
    for pid in program.pids():
        try:
            found += len(list(Path(f"/proc/{pid}/fd").iterdir()))
        except OSError:  # it has just ended
            continue
    return found


def soak(
    program: Program, minutes: int, clients: int
) -> tuple[list[tuple[float, float]], list[tuple[float, float]], Counter[str]]:
    """(minute, MB), (minute, descriptors), and how many requests ended in which way."""
    memory, files, outcomes = [], [], Counter[str]()
    texts = mixed(loadgen.SENTENCES)
    for minute in range(1, minutes + 1):
        plan = loadgen.Plan(program.port, texts, 58.0, clients=clients, hang_up_share=0.1, seed=minute)
        outcomes += (report := loadgen.measure(plan)).outcomes()
        memory.append((float(minute), program.pss_mb(own=True)))
        files.append((float(minute), float(descriptors(program))))
        rate = report.outcomes()[loadgen.GOOD] / plan.seconds
        used = f"{memory[-1][1]:,.0f} MB ({program.pss_mb():,.0f} with files), {files[-1][1]:,.0f} descriptors"
        print(f"{minute} min: {used}, {rate:,.0f} requests/s", flush=True)
    return memory, files, outcomes


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what came of it; 1 where a request was not answered."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=int, default=30)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--ingress", choices=("haproxy", "proxy"))
    options = parser.parse_args(arguments)
    print(
        f"python benchmarks/serve_soak.py --minutes {options.minutes}: {processor()}, {os.cpu_count()} cores, ray {ray.__version__}"
    )
    with tempfile.TemporaryDirectory() as folder:
        program, _ = Launcher(BUNDLE, Path(folder), options.ingress).serve(True, options.threads)
        try:
            memory, files, outcomes = soak(program, options.minutes, options.clients)
        finally:
            program.stop()
    print("requests:", ", ".join(f"{name} {count:,}" for name, count in outcomes.most_common()))
    print(
        f"second half: {slope(memory):+.2f} MB/min, {slope(files):+.2f} descriptors/min; most {max(mb for _, mb in memory):,.0f} MB"
    )
    return 0 if set(outcomes) <= {loadgen.GOOD, loadgen.HUNG_UP} else 1


if __name__ == "__main__":
    sys.exit(main())
