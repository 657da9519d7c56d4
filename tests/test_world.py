"""Several processes train one model: the weights of one process, whatever their number, and a clear end when one of them dies."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import tiny
import torch
from conftest import ROOT

from nmt.config import dump
from nmt.training.batches import Batch, TrainingBatches
from nmt.training.config import RunConfig

# Two batches an update; validation of an odd number of sentences.
SHAPE = ("train.batch_tokens=1024", "train.accumulate=2", "validation.sentences=5")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.prepared(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def alone(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of one process."""
    return tiny.trained(corpus, tmp_path_factory.mktemp("alone") / "run", *SHAPE)


def written(config: RunConfig, folder: Path) -> str:
    path = folder / f"{config.run.name}.yaml"
    path.write_text(dump(config), encoding="utf-8")
    return str(path)


def start(*command: str, module: Sequence[str] = ("nmt", "train")) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", *module, *command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def run(*command: str, module: Sequence[str] = ("nmt", "train")) -> tuple[int, str, str]:
    """Exit status and what was printed."""
    with start(*command, module=module) as process:
        output, errors = process.communicate(timeout=120)
    return process.returncode, output, errors


def assert_near(one: Path, other: Path) -> None:
    """The same weights, averages and progress but for the order in which gradients are summed."""
    (tensors, state), (others, expected) = tiny.last_checkpoint(one), tiny.last_checkpoint(other)
    places = ("step", "epoch", "position", "since_best")
    assert [state["progress"][key] for key in places] == [expected["progress"][key] for key in places]
    assert tensors.keys() == others.keys()
    for name, value in tensors.items():
        torch.testing.assert_close(
            value, others[name], rtol=1e-3, atol=2e-5, msg=lambda text, name=name: f"{name}: {text}"
        )  # type: ignore[misc]
    for mine, theirs in zip(tiny.records(one), tiny.records(other), strict=True):
        assert mine["nll"] == pytest.approx(theirs["nll"], abs=2e-3)
    for mine, theirs in zip(tiny.records(one, "validation"), tiny.records(other, "validation"), strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], abs=1e-3)
        assert mine["samples"][0][:2] == theirs["samples"][0][:2]


# --- shares ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 3, 40])
def test_the_shares_of_a_batch_are_the_batch(corpus: Path, size: int) -> None:
    from nmt.corpus.store import PreparedCorpus

    batch = TrainingBatches(PreparedCorpus.open(corpus), 512, 1).batch(0, 0)
    shares = [batch.share(rank, size) for rank in range(size)]
    assert all((share.tokens, share.total) == (batch.tokens, batch.total) for share in shares)
    assert sum(int((share.labels != 0).sum()) for share in shares) == batch.tokens

    def sentences(part: Batch) -> dict[int, tuple[list[int], ...]]:
        rows = zip(part.numbers.tolist(), part.source, part.target, part.labels, strict=True)
        real = {n: tuple([i for i in ids.tolist() if i] for ids in row) for n, *row in rows}
        return {number: row for number, row in real.items() if row[2]}

    together: dict[int, tuple[list[int], ...]] = {}
    for share in shares:
        assert share.source.shape[1] == share.source_lengths.max()  # no padding of other processes
        assert not together.keys() & sentences(share).keys()
        together |= sentences(share)
    assert together == sentences(batch)


# --- the same weights -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_give_the_weights_of_one(corpus: Path, alone: Path, tmp_path: Path, processes: int) -> None:
    config = written(tiny.run_config(corpus, tmp_path / "run", *SHAPE), tmp_path)
    status, output, errors = run(config, "--processes", str(processes))
    assert status == 0, errors
    assert output.count("12 updates") == 1  # one of them speaks
    assert errors.count("validation loss") == 2
    assert_near(tmp_path / "run", alone)


