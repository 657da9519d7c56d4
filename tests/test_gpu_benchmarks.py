"""The benchmarks that wait for a GPU, and the plan for many of them: that they run, and that the docs show what they print."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from conftest import ROOT


def test_the_docs_show_what_the_plan_prints() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "scaling_plan.py")], capture_output=True, text=True, check=True
    )
    first = done.stdout.split("\n\n")[2]
    assert first.count("\n") == 7
    assert first in (ROOT / "docs" / "training.md").read_text(encoding="utf-8")


def run(script: str, *arguments: str) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / script), *arguments], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_the_speed_of_a_gpu_is_measured_on_a_cpu_too() -> None:
    small = ("model.encoder={layers: 2, hidden: 32}", "model.decoder={layers: 2, hidden: 32, residual: false}")
    size = ("--pairs", "500", "--vocabulary", "300", "--steps", "2", "--device", "cpu")
    found = run("gpu_speed.py", *size, "--set", "train.batch_tokens=512", "model.embedding=16", *small)
    assert float(str(found["tokens per second"])) > 0
    assert found["batch_tokens"] == 512


def test_decoding_on_a_gpu_is_measured_on_a_cpu_too() -> None:
    size = (
        "--device",
        "cpu",
        "--hidden",
        "16",
        "--layers",
        "2",
        "--vocabulary",
        "90",
        "--length",
        "7",
        "--rounds",
        "1",
    )
    found = run("decode_gpu.py", *size, "--cases", "2x3", "3x1")
    cases = found["dtypes"]
    assert isinstance(cases, dict)
    assert {name: set(case) for name, case in cases.items()} == {"fp32": {"2x3", "3x1"}, "bf16": {"2x3", "3x1"}}


def test_sizes_of_corpora_are_measured(tmp_path: Path) -> None:
    found = run("large_corpus.py", "--pairs", "500", "3000", "--seconds", "0.1", "--folder", str(tmp_path))
    sizes = found["sizes"]
    assert isinstance(sizes, list)
    assert [item["pairs"] for item in sizes] == [500, 3000]
    assert all(item["loader tokens/s"] > 1000 for item in sizes)
    assert list(tmp_path.iterdir()) == []
