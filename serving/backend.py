"""The models behind a gateway, near or far: which there are, and what goes to each."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar, cast

from ray.exceptions import ObjectLostError, RayActorError, RayError, WorkerCrashedError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException
from ray.serve.handle import DeploymentHandle

from nmt.inference.types import Hypothesis, Translation
from serving.protocol import Grid, Overloaded, Overrides, Refusal, ServedModel, Unavailable

T = TypeVar("T")

_READY_TIMEOUT_S = 3.0
_CALL = 64  # texts of one call, so that the replicas share a long list
_ATTEMPTS = 5  # a text that kills its replica must not kill all that come after it
_BACKOFF_S = 0.1  # before the second attempt; three times as long before each further one
_LOST = (RayActorError, WorkerCrashedError, ObjectLostError, DeploymentUnavailableError)
_log = logging.getLogger("ray.serve")


class Model(Protocol):
    """A model that can be asked: a `TranslatorReplica` in this process, or a `RemoteModel`."""

    async def translate(self, texts: list[str], overrides: Overrides, timeout_s: float) -> list[Translation] | Refusal:
        """A translation for each text, or why not."""

    async def score(
        self, pairs: list[tuple[str, str]], overrides: Overrides, timeout_s: float
    ) -> list[Hypothesis] | Refusal:
        """What each given translation is worth, or why not."""

    async def activations(self, text: str, translation: str | None, timeout_s: float) -> Grid | Refusal:
        """What its layers do with one sentence, or why not."""

    async def describe(self) -> ServedModel:
        """What it is."""


class RemoteModel:
    """A model behind a Serve handle; what a replica that died had is sent again, as translating twice does no harm."""

    def __init__(self, label: str, handle: DeploymentHandle[Any]) -> None:
        """`label` is for messages."""
        self._label, self._handle = label, handle

    async def translate(self, texts: list[str], overrides: Overrides, timeout_s: float) -> list[Translation] | Refusal:
        """One call for up to 64 texts, several at once for more; what is left of the time goes along with each attempt."""
        return await self._shared("translate", texts, overrides, timeout_s)

    async def score(
        self, pairs: list[tuple[str, str]], overrides: Overrides, timeout_s: float
    ) -> list[Hypothesis] | Refusal:
        """As `translate`."""
        return await self._shared("score", pairs, overrides, timeout_s)

    async def _shared(
        self, method: str, items: list[Any], overrides: Overrides, timeout_s: float
    ) -> list[Any] | Refusal:
        ends = time.monotonic() + timeout_s

        async def call(some: list[Any]) -> list[Any] | Refusal:
            async def attempt() -> list[Any] | Refusal:
                left = max(0.0, ends - time.monotonic())
                response = getattr(self._handle, method).remote(some, overrides, left)
                try:
                    return cast("list[Any] | Refusal", await response)
                except asyncio.CancelledError:
                    response.cancel()  # behind HAProxy, Serve forgets what a request that is given up has asked for
                    raise

            return await self._retrying(attempt)

        found: list[Any] = []
        tasks = [asyncio.ensure_future(call(some)) for some in shares(items)]
        try:
            for task in tasks:
                answer = await task
                if isinstance(answer, Refusal):
                    return answer
                found += answer
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return found

    async def activations(self, text: str, translation: str | None, timeout_s: float) -> Grid | Refusal:
        """As of a replica."""

        async def attempt() -> Grid | Refusal:
            response = self._handle.activations.remote(text, translation, timeout_s)
            return cast("Grid | Refusal", await response)

        return await self._retrying(attempt)

    async def describe(self) -> ServedModel:
        """What a replica says that it serves."""

        async def attempt() -> ServedModel:
            return cast(ServedModel, await self._handle.describe.remote())

        return await self._retrying(attempt)

    async def _retrying(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """`attempt`, again when the replica dies under it. The caller sets the time limit."""
        for number in range(1, _ATTEMPTS + 1):
            try:
                return await attempt()
            except BackPressureError:
                raise Overloaded(f"{self._label} has too many requests waiting") from None
            except _LOST as error:
                _log.warning("%s: attempt %d of %d ended by %s", self._label, number, _ATTEMPTS, type(error).__name__)
                if number < _ATTEMPTS:
                    await asyncio.sleep(_BACKOFF_S * 3 ** (number - 1))
        raise Unavailable(f"{self._label} is not available", 5.0)


def shares(items: list[T]) -> list[list[T]]:
    """The items in equal parts of at most 64."""
    parts = -(-len(items) // _CALL) or 1
    return [items[len(items) * i // parts : len(items) * (i + 1) // parts] for i in range(parts)]


class Models:
    """All models that are served; the gateway's `Backend`."""

    def __init__(self, models: dict[str, Model]) -> None:
        """`models` by their labels for messages, in the order of the configuration."""
        self._models = models
        self._known: dict[str, ServedModel] = {}

    async def models(self) -> list[ServedModel]:
        """The models, asked for once and remembered; waits for those that still load."""
        missing = [label for label in self._models if label not in self._known]
        if missing:
            await asyncio.gather(*map(self._describe, missing))
        return [self._known[label] for label in self._models]

    async def ready(self) -> list[str]:
        """Ask every model now."""

        async def problem(label: str) -> str | None:
            try:
                async with asyncio.timeout(_READY_TIMEOUT_S):
                    await self._describe(label)
            except (TimeoutError, Unavailable, RayError, RayServeException):
                return label
            return None

        return [label for label in await asyncio.gather(*map(problem, self._models)) if label]

    async def translate(
        self, model: str, texts: list[str], overrides: Overrides, timeout_s: float
    ) -> list[Translation]:
        """By the model of that name."""
        return _accepted(await self._named(model).translate(texts, overrides, timeout_s))

    async def score(
        self, model: str, pairs: list[tuple[str, str]], overrides: Overrides, timeout_s: float
    ) -> list[Hypothesis]:
        """By the model of that name."""
        return _accepted(await self._named(model).score(pairs, overrides, timeout_s))

    async def activations(self, model: str, text: str, translation: str | None, timeout_s: float) -> Grid:
        """By the model of that name."""
        result = await self._named(model).activations(text, translation, timeout_s)
        if isinstance(result, Refusal):
            raise result.error()
        return result

    def _named(self, model: str) -> Model:
        return self._models[next(label for label, served in self._known.items() if served.info.name == model)]

    async def _describe(self, label: str) -> None:
        self._known[label] = await self._models[label].describe()


def _accepted(result: list[T] | Refusal) -> list[T]:
    if isinstance(result, Refusal):
        raise result.error()
    return result
