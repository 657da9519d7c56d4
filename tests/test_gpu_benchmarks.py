"""The plan for many GPUs and the benchmarks that wait for one: limits, and that they run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import scaling_plan
from scaling_plan import LAW, Cluster, gradient_bytes, law, plan, sum_seconds, table

CLUSTER = Cluster(rate=243e3, inside=200e9, between=20e9, latency=1e-5, overlap=0.8)


def test_one_gpu_sums_nothing_and_more_take_longer() -> None:
    assert sum_seconds(1, 10**9, CLUSTER) == 0
    times = [sum_seconds(gpus, 10**9, CLUSTER) for gpus in (2, 4, 8, 16, 64)]
    assert times == sorted(times)
    assert times[3] > 5 * times[2]  # the ring leaves the node


def test_the_size_is_that_of_the_model() -> None:
    assert gradient_bytes() == pytest.approx(4 * 138.8e6, rel=1e-3)


def test_the_law_goes_through_the_published_points_and_no_further() -> None:
    for batch, learning_rate, epochs in LAW:
        assert law(batch) == pytest.approx((learning_rate, epochs))
    assert law(3072)[0] < law(3500)[0] < law(4096)[0]
    with pytest.raises(ValueError, match="published for 1024 to 16384"):
        law(20_000)


def test_a_plan_of_eight_gpus_is_the_published_result() -> None:
    found = plan(8, 384, gradient_bytes(), CLUSTER)
    assert found.batch == 3072
    assert found.total / 60 == pytest.approx(7.81, rel=0.02)  # MLPerf v0.7; what the rate is taken from
    plans = [plan(gpus, 384, gradient_bytes(), CLUSTER) for gpus in (8, 16, 32, 64, 128, 256)]
    assert [item.exposed for item in plans] == sorted(item.exposed for item in plans)
    assert [item.total for item in plans] == sorted((item.total for item in plans), reverse=True)
    assert table(plans).count("\n") == 7


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="above zero"):
        plan(8, 384, 10**9, Cluster(243e3, 200e9, 0.0, 1e-5, 0.8))
    with pytest.raises(ValueError, match="20000 GPUs for an update of 16384"):
        plan(20_000, 1, 10**9, CLUSTER)


def test_the_docs_show_what_the_script_prints() -> None:
    plans = [plan(2**power, 384, gradient_bytes(), CLUSTER) for power in range(3, 9)]
    assert scaling_plan.table(plans) in (ROOT / "docs" / "training.md").read_text(encoding="utf-8")


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


def test_sizes_of_corpora_are_measured(tmp_path: Path) -> None:
    found = run("large_corpus.py", "--pairs", "500", "3000", "--seconds", "0.1", "--folder", str(tmp_path))
    sizes = found["sizes"]
    assert isinstance(sizes, list)
    assert [item["pairs"] for item in sizes] == [500, 3000]
    assert all(item["loader tokens/s"] > 1000 for item in sizes)
    assert list(tmp_path.iterdir()) == []
