"""Forms of the service: replicas that come and go, Ray's own commands, and who can reach what of it."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

pytest.importorskip("ray.serve")

from serving_process import UP_S, configuration, free_port, is_ready, running, until
from test_serving_cluster import RAY, end, node_environment, start_node

pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(
        "STRATA_REQUIRE_ALL" not in os.environ, reason="starts Ray again and again, which takes minutes: .ci/run does"
    ),
]
SERVE = str(Path(RAY).parent / "serve")


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


def let_in(address: str, environment: dict[str, str]) -> bool:
    """Whether Ray takes who comes with that environment, within some seconds: it may go on trying."""
    code = f"import ray; ray.init('{address}', log_to_driver=False); print('let in')"
    caller = subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        said, _ = caller.communicate(timeout=20)
    except subprocess.TimeoutExpired:
        caller.kill()
        said, _ = caller.communicate()
    return "let in" in said


def test_the_same_file_is_deployed_to_a_cluster(tmp_path: Path) -> None:
    port, dashboard, gcs = free_port(), free_port(), free_port()
    path = configuration(tmp_path, port)
    environment = node_environment(tmp_path / "node")
    log, place = tmp_path / "node.log", f"--dashboard-port={dashboard}"
    head = start_node(log, environment, "--head", f"--port={gcs}", "--include-dashboard=true", place)
    try:
        command = [SERVE, "deploy", str(path), "--address", f"http://127.0.0.1:{dashboard}"]

        def deployed() -> bool:
            return (
                subprocess.run(command, env=environment, capture_output=True, check=False, timeout=60).returncode == 0
            )

        until(deployed, 120, "serve deploy")
        until(lambda: is_ready(f"http://127.0.0.1:{port}"), UP_S, "the service")
        assert let_in(f"127.0.0.1:{gcs}", environment)
        assert not let_in(f"127.0.0.1:{gcs}", environment | {"RAY_AUTH_MODE": "disabled"}), "Ray asks for a token"
    finally:
        end(head)
