"""Train the same small run on a device and on the CPU, stop and resume it there, and compare; print speed and losses.

    python benchmarks/device_check.py CORPUS [--device cuda] [--steps 200] [--precision fp32]

CORPUS is a prepared corpus, such as data/prepared/numbers-en-de. Exit status 1 when the losses of the two devices differ by more than
5 % or when the resumed run's loss differs from the uninterrupted one's by more than 1 %.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from pathlib import Path

import torch

import nmt
from nmt.config import apply_overrides, find_shipped, parse, read_yaml
from nmt.training.config import RunConfig
from nmt.training.trainer import Trainer


def run(folder: Path, corpus: Path, device: str, precision: str, steps: int) -> dict[str, float]:
    """Train `steps` updates in the run folder, from where it stands; return validation loss and median tokens a second."""
    settings = [
        f"corpus={corpus}",
        f"run={folder}",
        f"train.device={device}",
        f"train.precision={precision}",
        f"train.max_steps={steps}",
        "optimizer.schedule=constant",
        "train.log_every=20",
        "validation.sentences=20",
    ]
    data = apply_overrides(read_yaml(find_shipped("numbers-en-de", "configs")), settings)
    Trainer(parse(RunConfig, data, "device check")).run()
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    rates = sorted(item["tokens_per_second"] for item in records if item["kind"] == "train")
    loss = [item["loss"] for item in records if item["kind"] == "validation"][-1]
    return {"validation loss": loss, "tokens per second": rates[len(rates) // 2]}


def main() -> int:
    """Run the comparison and print it as JSON."""
    parser = argparse.ArgumentParser(description="Compare training on a device with training on the CPU.")
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root, arguments = Path(name), (options.corpus, options.device, options.precision)
        whole = run(root / "whole", *arguments, options.steps)
        run(root / "parts", *arguments, options.steps // 2)
        parts = run(root / "parts", *arguments, options.steps)
        reference = run(root / "cpu", options.corpus, "cpu", "fp32", options.steps)
    same_device = abs(parts["validation loss"] / whole["validation loss"] - 1)
    across = abs(whole["validation loss"] / reference["validation loss"] - 1)
    result = {
        "device": torch.cuda.get_device_name() if options.device == "cuda" else platform.processor() or "cpu",
        "uninterrupted": whole,
        "resumed": parts,
        "cpu fp32": reference,
        "resumed differs by": round(same_device, 5),
        "cpu differs by": round(across, 5),
        "versions": {"strata-nmt": nmt.__version__, "torch": torch.__version__, "python": platform.python_version()},
        "command": " ".join(["python", *sys.argv]),
    }
    print(json.dumps(result, indent=1))
    return 0 if same_device <= 0.01 and across <= 0.05 else 1


if __name__ == "__main__":
    sys.exit(main())
