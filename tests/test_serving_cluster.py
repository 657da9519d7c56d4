"""The service on a Ray cluster of several nodes, simulated on one machine as docs/serving.md has it; a node is lost under load."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("ray.serve")

from serving_process import TESTS, UP_S, Service, configuration, free_port, processes_below, running, under_load, until

from serving import haproxy

pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(
        "STRATA_REQUIRE_ALL" not in os.environ, reason="starts Ray again and again, which takes minutes: .ci/run does"
    ),
]
RAY = str(Path(sys.executable).parent / "ray")


def node_environment(folder: Path) -> dict[str, str]:
    """What `eval "$(python -m serving.environment FOLDER)"` sets."""
    paths = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    command = [sys.executable, "-m", "serving.environment", str(folder), "--most-requests", "512"]
    alone = {name: str(free_port()) for name in haproxy.PORTS}  # whatever else runs on this machine
    printed = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": paths} | alone
    ).stdout
    pairs = (shlex.split(line.removeprefix("export "))[0].partition("=") for line in printed.splitlines())
    return {**os.environ, "PYTHONPATH": paths} | alone | {name: value for name, _, value in pairs}


def start_node(log: Path, environment: dict[str, str], *arguments: str, cores: int = 2) -> subprocess.Popen[bytes]:
    ports = [
        f"--{name}-port={free_port()}" for name in ("dashboard-agent-listen", "dashboard-agent-grpc", "metrics-export")
    ]
    size = [f"--num-cpus={cores}", "--object-store-memory=100000000"]
    with log.open("ab") as output:
        return subprocess.Popen(
            [RAY, "start", *arguments, *size, *ports, "--disable-usage-stats", "--block"],
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill what `process` has started, too, and have nobody look for a cluster there."""
    Path("/tmp/ray/ray_current_cluster").unlink(missing_ok=True)
    below = processes_below(process.pid)
    process.kill()
    process.wait()
    for pid in below:
        if Path(f"/proc/{pid}").exists():
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes], dict[str, str]]]:
    """The address of a cluster of two nodes, the one that is not its head, and their environment."""
    environment, port = node_environment(tmp_path / "node"), free_port()
    address, log, started = f"127.0.0.1:{port}", tmp_path / "nodes.log", list[subprocess.Popen[bytes]]()
    code = (
        f"import ray; ray.init('{address}', log_to_driver=False); print('nodes', sum(n['Alive'] for n in ray.nodes()))"
    )

    def alive(count: int) -> bool:
        with contextlib.suppress(subprocess.TimeoutExpired):
            asked = subprocess.run(
                [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False, timeout=60
            )
            return f"nodes {count}" in asked.stdout
        return False

    def bring_up(count: int, cores: int, *arguments: str) -> None:
        for _ in range(3):  # a port that was free may be taken by now
            started.append(start_node(log, environment, *arguments, cores=cores))
            until(lambda: started[-1].poll() is not None or (answers(port) and alive(count)), UP_S, f"node {count}")
            if started[-1].poll() is None:
                return
        pytest.fail(f"node {count} does not start:\n{log.read_text()[-3000:]}")

    try:
        bring_up(1, 1, "--head", f"--port={port}", "--include-dashboard=false")
        bring_up(2, 3, f"--address={address}")
        yield address, started[-1], environment
    finally:
        for process in reversed(started):
            end(process)


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_node_that_is_lost_fails_no_request(
    tmp_path: Path, nodes: tuple[str, subprocess.Popen[bytes], dict[str, str]]
) -> None:
    address, worker, environment = nodes
    port = free_port()
    models = [str(tmp_path / "stub_en_de")]  # four replicas of it, of which the head has room for two
    path = configuration(
        tmp_path, port, location="HeadOnly", models=models, replicas=4, gateways=2, deadline_s=40, drain_s=5
    )
    with running(path, port, **environment, RAY_ADDRESS=address) as service:

        def there() -> list[str]:
            return [command for command in processes_below(worker.pid).values() if "ServeReplica" in command]

        assert service.process.stdout is not None
        assert service.process.stdout.readline().startswith("serving at")  # all of it is up, not a gateway alone
        assert any("translator" in command for command in there())
        with under_load(service) as load:
            time.sleep(1.0)
            end(worker)
            time.sleep(8.0)
        assert len(load.answers) > 100
        assert load.failed == []
        stopped(service)


def stopped(service: Service) -> None:
    """SIGTERM takes the application off the cluster, and leaves the cluster up."""
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(60) == 0, service.process.communicate()
