"""The Ray Serve application: translator replicas behind a FastAPI gateway; one handle call for each request."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import ray
from fastapi import FastAPI
from ray import serve
from ray.exceptions import ObjectLostError, RayActorError, RayError, WorkerCrashedError
from ray.serve import Application
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException
from ray.serve.handle import DeploymentHandle

from nmt.errors import InputError
from nmt.inference.bundle import ModelInfo
from nmt.inference.engine import Priority
from nmt.inference.types import DecodeOptions, Translation
from serving import admission
from serving.admission import Admission
from serving.config import ServeConfig, check_models, parse_args
from serving.gateway import Activity, create_app
from serving.protocol import DeadlineExceeded, Overloaded, Overrides, Refusal, ServedModel, Unavailable

T = TypeVar("T")

_CANARY = "Good morning!"
_READY_TIMEOUT_S = 3.0
_ATTEMPTS = 5  # a text that kills its replica must not kill all that come after it
_BACKOFF_S = 0.1  # before the second attempt; three times as long before each further one
_LOST = (RayActorError, WorkerCrashedError, ObjectLostError, DeploymentUnavailableError)
_log = logging.getLogger("ray.serve")


class Translator(admission.Translator, Protocol):
    """What a replica needs of `nmt.inference.translator.Translator`; the class is named by `loader`."""

    info: ModelInfo
    defaults: DecodeOptions

    def validate(self, text: str) -> None:
        """Raise `InputError` for a text that cannot be translated."""


class TranslatorReplica:
    """Holds one model and translates what all gateways send, in shared batches."""

    def __init__(self, path: str, threads: int, config: ServeConfig) -> None:
        """Load the bundle at `path` and decode a first sentence, so that a replica that is up has proved that it works."""
        module, _, name = config.loader.partition(":")
        loader = getattr(importlib.import_module(module), name)
        self._translator = cast(Translator, loader.load(Path(path), threads=threads))
        self._defaults = config.decode or self._translator.defaults
        self._translator.begin([_CANARY], self._defaults, Priority.INTERACTIVE).results()
        self._admission = Admission(self._translator, config.queue.texts, config.deadline_s)

    async def translate(self, texts: list[str], overrides: Overrides, timeout_s: float) -> list[Translation] | Refusal:
        """A translation for each text, or why not."""
        try:
            options = overrides.apply(self._defaults)
            for text in texts:
                self._translator.validate(text)
            return await self._admission.translate(texts, options, timeout_s)
        except InputError as error:
            return Refusal("input", str(error))
        except DeadlineExceeded as error:
            return Refusal("deadline", str(error), error.retry_after)
        except Unavailable as error:
            return Refusal("overloaded", str(error), error.retry_after)

    async def describe(self) -> ServedModel:
        """What this replica serves."""
        return ServedModel(self._translator.info, self._defaults)

    async def statistics(self) -> dict[str, float]:
        """What `Admission.statistics` says."""
        return self._admission.statistics()

    async def check_health(self) -> None:
        """Called by Serve, which replaces a replica that raises here."""
        if not self._admission.healthy():
            raise RuntimeError("the engine has stopped or is stuck")


class ServeBackend:
    """The models behind the gateway, as Serve handles; sends a request again when the replica that had it died."""

    def __init__(self, handles: dict[str, DeploymentHandle[Any]]) -> None:
        """`handles`: a label for messages to the handle of each model's deployment."""
        self._handles = handles
        self._known: dict[str, ServedModel] = {}

    async def models(self) -> list[ServedModel]:
        """The models, asked for once and remembered; waits for those that still load."""
        missing = [label for label in self._handles if label not in self._known]
        await asyncio.gather(*map(self._describe, missing))
        return [self._known[label] for label in self._handles]

    async def ready(self) -> list[str]:
        """Ask a replica of every model now."""

        async def problem(label: str) -> str | None:
            try:
                async with asyncio.timeout(_READY_TIMEOUT_S):
                    await self._describe(label)
            except (TimeoutError, Unavailable, RayError, RayServeException):
                return label
            return None

        return [label for label in await asyncio.gather(*map(problem, self._handles)) if label]

    async def translate(
        self, model: str, texts: list[str], overrides: Overrides, timeout_s: float
    ) -> list[Translation]:
        """One call for the whole request; what is left of the time goes along with each attempt."""
        label = next(label for label, served in self._known.items() if served.info.name == model)
        ends = time.monotonic() + timeout_s

        async def attempt() -> list[Translation] | Refusal:
            left = max(0.0, ends - time.monotonic())
            return cast(
                "list[Translation] | Refusal", await self._handles[label].translate.remote(texts, overrides, left)
            )

        result = await self._retrying(label, attempt)
        if isinstance(result, Refusal):
            raise result.error()
        return result

    async def _describe(self, label: str) -> None:
        async def attempt() -> ServedModel:
            return cast(ServedModel, await self._handles[label].describe.remote())

        self._known[label] = await self._retrying(label, attempt)

    async def _retrying(self, label: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """`attempt`, again when the replica dies under it: translating twice does no harm. The caller sets the time limit."""
        for number in range(1, _ATTEMPTS + 1):
            try:
                return await attempt()
            except BackPressureError:
                raise Overloaded(f"{label} has too many requests waiting") from None
            except _LOST as error:
                _log.warning("%s: attempt %d of %d ended by %s", label, number, _ATTEMPTS, type(error).__name__)
                if number < _ATTEMPTS:
                    await asyncio.sleep(_BACKOFF_S * 3 ** (number - 1))
        raise Unavailable(f"{label} is not available", 5.0)


class Gateway:
    """The ingress: the FastAPI app of `serving.gateway` on top of the models' handles."""

    def __init__(self, config: ServeConfig, handles: dict[str, DeploymentHandle[Any]]) -> None:
        self._config = config
        self._backend = ServeBackend(handles)
        self._activity = Activity(config.queue.requests)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Serve after the constructor. Its proxy puts X-Request-ID on responses, so that the app must not."""
        return create_app(self._backend, self._config, self._activity, request_ids=False)

    async def model_names(self) -> list[str]:
        """Names of the models, in the order of the configuration."""
        return [model.info.name for model in await self._backend.models()]

    async def drain(self, seconds: float) -> int:
        """Take no new requests and wait for those in flight, `seconds` at most; return how many are left."""
        self._activity.draining = True
        ends = time.monotonic() + seconds
        while self._activity.in_flight and time.monotonic() < ends:
            await asyncio.sleep(0.05)
        return self._activity.in_flight


def build(args: dict[str, Any]) -> Application:
    """The application that `args` (a `ServeConfig` as plain values) describe; Ray Serve's import path of this service.

    Raises `ConfigError` and `BundleError` before anything is started.
    """
    config = parse_args(args)
    paths = check_models(config)
    cores, processes = _cores(), len(paths) * config.replicas
    threads = config.threads or max(1, int((cores - 1) / processes))  # gateway and proxy together keep a core busy
    labels = [path.name if [p.name for p in paths].count(path.name) == 1 else str(path) for path in paths]
    handles = {}
    for number, (label, path) in enumerate(zip(labels, paths, strict=True), start=1):
        deployment = serve.deployment(
            name="translator" if len(paths) == 1 else f"translator-{number}",
            num_replicas=config.replicas,
            ray_actor_options={"num_cpus": reserved_cores(cores, processes, threads)},
            max_ongoing_requests=config.gateways * config.queue.requests + 64,
            logging_config={"enable_access_log": False},  # the gateway's log has a line for each request already
            **_options(config),
        )
        handles[label] = deployment(TranslatorReplica).bind(str(path), threads, config)
    gateway = serve.deployment(
        name="gateway",
        num_replicas=config.gateways,
        ray_actor_options={"num_cpus": 0},
        # Above the gateway's own limit, so that it is the gateway that refuses: at once, and in our words.
        max_ongoing_requests=2 * config.queue.requests + 64,
        **_options(config),
    )
    return gateway(serve.ingress()(Gateway)).bind(config, handles)


def reserved_cores(cores: float, processes: int, threads: int) -> float:
    """Cores that Ray sets aside for each of `processes` replicas: half of what it uses, or of its share where that is less.

    The other half leaves room for a replacement beside every old replica; a replica that finds no room is never started.
    """
    return int(min(cores / processes, threads) * 50) / 100


def _options(config: ServeConfig) -> dict[str, Any]:
    """Settings that both deployments share."""
    return {
        "max_surge_percent": 100,  # an update starts the new replica before it stops the old one
        "max_constructor_retry_count": 3,
        "health_check_period_s": 2.0,
        "health_check_timeout_s": 15.0,
        "graceful_shutdown_timeout_s": config.drain_s,
        "graceful_shutdown_wait_loop_s": 0.2,
    }


def _cores() -> float:
    """Processor cores that Ray may use; it knows of container limits. Without Ray, those of the machine."""
    if ray.is_initialized():
        return float(ray.cluster_resources().get("CPU", 1.0))
    return float(os.cpu_count() or 1)
