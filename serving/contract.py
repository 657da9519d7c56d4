"""What the parts of the service say to each other: a model, a backend, and the ways to refuse a request.

Refused                     an answer other than 200: status, code, words, and when to come back
+-- InvalidRequest 422      the request says something that cannot be done
+-- Overloaded     429      the queue is full, or too long to be served within the deadline
+-- Unavailable    503      no replica can answer now: loading, restarting or draining
+-- Late           503      the deadline passed
+-- Failed         500      a defect; details are in the log
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from nmt.inference.types import DecodeOptions, Translation


class Refused(Exception):
    """A request that is not answered with a translation; `retry_after_s` is a hint in whole seconds."""

    status = 500
    code = "internal_error"

    def __init__(self, message: str, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class InvalidRequest(Refused):
    """The request asks for something that this service cannot do."""

    status, code = 422, "invalid_request"


class Overloaded(Refused):
    """There is more work waiting than can be done in time."""

    status, code = 429, "overloaded"


class Unavailable(Refused):
    """No replica can answer at the moment."""

    status, code = 503, "unavailable"


class Late(Refused):
    """The deadline passed before the translation was ready."""

    status, code = 503, "deadline_exceeded"


class Failed(Refused):
    """The translation failed through a defect."""


class Model(Protocol):
    """What a replica needs of `nmt.inference.translator.Translator`."""

    @property
    def info(self) -> Any:
        """`nmt.inference.translator.ModelInfo`, or anything with its attributes."""

    @property
    def defaults(self) -> DecodeOptions:
        """How the model decodes unless a request says otherwise."""

    def validate(self, text: str) -> None:
        """Raise `nmt.errors.InputError` for a text that cannot be translated."""

    def translate(
        self,
        texts: list[str],
        options: DecodeOptions | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> list[Translation]:
        """Translate; one result for each text, in order."""


@dataclass(frozen=True)
class ModelCard:
    """What clients may know of a model; a plain value, so that a gateway need not import the model's code."""

    name: str
    source: str
    target: str
    parameters: int
    layers: str
    digest: str
    defaults: DecodeOptions
    scores: Mapping[str, Any] = field(default_factory=dict)


class Backend(Protocol):
    """Where a gateway sends its work: Ray Serve in production, a fake in tests."""

    async def cards(self) -> dict[str, ModelCard]:
        """The models that have answered so far, by the key that `translate` takes."""

    async def translate(
        self, key: str, texts: list[str], options: DecodeOptions, timeout_s: float
    ) -> list[Translation]:
        """Translate `texts` with one model; raises `Refused`."""

    async def readiness(self) -> dict[str, str | None]:
        """Every configured model, and why it is not ready (None when it is)."""


@dataclass
class Lifecycle:
    """A gateway's own state: requests in progress, and whether it takes no new ones because it is to stop."""

    in_flight: int = 0
    draining: bool = False
