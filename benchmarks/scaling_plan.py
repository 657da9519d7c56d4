"""A plan for training on 8 to 256 GPUs, calculated: what an update takes, which batch to take, how long until BLEU 24.0 on WMT16 en-de.

    python benchmarks/scaling_plan.py
    python benchmarks/scaling_plan.py --rate 120000 --rate-batch 256 --between 25 --gpus 8 16 32

Nothing here is measured: nothing of Strata has been, on more than CPUs. Published numbers and assumptions are listed below the tables,
each marked as what it is. The model of an update, for n GPUs in nodes of 8:

    compute     sentences a GPU / rate; the rate falls with the batch: rate(b) = peak x b / (b + half)
    all-reduce  ring inside a node, then between the nodes: 2 (g - 1) / g x bytes / NVLink + 2 (m - 1) / m x bytes / network of a node,
                and for each bucket of 25 MiB one latency a step: 2 (g - 1) inside, 2 (m - 1) between
    update      compute + the part of the all-reduce that is not hidden behind the backward pass of the last piece

Of the batches between the published ones that one is taken which needs the least time to the quality: a larger one has fewer updates
and more epochs. Validation, checkpoints and input are left out.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

import nmt.config
from nmt.errors import ConfigError, NMTError
from nmt.model.config import ModelConfig
from nmt.model.seq2seq import Seq2Seq

NODE = 8  # GPUs
BUCKET = 25 * 2**20  # bytes; DistributedDataParallel's default, which the trainer keeps
BACKWARD = 2 / 3  # of the compute of an update
PAIRS = 4_500_000

# Sentences of an update, learning rate, epochs to BLEU 24.0 (the middle where a range is published).
LAW = (
    (1024, 2.0e-3, 6.0),
    (2048, 2.0e-3, 4.0),
    (3072, 2.875e-3, 4.0),
    (4096, 3.25e-3, 5.5),
    (8192, 4.25e-3, 6.5),
    (12288, 4.5e-3, 8.0),
    (16384, 5.0e-3, 10.0),
)


@dataclass(frozen=True)
class Published:
    """A result of NVIDIA in MLPerf Training: GNMT with 4+4 layers of 1,024 to BLEU 24.0 on newstest2014."""

    system: str
    gpus: int
    sentences: int  # a GPU, of an update
    rate: float  # source and target tokens a second, of a GPU
    minutes: float


SMALL, LARGE = Published("v0.7, DGX-A100", 8, 384, 243e3, 7.81), Published("v0.7, 32 DGX-A100", 256, 32, 96.9e3, 0.98)
PUBLISHED = (
    Published("v0.6, DGX-1 (V100)", 8, 256, 90.5e3, 20.55),
    SMALL,
    Published("v0.7, DGX-2H (V100)", 16, 192, 112.7e3, 8.56),
    LARGE,
    Published("v0.7, 64 DGX-2H (V100)", 1024, 16, 32.4e3, 1.11),
)
# Source and target tokens of a pair: rate x GPUs x time / (4 epochs x pairs). The time has evaluation in it: an upper bound.
PAIR_TOKENS = round(SMALL.rate * SMALL.gpus * SMALL.minutes * 60 / (4 * PAIRS))
# From rate(384) and rate(32) of the A100; the second includes the all-reduce of 256 GPUs.
HALF = round(
    SMALL.sentences * LARGE.sentences * (SMALL.rate - LARGE.rate)
    / (SMALL.sentences * LARGE.rate - LARGE.sentences * SMALL.rate)
)  # fmt: skip


@dataclass(frozen=True)
class Machine:
    """GPUs and what joins them. Rates in tokens a second, bandwidths in bytes a second and one direction, latencies in seconds."""

    rate: float = SMALL.rate
    rate_batch: int = SMALL.sentences  # sentences of a GPU at which `rate` holds
    half: float = HALF  # sentences of a GPU at which it has half of its peak rate; 0: it always has `rate`
    most: int = SMALL.sentences  # sentences that a GPU takes at once; more are taken in pieces
    inside: float = 300e9  # of a GPU, by NVLink
    between: float = 200e9  # of a node of 8, to other nodes
    latency_inside: float = 3e-6
    latency_between: float = 5e-6
    reached: float = 0.8  # of the bandwidths
    overlap: float = 0.5  # of the backward pass, during which gradients are summed
    gradient_bytes: int = 4  # of a weight

    def __post_init__(self) -> None:
        for name in ("rate", "rate_batch", "most", "inside", "between", "reached", "gradient_bytes"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}: more than 0 is needed")
        if min(self.half, self.latency_inside, self.latency_between) < 0:
            raise ConfigError("half and the latencies can't be less than 0")
        if self.reached > 1 or not 0 <= self.overlap <= 1:
            raise ConfigError("reached and overlap are shares, from 0 to 1")


@dataclass(frozen=True)
class Update:
    """The seconds of one update."""

    compute: float
    all_reduce: float
    exposed: float  # the part of the all-reduce that training waits for

    @property
    def seconds(self) -> float:
        """The whole."""
        return self.compute + self.exposed


@dataclass(frozen=True)
class Plan:
    """How to train on so many GPUs, and what to expect."""

    gpus: int
    batch: int  # sentences of an update
    lr: float
    epochs: float
    updates: int
    update: Update

    @property
    def minutes(self) -> float:
        """To BLEU 24.0."""
        return self.updates * self.update.seconds / 60

    @property
    def rate(self) -> float:
        """Tokens a second, of all GPUs."""
        return self.batch * PAIR_TOKENS / self.update.seconds


def parameters(config: ModelConfig, vocabulary: int) -> int:
    """How many weights the model has: of the class that is trained, made without memory for them."""
    with torch.device("meta"):
        return sum(weight.numel() for weight in Seq2Seq(config, vocabulary, vocabulary).parameters())


def gnmt() -> ModelConfig:
    """The model of the published results in our wiring."""
    return nmt.config.parse(ModelConfig, {"preset": "gnmt-4x1024"}, "gnmt-4x1024")


def law(batch: int) -> tuple[float, float]:
    """Learning rate and epochs for updates of `batch` sentences, on straight lines between the published points in log(batch).

    Raises `ConfigError` outside of them: the law is not known there.
    """
    if not LAW[0][0] <= batch <= LAW[-1][0]:
        raise ConfigError(f"{batch:,} sentences an update: published points reach from {LAW[0][0]:,} to {LAW[-1][0]:,}")
    for (low, lr, epochs), (high, next_lr, next_epochs) in itertools.pairwise(LAW):
        if batch <= high:
            share = math.log(batch / low) / math.log(high / low)
            return lr * (next_lr / lr) ** share, epochs + share * (next_epochs - epochs)
    raise AssertionError("the last point is the end of the range")


def check(gpus: int) -> None:
    """Raise `ConfigError` for a number of GPUs that the model of the all-reduce does not hold for."""
    if gpus < 1 or (gpus > NODE and gpus % NODE):
        raise ConfigError(f"{gpus} GPUs: up to {NODE}, or whole nodes of {NODE}")


def all_reduce(gpus: int, weights: int, machine: Machine) -> float:
    """Seconds to sum the gradients of `weights` over `gpus`; 0 for one."""
    check(gpus)
    inside, nodes = min(gpus, NODE), max(1, gpus // NODE)
    size = weights * machine.gradient_bytes
    seconds = 2 * (inside - 1) / inside * size / (machine.inside * machine.reached)
    seconds += 2 * (nodes - 1) / nodes * size / (machine.between * machine.reached)
    steps = 2 * (inside - 1) * machine.latency_inside + 2 * (nodes - 1) * machine.latency_between
    return seconds + math.ceil(size / BUCKET) * steps


def update(gpus: int, batch: int, weights: int, machine: Machine) -> Update:
    """What an update of `batch` sentences takes; raise `ConfigError` where a GPU would have none of them."""
    if batch < gpus:
        raise ConfigError(f"{gpus} GPUs for {batch} sentences an update: each needs one at least")
    summing = all_reduce(gpus, weights, machine)
    sentences = batch / gpus
    pieces = math.ceil(sentences / machine.most)
    peak = machine.rate * (machine.rate_batch + machine.half) / machine.rate_batch
    compute = (sentences + pieces * machine.half) * PAIR_TOKENS / peak
    return Update(compute, summing, max(0.0, summing - machine.overlap * BACKWARD * compute / pieces))


def plan(gpus: int, weights: int, machine: Machine) -> Plan:
    """The batch that comes to the quality soonest, and what it takes."""
    check(gpus)
    first, last = math.log2(LAW[0][0]), math.log2(LAW[-1][0])
    grid = {point for point, *_ in LAW} | {round(2 ** (first + (last - first) * i / 64)) for i in range(65)}
    sizes = sorted({size // gpus * gpus for size in grid if size // gpus * gpus >= LAW[0][0]})
    if not sizes:
        raise ConfigError(f"{gpus:,} GPUs: no published batch has a sentence for each of them")
    return min((_planned(gpus, size, weights, machine) for size in sizes), key=lambda found: found.minutes)


def _planned(gpus: int, batch: int, weights: int, machine: Machine) -> Plan:
    lr, epochs = law(batch)
    return Plan(gpus, batch, lr, epochs, math.ceil(epochs * PAIRS / batch), update(gpus, batch, weights, machine))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def steps(plans: Sequence[Plan], rate: float) -> str:
    """The table of a network."""
    head = ["GPUs", "sentences an update", "of a GPU", "epochs", "updates", "compute, ms", "all-reduce", "not hidden"]
    head += ["update, ms", "tokens/s", "of the stated rate", "minutes to BLEU 24.0"]
    rows = []
    for it in plans:
        times = (it.update.compute, it.update.all_reduce, it.update.exposed, it.update.seconds)
        row = [str(it.gpus), f"{it.batch:,}", f"{it.batch / it.gpus:.0f}", f"{it.epochs:.1f}", f"{it.updates:,}"]
        row += [f"{1e3 * seconds:.1f}" for seconds in times]
        rows.append([*row, _millions(it.rate), f"{it.rate / (it.gpus * rate):.0%}", f"{it.minutes:.1f}"])
    return table(head, rows)


def settings(plans: Sequence[Plan]) -> str:
    """What the plans are in our configuration."""
    head = ["GPUs", "`train.batch_tokens`", "`optimizer.lr`", "`train.max_steps`"]
    return table(head, [[str(p.gpus), str(p.batch * PAIR_TOKENS), f"{p.lr:.2g}", str(p.updates)] for p in plans])


def slower(gpus: Sequence[int], weights: int, machine: Machine) -> str:
    """Minutes where a GPU is slower than stated."""
    machines = [replace(machine, rate=machine.rate * share) for share in (1.0, 0.5, 0.25)]
    head = ["GPUs", *(f"{it.rate:,.0f} tokens/s" for it in machines)]
    return table(head, [[str(n), *(f"{plan(n, weights, it).minutes:.1f}" for it in machines)] for n in gpus])


def published(weights: int, machine: Machine) -> str:
    """NVIDIA's results; beside those of the A100 what this model says for their batch."""
    head = ["MLPerf", "GPUs", "sentences of a GPU", "tokens/s", "minutes to BLEU 24.0", "here: tokens/s", "minutes"]
    rows = []
    for it in PUBLISHED:
        row = [it.system, str(it.gpus), str(it.sentences), _millions(it.rate * it.gpus), f"{it.minutes:.2f}"]
        if it in (SMALL, LARGE):
            mine = _planned(it.gpus, it.gpus * it.sentences, weights, machine)
            rows.append([*row, _millions(mine.rate), f"{mine.minutes:.2f}"])
        else:
            rows.append([*row, "", ""])
    return table(head, rows)


