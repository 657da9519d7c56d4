"""The desk for documents where there are several gateways: one process that all of them ask, so that each knows of every document."""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import suppress
from typing import Any, TypeVar, cast

from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from nmt.errors import InputError
from serving.backend import Models, RemoteModel
from serving.config import ServeConfig
from serving.errors import Refused
from serving.jobs import Jobs, Progress, Upload
from serving.protocol import Refusal, Unavailable, UnknownModel

_T = TypeVar("_T")


class DeskReplica:
    """Keeps the documents of all gateways."""

    def __init__(self, config: ServeConfig, models: dict[str, DeploymentHandle[Any]]) -> None:
        """`models` by label: the handle of each."""
        backend = Models({label: RemoteModel(label, handle) for label, handle in models.items()})
        self._jobs = Jobs(backend, config.files, config.pivot, config.deadline_s)

    async def submit(self, upload: Upload) -> Progress | Refusal:
        """As `Jobs.submit`, with a value for what it raises."""
        try:
            return await self._jobs.submit(upload)
        except InputError as error:
            return Refusal("input", str(error))
        except UnknownModel as error:
            return Refusal("unknown_model", str(error))
        except Refused as error:
            return Refusal("input", error.message)
        except Unavailable as error:
            return Refusal("overloaded", str(error), error.retry_after)

    async def look(self, number: str) -> Progress | None:
        """As `Jobs.look`."""
        return await self._jobs.look(number)

    async def fetch(self, number: str) -> bytes | None:
        """As `Jobs.fetch`."""
        return await self._jobs.fetch(number)

    async def drop(self, number: str) -> None:
        """As `Jobs.drop`."""
        await self._jobs.drop(number)

    async def finish(self, seconds: float) -> None:
        """As `Jobs.finish`."""
        await self._jobs.finish(seconds)


class RemoteDesk:
    """That process, behind a Serve handle."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle

    async def submit(self, upload: Upload) -> Progress:
        """As `Jobs.submit`."""
        answer = cast("Progress | Refusal", await _answered(self._handle.submit.remote(upload)))
        if isinstance(answer, Refusal):
            raise answer.error()
        return answer

    async def look(self, number: str) -> Progress | None:
        """As `Jobs.look`."""
        return cast("Progress | None", await _answered(self._handle.look.remote(number)))

    async def fetch(self, number: str) -> bytes | None:
        """As `Jobs.fetch`."""
        return cast("bytes | None", await _answered(self._handle.fetch.remote(number)))

    async def drop(self, number: str) -> None:
        """As `Jobs.drop`."""
        await _answered(self._handle.drop.remote(number))

    async def finish(self, seconds: float) -> None:
        """As `Jobs.finish`; if that process died there is nothing to wait for."""
        with suppress(Unavailable):
            await _answered(self._handle.finish.remote(seconds))


async def _answered(work: Awaitable[_T]) -> _T:
    try:
        return await work
    except (RayError, RayServeException):
        raise Unavailable("documents are not available", 5.0) from None