def test_more_processes_than_sentences_in_a_batch(corpus: Path, tmp_path: Path) -> None:
    small = ("train.batch_tokens=64", "train.max_steps=6", "validation.sentences=1")
    tiny.trained(corpus, tmp_path / "alone", *small)
    config = written(tiny.run_config(corpus, tmp_path / "run", *small), tmp_path)
    status, _, errors = run(config, "--processes", "4")
    assert status == 0, errors
    assert_near(tmp_path / "run", tmp_path / "alone")


def test_two_dropout_masks_agree_in_processes_too(corpus: Path, tmp_path: Path) -> None:
    changes = (*SHAPE, "optimizer.r_drop=3", "train.max_steps=4")
    tiny.trained(corpus, tmp_path / "alone", *changes)
    status, _, errors = run(written(tiny.run_config(corpus, tmp_path / "run", *changes), tmp_path), "--processes", "2")
    assert status == 0, errors
    assert_near(tmp_path / "run", tmp_path / "alone")


def test_processes_agree_on_the_largest_batch_that_fits_and_resume_with_it(corpus: Path, tmp_path: Path) -> None:
    config = tiny.run_config(corpus, tmp_path / "run", "train.batch_tokens=auto", "train.max_steps=4")
    status, _, errors = run(written(config, tmp_path), "--processes", "2")
    assert status == 0, errors
    assert errors.count("train.batch_tokens: auto is") == 1
    chosen = json.loads((tmp_path / "run/choices.json").read_text())["batch_tokens"]
    assert f"auto is {chosen:,} here" in errors
    tiny.trained(corpus, tmp_path / "alone", f"train.batch_tokens={chosen}", "train.max_steps=4")
    assert_near(tmp_path / "run", tmp_path / "alone")

    longer = tiny.run_config(corpus, tmp_path / "run", "train.batch_tokens=auto", "train.max_steps=6")
    status, _, errors = run(written(longer, tmp_path))  # one process, which could take more
    assert status == 0, errors
    assert "auto is" not in errors
    assert json.loads((tmp_path / "run/choices.json").read_text())["batch_tokens"] == chosen