def _millions(rate: float) -> str:
    return f"{rate / 1e6:.2f} M"


def sources(weights: int, machine: Machine, ethernet: float) -> str:
    """Every number that went in, and where it is from."""
    points = "; ".join(f"{batch:,}: {lr:g}, {epochs:g}" for batch, lr, epochs in LAW)
    latencies = f"{1e6 * machine.latency_inside:g} and {1e6 * machine.latency_between:g} microseconds"
    return "\n".join(
        [
            f"- **Ours, counted**: {weights:,} weights, of our model class with the preset gnmt-4x1024 and 32,000 joint subwords; "
            f"gradients of {machine.gradient_bytes} bytes, {weights * machine.gradient_bytes / 1e6:.0f} MB an update.",
            f"- **Published, or stated on the command line**: {machine.rate:,.0f} source and target tokens a second of a GPU at "
            f"{machine.rate_batch} sentences (default: A100, NVIDIA's logs of MLPerf v0.7; fp16 and fused kernels of its own). NVLink "
            f"{machine.inside / 1e9:g} GB/s a GPU and direction (NVIDIA: 600 both ways, A100). Network "
            f"{machine.between / 1e9:g} GB/s a node (DGX A100: eight times 200 Gbit/s InfiniBand), {ethernet / 1e9:g} in the second "
            "table.",
            f"- **Published**: sentences an update, learning rate and epochs to BLEU 24.0 ({points}), from NVIDIA's and Google's MLPerf "
            "v0.6 and v0.7 submissions; 1,024 is NVIDIA DeepLearningExamples, whose schedule of six epochs ends at 24.4. Of ranges the "
            "middle is taken, between points a line is drawn. BLEU 24.0 is of newstest2014, lowercased, `intl` tokens; cased 13a is "
            "lower (NVIDIA's 24.4 against 23.0 of OpenSeq2Seq's GNMT).",
            f"- **Derived from published numbers**: {PAIR_TOKENS} tokens a pair of {PAIRS:,} pairs (rate times time of DGX-A100 over 4 "
            f"epochs; evaluation is in that time: an upper bound). Half of the peak rate at {machine.half:g} sentences a GPU (default: "
            "from the rates of 8 and of 256 A100; the second has its all-reduce in it).",
            f"- **Assumed**: {machine.reached:.0%} of the bandwidths are reached; latencies of {latencies} a step, four times the second "
            f"over Ethernet; {machine.overlap:.0%} of the backward pass, which is two thirds of the compute, hides the all-reduce; a GPU "
            f"takes up to {machine.most} sentences at once; nodes have {NODE} GPUs; our recipe needs as many epochs as the published.",
            "- **Agreement by construction**: the result of 8 A100 is met because rate and tokens a pair are taken from it. At 256 A100 "
            "NVIDIA is faster than this model, which counts a part of the all-reduce twice and sums gradients of single precision.",
            "- **Left out**: validation, checkpoints, input. **Measured**: nothing. Strata's rate on a GPU is not known.",
        ]
    )


