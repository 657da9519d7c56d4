"""The quick start of the docs, end to end, as a user runs it: prepare, train, bundle, evaluate, translate, serve."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest


def nmt(*arguments: str) -> str:
    """Run the command in a process of its own and return what it printed."""
    result = subprocess.run(
        [sys.executable, "-m", "nmt", *arguments], capture_output=True, text=True, timeout=600, check=False
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the corpus, the run and the bundle of the quick start."""
    folder = tmp_path_factory.mktemp("quickstart")
    corpus, run = folder / "corpus", folder / "run"
    printed = nmt("prepare", "numbers-en-de", "--output", str(corpus))
    assert "validation 500, test 500" in printed
    nmt("train", "numbers-en-de", "--set", f"corpus={corpus}", "--set", f"run={run}")
    nmt("bundle", str(run), "--output", str(folder / "model"), "--weights", "int8")
    return folder


@pytest.mark.timeout(900)
def test_over_95_percent_of_held_out_expressions_are_right(folder: Path) -> None:
    result = json.loads(nmt("evaluate", str(folder / "model"), "--corpus", str(folder / "corpus"), "--json"))
    assert result["exact_match"] > 0.95
    assert result["scores"][0]["name"] == "BLEU"
    assert "tok:13a" in result["scores"][0]["signature"]


@pytest.mark.timeout(900)
def test_command_line_and_server_give_the_same_text(folder: Path) -> None:
    texts = [json.loads(line)["source"] for line in (folder / "corpus" / "test.jsonl").read_text().splitlines()][:40]
    (folder / "texts").write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    by_command = nmt("translate", str(folder / "model"), str(folder / "texts")).splitlines()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "nmt", "serve", str(folder / "model"), "--port", str(port)]
    log = (folder / "server.log").open("w")
    server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait_until_ready(server, url, folder / "server.log")
        body = json.dumps({"text": texts}).encode()
        request = urllib.request.Request(f"{url}/v1/translate", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert json.loads(answer.read())["translation"] == by_command
        scored = json.loads(nmt("evaluate", "--server", url, "--corpus", str(folder / "corpus"), "--json"))
        assert scored["exact_match"] > 0.95
    finally:
        os.kill(server.pid, signal.SIGTERM)
        assert server.wait(60) == 0


def _wait_until_ready(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=5) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.3)
    raise AssertionError(log.read_text())
