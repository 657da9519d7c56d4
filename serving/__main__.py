"""The launcher behind `nmt serve`: start Ray Serve on this machine, serve until SIGTERM or Ctrl-C, drain, stop.

    python -m serving [--config FILE] [--host HOST] [--port PORT] [BUNDLE ...]

Ray's own command `serve run` can start the same configuration, but at SIGTERM it drops the requests in flight.
"""

from __future__ import annotations

import argparse
import errno
import json
import logging
import os
import re
import shlex
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import nmt.config
from nmt.errors import ConfigError, NMTError, ServiceError
from serving.config import IMPORT_PATH, ServeFile, check_models, load

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # Ray's 15 lets any other process on the machine starve the service
    # HAProxy answers faster than Ray's Python proxy, but it opens statistics without a password on every network
    # interface. Who wants it sets this to 1.
    "RAY_SERVE_ENABLE_HA_PROXY": "0",
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serving.middleware.proxy_middleware",
    # A dead proxy is noticed in seconds instead of half a minute; a slow one, on a busy machine, is given its time.
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    "RAY_SERVE_QUEUE_LENGTH_RESPONSE_DEADLINE_S": "0.5",
}
# Requests are small; by default Ray would take 30 % of the memory for its object store.
_LOCAL: dict[str, Any] = {"include_dashboard": False, "object_store_memory": 128 * 1024 * 1024}
_FLUSH_S = 0.5  # for the last answers to pass through the proxy


class _Stop(BaseException):
    """A signal to stop that came before the service was up."""


class _Signals:
    """SIGTERM and SIGINT: during start-up they raise `_Stop`, afterwards they are counted."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.hurry = threading.Event()
        self._serving = False

    def install(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)

    def serving(self) -> None:
        """Start-up is over."""
        self._serving = True

    def _handle(self, number: int, _: FrameType | None) -> None:
        if not self._serving:
            raise _Stop
        if self.stop.is_set():
            self.hurry.set()
        self.stop.set()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the service; return the exit status: 0 after a clean stop, 2 for what the user can put right, 1 otherwise."""
    options = _parser().parse_args(argv)
    signals = _Signals()
    signals.install()
    try:
        file = load(
            options.config or nmt.config.shipped("configs") / "serve.yaml", options.models, options.host, options.port
        )
        return _serve(file, signals)
    except NMTError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except _Stop:
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("nmt serve", description="Serve translations over HTTP.")
    parser.add_argument("models", nargs="*", metavar="BUNDLE", help="model folders, instead of those in the file")
    parser.add_argument("--config", type=Path, metavar="FILE", help="a Ray Serve file (default: configs/serve.yaml)")
    parser.add_argument("--host", help="address to listen on (default: from the file)")
    parser.add_argument("--port", type=int, help="port to listen on (default: from the file)")
    return parser


def _serve(file: ServeFile, signals: _Signals) -> int:
    if file.application.import_path != IMPORT_PATH:
        raise ConfigError(
            f"import_path {file.application.import_path!r}: `nmt serve` runs {IMPORT_PATH}; use `serve run`"
        )
    config = file.application.args
    check_models(config)
    cluster = os.environ.get("RAY_ADDRESS")
    if not cluster:
        _check_port(file.http_options.host, file.http_options.port)
    _set_environment()
    try:
        import ray  # only here: everything that can be wrong is said before Ray takes its second to import
        from ray import serve
    except ImportError:
        raise ConfigError("serving needs Ray Serve: pip install 'strata-nmt[serve]'") from None
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    try:
        _init(ray, cluster)
        signals.install()  # Ray sets its own
        _start(serve, file)
        signals.serving()
        _announce(serve, file)
        signals.stop.wait()
        print("stopping: requests in flight are finished first", flush=True)
        _drain(serve, file, signals)
        if cluster:
            serve.delete(file.application.name)
        else:  # deleting would answer 404 meanwhile, which no client tries again; a refused connection it does
            signals.hurry.wait(_FLUSH_S)
        return 0
    finally:
        ray.shutdown()


