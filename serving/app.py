"""The Ray Serve application: translator replicas that batch over all requests, behind gateways that speak HTTP.

`build` is what `configs/serve.yaml` names. A request costs two hops and one handle call, however many texts it carries.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError
from ray.serve.handle import DeploymentHandle

from nmt.errors import InputError
from nmt.inference.types import DecodeOptions, Translation
from serving.batcher import Batcher
from serving.config import ServeConfig, check_bundle, parse_args
from serving.contract import InvalidRequest, Late, Lifecycle, Model, ModelCard, Refused, Unavailable
from serving.gateway import create_app

logger = logging.getLogger("ray.serve")

Loader = Callable[[Path, int], Model]

CANARY = ["Good morning.", "A second, longer sentence warms the model up for what is to come."]
UNBOUNDED = 100_000  # the gateways and the batcher bound requests themselves, and say when to come back
ATTEMPTS = 4  # a text that kills replicas must not kill them all
FIRST_PAUSE_S = 0.1  # before the second attempt; doubled for each further one
RETRY_SOON_S = 2
INFO_TIMEOUT_S = 2.0
SETTLE_S = 5.0  # beyond the deadline, for a replica that stops
HEALTH_PERIOD_S = 2.0
HEALTH_TIMEOUT_S = 10.0


def load_translator(bundle: Path, threads: int) -> Model:
    """Load a bundle with the library's Translator; PyTorch is imported here, in the replica, and nowhere else."""
    from nmt.inference.translator import Translator as LibraryTranslator

    model: Model = LibraryTranslator.load(bundle, threads=threads)
    return model


class Translator:
    """A replica: one model, one batcher over the texts of all requests that reach it."""

    def __init__(self, bundle: str, config: ServeConfig, loader: Loader) -> None:
        self._model = loader(Path(bundle), config.threads)
        self._model.translate(CANARY)
        self._batcher = Batcher(self._model, config.batching, stall_s=2 * config.deadline_s)

    async def card(self) -> ModelCard:
        """What clients may know of the model."""
        info = self._model.info
        return ModelCard(
            name=info.name,
            source=info.source_language,
            target=info.target_language,
            parameters=info.parameters,
            layers=str(info.layers),
            digest=info.digest,
            defaults=self._model.defaults,
            scores=dict(info.scores),
        )

    async def translate(
        self, texts: list[str], options: DecodeOptions, timeout_s: float
    ) -> list[Translation] | Refused:
        """Translate; a refusal is a value, because Ray logs a traceback for every exception that crosses it."""
        try:
            for text in texts:
                self._model.validate(text)
            return await self._batcher.submit(texts, options, timeout_s)
        except InputError as error:
            return InvalidRequest(str(error))
        except Refused as refusal:
            return refusal

    async def statistics(self) -> dict[str, float]:
        """The batcher's counts; answering at all shows that the replica has loaded and translated a canary."""
        self._batcher.check()
        return asdict(self._batcher.statistics())

    async def check_health(self) -> None:
        """Called by Ray Serve, which replaces a replica that raises here."""
        self._batcher.check()


