"""A plan for training a GNMT on 8 to 256 GPUs: time of an update, batch and learning rate, time to quality. Nothing here is measured by us.

    python benchmarks/scaling_plan.py
    python benchmarks/scaling_plan.py --rate 400 --between 12.5       another GPU, 100 Gbit/s Ethernet a GPU

An update takes compute, tokens of a GPU / rate, and what of the sum of gradients is not hidden behind the backward pass (two thirds of
compute): a ring moves 2 (n - 1) / n times the gradient's bytes through the slowest link, and waits `--latency` at each of its 2 (n - 1)
steps. The rate falls with the batch as b / (b + 61): the curve through MLPerf v0.7's 243,000 tokens/s on an A100 at 384 sentences
and 96,900 at 32.
Batch, learning rate and epochs to BLEU 24.0 (lowercased, intl) on WMT16 en-de are interpolated, over the logarithm of the batch, between
published points: NVIDIA's GNMT v2 (1,024 sentences) and MLPerf v0.6 and v0.7 submissions. Prints Markdown.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from dataclasses import dataclass

import torch

from nmt.model.config import ModelConfig
from nmt.model.seq2seq import Seq2Seq

# Sentences of an update, learning rate, epochs; the middle where a range is published.
LAW = (
    (1024, 2.0e-3, 6.0),
    (2048, 2.0e-3, 4.0),
    (3072, 2.875e-3, 4.0),
    (4096, 3.25e-3, 5.5),
    (8192, 4.25e-3, 6.5),
    (12288, 4.5e-3, 8.0),
    (16384, 5.0e-3, 10.0),
)
PAIRS, TOKENS = 4_548_885, 50  # WMT16 en-de; source and target subwords of a pair, end marks included (assumed)
HALF = 61  # sentences of a GPU at which it reaches half of its highest rate
PUBLISHED = {8: "7.8 min (8 A100, MLPerf v0.7)", 16: "8.6 min (16 V100, v0.7)", 256: "1.0 min (256 A100, v0.7)"}


@dataclass(frozen=True)
class Cluster:
    """Tokens a second of a GPU at 384 sentences; bytes a second of a GPU inside a node of `node` GPUs and between nodes; seconds a hop."""

    rate: float
    inside: float
    between: float
    latency: float
    overlap: float
    node: int = 8


@dataclass(frozen=True)
class Plan:
    """So many GPUs: sentences of an update, learning rate, epochs, seconds of compute and of sums that show, seconds to quality."""

    gpus: int
    batch: int
    learning_rate: float
    epochs: float
    compute: float
    exposed: float
    total: float


def gradient_bytes() -> int:
    """Of the preset gnmt-4x1024 with 32,000 subwords, in single precision."""
    with torch.device("meta"):
        model = Seq2Seq(ModelConfig.model_validate({"preset": "gnmt-4x1024"}), 32_000, 32_000)
    return 4 * sum(parameter.numel() for parameter in model.parameters())


def law(batch: int) -> tuple[float, float]:
    """Learning rate and epochs for a batch of so many sentences; raise `ValueError` beyond the published points."""
    if not LAW[0][0] <= batch <= LAW[-1][0]:
        raise ValueError(f"{batch} sentences: results are published for {LAW[0][0]} to {LAW[-1][0]}")
    for low, high in itertools.pairwise(LAW):
        if batch <= high[0]:
            part = math.log(batch / low[0]) / math.log(high[0] / low[0])
            return low[1] + part * (high[1] - low[1]), low[2] + part * (high[2] - low[2])
    raise AssertionError


def sum_seconds(gpus: int, size: int, cluster: Cluster) -> float:
    """Of a ring over all GPUs: its slowest link decides."""
    link = cluster.inside if gpus <= cluster.node else cluster.between
    return 2 * (gpus - 1) / gpus * size / link + 2 * (gpus - 1) * cluster.latency


def plan(gpus: int, sentences: int, size: int, cluster: Cluster) -> Plan:
    """At most `sentences` a GPU, fewer where the update would be larger than any published."""
    if min(gpus, sentences, cluster.rate, cluster.inside, cluster.between) <= 0:
        raise ValueError("GPUs, sentences, rates and bandwidths are above zero")
    batch = max(LAW[0][0], min(LAW[-1][0], gpus * sentences))
    if gpus > batch:
        raise ValueError(f"{gpus} GPUs for an update of {batch} sentences")
    each = batch / gpus
    rate = cluster.rate * (384 + HALF) / 384 * each / (each + HALF)
    compute = each * TOKENS / rate
    exposed = max(0.0, sum_seconds(gpus, size, cluster) - cluster.overlap * compute * 2 / 3)
    learning_rate, epochs = law(batch)
    return Plan(gpus, batch, learning_rate, epochs, compute, exposed, epochs * PAIRS / batch * (compute + exposed))


def table(plans: list[Plan]) -> str:
    """In Markdown."""
    rows = [
        "| GPUs | sentences an update | learning rate | epochs | compute, ms | sums that show, ms | minutes to 24.0 | published |",
        "|---|---|---|---|---|---|---|---|",
    ]
    rows += [
        f"| {p.gpus} | {p.batch:,} | {p.learning_rate:.2e} | {p.epochs:.1f} | {1e3 * p.compute:.0f} | {1e3 * p.exposed:.1f} | "
        f"{p.total / 60:.1f} | {PUBLISHED.get(p.gpus, '')} |"
        for p in plans
    ]
    return "\n".join(rows)


def main() -> int:
    """Compute, print."""
    parser = argparse.ArgumentParser(description="A plan for 8 to 256 GPUs.")
    parser.add_argument(
        "--rate", type=float, default=243.0, help="thousand tokens/s of a GPU at 384 sentences (A100: 243)"
    )
    parser.add_argument("--sentences", type=int, default=384, help="of a GPU, at most")
    parser.add_argument("--inside", type=float, default=200.0, help="GB/s of a GPU inside a node of eight (NVLink 3)")
    parser.add_argument(
        "--between", type=float, default=20.0, help="GB/s of a GPU between nodes (InfiniBand HDR, one a GPU)"
    )
    parser.add_argument("--latency", type=float, default=10.0, help="microseconds of a step of the ring")
    parser.add_argument(
        "--overlap", type=float, default=0.8, help="share of the backward pass that sums can hide behind"
    )
    options = parser.parse_args()
    cluster = Cluster(
        1e3 * options.rate, 1e9 * options.inside, 1e9 * options.between, 1e-6 * options.latency, options.overlap
    )
    try:
        size = gradient_bytes()
        plans = [plan(2**power, options.sentences, size, cluster) for power in range(3, 9)]
    except ValueError as error:
        print(f"scaling_plan.py: {error}", file=sys.stderr)
        return 2
    print(f"{size / 4e6:.1f} M parameters, {size / 1e6:.0f} MB of gradients\n\n{table(plans)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
