"""The Ray Serve application: a FastAPI gateway before translator replicas, or, on one machine, holding the models itself."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
from fastapi import FastAPI
from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy
from ray.serve.handle import DeploymentHandle

from serving.backend import Model, Models, RemoteModel
from serving.config import ServeConfig, check_models, parse_args
from serving.desk import DeskReplica, RemoteDesk
from serving.gateway import create_app
from serving.jobs import Desk, Jobs
from serving.keys import KeyStore
from serving.replica import TranslatorReplica
from serving.service import Activity

GATEWAY = "gateway"
# What Ray sets aside for a process: next to nothing, as a replica that finds no room, beside the one it replaces, is never started; and
# the same whatever else is served, as Serve loads anew what is to have more or less.
RESERVED_CORES = 0.01


class Gateway:
    """The ingress: the FastAPI app of `serving.gateway` on top of the models."""

    def __init__(
        self,
        config: ServeConfig,
        models: dict[str, DeploymentHandle[Any] | tuple[str, int]],
        _retired: dict[str, DeploymentHandle[Any]],
        desk: DeploymentHandle[Any] | None = None,
    ) -> None:
        """`models` by label: the handle of each, or the path and threads of what is loaded here. Those retired are only kept up. `desk` is
        the handle of the one for documents, where there are several gateways."""
        self._config = config
        self._local: list[TranslatorReplica] = []
        self._backend = Models({label: self._model(label, what) for label, what in models.items()})
        local = Jobs(self._backend, config.files, config.pivot, config.deadline_s)
        self._desk: Desk = RemoteDesk(desk) if desk else local
        self._activity = Activity(config.queue.requests)

    def _model(self, label: str, what: DeploymentHandle[Any] | tuple[str, int]) -> Model:
        if not isinstance(what, tuple):
            return RemoteModel(label, what)
        self._local.append(TranslatorReplica(what[0], what[1], self._config))
        return self._local[-1]

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Serve after the constructor. What is before it puts X-Request-ID on responses, so that the app must not."""
        return create_app(self._backend, self._config, self._activity, request_ids=False, desk=self._desk)

    async def model_names(self) -> list[str]:
        """Names of the models, in the order of the configuration."""
        return [model.info.name for model in await self._backend.models()]

    async def check_health(self) -> None:
        """Called by Serve every second."""
        for replica in self._local:
            await replica.check_health()

    async def drain(self, seconds: float) -> int:
        """Take no new requests and wait for those in flight, and for documents, `seconds` at most; return how many requests are left."""
        self._activity.draining = True
        ends = time.monotonic() + seconds
        in_hand = asyncio.create_task(self._desk.finish(seconds))
        while self._activity.in_flight and time.monotonic() < ends:
            await asyncio.sleep(0.05)
        await in_hand
        await self._desk.finish(ends - time.monotonic())  # the documents of requests that were in flight
        return self._activity.in_flight


def build(args: dict[str, Any]) -> Application:
    """The application that `args` (a `ServeConfig` as plain values) describe; Ray Serve's import path of this service.

    Raises `ConfigError` and `BundleError` before anything is started.
    """
    return build_config(parse_args(args))


def build_config(config: ServeConfig, retired: Sequence[Path] = ()) -> Application:
    """As `build`; the models of the folders `retired` stay up for the gateway that is being replaced, and are not served by the new one."""
    paths = check_models(config)
    if config.keys:
        KeyStore.open(Path(config.keys))  # what is wrong with it is said now
        config = config.model_copy(update={"keys": str(Path(config.keys).resolve())})
    # In one process every model may have all cores: threads without work take nothing, and seldom do all models have some.
    sharing = 1 if config.one_hop else len(paths) * config.most_replicas
    threads = config.threads or max(1, int(_cores() / sharing))
    reserved = {"num_cpus": RESERVED_CORES}
    if config.device == "cuda":
        reserved["num_gpus"] = 1  # for each process: the models of a fused gateway share it
    if config.one_hop:
        here = {label: (str(path), threads) for label, path in _labels(paths).items()}
        return _gateway(config, paths, reserved).bind(config, here, {})

    def translators(paths: Sequence[Path]) -> dict[str, Any]:
        return {
            label: _translator(path, config, reserved).bind(str(path), threads, config)
            for label, path in _labels(paths).items()
        }

    served = translators(paths)
    desk = _desk(config, paths).bind(config, served) if config.gateways > 1 else None
    return _gateway(config, paths, {"num_cpus": 0}).bind(config, served, translators(retired), desk)


