"""Forms of the service: replicas that come and go, Ray's own commands, and who can reach what of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

pytest.importorskip("ray.serve")

from serving_process import UP_S, configuration, free_port, is_ready, processes_below, running, until
from test_serving_cluster import RAY, end, node_environment, start_node

SERVE = str(Path(RAY).parent / "serve")
# Of Ray, which offers no loopback for them; docs/serving.md names them.
OPEN = (
    "gcs_server",
    "raylet",
    "DashboardAgent",
    "RuntimeEnvAgent",
    "dashboard.py",
    "monitor.py",
    "ray::",
    "-m serving",
)


def test_replicas_come_with_what_waits_and_go_again(tmp_path: Path) -> None:
    """One request of a hundred texts is one to a router, and work for three replicas."""
    port = free_port()
    auto = {"min_replicas": 1, "max_replicas": 3, "waiting_tokens": 10, "up_s": 1, "down_s": 3}
    path = configuration(tmp_path, port, autoscale=auto, threads=1)
    with running(path, port, "--ingress", "proxy") as service, ThreadPoolExecutor(1) as pool:
        assert len(service.replicas("translator-stub")) == 1
        document = pool.submit(service.translate, ["sleep:0.3"] * 100)
        until(lambda: len(service.replicas("translator-stub")) == 3, 60, "three replicas")
        assert len(service.replicas("translator-back")) == 1, "the other model has nothing to do"
        assert document.result().status_code == 200
        until(lambda: len(service.replicas("translator-stub")) == 1, 90, "one again")
        assert service.translate("after").status_code == 200


def listening(root: int) -> list[tuple[str, int, str]]:
    """Address, port and command of everything that `root` and its descendants listen on."""
    owners = {}
    for pid, command in {root: "-m serving", **processes_below(root)}.items():
        for link in Path(f"/proc/{pid}/fd").iterdir():
            target = os.readlink(link) if link.is_symlink() else ""
            if target.startswith("socket:["):
                owners[target[8:-1]] = command
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in owners:
                address, port = fields[1].split(":")
                found.append((address, int(port, 16), owners[fields[9]]))
    return found


def test_nothing_but_what_is_documented_is_open_to_other_machines(tmp_path: Path) -> None:
    port = free_port()
    path = configuration(tmp_path, port)
    with running(path, port) as service:
        sockets = listening(service.process.pid)
        assert port in {number for address, number, _ in sockets if address.endswith("7F")}
        far = [(number, command) for address, number, command in sockets if not address.endswith("7F")]
        assert [each for each in far if not any(name in each[1] for name in OPEN)] == []
        assert not any("haproxy" in command for _, command in far), "its pages have no password"
        metrics = httpx.get(f"http://127.0.0.1:{service.port + 1}/metrics", timeout=20)
        assert metrics.status_code == 200
        gcs = next(number for number, command in far if "gcs_server" in command)
        code = f"import ray; ray.init('127.0.0.1:{gcs}', log_to_driver=False)"
        environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
        stranger = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False, timeout=120
        )
        assert stranger.returncode != 0, "who has no token is not let in"


def test_the_plain_proxy_is_back_within_ten_seconds(tmp_path: Path) -> None:
    port = free_port()
    with running(configuration(tmp_path, port), port, "--ingress", "proxy") as service:
        [pid] = service.pids("ProxyActor")
        os.kill(pid, signal.SIGKILL)
        started = time.monotonic()
        until(lambda: is_ready(service.url), 60, "an answer")
        assert time.monotonic() - started < 10


def test_rays_own_command_runs_the_same_file(tmp_path: Path) -> None:
    port = free_port()
    path = configuration(tmp_path, port)
    environment = node_environment(tmp_path / "node") | {"RAY_ADDRESS": "local"}
    process = subprocess.Popen(
        [SERVE, "run", str(path)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until(lambda: is_ready(f"http://127.0.0.1:{port}"), UP_S, "serve run")
        answer = httpx.post(f"http://127.0.0.1:{port}/v1/translate", json={"text": "a", "source": "en"}, timeout=20)
        assert answer.json()["translation"] == "A"
    finally:
        end(process)


def test_the_same_file_is_deployed_to_a_cluster(tmp_path: Path) -> None:
    port, dashboard = free_port(), free_port()
    path = configuration(tmp_path, port)
    environment = node_environment(tmp_path / "node")
    head = start_node(
        environment, "--head", f"--port={free_port()}", "--include-dashboard=true", f"--dashboard-port={dashboard}"
    )
    try:
        command = [SERVE, "deploy", str(path), "--address", f"http://127.0.0.1:{dashboard}"]

        def deployed() -> bool:
            return (
                subprocess.run(command, env=environment, capture_output=True, check=False, timeout=60).returncode == 0
            )

        until(deployed, 120, "serve deploy")
        until(lambda: is_ready(f"http://127.0.0.1:{port}"), UP_S, "the service")
    finally:
        end(head)
