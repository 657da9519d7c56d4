"""The memory of a batch job by its number of lines: `nmt.batch` from file to file, each job in a process of its own.

    python benchmarks/batch_memory.py                            10 thousand, 1 million and 10 million lines, some ten minutes
    python benchmarks/batch_memory.py --lines 10000 300000       a quick look

All lines are different. They are not translated but returned at once, so that what is measured is the job: reading, what is known of
texts that have come before, answers on disk, the output. Prints the most that each process had resident, and ends with 1 when the largest
job took more than --allowed MB more than the smallest.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from nmt.batch.inputs import Shape
from nmt.batch.job import Task, local, run
from nmt.batch.languages import Watched
from nmt.batch.opening import open_input
from nmt.inference.types import Hypothesis, Translation
from nmt.machine import kilobytes, processor


@dataclass
class Echo:
    """Texts that are their own translations."""

    texts: list[str]

    def results(self) -> list[Translation]:
        """At once."""
        return [Translation(text, (Hypothesis(text, 0.0),), 8, 8) for text in self.texts]

    def cancel(self) -> None:
        """Nothing is in hand."""


def job(folder: Path, lines: int) -> None:
    """One job; prints seconds and peak as JSON."""
    source, output = folder / "in.txt", folder / "out.txt"
    with source.open("w", encoding="utf-8") as stream:
        for number in range(lines):
            stream.write(f"This is sentence number {number} of the file.\n")
    started = time.perf_counter()
    outcome = run(
        [Task(Watched(open_input(str(source), Shape()), "", False), output)],
        folder / "out.work",
        {},
        local(Echo, False, False),
    )
    seconds = time.perf_counter() - started
    assert outcome.records == lines
    assert output.stat().st_size == source.stat().st_size
    print(json.dumps({"seconds": seconds, "peak MB": kilobytes(Path("/proc/self/status"), "VmHWM") / 1e3}))


def main() -> int:
    """Measure, print."""
    parser = argparse.ArgumentParser(description="The memory of a batch job by its number of lines.")
    parser.add_argument("--lines", type=int, nargs="+", default=[10_000, 1_000_000, 10_000_000])
    parser.add_argument("--allowed", type=float, default=10.0, metavar="MB", help="that the largest job may take more")
    parser.add_argument("--job", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job is not None:
        with tempfile.TemporaryDirectory(prefix="batch-memory-") as folder:
            job(Path(folder), options.job)
        return 0
    print(f"{processor()}, {os.cpu_count()} cores; Python {platform.python_version()}")
    print(
        f"command: {shlex.join(['python', *sys.argv])}\n\n| lines | most resident, MB | seconds | lines a second |\n|---|---|---|---|"
    )
    peaks = []
    for lines in options.lines:
        command = [sys.executable, __file__, "--job", str(lines)]
        done = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        peaks.append(done["peak MB"])
        print(f"| {lines:,} | {peaks[-1]:.1f} | {done['seconds']:.1f} | {lines / done['seconds']:,.0f} |", flush=True)
    return int(peaks[-1] > peaks[0] + options.allowed)


if __name__ == "__main__":
    sys.exit(main())
