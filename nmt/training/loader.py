"""Batches made ahead of training, by a thread beside it, so that the model never waits for its input."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from queue import Empty, Full, Queue
from types import TracebackType

from nmt.training.batches import Batch, TrainingBatches

_AHEAD = 3  # batches
_SECONDS = 0.1  # after which a thread that waits looks whether it is still wanted

Place = tuple[int, int, int]  # epoch, window of it, position in the window


@dataclass(frozen=True)
class Loaded:
    """A batch, the place after it, and how many epochs are done with it."""

    batch: Batch
    after: Place
    epochs: float


def walk(batches: TrainingBatches, place: Place) -> Iterator[Loaded]:
    """The batches from `place` on, epoch after epoch, without an end."""
    epoch, window, position = place
    seen = sum(map(len, batches.plan(epoch, window)[:position]))
    while True:
        plan = batches.plan(epoch, window)
        if position >= len(plan):
            position, seen, window = 0, 0, window + 1
            if window == batches.windows:
                epoch, window = epoch + 1, 0
            continue
        batch = batches.batch(epoch, position, window)
        position, seen = position + 1, seen + len(batch.source)
        yield Loaded(batch, (epoch, window, position), epoch + batches.share_of_epoch(window, seen))


class Loader:
    """`walk` in a thread of its own, a few batches ahead; a context manager, as the thread has to end."""

    def __init__(self, batches: TrainingBatches, place: Place) -> None:
        self._queue: Queue[Loaded | BaseException] = Queue(_AHEAD)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(walk(batches, place),), daemon=True, name="batches")

    def __enter__(self) -> Loader:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def next(self) -> Loaded:
        """The next batch; what went wrong in making it is raised here."""
        while True:
            try:
                found = self._queue.get(timeout=_SECONDS)
            except Empty:
                assert self._thread.is_alive(), "the thread ended without a word"
                continue
            if isinstance(found, BaseException):
                raise found
            return found

    def _work(self, found: Iterator[Loaded]) -> None:
        try:
            for item in found:
                if not self._put(item):
                    return
        except BaseException as error:
            self._put(error)

    def _put(self, item: Loaded | BaseException) -> bool:
        """Whether it was taken in; not when nobody wants it any more."""
        while not self._ended.is_set():
            try:
                self._queue.put(item, timeout=_SECONDS)
            except Full:
                continue
            return True
        return False
