"""`nmt translate --ray`: the same output by workers on two nodes, though one is killed; and what may be wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT
from ray_cluster import QUIET, parent, two_nodes

pytest.importorskip("ray.data")
pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(
        "STRATA_REQUIRE_ALL" not in os.environ, reason="starts Ray again and again, which takes minutes: .ci/run does"
    ),
]

BUNDLE = str(ROOT / "data/pretrained/tatoeba-en-de")
WORDS = ("the old man", "my sister", "a doctor", "nobody", "Tom", "the teacher", "everyone")
VERBS = ("lives in", "has never seen", "would like to visit", "is thinking of", "came from")
PLACES = ("Boston", "the house", "a small town", "the school", "the sea", "Australia")


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    with two_nodes() as address:
        yield address


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some windows of lines, many of them twice, one that is no text."""
    path = tmp_path_factory.mktemp("ray") / "in.txt"
    lines = [
        f"{who} {what} {where} {n % 40}.\n" for n in range(60) for who in WORDS for what in VERBS for where in PLACES
    ]
    path.write_bytes("".join(lines).encode() + b"\xff\n")
    return path


@pytest.fixture(scope="module")
def expected(source: Path) -> bytes:
    """What this machine alone makes of them."""
    output = source.with_name("alone.txt")
    assert run(source, output).returncode == 3
    return output.read_bytes()


def start(source: Path, output: Path, *more: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | QUIET
    command = [
        sys.executable,
        "-m",
        "nmt",
        "translate",
        BUNDLE,
        str(source),
        "--output",
        str(output),
        "--beam-size",
        "1",
    ]
    return subprocess.Popen(
        [*command, *more], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def run(source: Path, output: Path, *more: str) -> subprocess.CompletedProcess[str]:
    with start(source, output, *more) as process:
        out, errors = process.communicate(timeout=250)
    return subprocess.CompletedProcess(process.args, process.returncode, out, errors)


def until_answers(process: subprocess.Popen[str], output: Path) -> None:
    """Wait for the first answers."""
    answers = output.with_name(f"{output.name}.work") / "answers.jsonl"
    deadline = time.monotonic() + 150
    while not (answers.exists() and answers.stat().st_size):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def workers() -> dict[int, int]:
    """The workers of a job, and the raylet of each."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(b"ray::MapWorker"):
                pid = int(path.parent.name)
                found[pid] = parent(pid)
        except OSError:
            continue
    return found


def test_two_nodes_and_a_worker_that_dies(source: Path, expected: bytes, cluster: str, tmp_path: Path) -> None:
    """Nothing of the output changes, though the workers are on two nodes and one of them is killed and replaced."""
    output = tmp_path / "out.txt"
    with start(source, output, "--ray", cluster, "--workers", "2") as process:
        until_answers(process, output)
        before = workers()
        assert len(before) == 2
        assert len(set(before.values())) == 2  # each node has a raylet
        os.kill(next(iter(before)), signal.SIGKILL)
        out, errors = process.communicate(timeout=250)
    assert process.returncode == 3, errors
    assert output.read_bytes() == expected
    assert "12,601 records" in out
    assert "Traceback" not in errors


def test_interrupted_it_goes_on_with_or_without_ray(source: Path, expected: bytes, tmp_path: Path) -> None:
    output = tmp_path / "out.txt"
    with start(source, output, "--ray", "--workers", "2") as process:
        until_answers(process, output)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    again = run(source, output)
    assert again.returncode == 3, again.stderr
    assert " of them before" in again.stdout
    assert output.read_bytes() == expected


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--ray", "127.0.0.1:9"), "no Ray cluster at 127.0.0.1:9"),
        (("--ray", "ray://127.0.0.1:9"), "not over Ray Client"),
        (("--workers", "2"), "--workers goes with --ray"),
    ],
)
def test_what_is_wrong_is_one_line(more: tuple[str, ...], words: str, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("a\n")
    failed = run(tmp_path / "in", tmp_path / "out", *more)
    assert failed.returncode == 2
    assert words in failed.stderr
    assert "Traceback" not in failed.stderr
    assert not (tmp_path / "out.work").exists()


def test_more_workers_than_the_cluster_has_room_for(cluster: str, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("a\n")
    failed = run(tmp_path / "in", tmp_path / "out", "--ray", cluster, "--workers", "3")
    assert failed.returncode == 2
    assert "--workers 3: the cluster has CPUs for 2" in failed.stderr