def report(gpus: list[int], machine: Machine, ethernet: float) -> str:
    """The page."""
    weights = parameters(gnmt(), 32_000)
    plans = [plan(count, weights, machine) for count in gpus]
    slow = replace(machine, between=ethernet, latency_between=4 * machine.latency_between)
    parts = [
        "Calculated: nothing of Strata has been measured on more than CPUs.",
        f"Between nodes {machine.between / 1e9:g} GB/s a node (InfiniBand):",
        steps(plans, machine.rate),
        f"Between nodes {ethernet / 1e9:g} GB/s a node and four times the latency (Ethernet):",
        steps([plan(count, weights, slow) for count in gpus], machine.rate),
        "The first table as settings to start from (`train.batch_tokens` is for all GPUs; padding comes on top):",
        settings(plans),
        "Minutes to BLEU 24.0 where a GPU does less than the stated rate, network as in the first table:",
        slower(gpus, weights, machine),
        "Published by NVIDIA, for orientation:",
        published(weights, machine),
        "What went in:",
        sources(weights, machine, ethernet),
    ]
    return "\n\n".join(parts)


def main(arguments: list[str] | None = None) -> int:
    """Calculate, print."""
    default = Machine()
    parser = argparse.ArgumentParser(description="Time to quality on 8 to 256 GPUs, calculated from stated rates.")
    parser.add_argument("--gpus", type=int, nargs="+", default=[8, 16, 32, 64, 128, 256])
    parser.add_argument("--rate", type=float, default=default.rate, help="tokens a second of a GPU, source and target")
    parser.add_argument("--rate-batch", type=int, default=default.rate_batch, help="sentences of a GPU at that rate")
    parser.add_argument("--half", type=float, default=default.half, help="sentences at half the peak rate; 0: no fall")
    parser.add_argument("--most", type=int, default=default.most, help="sentences that a GPU takes at once")
    parser.add_argument("--nvlink", type=float, default=default.inside / 1e9, help="GB/s a GPU and direction")
    parser.add_argument("--between", type=float, default=default.between / 1e9, help="GB/s a node, first table")
    parser.add_argument("--ethernet", type=float, default=12.5, help="GB/s a node, second table")
    parser.add_argument("--reached", type=float, default=default.reached, help="share of the bandwidths")
    parser.add_argument("--overlap", type=float, default=default.overlap, help="share of the backward pass")
    parser.add_argument("--gradient-bytes", type=int, default=default.gradient_bytes)
    given = parser.parse_args(arguments)
    try:
        machine = Machine(
            given.rate,
            given.rate_batch,
            given.half,
            given.most,
            given.nvlink * 1e9,
            given.between * 1e9,
            reached=given.reached,
            overlap=given.overlap,
            gradient_bytes=given.gradient_bytes,
        )
        print(report(given.gpus, machine, given.ethernet * 1e9))
    except NMTError as error:
        print(f"scaling_plan.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
