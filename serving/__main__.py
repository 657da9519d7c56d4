"""The launcher behind `nmt serve`: start Ray Serve on this machine, serve until SIGTERM or Ctrl-C, drain, stop.

    python -m serving [--config FILE] [--host HOST] [--port PORT] [--ingress haproxy|proxy] [BUNDLE ...]

SIGHUP reads the file again and changes what is served, without failing a request.

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
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import nmt.config
from nmt.errors import ConfigError, NMTError, ServiceError
from serving import environment
from serving.config import IMPORT_PATH, ServeFile, check_models, load

# Requests are small; by default Ray would take 30 % of the memory for its object store.
_LOCAL: dict[str, Any] = {"include_dashboard": False, "object_store_memory": 128 * 1024 * 1024}
_ANSWERS_S = 30.0  # for what is before the gateway to know of it
_LAST_PORT = 65535
_FLUSH_S = 0.5  # for the last answers to pass through the proxy


class _Stop(BaseException):
    """A signal to stop that came before the service was up."""


class _Signals:
    """SIGTERM and SIGINT: during start-up they raise `_Stop`, afterwards they are counted. SIGHUP asks for the file to be read again."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.hurry = threading.Event()
        self.some = threading.Event()
        self._serving = False

    def install(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)
        signal.signal(signal.SIGHUP, lambda *_: self.some.set())

    def wait(self) -> bool:
        """Until the next signal; whether it was to read the file again."""
        self.some.wait()
        self.some.clear()
        return not self.stop.is_set()

    def serving(self) -> None:
        """Start-up is over."""
        self._serving = True

    def _handle(self, number: int, _: FrameType | None) -> None:
        if not self._serving:
            raise _Stop
        if self.stop.is_set():
            self.hurry.set()
        self.stop.set()
        self.some.set()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the service; return the exit status: 0 after a clean stop, 2 for what the user can put right, 1 otherwise."""
    options = _parser().parse_args(argv)
    signals = _Signals()
    signals.install()

    def read() -> ServeFile:
        path = options.config or nmt.config.shipped("configs") / "serve.yaml"
        file = load(path, options.models, options.host, options.port)
        if file.application.import_path != IMPORT_PATH:
            raise ConfigError(
                f"import_path {file.application.import_path!r}: `nmt serve` runs {IMPORT_PATH}; use `serve run`"
            )
        check_models(file.application.args)
        return file

    try:
        with tempfile.TemporaryDirectory(prefix="strata-") as folder:
            return _serve(read, signals, options, Path(folder))
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
    parser.add_argument(
        "--metrics-port", type=int, help="port of Prometheus metrics (default: the one after the service's)"
    )
    parser.add_argument(
        "--ingress",
        choices=("haproxy", "proxy"),
        help="what is before the gateway: HAProxy, or Ray Serve's own proxy, which is slower (default: HAProxy where there is one)",
    )
    return parser


def _serve(read: Callable[[], ServeFile], signals: _Signals, options: argparse.Namespace, folder: Path) -> int:
    file = read()
    metrics_port = options.metrics_port or file.http_options.port + (1 if file.http_options.port < _LAST_PORT else -1)
    cluster = os.environ.get("RAY_ADDRESS")
    if not cluster:
        _check_port(file.http_options.host, file.http_options.port)
        _check_port("127.0.0.1", metrics_port, "--metrics-port")
        # A cluster's nodes have an environment of their own.
        environment.prepare(folder, options.ingress, _most_requests(file))
    try:
        import ray  # only here: everything that can be wrong is said before Ray takes its second to import
        from ray import serve
    except ImportError:
        raise ConfigError("serving needs Ray Serve: pip install 'strata-nmt[serve]'") from None
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    try:
        _init(ray, cluster, metrics_port)
        signals.install()  # Ray sets its own
        _start(serve, file)
        _wait_until_it_answers(file)
        signals.serving()
        _announce(serve, file, None if cluster else metrics_port)
        while signals.wait():
            file = _reload(serve, file, read)
        print("stopping: requests in flight are finished first", flush=True)
        _drain(serve, file, signals)
        if cluster:
            serve.delete(file.application.name)
        else:  # deleting would answer 404 meanwhile, which no client tries again; a refused connection it does
            signals.hurry.wait(_FLUSH_S)
        return 0
    finally:
        ray.shutdown()


def _reload(serve: Any, before: ServeFile, read: Callable[[], ServeFile]) -> ServeFile:
    """Serve what the file says now, model by model beside the old ones, and return it; what is wrong with it changes nothing."""
    from serving.app import build_config

    try:
        file = read()
        if file.http_options != before.http_options or file.application.name != before.application.name:
            print("host, port and name stay as they are until the service is started anew", flush=True)
            application = file.application.model_copy(update={"name": before.application.name})
            file = file.model_copy(update={"http_options": before.http_options, "applications": [application]})
        config = file.application.args
        where = _where(file)
        retired = [path for path in check_models(before.application.args) if path not in check_models(config)]
        if retired:  # they stay until no gateway knows them any more
            serve.run(build_config(config, retired), **where)
        serve.run(build_config(config), **where)
    except (NMTError, RuntimeError) as error:
        print(
            f"not read again: {_reason(serve, before.application.name) or _first_line(error)}",
            file=sys.stderr,
            flush=True,
        )
        return before
    print(f"read again: {', '.join(config.models)}", flush=True)
    return file


def _most_requests(file: ServeFile) -> int:
    config = file.application.args
    return config.gateways * config.queue.requests


def _init(ray: Any, cluster: str | None, metrics_port: int) -> None:
    """Connect to the cluster at that address, or start Ray on this machine. Raises `ServiceError`."""
    try:
        if cluster:
            ray.init(cluster, log_to_driver=False, logging_level=logging.ERROR)
        else:
            ray.init(
                "local", log_to_driver=False, logging_level=logging.ERROR, _metrics_export_port=metrics_port, **_LOCAL
            )
    except Exception as error:  # Ray raises bare ones when the machine is too busy or the address is wrong
        where = f"no Ray cluster at {cluster}" if cluster else "Ray did not start"
        raise ServiceError(f"{where}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _check_port(host: str, port: int, option: str = "--host and --port") -> None:
    """Raise `ConfigError` when nothing can listen there; Ray would only try again and again."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        reasons = {errno.EADDRINUSE: "the port is in use", errno.EACCES: "not allowed to listen there"}
        reason = reasons.get(error.errno or 0, error.strerror or "cannot listen there")
        raise ConfigError(f"{host}:{port}: {reason}; choose another by {option}") from None


