"""How fast a GNMT trains on a GPU, and where the time goes: 4+4 layers of 1,024 units, 32,000 subwords, attention of the bottom layer.

    python benchmarks/gpu_speed.py                                          one minute on a GPU
    python benchmarks/gpu_speed.py --set train.batch_tokens=24576 --profile
    python benchmarks/gpu_speed.py --device cpu --steps 2 --vocabulary 400 --set train.batch_tokens=512 model.encoder.layers=2

Whole updates of our trainer (input, forward, backward, clipping, Adam, moving average) on random ids whose lengths spread as those of
sentences do, 25 a side in the mean. Prints JSON: source and target tokens a second in steady state, padding not counted; the share of
the GPU's matrix peak (--peak, in TFLOP/s, 798 measured for bf16 on an H100) that the model's products are; memory. Anchors: NVIDIA's
GNMT v2 on one A100 in fp16 140,909 tokens/s; MLPerf v0.7, A100, 243,000 a GPU. Target on an H100: 300,000, stretch 450,000.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from large_corpus import write_corpus

from nmt.config import apply_overrides, parse
from nmt.corpus.store import MANIFEST
from nmt.errors import NMTError
from nmt.training.config import RunConfig
from nmt.training.loader import Loader
from nmt.training.machine import machine, memory_in_use, versions
from nmt.training.trainer import Trainer
from nmt.training.update import Meter

_WARM = 10  # updates before steady state, at most half of them


def corpus(folder: Path, pairs: int, vocabulary: int) -> None:
    """A prepared corpus of random ids, 25 a side in the mean, at most 100."""
    write_corpus(folder, pairs)
    rng = np.random.default_rng(2)
    for side in ("source", "target"):
        lengths = np.clip(rng.poisson(rng.gamma(2.5, 10.0, pairs)), 1, 100).astype(np.uint16)
        np.save(folder / f"train.{side}.lengths.npy", lengths)
        rng.integers(4, vocabulary, int(lengths.sum())).astype(np.uint16).tofile(folder / f"train.{side}.ids")
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    manifest["vocabulary"] = {"source": vocabulary, "target": vocabulary}
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")


def products(trainer: Trainer) -> float:
    """Floating-point operations of an update's matrix products for each source and target token, forward and backward: six for each
    weight of the side that a token passes; the vocabulary is met on the target side alone."""
    model = trainer.model
    sides = [sum(p.numel() for p in part.parameters() if p.dim() > 1) for part in (model.encoder, model.decoder)]
    return 6 * (sum(sides) + model.output.numel()) / 2


def measure(options: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Train, and tell how fast."""
    corpus(folder / "corpus", options.pairs, options.vocabulary)
    base = {
        "corpus": str(folder / "corpus"),
        "run": str(folder / "run"),
        "model": {"preset": "gnmt-4x1024"},
        "train": {"device": options.device, "batch_tokens": 24_576, "health_every": None},
    }
    trainer = Trainer(parse(RunConfig, apply_overrides(base, options.set), "benchmark"), resume=False)
    trainer.model.train()
    rates, meter = [], Meter()
    with Loader(trainer.batches, (0, 0, 0)) as loader:
        for step in range(options.steps):
            before, start = meter.total, time.perf_counter()
            trainer._update(loader, meter)  # ends with the norm of the gradient on the host
            if step >= min(_WARM, options.steps // 2):
                rates.append((meter.total - before) / (time.perf_counter() - start))
        if options.profile:
            with torch.profiler.profile() as profile:
                trainer._update(loader, meter)
            key = "self_cuda_time_total" if trainer.device.type == "cuda" else "self_cpu_time_total"
            print(profile.key_averages().table(sort_by=key, row_limit=25), file=sys.stderr)
    rate = statistics.median(rates)
    return {
        "tokens per second": round(rate),
        "range": [round(min(rates)), round(max(rates))],
        "TFLOP/s of products": round(rate * products(trainer) / 1e12, 3),
        "share of the peak": round(rate * products(trainer) / 1e12 / options.peak, 4),
        "memory GB": round(memory_in_use(trainer.device) / 1e9, 2),
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "precision": trainer.precision,
        "batch_tokens": trainer.config.train.budget,
        "machine": machine(),
        "versions": versions(),
        "command": " ".join(["python", *sys.argv]),
    }


def main() -> int:
    """Measure, print."""
    parser = argparse.ArgumentParser(description="The rate of training a GNMT on a GPU.")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--pairs", type=int, default=200_000)
    parser.add_argument("--vocabulary", type=int, default=32_000)
    parser.add_argument("--peak", type=float, default=798.0, metavar="TFLOPS", help="of the GPU's matrix products")
    parser.add_argument("--profile", action="store_true", help="print where the time of one more update goes")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="override settings")
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(options, Path(folder)), indent=1))
    except NMTError as error:
        print(f"gpu_speed.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
