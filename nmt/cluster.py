"""Ray: a cluster that is there, or one of our own on this machine, which nobody else can reach. Imported only when it is asked for."""

from __future__ import annotations

import importlib
import logging
import os
import socket
from collections.abc import Mapping
from typing import Any

from nmt.errors import ConfigError

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # Ray's 15 lets any other process on the machine starve the work
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # Ray tells of dead workers on standard output; we tell of them ourselves
}
_OWN = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # Ray's switch for listening on 127.0.0.1 alone, whatever the system
_JOINED = {"RAY_NUM_REDIS_GET_RETRIES": "1"}  # a cluster that is not there is said to be so in a minute, not in twenty


def import_ray(part: str, name: str, address: str, environment: Mapping[str, str]) -> Any:
    """The module `ray`, with its module `part`, called `name`; raise `ConfigError` where it is not installed. What of `environment` the
    user has set stays; `address` is that of a cluster, "" for one of our own."""
    for variable, value in {**_ENVIRONMENT, **(_JOINED if address else _OWN), **environment}.items():
        os.environ.setdefault(variable, value)
    try:
        ray = importlib.import_module("ray")
        importlib.import_module(part)
    except ImportError as error:
        raise ConfigError(f"--ray needs {name} ({last_line(error)}): pip install 'strata-nmt[ray]'") from None
    return ray


def connect(ray: Any, address: str, cores: int, store_bytes: int = 128 << 20) -> None:
    """Join the cluster, or start Ray with so many cores on this machine; raise `ConfigError` where that fails."""
    if address.startswith("ray://"):
        raise ConfigError(
            f"--ray {address}: give this command on a machine of the cluster, with HOST:PORT or auto, not over Ray Client"
        )
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address:
            _knock(ray, address)
            ray.init(address, **quiet)
            return
        # Of the memory Ray would take a third.
        ray.init("local", num_cpus=cores, include_dashboard=False, object_store_memory=store_bytes, **quiet)
    except Exception as error:  # Ray raises bare ones when the machine is too busy or the address is wrong
        where = f"no Ray cluster at {address}" if address else "Ray did not start"
        raise ConfigError(f"{where}: {str(error).strip().partition(chr(10))[0]}") from None


def _knock(ray: Any, address: str) -> None:
    """Raise `OSError` when nothing answers at HOST:PORT, which Ray would try for a long time."""
    host, separator, port = address.rpartition(":")
    if separator and port.isdecimal():
        local = host in ("localhost", "127.0.0.1")  # which Ray takes for this machine's address in the network
        socket.create_connection((ray.util.get_node_ip_address() if local else host, int(port)), timeout=10).close()


def beside(ray: Any, actor: type) -> Any:
    """An actor of this class on the machine of this process: it would be of no use to the workers without it."""
    strategy = importlib.import_module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy
    here = strategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(actor).options(num_cpus=0, scheduling_strategy=here).remote()


def last_line(error: BaseException) -> str:
    """The last line of what an error says, which with Ray is what it is about."""
    return ([line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__])[-1]
