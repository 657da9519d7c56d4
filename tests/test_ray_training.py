"""Training in the workers of Ray Train: the weights of one process, over two nodes, through the death of a worker; and how it ends."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
from conftest import ROOT
from ray_cluster import QUIET, parent, two_nodes
from test_world import assert_near, written

from nmt.commands.training import _train
from nmt.config import dump
from nmt.corpus.store import PreparedCorpus
from nmt.errors import ConfigError, DataError
from nmt.training import on_ray
from nmt.training.on_ray import RayOptions
from nmt.training.ray_worker import Order, check_storage
from nmt.training.world import ALONE, LostProcesses

pytest.importorskip("ray.train.torch")


class WorkerHealthCheckFailedError(Exception):
    """What Ray Train calls the death of a worker."""


SHAPE = ("train.batch_tokens=1024", "train.accumulate=2", "validation.sentences=5", "validation.every=20")
LONG = (*SHAPE, "train.max_steps=40", "train.save_every=5")
pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(
        "STRATA_REQUIRE_ALL" not in os.environ, reason="starts Ray again and again, which takes minutes: .ci/run does"
    ),
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.prepared(tmp_path_factory.mktemp("ray"))


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of two nodes with a core each, on this machine."""
    with two_nodes() as address:
        yield address


def start(*command: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | QUIET
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "nmt", "train", *command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment | {"OMP_NUM_THREADS": "1"},
    )


def until(process: subprocess.Popen[str], pattern: str) -> str:
    """What it prints to standard error, up to the first line that matches."""
    assert process.stderr is not None
    read = ""
    for line in process.stderr:
        read += line
        if re.match(pattern, line):
            return read
    raise AssertionError(read)


def test_two_nodes_and_a_worker_that_dies(corpus: Path, cluster: str, tmp_path: Path) -> None:
    """The weights of one process, though the workers are on two nodes and one of them is killed and replaced."""
    config = written(tiny.run_config(corpus, tmp_path / "run", *LONG), tmp_path)
    (tmp_path / "run" / "old").mkdir(parents=True)
    with start(config, "--ray", cluster, "--workers", "2", "--max-restarts", "1", "--fresh") as process:
        read = until(process, "step 12/")
        workers = [int(pid) for pid in re.findall(r"process (\d+)", read)]
        assert len({parent(pid) for pid in workers}) == 2  # each node has a raylet, the parent of its workers
        os.kill(workers[1], signal.SIGKILL)
        output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "a worker was lost, all have begun again: restart 1\n" in errors
    assert "step 12/40" in errors  # again
    assert "step 5/40" not in errors  # not from the beginning
    assert "Traceback" not in errors
    assert [line for line in output.splitlines() if "raylet" in line] == []
    assert (tmp_path / "run.before-1" / "old").is_dir()
    assert "40 updates" in output
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["command"].startswith("nmt train ")
    tiny.trained(corpus, tmp_path / "alone", *LONG)
    assert_near(tmp_path / "run", tmp_path / "alone")


def test_an_error_of_the_user_in_a_worker_is_one_line(corpus: Path, cluster: str, tmp_path: Path) -> None:
    tiny.trained(corpus, tmp_path / "run", "train.max_steps=1", "validation.sentences=1")
    config = written(tiny.run_config(corpus, tmp_path / "run", "seed=2"), tmp_path)
    with start(config, "--ray", cluster, "--workers", "2", "--max-restarts", "2") as process:
        output, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert output == ""
    assert errors.count("\n") == 2, errors
    workers, error = errors.splitlines()
    assert workers.startswith("2 workers: ")
    assert error.startswith("nmt train: ")
    assert "this run was begun with other values of seed" in error


def test_a_signal_saves_and_ends_a_cluster_of_our_own(corpus: Path, tmp_path: Path) -> None:
    changes = ("train.max_steps=4000", "train.save_every=4000", "validation.every=4000")
    config = written(tiny.run_config(corpus, tmp_path / "run", *SHAPE, *changes), tmp_path)
    with start(config, "--ray", "--workers", "2") as process:
        assert "(127.0.0.1)" in until(process, "step [3-9]/")
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert re.fullmatch(r"nmt train: stopped at step \d+, saved; .*", errors.splitlines()[-1])
    assert tiny.last_checkpoint(tmp_path / "run")[1]["progress"]["step"] >= 3
    assert not list((tmp_path / "run").glob(".ray-*"))


# --- without Ray ----------------------------------------------------------------------------------------------------


def test_a_node_that_does_not_see_the_files_is_named(corpus: Path, tmp_path: Path) -> None:
    config = tiny.run_config(corpus, tmp_path / "run")
    content = str(PreparedCorpus.open(corpus).manifest["content_hash"])
    with on_ray._marked(config.run) as mark:
        order = Order(config.model_dump(mode="json"), [], content, mark, None)
        check_storage(config, order, ALONE)
        elsewhere = config.model_copy(update={"corpus": tmp_path / "nowhere"})
        with pytest.raises(DataError, match=r"nowhere: node \S+ does not see this corpus .*on storage that all nodes"):
            check_storage(elsewhere, order, ALONE)
        with pytest.raises(DataError, match="sees another corpus"):
            check_storage(config, replace(order, corpus_hash="another"), ALONE)
    with pytest.raises(DataError, match=r"run: node \S+ does not see this run folder"):
        check_storage(config, order, ALONE)


@pytest.mark.parametrize(
    ("failures", "message"),
    [
        (
            {0: LostProcesses("gloo"), 1: WorkerHealthCheckFailedError("")},
            "worker 1 of 2 died, restarts: 3; the check",
        ),
        ({0: KeyError("x")}, r"worker 0 of 2 failed \(KeyError: 'x'\), restarts: 3; "),
        ({}, r"Ray Train ended \(no memory\), restarts: 3; the checkpoints are intact"),
    ],
)
def test_the_failure_of_a_job_says_which_worker_it_was(failures: dict[int, Exception], message: str) -> None:
    failure = RuntimeError("Training failed:\nno memory")
    failure.worker_failures = failures  # type: ignore[attr-defined]
    job: Any = SimpleNamespace(_options=RayOptions("", 2, 3), _asked=SimpleNamespace(error=None), _ups=4)
    assert re.match(message, str(on_ray._Job._explained(job, failure)))


def test_ray_that_is_not_installed_is_one_line(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray.train.torch", None)
    with pytest.raises(ConfigError, match=r"--ray needs Ray Train .*pip install 'strata-nmt\[ray\]'"):
        on_ray.train_on_ray(tiny.run_config(corpus, tmp_path / "run"), RayOptions("", 2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ray": ""}, "--ray needs --workers"),
        ({"ray": "ray://host:10001", "workers": 2}, "not over Ray Client"),
        ({"workers": 2}, "go with --ray"),
        ({"max_restarts": 1}, "go with --ray"),
    ],
)
def test_options_that_go_together(corpus: Path, tmp_path: Path, options: dict[str, object], message: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(dump(tiny.run_config(corpus, tmp_path / "run")), encoding="utf-8")
    given: dict[str, object] = {"gpus": None, "processes": None, "ray": None, "workers": None, "max_restarts": 0}
    given |= {"config": str(path), "set": [], "print_config": False, "fresh": False} | options
    with pytest.raises(ConfigError, match=message):
        _train(argparse.Namespace(**given))
