"""Lines that come one by one, from a pipe or a terminal, translated as they come."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Iterator

from nmt.batch.answers import Begin, Pending
from nmt.inference.types import Translation

DELAY_S = 0.1  # that a line waits for others to be translated with
_END = object()


def translated(begin: Begin, lines: Iterator[str], window: int) -> Iterator[list[Translation]]:
    """The translations of lines in order, some at a time.

    A line waits at most `DELAY_S` for others, however long the next one takes to come; where lines come faster than they are translated,
    up to `window` of them go together, and the next ones are begun before these are finished. Raises what reading raises, after
    everything before it has been translated.
    """
    coming: queue.Queue[object] = queue.Queue(2 * window)
    threading.Thread(target=_read, args=(lines, coming), daemon=True).start()
    begun: deque[Pending] = deque()
    end: object = None
    try:
        while end is None or begun:
            if end is None and len(begun) < 2:
                taken, end = _take(coming, window, wait=not begun)
                if taken:
                    begun.append(begin(taken))
                    continue
            if begun:
                yield begun.popleft().results()
        if isinstance(end, BaseException):
            raise end
    finally:
        for pending in begun:
            pending.cancel()


def _read(lines: Iterator[str], coming: queue.Queue[object]) -> None:
    try:
        for line in lines:
            coming.put(line)
        coming.put(_END)
    except BaseException as error:  # goes on in the thread that asks
        coming.put(error)


def _take(coming: queue.Queue[object], window: int, wait: bool) -> tuple[list[str], object]:
    """Lines that have come, and the end (a mark, or an error) if that has. With `wait` at least one of the two."""
    taken: list[str] = []
    deadline = time.monotonic() + DELAY_S if wait else 0.0
    while len(taken) < window:
        try:
            if wait and not taken:
                item = coming.get()
                deadline = time.monotonic() + DELAY_S
            else:
                item = coming.get(timeout=max(0.0, deadline - time.monotonic())) if wait else coming.get_nowait()
        except queue.Empty:
            break
        if not isinstance(item, str):
            return taken, item
        taken.append(item)
    return taken, None
