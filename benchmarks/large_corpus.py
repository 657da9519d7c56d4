"""Training on corpora of 10 thousand and of 10 million pairs: memory, time to the first update, how fast batches can be made.

    python benchmarks/large_corpus.py                              10,000 and 10,000,000 pairs; a few minutes, 0.6 GB of disk
    python benchmarks/large_corpus.py --pairs 10000 100000         a quick look

The pairs are random ids of 1 to 40 a side, 12 in the mean, written as `nmt prepare` writes them; the model is small, so that what the
corpus takes shows. Each size runs in a process of its own. Prints JSON: seconds from opening the corpus to the end of the first update,
and again when resuming deep in an epoch; memory of the process's own (mapped files aside, which the system takes back when it needs room)
after some updates; source and target tokens a second that batches can be made at, no model behind them, over whole windows.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nmt.config import parse
from nmt.corpus.prepare import prepare
from nmt.corpus.recipe import Recipe
from nmt.corpus.store import MANIFEST
from nmt.training.batches import training_batches
from nmt.training.config import RunConfig
from nmt.training.loader import walk
from nmt.training.machine import memory_in_use
from nmt.training.trainer import Trainer

_CHUNK = 1_000_000
_UPDATES = 20


def write_corpus(folder: Path, pairs: int) -> None:
    """A prepared corpus of random ids."""
    recipe = {
        "name": "large",
        "source_language": "en",
        "target_language": "de",
        "train": [{"generate": "numbers", "limit": 2000}],
        "holdout": {"validation": 20, "test": 20},
        "tokenizer": {"type": "bpe", "vocab_size": 300},
    }
    prepare(parse(Recipe, recipe, "benchmark"), folder)
    rng = np.random.default_rng(1)
    totals = {}
    for side in ("source", "target"):
        lengths = np.clip(rng.poisson(rng.gamma(3.0, 4.0, pairs)), 1, 40).astype(np.uint16)
        np.save(folder / f"train.{side}.lengths.npy", lengths)
        totals[side] = int(lengths.sum())
        with (folder / f"train.{side}.ids").open("wb") as file:
            for start in range(0, totals[side], _CHUNK):
                size = min(_CHUNK, totals[side] - start)
                file.write(rng.integers(4, 300, size).astype(np.uint16).tobytes())
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    manifest |= {"sources": [{"label": "random", "pairs": pairs, "weight": 1.0}], "tokens": totals}
    manifest["splits"]["train"] = pairs
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")


def configuration(folder: Path) -> RunConfig:
    """A small model on one thread."""
    small = {"layers": 1, "hidden": 64}
    return parse(
        RunConfig,
        {
            "corpus": str(folder),
            "run": str(folder.with_name(f"{folder.name}-run")),
            "model": {"embedding": 64, "encoder": small, "decoder": small, "attention_heads": 1},
            "train": {"max_steps": _UPDATES, "batch_tokens": 4096, "threads": 1, "device": "cpu", "save_every": 1000},
            "validation": {"every": 1000, "sentences": 1},
        },
        "benchmark",
    )


def measure(folder: Path, seconds: float) -> dict[str, Any]:
    """What one corpus takes; in a process of its own."""
    config, started, first = configuration(folder), time.perf_counter(), []
    trainer = Trainer(config)
    update = trainer._update

    def timed(*arguments: Any) -> None:
        update(*arguments)
        first.append(time.perf_counter())

    trainer._update = timed  # type: ignore[method-assign]
    trainer.run()
    memory = memory_in_use(torch.device("cpu"))
    batches = training_batches(trainer.corpus, config)
    deep = time.perf_counter()
    next(walk(batches, (0, batches.windows - 1, 10)))
    resumed = time.perf_counter() - deep
    tokens, made, begun = 0, 0, time.perf_counter()
    for loaded in walk(batches, (1, 0, 0)):
        tokens, made = tokens + loaded.batch.total, made + 1
        if loaded.after[2] == len(batches.plan(*loaded.after[:2])) and time.perf_counter() - begun > seconds:
            break  # the sorting of a window is a part of what it costs
    return {
        "pairs": len(batches.source),
        "seconds to the first update": round(first[0] - started, 2),
        "seconds to a batch deep in an epoch": round(resumed, 2),
        "own memory after training, MB": round(memory / 1e6),
        "own memory after the loader, MB": round(memory_in_use(torch.device("cpu")) / 1e6),
        "batches made": made,
        "loader tokens/s": round(tokens / (time.perf_counter() - begun)),
    }


def main() -> int:
    """Write, measure, print."""
    parser = argparse.ArgumentParser(description="Memory, start and input rate of training by size of the corpus.")
    parser.add_argument("--pairs", type=int, nargs="+", default=[10_000, 10_000_000])
    parser.add_argument("--seconds", type=float, default=10.0, help="of making batches, at least, at each size")
    parser.add_argument("--folder", type=Path, help="where the temporary corpora are made")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.seconds)))
        return 0
    found = []
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        for pairs in options.pairs:
            folder = Path(place) / str(pairs)
            write_corpus(folder, pairs)
            command = [sys.executable, __file__, "--measure", str(folder), "--seconds", str(options.seconds)]
            done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
            if done.returncode:
                print(done.stderr, file=sys.stderr)
                return 1
            found.append(json.loads(done.stdout))
    here = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    print(json.dumps({"sizes": found, "versions": here, "command": " ".join(["python", *sys.argv])}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
