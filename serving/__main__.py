"""The launcher behind `nmt serve`: starts Ray and the application, waits for a signal, drains, stops."""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import shlex
import signal
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nmt.errors import ConfigError, NMTError, ServiceError
from serving.config import ServeFile, check_bundle, read_serve_file

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle

NEEDS_RAY = "serving needs Ray Serve and FastAPI: pip install 'strata-nmt[serve]'"
OBJECT_STORE_BYTES = 128 << 20  # texts are small; Ray's default is 30 % of the memory
READY_TIMEOUT_S = 120.0
DRAIN_POLL_S = 0.2
EXAMPLES = {
    "en": "Good morning! The weather is nice today.",
    "de": "Guten Morgen! Das Wetter ist heute schön.",
}

# Read by Ray's processes when they start. What the user has set stays.
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # Ray runs workers at 15, where any other process starves them
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serving.edge:proxy_middleware",
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",  # with Ray's 10 s a dead proxy is replaced after half a minute
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "3",
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "5",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the service until SIGTERM or SIGINT; returns 0, or 2 after one line about what the user can put right."""
    try:
        options = _parser().parse_args(arguments)
        file = _configure(options)
        run(file)
    except NMTError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="nmt serve", description="Serve translation models over HTTP.")
    parser.add_argument("bundle", nargs="?", type=Path, metavar="BUNDLE", help="serve this model bundle")
    parser.add_argument("--config", type=Path, metavar="FILE", help="Ray Serve config file (configs/serve.yaml)")
    parser.add_argument("--host", metavar="HOST", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, metavar="PORT", help="port to listen on, 0 for a free one (8000)")
    return parser


def _configure(options: argparse.Namespace) -> ServeFile:
    """Everything that can be wrong without starting anything is found here."""
    for package in ("ray.serve", "fastapi", "fastapi_swagger"):
        try:
            found = importlib.util.find_spec(package)
        except ModuleNotFoundError:
            found = None
        if found is None:
            raise ConfigError(NEEDS_RAY)
    file = read_serve_file(options.config, options.bundle)
    for bundle in file.application.args.models:
        check_bundle(bundle)
    host = options.host or file.http_options.host
    port = file.http_options.port if options.port is None else options.port
    http_options = file.http_options.model_copy(update={"host": host, "port": _free_port(host, port)})
    return file.model_copy(update={"http_options": http_options})


def _free_port(host: str, port: int) -> int:
    """Check that nothing listens there; Ray Serve itself would share the port with another server, silently."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            words = error.strerror or str(error)
            raise ConfigError(f"cannot listen on {host}:{port} ({words}); choose another with --port") from None
        except OverflowError:
            raise ConfigError(f"port {port} does not exist; choose one from 1 to 65535") from None
        return int(probe.getsockname()[1])


def run(file: ServeFile) -> None:
    """Serve until a signal comes, then let the requests in progress finish. Raises `NMTError` if it cannot start."""
    stop = threading.Event()
    started = time.monotonic()
    try:
        handle = _start(file)
        # Ray.init has set handlers of its own; these are to stay.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        url = _await_ready(file, stop)
        if not stop.is_set():
            _announce(url, file, time.monotonic() - started)
        stop.wait()
        _drain(handle, file)
    finally:
        _shut_down()


def _start(file: ServeFile) -> DeploymentHandle[Any]:
    config, application = file.application.args, file.application
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ["STRATA_LIMITS"] = config.limits.model_dump_json()
    import ray
    from ray import serve

    address = os.environ.get("RAY_ADDRESS", "local")
    local: dict[str, Any] = {}
    if address == "local":
        cores = max(os.cpu_count() or 1, len(config.models) * config.replicas * config.threads)
        local = {"num_cpus": cores, "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING, **local)
    except ConnectionError as error:
        raise ServiceError(f"no Ray cluster at RAY_ADDRESS={address}: {str(error).splitlines()[0]}") from None
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    serve.start(proxy_location=file.proxy_location, http_options=file.http_options.model_dump(exclude_none=True))
    build = _import(application.import_path)
    app = build(config.model_dump(mode="json"))
    try:
        return serve.run(app, name=application.name, route_prefix=application.route_prefix)
    except RuntimeError as error:
        raise ServiceError(f"the service did not start: {_cause(application.name, error)}") from None


def _import(path: str) -> Any:
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"applications.0.import_path {path!r} cannot be imported: {error}") from None


def _cause(name: str, error: Exception) -> str:
    """The last line of the traceback that Ray Serve keeps of a replica that failed to start."""
    from ray import serve

    application = serve.status().applications.get(name)
    messages = [deployment.message for deployment in application.deployments.values()] if application else []
    lines = [line.strip() for message in messages for line in message.splitlines() if "Error: " in line]
    return lines[-1] if lines else str(error)


def _await_ready(file: ServeFile, stop: threading.Event) -> str:
    """Wait until the printed URL works; returns it."""
    http = file.http_options
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(http.host, http.host)
    scheme = "https" if http.ssl_certfile else "http"
    url = f"{scheme}://{host}:{http.port}{file.application.route_prefix.rstrip('/')}"
    deadline = time.monotonic() + READY_TIMEOUT_S
    while scheme == "http" and not stop.is_set():
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=5):
                break
        except (urllib.error.URLError, OSError) as error:
            if time.monotonic() > deadline:
                raise ServiceError(f"the service started but {url}/readyz says: {error}") from None
            time.sleep(0.1)
    return url


def _announce(url: str, file: ServeFile, seconds: float) -> None:
    text = EXAMPLES["en"]
    names = ", ".join(str(path) for path in file.application.args.models)
    try:
        with urllib.request.urlopen(f"{url}/v1/models", timeout=5) as answer:
            models = json.load(answer)["models"]
        names = ", ".join(f"{model['name']} ({model['source']} to {model['target']})" for model in models)
        text = EXAMPLES.get(models[0]["source"], text)
    except (urllib.error.URLError, OSError, LookupError, ValueError):
        pass
    body = shlex.quote(json.dumps({"text": text}, ensure_ascii=False))
    print(f"Serving {names} at {url} (started in {seconds:.1f} s; its description is at {url}/docs). Try:")
    print(f"curl -s {url}/v1/translate -H 'Content-Type: application/json' -d {body}", flush=True)


def _drain(handle: DeploymentHandle[Any], file: ServeFile) -> None:
    """Refuse new work, wait for what is in progress, then remove the application before the proxies go."""
    from ray import serve

    print("stopping: waiting for the requests in progress", flush=True)
    deadline = time.monotonic() + file.application.args.deadline_s + 5.0
    while time.monotonic() < deadline:
        if not sum(handle.broadcast("drain").results(timeout_s=5.0)):
            break
        time.sleep(DRAIN_POLL_S)
    serve.delete(file.application.name)


def _shut_down() -> None:
    import ray
    from ray import serve

    if ray.is_initialized():
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    raise SystemExit(main())
