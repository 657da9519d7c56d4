"""What Ray's processes must find in their environment. `nmt serve` sets it; for a cluster it is set on every node, before `ray start`:

    eval "$(python -m serving.environment FOLDER)"

FOLDER is one of the node's own, to which a script is written by which HAProxy is started.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import nmt
from nmt.errors import ConfigError, NMTError
from serving import haproxy

HAPROXY = "RAY_SERVE_ENABLE_HA_PROXY"
_ALWAYS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",  # Ray's own ports listen on every network interface
    "RAY_worker_niceness": "0",  # Ray's 15 lets any other process on the machine starve the service
    # What Ray calls optimised for throughput, but for what the launcher's own calls do without: fewer threads and less writing a request.
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "100",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    "RAY_SERVE_FREEZE_GC_ON_STARTUP": "1",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "5",  # for HAProxy to learn that a gateway goes
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serving.middleware.proxy_middleware",
    # A dead proxy is noticed in seconds instead of half a minute; a slow one, on a busy machine, is given its time.
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    "RAY_SERVE_QUEUE_LENGTH_RESPONSE_DEADLINE_S": "0.5",
}


def prepare(folder: Path, ingress: str | None, most_requests: int, alone: bool = True) -> None:
    """Set it for this process and those that it starts; what the user has set stays.

    `ingress` is haproxy, proxy (Ray Serve's own), or None for HAProxy where there is one; it refuses what comes on top of `most_requests`
    at a time, and with `alone` has ports that no other service on this machine has. Raises `ConfigError` where there is no HAProxy that is
    asked for.
    """
    for name, value in _ALWAYS.items():
        os.environ.setdefault(name, value)
    root = str(Path(nmt.__file__).resolve().parent.parent)  # so that the workers find both packages in a clone too
    paths = [root, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in dict.fromkeys(paths) if path)
    if alone:  # Ray takes this machine for one that can't be part of a cluster: then its ports are on 127.0.0.1
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    if ingress != "proxy" and not (ingress is None and os.environ.get(HAPROXY) == "0"):
        try:
            haproxy.install(folder, most_requests, alone)
        except (ImportError, OSError) as error:
            if ingress == "haproxy":
                raise ConfigError(f"there is no HAProxy here: {error}; use --ingress proxy") from None
        else:
            os.environ[HAPROXY] = "1"
            return
    os.environ[HAPROXY] = "0"


def main(argv: Sequence[str] | None = None) -> int:
    """Print the environment as commands of a shell."""
    parser = argparse.ArgumentParser(
        "python -m serving.environment", description="The environment of a node, for eval."
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--ingress", choices=("haproxy", "proxy"), help="default: HAProxy where there is one")
    parser.add_argument("--most-requests", type=int, default=256, help="requests at a time, gateways x queue.requests")
    options = parser.parse_args(argv)
    before = dict(os.environ)
    try:
        options.folder.mkdir(parents=True, exist_ok=True)
        prepare(options.folder.resolve(), options.ingress, options.most_requests, alone=False)
    except (NMTError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for name, value in sorted(os.environ.items()):
        if before.get(name) != value:
            print(f"export {name}={shlex.quote(value)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
