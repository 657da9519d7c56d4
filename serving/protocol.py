"""What gateway and translator replica say to each other: small values, importable without Ray and without PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from nmt.errors import InputError
from nmt.inference.bundle import ModelInfo
from nmt.inference.types import DecodeOptions, Hypothesis, Translation


class Unavailable(Exception):
    """The service cannot answer now; the same request may succeed after `retry_after` seconds."""

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Overloaded(Unavailable):
    """Too much is waiting already."""


class DeadlineExceeded(Unavailable):
    """The request was not answered within its time."""


class NotAvailable(Exception):
    """Something that this installation of the service can't do; the message says what it takes."""


class UnknownModel(Exception):
    """The request names a model or a language pair that is not served; the message says which are."""


@dataclass(frozen=True, slots=True)
class Overrides:
    """What a request changes of a model's decode defaults; None keeps the default."""

    beam_size: int | None = None
    n_best: int | None = None
    length_penalty: float | None = None
    split_sentences: bool | None = None
    keep_placeholders: bool | None = None
    alignment: bool | None = None
    target: str | None = None  # of a model with several target languages
    prefix: str | None = None  # what each translation is to begin with
    glossary: tuple[tuple[str, str], ...] | None = None  # terms, and what they are to be called

    def apply(self, defaults: DecodeOptions) -> DecodeOptions:
        """The options to decode with; a beam that was not asked for grows to hold `n_best`. Raises `InputError`."""
        names = DecodeOptions.model_fields.keys() & set(self.__slots__)
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if self.n_best and self.beam_size and self.n_best > self.beam_size:
            raise InputError(f"n_best {self.n_best} is more than beam_size {self.beam_size}: raise beam_size")
        beam, best = given.get("beam_size", defaults.beam_size), given.get("n_best", defaults.n_best)
        if best > beam:
            given |= {"n_best": beam} if self.beam_size else {"beam_size": best}
        return DecodeOptions.model_validate(defaults.model_dump() | given)


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model as its replica describes it once it has decoded a first sentence."""

    info: ModelInfo
    defaults: DecodeOptions


@dataclass(frozen=True, slots=True)
class Refusal:
    """A replica's answer instead of translations. A value, not an exception, so that it crosses processes unchanged."""

    reason: Literal["overloaded", "deadline", "input", "unknown_model", "not_available"]
    message: str
    retry_after: float = 1.0

    def error(self) -> Exception:
        """The exception that the gateway answers with."""
        if self.reason == "input":
            return InputError(self.message)
        if self.reason == "unknown_model":
            return UnknownModel(self.message)
        if self.reason == "not_available":
            return NotAvailable(self.message)
        kind = Overloaded if self.reason == "overloaded" else DeadlineExceeded
        return kind(self.message, self.retry_after)


@dataclass(frozen=True, slots=True)
class Grid:
    """A translation, and what each layer hands on at each step, H_t^L: encoder (S, H), decoder (T, H), lowest layer first, of S source and
    T target subwords."""

    translation: str
    source: tuple[str, ...]
    target: tuple[str, ...]
    encoder: tuple[NDArray[np.float32], ...]
    decoder: tuple[NDArray[np.float32], ...]


class Backend(Protocol):
    """The gateway's view of the models behind it."""

    async def models(self) -> list[ServedModel]:
        """The models that are served, in the order of the configuration. Raises `Unavailable` while one is missing."""

    async def ready(self) -> list[str]:
        """What is not ready, in words; empty when every model answers."""

    async def translate(
        self, model: str, texts: list[str], overrides: Overrides, timeout_s: float
    ) -> list[Translation]:
        """Translate by the model of that name, in at most `timeout_s` seconds.

        Raises `InputError`, `Unavailable` and its kinds.
        """

    async def score(
        self, model: str, pairs: list[tuple[str, str]], overrides: Overrides, timeout_s: float
    ) -> list[Hypothesis]:
        """What given translations are worth to the model of that name, with `length_penalty` and `alignment` of `overrides`.

        Raises as `translate`.
        """

    async def activations(self, model: str, text: str, translation: str | None, timeout_s: float) -> Grid:
        """What the layers of the model of that name do with one sentence, and its translation, given or its own.

        Raises as `translate`, and `NotAvailable` where the translators can't look inside.
        """