class RayBackend:
    """Sends each request to the model's replicas in one handle call, again if the replica dies under it."""

    def __init__(self, handles: dict[str, DeploymentHandle[Any]]) -> None:
        self._handles = handles
        self._cards: dict[str, ModelCard] = {}

    async def cards(self) -> dict[str, ModelCard]:
        """The cards of all models that have loaded; a model's card is asked for until it has answered once."""
        missing = [key for key in self._handles if key not in self._cards]
        if missing:
            answers = await asyncio.gather(*(self._ask(key, "card") for key in missing))
            found = {key: card for key, card in zip(missing, answers, strict=True) if isinstance(card, ModelCard)}
            self._cards = {key: card for key in self._handles if (card := found.get(key) or self._cards.get(key))}
        return self._cards

    async def readiness(self) -> dict[str, str | None]:
        """Ask a replica of every model."""
        answers = await asyncio.gather(*(self._ask(key, "statistics") for key in self._handles))
        await self.cards()
        return {
            key: None if isinstance(answer, dict) and key in self._cards else "no replica answers"
            for key, answer in zip(self._handles, answers, strict=True)
        }

    async def translate(
        self, key: str, texts: list[str], options: DecodeOptions, timeout_s: float
    ) -> list[Translation]:
        """Translating is idempotent, so a request whose replica died is sent to another one."""
        deadline = time.monotonic() + timeout_s
        for attempt in range(ATTEMPTS):
            if attempt:
                await asyncio.sleep(FIRST_PAUSE_S * 2 ** (attempt - 1))
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0:
                raise Late("the replicas restarted and the deadline passed", RETRY_SOON_S)
            response = self._handles[key].translate.remote(texts, options, remaining_s)
            try:
                answer: list[Translation] | Refused = await response
            except (RayActorError, ReplicaUnavailableError) as error:
                logger.warning("attempt %d failed, a replica of %s died: %s", attempt + 1, key, type(error).__name__)
                continue
            except (BackPressureError, DeploymentUnavailableError):
                raise Unavailable("no replica can take the request", RETRY_SOON_S) from None
            except asyncio.CancelledError:
                response.cancel()  # the client is gone, or the gateway's clock ran out: let the batcher forget it
                raise
            if isinstance(answer, Refused):
                raise answer
            return answer
        raise Unavailable("the replicas died while they worked on this request", RETRY_SOON_S)

    async def _ask(self, key: str, method: str) -> Any:
        """A control question to any one replica; None when there is no answer soon."""
        response = getattr(self._handles[key], method).remote()
        try:
            async with asyncio.timeout(INFO_TIMEOUT_S):
                return await response
        except TimeoutError:
            response.cancel()
        except Exception as error:
            logger.warning("a replica of %s did not answer %r: %s", key, method, error)
        return None


class Gateway:
    """A replica that speaks HTTP."""

    def __init__(self, handles: dict[str, DeploymentHandle[Any]], config: ServeConfig) -> None:
        self._backend = RayBackend(handles)
        self._config = config
        self._lifecycle = Lifecycle()

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Called once by Ray Serve, which puts the application behind its HTTP proxies."""
        return create_app(self._backend, self._config, self._lifecycle)

    async def drain(self) -> int:
        """Take no new translations from now on; returns the number still in progress."""
        self._lifecycle.draining = True
        return self._lifecycle.in_flight


def build(args: dict[str, Any]) -> serve.Application:
    """The application for the `args` of a Serve config file; raises `ConfigError` or `BundleError`."""
    config = parse_args(args)
    for bundle in config.models:
        check_bundle(bundle)
    return assemble(config, load_translator)


def assemble(config: ServeConfig, loader: Loader) -> serve.Application:
    """Bind a translator deployment for each model, and the gateway in front of them."""
    keys = _unique([path.name for path in config.models])
    handles = {
        key: serve.deployment(Translator)  # type: ignore[call-overload]
        .options(
            name=f"translator-{key}",
            num_replicas=config.replicas,
            ray_actor_options={"num_cpus": config.threads, "num_gpus": config.gpus},
            **_common_options(config),
        )
        .bind(str(path), config, loader)
        for key, path in zip(keys, config.models, strict=True)
    }
    gateway = serve.deployment(serve.ingress()(Gateway)).options(
        name="gateway",
        num_replicas=config.gateways,
        ray_actor_options={"num_cpus": 0},
        **_common_options(config),
    )
    return gateway.bind(handles, config)


def _common_options(config: ServeConfig) -> dict[str, Any]:
    return {
        "max_ongoing_requests": UNBOUNDED,
        "max_surge_percent": 100,  # an update starts the new replica before it stops the old, even if there is only one
        "graceful_shutdown_timeout_s": config.deadline_s + SETTLE_S,
        "graceful_shutdown_wait_loop_s": 0.5,
        "health_check_period_s": HEALTH_PERIOD_S,
        "health_check_timeout_s": HEALTH_TIMEOUT_S,
    }


def _unique(names: Sequence[str]) -> list[str]:
    """Deployment names must differ: the second `de-en` becomes `de-en-2`."""
    return [name if names.index(name) == i else f"{name}-{i + 1}" for i, name in enumerate(names)]
