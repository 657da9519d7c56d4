"""A translator replica: one model, its engine, and who is let in. No Ray here.

The same class stands behind a Serve handle and inside a fused gateway.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
from collections.abc import Awaitable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar, cast

from nmt.errors import InputError, NMTError
from nmt.inference.bundle import Bundle, ModelInfo
from nmt.inference.cache import Cache
from nmt.inference.engine import Priority
from nmt.inference.types import DecodeOptions, Hypothesis, Translation
from nmt.text.glossary import Glossary
from serving import admission, scaling
from serving.admission import Admission
from serving.config import ServeConfig
from serving.metrics import EngineMetrics
from serving.protocol import DeadlineExceeded, Grid, Overrides, Refusal, ServedModel, Unavailable

if TYPE_CHECKING:
    from nmt.inference.activations import Activations

_CANARY = "Good morning!"
_T = TypeVar("_T")


async def _or_refusal(work: Awaitable[list[_T]]) -> list[_T] | Refusal:
    """What it comes to, or the value that says why it does not."""
    try:
        return await work
    except InputError as error:
        return Refusal("input", str(error))
    except DeadlineExceeded as error:
        return Refusal("deadline", str(error), error.retry_after)
    except Unavailable as error:
        return Refusal("overloaded", str(error), error.retry_after)


class Translator(admission.Translator, Protocol):
    """What a replica needs of `nmt.inference.translator.Translator`; the class is named by `loader`."""

    info: ModelInfo
    defaults: DecodeOptions

    def validate(self, text: str) -> None:
        """Raise `InputError` for a text that cannot be translated."""


def _looked_into(path: Path, text: str, translation: str) -> Activations:
    from nmt.inference.activations import activations

    return activations(Bundle.open(path), text, translation)


class TranslatorReplica:
    """Holds one model and translates what all gateways send, in shared batches."""

    def __init__(self, path: str, threads: int, config: ServeConfig) -> None:
        """Load the bundle at `path` and decode a first sentence, so that a replica that is up has proved that it works."""
        module, _, name = config.loader.partition(":")
        loader = getattr(importlib.import_module(module), name)
        self._translator = cast(Translator, loader.load(Path(path), threads=threads, device=config.device))
        self._defaults = config.decode or self._translator.defaults
        self._translator.cache = Cache(config.cache)
        self._translator.begin([_CANARY], self._defaults, Priority.INTERACTIVE).results()
        self._admission = Admission(self._translator, config.queue.texts, config.deadline_s)
        self._metrics = EngineMetrics(self._translator.info)
        self._path, self._looking = Path(path), asyncio.Lock()

    async def translate(self, texts: list[str], overrides: Overrides, timeout_s: float) -> list[Translation] | Refusal:
        """A translation for each text, or why not."""

        async def work() -> list[Translation]:
            options = overrides.apply(self._defaults)
            for text in texts:
                self._translator.validate(text)
            prefixes = [overrides.prefix] * len(texts) if overrides.prefix else None
            demands = Glossary(dict(overrides.glossary)).phrases if overrides.glossary else None
            return await self._admission.translate(texts, options, timeout_s, prefixes, demands)

        return await _or_refusal(work())

    async def score(
        self, pairs: list[tuple[str, str]], overrides: Overrides, timeout_s: float
    ) -> list[Hypothesis] | Refusal:
        """What each given translation is worth, or why that is not said."""

        async def work() -> list[Hypothesis]:
            return await self._admission.score(pairs, overrides.apply(self._defaults), timeout_s)

        return await _or_refusal(work())

    async def activations(self, text: str, translation: str | None, timeout_s: float) -> Grid | Refusal:
        """What the layers do with one sentence, or why that is not said. One at a time; takes PyTorch and a second copy of the model."""
        if importlib.util.find_spec("torch") is None:
            return Refusal(
                "not_available", "activations need PyTorch where the models are: pip install 'strata-nmt[train]'"
            )
        if translation is None:
            plain = Overrides(n_best=1, split_sentences=False, keep_placeholders=False)
            said = await self.translate([text], plain, timeout_s)
            if isinstance(said, Refusal):
                return said
            translation = said[0].text
        try:
            async with asyncio.timeout(timeout_s), self._looking:
                found = await asyncio.to_thread(_looked_into, self._path, text, translation)
        except NMTError as error:
            return Refusal("input", str(error))
        except TimeoutError:
            return Refusal("deadline", f"not done within {timeout_s:.1f} s")
        return Grid(translation, found.source, found.target, found.encoder, found.decoder)

    async def describe(self) -> ServedModel:
        """What this replica serves."""
        return ServedModel(self._translator.info, self._defaults)

    async def statistics(self) -> dict[str, float]:
        """What `Admission.statistics` says."""
        return self._admission.statistics()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Called by Serve, for `scaling.ByWaitingTokens`."""
        now = self._translator.engine.statistics()
        return {scaling.WAITING: float(now.waiting_tokens), scaling.BUSY: float(now.running + now.waiting > 0)}

    async def check_health(self) -> None:
        """Called by Serve every second, which replaces a replica that raises here."""
        self._metrics.record(self._admission.statistics())
        if not self._admission.healthy():
            raise RuntimeError("the engine has stopped or is stuck")