def _where(file: ServeFile) -> dict[str, Any]:
    application = file.application
    return {
        "name": application.name,
        "route_prefix": application.route_prefix,
        "logging_config": file.logging_config,
    }


def _wait_until_it_answers(file: ServeFile) -> None:
    """What is before the gateway learns of it a moment after Serve says that it runs."""
    ends = time.monotonic() + _ANSWERS_S
    while time.monotonic() < ends:
        try:
            with urllib.request.urlopen(f"{_url(file)}/readyz", timeout=5):
                return
        except OSError:
            time.sleep(0.05)
    raise ServiceError(f"{_url(file)} does not answer")


def _url(file: ServeFile) -> str:
    host, port = file.http_options.host, file.http_options.port
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}{file.application.route_prefix.rstrip('/')}"


def _start(serve: Any, file: ServeFile) -> None:
    from ray.exceptions import RayError

    from serving.app import build_config

    application = file.application
    try:
        serve.start(
            proxy_location=file.proxy_location,
            http_options=file.http_options.model_dump(exclude_none=True),
            logging_config=file.logging_config,
            tracing_config=file.tracing_config,
        )
        serve.run(build_config(application.args), **_where(file))
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


def _announce(serve: Any, file: ServeFile, metrics_port: int | None) -> None:
    """Print where the service is, and a command to try it that works as printed."""
    url = _url(file)
    request: dict[str, Any] = {"text": ["Good morning!", "How are you?"]}
    if len(file.application.args.models) > 1:
        request["model"] = serve.get_app_handle(file.application.name).model_names.remote().result(timeout_s=60)[0]
    command = f"curl -s {url}/v1/translate -H 'Content-Type: application/json' -d {shlex.quote(json.dumps(request))}"
    metrics = f", metrics: http://127.0.0.1:{metrics_port}/metrics" if metrics_port else ""
    print(f"serving at {url} (API page: {url}/docs{metrics}). Try:\n\n  {command}\n", flush=True)


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