def _init(ray: Any, cluster: str | None) -> None:
    """Connect to the cluster at that address, or start Ray on this machine. Raises `ServiceError`."""
    try:
        if cluster:
            ray.init(cluster, log_to_driver=False, logging_level=logging.ERROR)
        else:
            ray.init("local", log_to_driver=False, logging_level=logging.ERROR, **_LOCAL)
    except Exception as error:  # Ray raises bare ones when the machine is too busy or the address is wrong
        where = f"no Ray cluster at {cluster}" if cluster else "Ray did not start"
        raise ServiceError(f"{where}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _check_port(host: str, port: int) -> None:
    """Raise `ConfigError` when nothing can listen there; Ray would only try again and again."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        reasons = {errno.EADDRINUSE: "the port is in use", errno.EACCES: "not allowed to listen there"}
        reason = reasons.get(error.errno or 0, error.strerror or "cannot listen there")
        raise ConfigError(f"{host}:{port}: {reason}; choose another by --host and --port") from None


def _set_environment() -> None:
    """Settings that Ray reads from the environment, ours and its processes'; what the user has set stays."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    root = str(Path(nmt.__file__).resolve().parent.parent)  # so that the workers find both packages in a clone too
    paths = [root, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in dict.fromkeys(paths) if path)


def _start(serve: Any, file: ServeFile) -> None:
    from ray.exceptions import RayError

    from serving.app import build

    application = file.application
    try:
        serve.start(proxy_location=file.proxy_location, http_options=file.http_options.model_dump(exclude_none=True))
        serve.run(build(application.args.model_dump()), name=application.name, route_prefix=application.route_prefix)
    except RuntimeError as error:
        reason = _reason(serve, application.name) or _first_line(error)
        raise ServiceError(f"the service did not start: {reason}") from error
    except RayError as error:
        raise ServiceError(f"Ray Serve did not start: {_first_line(error)}") from error


def _reason(serve: Any, name: str) -> str:
    """Why a deployment did not start: the error line of the traceback that Serve keeps of its replica."""
    application = serve.status().applications.get(name)
    messages = [deployment.message for deployment in application.deployments.values()] if application else []
    lines = [line.strip() for message in messages for line in message.splitlines()]
    errors = [line for line in lines if re.match(r"(\w+\.)*\w+(Error|Exception)\b.*: ", line)]
    return re.sub(r"^nmt\.errors\.\w+: ", "", errors[-1]) if errors else ""


def _announce(serve: Any, file: ServeFile) -> None:
    """Print where the service is, and a command to try it that works as printed."""
    host, port = file.http_options.host, file.http_options.port
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    url = f"http://{shown}:{port}{file.application.route_prefix.rstrip('/')}"
    request: dict[str, Any] = {"text": ["Good morning!", "How are you?"]}
    if len(file.application.args.models) > 1:
        request["model"] = serve.get_app_handle(file.application.name).model_names.remote().result(timeout_s=60)[0]
    command = f"curl -s {url}/v1/translate -H 'Content-Type: application/json' -d {shlex.quote(json.dumps(request))}"
    print(f"serving at {url} (API page: {url}/docs). Try:\n\n  {command}\n", flush=True)


def _drain(serve: Any, file: ServeFile, signals: _Signals) -> None:
    """Refuse new requests by 503 and finish those in flight; a second signal stops the waiting."""
    name, seconds = file.application.name, file.application.args.drain_s
    finished = threading.Event()

    def wait() -> None:
        try:
            serve.get_app_handle(name).broadcast("drain", seconds).results(timeout_s=seconds + 5)
        except Exception as error:  # a gateway that died has nothing left to wait for
            print(f"a gateway could not be drained: {_first_line(error)}", file=sys.stderr)
        finally:
            finished.set()

    threading.Thread(target=wait, daemon=True).start()
    while not finished.wait(0.1) and not signals.hurry.is_set():
        pass


if __name__ == "__main__":
    sys.exit(main())
