"""A work-conserving batcher: the texts of all concurrent requests share batches, cut whenever the model is free.

A batch is formed at the moment the one worker thread can run it, never by a timer while it is busy: under load the waiting
texts gather into full batches by themselves, and a lone request waits for `wait_ms` at most. No Ray and no PyTorch here.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from nmt.errors import NMTError
from nmt.inference.types import DecodeOptions, Translation
from serving.config import Batch
from serving.protocol import DeadlineExceeded, Overloaded, Unavailable

Translate = Callable[[list[str], DecodeOptions, Callable[[], bool]], Sequence[Translation]]

_GRACE_S = 30.0  # a batch that runs this long after all its callers have gone is stuck
_log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Job:
    """One request: its results so far, and whether its caller still waits."""

    future: asyncio.Future[None]
    results: list[Translation | None]
    remaining: int
    abandoned: bool = False

    def store(self, index: int, translation: Translation) -> None:
        if self.abandoned:
            return
        self.results[index] = translation
        self.remaining -= 1
        if not self.remaining and not self.future.done():
            self.future.set_result(None)

    def fail(self, error: BaseException) -> None:
        self.abandoned = True
        if not self.future.done():
            self.future.set_exception(error)


@dataclass(eq=False, slots=True)
class _Item:
    """One text of a job on its way through the queue."""

    job: _Job
    index: int
    text: str
    options: DecodeOptions


@dataclass
class Statistics:
    """Counts since the start; `waiting` is the number of texts in the queue now, `rate` texts per second of late."""

    batches: int = 0
    texts: int = 0
    failed: int = 0
    dropped: int = 0
    refused: int = 0
    largest: int = 0
    waiting: int = 0
    rate: float = field(default=0.0)


class Batcher:
    """Queue of texts in front of a blocking `translate`, which one worker thread calls.

    `submit` and `close` belong to one event loop. A text's place in the queue is its age: each batch starts with the oldest
    waiting text and takes along the oldest others that have equal options and fit the budget, so that none starves.
    """

    def __init__(self, translate: Translate, batch: Batch, capacity: int, deadline_s: float) -> None:
        """`capacity`: texts that may wait. `deadline_s`: longest time of a request, however long its caller would wait."""
        self._translate, self._batch = translate, batch
        self._capacity, self._deadline_s = capacity, deadline_s
        self._queue: deque[_Item] = deque()
        self._arrived = asyncio.Event()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="translate")
        self._task: asyncio.Task[None] | None = None
        self._running_since: float | None = None
        self._closed = False
        self._statistics = Statistics()

    async def submit(
        self, texts: Sequence[str], options: DecodeOptions, timeout_s: float | None = None
    ) -> list[Translation]:
        """Translate the texts, order kept; they may run in several batches together with other requests' texts.

        Raises `Overloaded` at once when the queue has no room for all of them, `DeadlineExceeded` after `timeout_s` seconds,
        `Unavailable` when the batcher is closed, and whatever `translate` raises for one of these texts alone. A cancelled call
        takes its waiting texts out of the queue.
        """
        if self._closed:
            raise Unavailable("the translator is stopping")
        if not texts:
            return []
        if len(self._queue) + len(texts) > self._capacity:
            self._statistics.refused += 1
            raise Overloaded(f"{len(self._queue)} texts are waiting already", self._time_to_clear())
        loop = asyncio.get_running_loop()
        if self._task is None:
            self._task = loop.create_task(self._run(), name="batcher")
        job = _Job(loop.create_future(), [None] * len(texts), len(texts))
        self._queue.extend(_Item(job, index, text, options) for index, text in enumerate(texts))
        self._arrived.set()
        limit = self._deadline_s if timeout_s is None else min(timeout_s, self._deadline_s)
        try:
            async with asyncio.timeout(limit):
                await job.future
        except TimeoutError:
            if job.abandoned:  # `translate` itself raised it
                raise
            raise DeadlineExceeded(f"not translated within {limit:.1f} s", self._time_to_clear()) from None
        finally:
            self._abandon(job)
        return [result for result in job.results if result is not None]

    def statistics(self) -> Statistics:
        """The counts now."""
        self._statistics.waiting = len(self._queue)
        return self._statistics

    def healthy(self) -> bool:
        """Whether the batcher still works: its task lives, and no batch runs on long after every caller's deadline."""
        if self._closed or (self._task is not None and self._task.done()):
            return False
        since = self._running_since
        return since is None or time.monotonic() - since < self._deadline_s + _GRACE_S

    async def close(self) -> None:
        """Stop; requests that are not answered yet get `Unavailable`."""
        self._closed = True
        for job in {item.job for item in self._queue}:
            job.fail(Unavailable("the translator is stopping"))
        self._queue.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _abandon(self, job: _Job) -> None:
        """Nobody waits for the job any more: take out what still waits, so that it neither runs nor fills the queue."""
        job.abandoned = True
        if job.remaining:
            before = len(self._queue)
            self._queue = deque(item for item in self._queue if item.job is not job)
            self._statistics.dropped += before - len(self._queue)

    def _time_to_clear(self) -> float:
        """Seconds until the queue will have been worked off at the present rate, between 1 and 30."""
        rate = self._statistics.rate
        return min(30.0, max(1.0, len(self._queue) / rate)) if rate else 1.0

    async def _run(self) -> None:
        while True:
            while not self._queue:
                self._arrived.clear()
                await self._arrived.wait()
                if self._batch.wait_ms and len(self._queue) < self._batch.texts:
                    await asyncio.sleep(self._batch.wait_ms / 1000)
            batch = self._next_batch()
            started = time.monotonic()
            try:
                await self._translate_batch(batch)
            except asyncio.CancelledError:
                for item in batch:
                    item.job.fail(Unavailable("the translator is stopping"))
                raise
            self._count(len(batch), time.monotonic() - started)

    def _next_batch(self) -> list[_Item]:
        """Take the oldest text and what fits beside it out of the queue; what is left keeps its order."""
        batch: list[_Item] = []
        characters = 0
        passed: list[_Item] = []
        while self._queue and len(batch) < self._batch.texts:
            item = self._queue.popleft()
            fits = characters + len(item.text) <= self._batch.characters
            if batch and not (fits and item.options == batch[0].options):
                passed.append(item)
                continue
            batch.append(item)
            characters += len(item.text)
        self._queue.extendleft(reversed(passed))
        return batch

    async def _translate_batch(self, batch: list[_Item]) -> None:
        """Run a batch; one that fails is halved until only the texts to blame fail."""
        batch = [item for item in batch if not item.job.abandoned]
        if not batch:
            return
        try:
            translations = await self._call(batch)
        except Exception as error:  # whatever it is, it belongs to the text that caused it
            if len(batch) > 1:
                middle = len(batch) // 2
                await self._translate_batch(batch[:middle])
                await self._translate_batch(batch[middle:])
            elif not batch[0].job.abandoned:
                self._statistics.failed += 1
                if not isinstance(error, NMTError):
                    _log.error("a text could not be translated: %s", type(error).__name__, exc_info=error)
                batch[0].job.fail(error)
            return
        for item, translation in zip(batch, translations, strict=True):
            item.job.store(item.index, translation)

    async def _call(self, batch: list[_Item]) -> Sequence[Translation]:
        jobs = {item.job for item in batch}

        def cancelled() -> bool:
            return all(job.abandoned for job in jobs)

        texts = [item.text for item in batch]
        loop = asyncio.get_running_loop()
        self._running_since = time.monotonic()
        try:
            result = await loop.run_in_executor(self._executor, self._guarded, texts, batch[0].options, cancelled)
        finally:
            self._running_since = None
        if len(result) != len(texts):
            raise RuntimeError(f"the translator returned {len(result)} results for {len(texts)} texts")
        return result

    def _guarded(
        self, texts: list[str], options: DecodeOptions, cancelled: Callable[[], bool]
    ) -> Sequence[Translation]:
        """`translate`, in the worker thread; what a future cannot carry or would stop the event loop becomes an error."""
        try:
            return self._translate(texts, options, cancelled)
        except (StopIteration, StopAsyncIteration, SystemExit, KeyboardInterrupt) as error:
            raise RuntimeError(f"the translator raised {type(error).__name__}") from error

    def _count(self, texts: int, seconds: float) -> None:
        statistics = self._statistics
        statistics.batches += 1
        statistics.texts += texts
        statistics.largest = max(statistics.largest, texts)
        rate = texts / max(seconds, 1e-6)
        statistics.rate = rate if not statistics.rate else 0.8 * statistics.rate + 0.2 * rate