def _labels(paths: Sequence[Path]) -> dict[str, Path]:
    """Paths by their last part where that is enough."""
    names = [path.name for path in paths]
    return {path.name if names.count(path.name) == 1 else str(path): path for path in paths}


def _translator(path: Path, config: ServeConfig, reserved: dict[str, float]) -> Any:
    scaling: dict[str, Any] = {"num_replicas": config.replicas}
    if config.autoscale:
        auto = config.autoscale
        policy = AutoscalingPolicy(
            policy_function="serving.scaling:ByWaitingTokens", policy_kwargs={"waiting_tokens": auto.waiting_tokens}
        )
        scaling = {
            "autoscaling_config": AutoscalingConfig(
                min_replicas=auto.min_replicas,
                max_replicas=auto.max_replicas,
                upscale_delay_s=auto.up_s,
                downscale_delay_s=auto.down_s,
                look_back_period_s=max(2.0, min(30.0, auto.down_s)),
                metrics_interval_s=1.0,
                policy=policy,
            )
        }
    deployment = serve.deployment(
        # A name of its own for each folder, whatever else is or was served.
        name=f"translator-{re.sub(r'[^A-Za-z0-9.-]', '-', path.name)}-{_digest(str(path))[:6]}",
        ray_actor_options=reserved,
        max_ongoing_requests=config.gateways * config.queue.requests + 64,
        logging_config={
            "encoding": "JSON",
            "enable_access_log": False,
        },  # the gateway's log has a line for each request already
        **scaling,
        **_options(config),
    )
    return _versioned(deployment(TranslatorReplica), _version(path, config))


def _desk(config: ServeConfig, paths: Sequence[Path]) -> Any:
    options = {
        "name": "documents",
        "num_replicas": 1,
        "ray_actor_options": {"num_cpus": 0},
        "max_ongoing_requests": 1000,
    }
    version = _digest(config.model_dump_json(), *(_version(path, config) for path in paths))
    return _versioned(serve.deployment(**options, **_options(config))(DeskReplica), version)


def _gateway(config: ServeConfig, paths: Sequence[Path], reserved: dict[str, float]) -> Any:
    deployment = serve.deployment(
        name=GATEWAY,
        num_replicas=config.gateways,
        ray_actor_options=reserved,
        # Above the gateway's own limit, so that it is the gateway that refuses: at once, and in our words.
        max_ongoing_requests=2 * config.queue.requests + 64,
        **_options(config),
    )
    version = _digest(config.model_dump_json(), *(_version(path, config) for path in paths))
    return _versioned(deployment(serve.ingress()(Gateway)), version)


def _versioned(deployment: Any, version: str) -> Any:
    """Serve leaves a deployment alone whose version is the same; without one, all replicas start anew. Its name for that is private."""
    deployment._version = version
    return deployment


def _version(path: Path, config: ServeConfig) -> str:
    """The same for the same bundle and the same settings of its replicas."""
    files = sorted((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in path.iterdir())
    others = {"models", "replicas", "autoscale", "gateways", "limits", "files", "keys", "pivot", "proxies"}
    return _digest(str(path), str(files), config.model_dump_json(exclude=others))


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _options(config: ServeConfig) -> dict[str, Any]:
    """Settings that both deployments share."""
    return {
        "max_surge_percent": 100,  # an update starts the new replica before it stops the old one
        "max_constructor_retry_count": 3,
        "health_check_period_s": 1.0,  # three failures in a row, and a replica is replaced
        "health_check_timeout_s": 15.0,
        "graceful_shutdown_timeout_s": config.drain_s,
        "graceful_shutdown_wait_loop_s": 0.2,
    }


def _cores() -> float:
    """Processor cores that Ray may use; it knows of container limits. Without Ray, those of the machine."""
    if ray.is_initialized():
        return float(ray.cluster_resources().get("CPU", 1.0))
    return float(os.cpu_count() or 1)
