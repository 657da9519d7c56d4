"""The gradient of an update: in pieces where memory runs out, alike in all processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from conftest import ROOT

from nmt.config import dump
from nmt.errors import TrainingError
from nmt.training.objective import Objective
from nmt.training.trainer import Trainer
from nmt.training.update import Meter, out_of_memory


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.prepared(tmp_path_factory.mktemp("update"))


def short_of_memory(monkeypatch: pytest.MonkeyPatch, rows: int) -> list[int]:
    """Let no forward pass hold more than so many sentences; return the numbers that were asked for."""
    asked: list[int] = []
    forward = Objective.forward

    def limited(self: Objective, source: torch.Tensor, *rest: Any) -> Any:
        asked.append(len(source))
        if len(source) > rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(self, source, *rest)

    monkeypatch.setattr(Objective, "forward", limited)
    return asked


def test_an_update_that_does_not_fit_is_computed_in_pieces_with_the_same_gradient(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = Trainer(tiny.run_config(corpus, tmp_path / "run", "train.batch_tokens=1024"))
    batches = [trainer.batches.batch(0, 0), trainer.batches.batch(0, 1)]
    meters = Meter(), Meter()
    norm = trainer.gradients.compute(batches, 1, meters[0])
    expected = [parameter.grad.clone() for parameter in trainer.model.parameters() if parameter.grad is not None]
    trainer.optimizer.zero_grad()
    sentences = max(len(batch.source) for batch in batches)
    asked = short_of_memory(monkeypatch, sentences // 3)
    assert trainer.gradients.compute(batches, 1, meters[1]) == pytest.approx(norm, rel=1e-5)
    found = [parameter.grad for parameter in trainer.model.parameters()]
    for mine, theirs in zip(found, expected, strict=True):
        assert mine is not None
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)
    assert max(asked) > sentences // 3 >= asked[-1]
    assert float(meters[1].nll) == pytest.approx(float(meters[0].nll), rel=1e-5)
    assert (meters[1].tokens, meters[1].total) == (meters[0].tokens, meters[0].total)
    assert (
        "step 1: out of memory: again in 2 pieces\nstep 1: out of memory: again in 4 pieces" in capsys.readouterr().err
    )


def test_a_run_short_of_memory_ends_like_any_other(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, _ = tiny.last_checkpoint(tiny.trained(corpus, tmp_path / "plain"))
    short_of_memory(monkeypatch, 12)
    run = tiny.trained(corpus, tmp_path / "run")
    for name, value in tiny.last_checkpoint(run)[0].items():
        torch.testing.assert_close(value, plain[name], rtol=1e-3, atol=2e-5)
    assert len(tiny.records(run)) == 12


def test_a_sentence_that_does_not_fit_ends_training(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short_of_memory(monkeypatch, 0)
    with pytest.raises(TrainingError, match="step 1: a single sentence does not fit into memory"):
        Trainer(tiny.run_config(corpus, tmp_path / "run")).run()


@pytest.mark.parametrize(
    ("error", "is_it"),
    [
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried"),
            True,
        ),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 17179869184 bytes."), True),
        (torch.OutOfMemoryError("HIP out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("memory"), False),
    ],
)
def test_what_counts_as_memory_that_ran_out(error: BaseException, is_it: bool) -> None:
    assert out_of_memory(error) is is_it


def test_real_memory_that_runs_out_is_met_with_pieces(corpus: Path, tmp_path: Path) -> None:
    """The address space of the process is limited to little more than it has, then one batch of all pairs is asked for."""
    settings = ("train.batch_tokens=40000", "train.max_steps=1", "model.attention=additive", "model.decoder.hidden=64")
    path = tmp_path / "config.yaml"
    path.write_text(dump(tiny.run_config(corpus, tmp_path / "run", *settings, "model.encoder.hidden=64")))
    code = (
        "import sys, resource; from pathlib import Path\n"
        "from nmt.config import load; from nmt.training.config import RunConfig; from nmt.training.trainer import Trainer\n"
        "from nmt.training.update import Meter\n"
        "trainer = Trainer(load(RunConfig, Path(sys.argv[1])))\n"
        "batch = trainer.batches.batch(0, 0)\n"
        "trainer.gradients.attempt(batch.share(0, 40))\n"  # libraries and their threads are loaded
        "used = 4096 * int(Path('/proc/self/statm').read_text().split()[0])\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 40_000_000, resource.RLIM_INFINITY))\n"
        "print(len(batch.source), trainer.gradients.compute([batch], 1, Meter()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "step 1: out of memory: again in 2 pieces" in done.stderr
    sentences, norm = done.stdout.split()
    assert int(sentences) > 250
    assert float(norm) > 0
