"""One training step on a CPU core: its rate, and what two choices in it bring.

    python benchmarks/training_step.py                              about two minutes
    python benchmarks/training_step.py --heap                       what it brings not to give memory back between updates
    python benchmarks/training_step.py general-en-de --set train.batch_tokens=4096 --steps 20

Prints the median tokens a second (source and target, no padding) of a configuration's whole update, then the time of the attention and
of the loss, forward and backward, as the model computes them and in the form they replace: the fused attention kernel, and all
logits at once. Times are medians of alternating runs on one thread; take the ratios, the machine may be busy.
"""

from __future__ import annotations

import argparse
import contextlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import torch
from torch.nn import functional as F

from nmt.config import find_shipped, load
from nmt.errors import NMTError
from nmt.model.attention import DotAttention
from nmt.training import loss
from nmt.training import trainer as trainer_module
from nmt.training.config import RunConfig
from nmt.training.loader import Loader
from nmt.training.trainer import Trainer
from nmt.training.update import Meter


def timed(*works: Callable[[], object], rounds: int = 15) -> list[float]:
    """The median seconds of each work, which take turns."""
    seconds: list[list[float]] = [[] for _ in works]
    for _ in range(rounds + 1):  # the first warms up
        for work, times in zip(works, seconds, strict=True):
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
    return [statistics.median(times[1:]) for times in seconds]


def rate(config: RunConfig, steps: int) -> float:
    """Median tokens a second over `steps` updates."""
    trainer, meter, rates = Trainer(config), Meter(), []
    trainer.model.train()
    with Loader(trainer.batches, (0, 0, 0)) as loader:
        for _ in range(steps + 3):
            before, start = meter.total, time.perf_counter()
            trainer._update(loader, meter)
            rates.append((meter.total - before) / (time.perf_counter() - start))
    return statistics.median(rates[3:])


@contextlib.contextmanager
def fused() -> Iterator[None]:
    """Attention by torch's fused kernel in training too."""

    def forward(
        self: DotAttention, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        context = F.scaled_dot_product_attention(
            self._split(self.query(query)), key, value, attn_mask=mask[:, None, None, :], scale=self.scale
        )
        return context.transpose(1, 2).flatten(2)

    with mock.patch.object(DotAttention, "forward", forward):
        yield


def attention(sentences: int, steps: int) -> list[float]:
    """Seconds of the model's attention, and of the fused kernel, forward and backward: 6 heads of 64, as many keys as queries."""
    layer = DotAttention(384, 384, 6, scaled=True)
    x = torch.randn(sentences, steps, 384, requires_grad=True)
    mask = torch.ones(sentences, steps, dtype=torch.bool)

    def run() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            layer(x, *layer.project(x), mask).float().sum().backward()

    def run_fused() -> None:
        with fused():
            run()

    return timed(run, run_fused)


def cross_entropy(tokens: int, vocabulary: int) -> list[float]:
    """Seconds of the loss in rows that fit the cache, and of all rows at once, forward and backward."""
    logits = torch.randn(tokens, vocabulary).bfloat16().requires_grad_()
    labels = torch.randint(0, vocabulary, (tokens,))

    def run() -> None:
        loss.smoothed_cross_entropy(logits, labels, 0.1)[0].backward()  # type: ignore[no-untyped-call]

    def run_whole() -> None:
        with mock.patch.object(loss, "_ROWS", tokens):
            run()

    return timed(run, run_whole)


def heap(arguments: list[str], rounds: int = 3) -> int:
    """Tokens a second with a heap that is kept and with one that is given back, in processes of their own, which take turns."""
    found: dict[str, list[float]] = {"kept": [], "given back": []}
    for _ in range(rounds):
        for how, rates in found.items():
            command = [sys.executable, __file__, *(item for item in arguments if item != "--heap"), "--rate", how]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
            if done.returncode:
                return done.returncode
            rates.append(float(done.stdout))
    kept, given = (statistics.median(rates) for rates in found.values())
    print(
        f"whole update, one thread: heap kept {kept:,.0f} tokens/s, given back {given:,.0f}; ratio {kept / given:.2f}"
    )
    return 0


def main() -> int:
    """Measure, print."""
    parser = argparse.ArgumentParser(description="The rate of a training step on one CPU core, and what it is made of.")
    parser.add_argument(
        "config", nargs="?", default="multi30k-en-de", help="a training configuration, or the name of a shipped one"
    )
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="override settings")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument(
        "--heap", action="store_true", help="instead: the whole update with and without a heap that is kept"
    )
    parser.add_argument("--rate", choices=("kept", "given back"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.heap:
        return heap(sys.argv[1:])
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            places = (f"run={Path(folder) / 'run'}", "train.threads=1", "train.device=cpu")
            config = load(RunConfig, find_shipped(options.config, "configs"), [*options.set, *places])
            if options.rate:
                with (
                    mock.patch.object(trainer_module, "keep_heap")
                    if options.rate != "kept"
                    else contextlib.nullcontext()
                ):
                    print(rate(config, options.steps))
                return 0
            now = rate(config, options.steps)
            with fused(), mock.patch.object(loss, "_ROWS", 1 << 30):
                before = rate(config, options.steps)
    except NMTError as error:
        print(f"training_step.py: {error}", file=sys.stderr)
        return 2
    print(f"Python {platform.python_version()}, torch {torch.__version__}, one thread; {options.config}: medians")
    print(
        f"whole update: {now:,.0f} tokens/s; fused attention and all logits at once {before:,.0f}; ratio {now / before:.2f}"
    )
    for shape in ((140, 14), (60, 32), (20, 90)):
        ours, theirs = attention(*shape)
        print(
            f"attention, {shape[0]} sentences of {shape[1]} steps: {1e3 * ours:.1f} ms; fused {1e3 * theirs:.1f}; ratio {theirs / ours:.2f}"
        )
    for rows in (512, 2048):
        ours, theirs = cross_entropy(rows, 6000)
        print(
            f"loss, {rows:,} tokens of 6,000: {1e3 * ours:.1f} ms; all at once {1e3 * theirs:.1f}; ratio {theirs / ours:.2f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