def test_two_nodes_meet_by_the_rendezvous_of_torchrun(corpus: Path, alone: Path, tmp_path: Path) -> None:
    config = written(tiny.run_config(corpus, tmp_path / "run", *SHAPE), tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{free.getsockname()[1]}"
    node = ("--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint)
    command = (*node, "--rdzv-id", "1", "--local-addr", "127.0.0.1", "-m", "nmt", "train", config)
    nodes = [start(*command, module=("torch.distributed.run",)) for _ in range(2)]
    try:
        printed = [process.communicate(timeout=120) for process in nodes]
    finally:
        for process in nodes:
            process.kill()
    assert [process.returncode for process in nodes] == [0, 0], printed
    assert sum(output.count("12 updates") for output, _ in printed) == 1
    assert_near(tmp_path / "run", alone)


# --- ends -----------------------------------------------------------------------------------------------------------


def workers(launcher: subprocess.Popen[str]) -> list[int]:
    """The launcher's children, oldest first."""
    found = subprocess.run(["pgrep", "-P", str(launcher.pid)], capture_output=True, text=True).stdout
    return sorted(int(pid) for pid in found.split())


def until_saved(run: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not list((run / "checkpoints").glob("0*")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


LONG = (*SHAPE, "train.max_steps=400", "train.save_every=2", "validation.every=400")


def test_a_process_that_dies_ends_the_job_and_the_same_command_goes_on(corpus: Path, tmp_path: Path) -> None:
    config = written(tiny.run_config(corpus, tmp_path / "run", *LONG), tmp_path)
    with start(config, "--processes", "2") as process:
        until_saved(tmp_path / "run", process)
        os.kill(workers(process)[-1], signal.SIGKILL)
        killed = time.monotonic()
        _, errors = process.communicate(timeout=90)
    assert time.monotonic() - killed < 60
    assert process.returncode != 0
    assert "was ended by SIGKILL; the others were ended too" in errors
    assert "Traceback" not in errors
    reached = tiny.last_checkpoint(tmp_path / "run")[1]["progress"]["step"]
    shorter = ("--set", f"train.max_steps={reached + 3}")
    status, output, errors = run(config, *shorter, "--processes", "3")  # another number of processes
    assert status == 0, errors
    assert f"{reached + 3} updates" in output
    tiny.trained(corpus, tmp_path / "alone", *LONG, f"train.max_steps={reached + 3}")
    assert_near_weights(tmp_path / "run", tmp_path / "alone")


def assert_near_weights(one: Path, other: Path) -> None:
    tensors, others = tiny.last_checkpoint(one)[0], tiny.last_checkpoint(other)[0]
    for name, value in tensors.items():
        if name.startswith("model."):
            torch.testing.assert_close(value, others[name], rtol=1e-2, atol=1e-3)


def test_a_signal_saves_once_and_ends_all(corpus: Path, tmp_path: Path) -> None:
    config = written(tiny.run_config(corpus, tmp_path / "run", *LONG, "train.save_every=1000"), tmp_path)
    with start(config, "--processes", "2") as process:
        assert process.stderr is not None
        for line in process.stderr:
            if re.match(r"step [3-9]/", line):
                break
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 130
    assert tiny.last_checkpoint(tmp_path / "run")[1]["progress"]["step"] >= 3


def test_torchrun_restarts_from_the_last_checkpoint(corpus: Path, alone: Path, tmp_path: Path) -> None:
    config = written(tiny.run_config(corpus, tmp_path / "run", *SHAPE, "train.save_every=2"), tmp_path)
    code = (
        "import os, sys; from nmt.training.trainer import Trainer; update = Trainer._update\n"
        "def dies(self, loader, meter):\n"
        "    update(self, loader, meter)\n"
        "    if os.environ['TORCHELASTIC_RESTART_COUNT'] == '0' and os.environ['RANK'] == '1' and self.progress.step == 7:\n"
        "        os.kill(os.getpid(), 9)\n"
        "Trainer._update = dies; from nmt.cli import main; sys.exit(main())\n"
    )
    script = tmp_path / "dies.py"
    script.write_text(code, encoding="utf-8")
    torchrun = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "1")
    status, output, errors = run(str(script), "train", config, module=torchrun)
    assert status == 0, errors
    assert "12 updates" in output
    assert_near(tmp_path / "run", alone)


def test_memory_that_runs_out_in_one_process_is_met_alike_by_all(corpus: Path, alone: Path, tmp_path: Path) -> None:
    config = written(tiny.run_config(corpus, tmp_path / "run", *SHAPE), tmp_path)
    code = (
        "import os, sys, torch; from nmt.training.objective import Objective; forward = Objective.forward\n"
        "def limited(self, source, *rest):\n"
        "    if os.environ['RANK'] == '1' and len(source) > 8: raise torch.OutOfMemoryError('out of memory')\n"
        "    return forward(self, source, *rest)\n"
        "Objective.forward = limited; from nmt.cli import main; sys.exit(main())\n"
    )
    script = tmp_path / "limited.py"
    script.write_text(code, encoding="utf-8")
    torchrun = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    status, output, errors = run(str(script), "train", config, module=torchrun)
    assert status == 0, errors
    assert "out of memory: again in 2 pieces" in errors
    assert "12 updates" in output
    assert_near(tmp_path / "run", alone)


def test_gpus_that_are_not_there_are_one_line(corpus: Path, tmp_path: Path) -> None:
    there = torch.cuda.device_count()
    config = written(tiny.run_config(corpus, tmp_path / "run", "train.device=auto"), tmp_path)
    status, _, errors = run(config, "--gpus", str(there + 1))
    assert status == 2
    assert "PyTorch sees" in errors
    assert errors.count("\n") == 1


def test_what_is_wrong_for_all_is_said_once(corpus: Path, tmp_path: Path) -> None:
    config = written(tiny.run_config(corpus, tmp_path / "run", "train.batch_tokens=16"), tmp_path)
    status, _, errors = run(config, "--processes", "2")
    assert status == 2
    assert errors.count("the longest pair has") == 1
    assert errors.count("\n") == 1
