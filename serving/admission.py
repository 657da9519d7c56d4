"""How a translator replica takes requests: at once or not at all, each with its deadline. No Ray and no PyTorch here.

The sentences of all requests meet in the translator's engine, where they join and leave one running batch at every step; nothing is
batched here.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Protocol, TypeVar

from nmt.errors import NMTError
from nmt.inference.cache import Cache
from nmt.inference.engine import Engine, Priority
from nmt.inference.search import Candidate
from nmt.inference.translator import Demands, Pending
from nmt.inference.types import DecodeOptions, Hypothesis, Translation
from serving.protocol import DeadlineExceeded, Overloaded, Unavailable

_DOCUMENT = 8  # texts; a request with more lets shorter ones go first
_SHARE = 0.75  # of the capacity, for documents
_STALLED_S = 5.0  # an engine that has work and makes no step for so long is stuck
_RATE_S = 10.0  # the time that the rate is taken over
_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class Translator(Protocol):
    """What is needed of `nmt.inference.translator.Translator`."""

    @property
    def engine(self) -> Engine:
        """Its engine, for statistics."""

    cache: Cache

    def begin(
        self,
        texts: Sequence[str],
        options: DecodeOptions | None,
        priority: Priority,
        prefixes: Sequence[str] | None = None,
        demands: Demands | None = None,
    ) -> Pending[Translation]:
        """Begin to translate."""

    def begin_score(
        self, pairs: Sequence[tuple[str, str]], length_penalty: float, alignment: bool, priority: Priority, target: str
    ) -> Pending[Hypothesis]:
        """Begin to score given translations."""


class Admission:
    """Lets requests in to a translator. All methods belong to one event loop."""

    def __init__(self, translator: Translator, capacity: int, deadline_s: float) -> None:
        """`capacity`: texts in hand at a time. `deadline_s`: longest time of a request, however long its caller would wait."""
        self._translator, self._capacity, self._deadline_s = translator, capacity, deadline_s
        self._in_hand = self._refused = 0
        self._pending: set[Pending[Any]] = set()
        self._finished: deque[tuple[float, int]] = deque()  # when, and how many texts
        self._steps, self._stepped = -1, time.monotonic()
        self._closed = False

    async def translate(
        self,
        texts: Sequence[str],
        options: DecodeOptions,
        timeout_s: float | None = None,
        prefixes: Sequence[str] | None = None,
        demands: Demands | None = None,
    ) -> list[Translation]:
        """Translate the texts, order kept; `prefixes` and `demands` as `Translator.begin` takes them.

        Raises `Overloaded` at once when there is no room for all of them, `DeadlineExceeded` after `timeout_s` seconds, `Unavailable` when
        closed, and whatever one of these texts comes to. A cancelled call takes its texts out of the engine.
        """
        begin = functools.partial(self._translator.begin, texts, options)
        return await self._through(lambda priority: begin(priority, prefixes, demands), len(texts), timeout_s)

    async def score(
        self, pairs: Sequence[tuple[str, str]], options: DecodeOptions, timeout_s: float | None = None
    ) -> list[Hypothesis]:
        """Score given translations, order kept. Raises as `translate`."""
        begin = functools.partial(self._translator.begin_score, pairs, options.length_penalty, options.alignment)
        return await self._through(lambda priority: begin(priority, options.target), len(pairs), timeout_s)

    async def _through(self, begin: Callable[[Priority], Pending[_T]], count: int, timeout_s: float | None) -> list[_T]:
        """What `begin` comes to, of `count` texts."""
        if self._closed:
            raise Unavailable("the translator is stopping")
        if not count:
            return []
        priority = Priority.DOCUMENT if count > _DOCUMENT else Priority.INTERACTIVE
        # Documents leave room for who waits at a screen; the first one is let in whatever its size.
        room = self._capacity if priority is Priority.INTERACTIVE or not self._in_hand else int(_SHARE * self._capacity)
        if self._in_hand + count > room:
            self._refused += 1
            raise Overloaded(f"{self._in_hand} texts are in hand already", self._time_to_clear())
        pending = begin(priority)
        self._pending.add(pending)
        self._in_hand += count
        limit = self._deadline_s if timeout_s is None else min(timeout_s, self._deadline_s)
        futures = [asyncio.wrap_future(future) for future in pending.futures]
        try:
            unfinished: set[asyncio.Future[list[Candidate]]] = set()
            if futures:
                _, unfinished = await asyncio.wait(futures, timeout=limit, return_when=asyncio.FIRST_EXCEPTION)
            if self._closed:
                raise Unavailable("the translator is stopping")
            if unfinished and not any(future.done() and future.exception() for future in futures):
                raise DeadlineExceeded(f"not translated within {limit:.1f} s", self._time_to_clear())
            result = pending.results()
            self._finished.append((time.monotonic(), count))
            return result
        except (NMTError, Unavailable, asyncio.CancelledError):
            raise
        except Exception as error:  # whatever it is, it belongs to the text that caused it
            _log.error("a text could not be translated: %s", type(error).__name__, exc_info=error)
            raise
        finally:
            pending.cancel()
            for future in futures:
                if not future.cancel() and not future.cancelled():
                    future.exception()  # it has been told of, or there was one before it
            self._in_hand -= count
            self._pending.discard(pending)

    def statistics(self) -> dict[str, float]:
        """The engine's numbers, and those of requests."""
        return asdict(self._translator.engine.statistics()) | {
            "cache_hits": self._translator.cache.hits,
            "cache_misses": self._translator.cache.misses,
            "in_hand": self._in_hand,
            "refused": self._refused,
            "texts_per_second": self._rate(),
        }

    def healthy(self) -> bool:
        """Whether the engine gets on with what it has; to be asked again and again."""
        now, engine = time.monotonic(), self._translator.engine.statistics()
        if engine.steps != self._steps or not (engine.running or engine.waiting):
            self._steps, self._stepped = engine.steps, now
        return not self._closed and now - self._stepped < _STALLED_S

    async def close(self) -> None:
        """Stop; requests that are not answered yet get `Unavailable`."""
        self._closed = True
        for pending in self._pending:
            pending.cancel()
        await asyncio.sleep(0)

    def _rate(self) -> float:
        """Texts a second of late."""
        now = time.monotonic()
        while self._finished and self._finished[0][0] < now - _RATE_S:
            self._finished.popleft()
        if not self._finished:
            return 0.0
        return sum(count for _, count in self._finished) / max(1.0, now - self._finished[0][0])

    def _time_to_clear(self) -> float:
        """Seconds until what is in hand will have been translated at the present rate, between 1 and 30."""
        rate = self._rate()
        return min(30.0, max(1.0, self._in_hand / rate)) if rate else 1.0
