"""`nmt translate --output PATH --ray`: the windows of a job translated by workers of Ray Data, which may be on many machines.

The command alone reads and writes: a small actor beside it hands out windows of texts and keeps each until its answers have come, so
that a worker that is lost is lost with nothing; Ray Data places the workers, replaces them, and gives answers in the order of windows.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from types import FrameType
from typing import Any

from nmt.batch.answers import translate_window, try_begin
from nmt.batch.job import Runner
from nmt.batch.system import System
from nmt.cluster import beside, connect, import_ray, last_line
from nmt.errors import ConfigError, InputError, NMTError

_IN_FLIGHT = 2  # windows of a worker: one waits while it translates the other
_STORE = 256 << 20  # bytes of Ray's objects
_ENVIRONMENT = {
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # else it fears for arguments of workers, which this process keeps
}


def on_ray(system: System, address: str, workers: int | None, links: bool, full: bool) -> Runner:
    """A runner on the cluster at `address`, or with "" on this machine, with so many workers, or as many as there are CPUs for. Each opens
    the system anew, so the bundle must be where it is on every machine."""
    paths = {name: path.absolute() for name in ("bundle", "glossary") if (path := getattr(system, name)) is not None}
    threads = system.threads or 1
    system = replace(system, threads=threads, ensemble=tuple(path.absolute() for path in system.ensemble), **paths)

    def run(windows: Iterator[list[str]], count: int) -> Iterator[list[str]]:
        if not count:
            return
        ray = import_ray("ray.data", "Ray Data", address, _ENVIRONMENT)
        connect(ray, address, (workers or max(1, (os.cpu_count() or 1) // threads)) * threads, _STORE)
        try:
            there = int(ray.cluster_resources().get("CPU", 0) // threads)
            if not 0 < (workers or there) <= there:
                raise ConfigError(f"--workers {workers or 1}: the cluster has CPUs for {there} of {threads} threads")
            order = {"system": system, "links": links, "full": full}
            with _interrupts() as asked:
                for lines in _answers(ray, windows, count, min(workers or there, count), order):
                    if asked:
                        raise KeyboardInterrupt
                    yield lines
        except ray.exceptions.RayError as error:
            raise _explained(error) from None
        finally:
            ray.shutdown()

    return run


@contextlib.contextmanager
def _interrupts() -> Iterator[list[int]]:
    """The interrupts that have come: Ray lets some of them be lost in what it calls itself."""
    asked: list[int] = []

    def hear(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # which alone has signals
        yield asked
        return
    before = signal.signal(signal.SIGINT, hear)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


def _answers(
    ray: Any, windows: Iterator[list[str]], count: int, workers: int, order: dict[str, Any]
) -> Iterator[list[str]]:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    desk = beside(ray, _Desk)
    # Not ray.data.range, whose tasks wait for CPUs that the workers have.
    numbers = ray.data.from_items([{"id": number} for number in range(count)], override_num_blocks=count)
    rows = numbers.map_batches(
        _Worker,
        batch_size=1,
        fn_constructor_kwargs=order | {"desk": desk},
        num_cpus=order["system"].threads,
        compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=_IN_FLIGHT),
    )
    ahead = (workers + 1) * _IN_FLIGHT  # so that none of what workers have in hand is still to be laid out
    laid = 0
    answers = iter(rows.iter_rows())
    for done in range(count):
        while laid < min(count, done + ahead):
            texts = next(windows, None)
            if texts is None:
                raise InputError("an input has changed while it was translated; add --force to begin anew")
            ray.get(desk.lay.remote(laid, texts, done))
            laid += 1
        row = next(answers)
        assert row["id"] == done, "windows come in order"
        yield row["lines"].split("\n") if row["lines"] else []


class _Desk:
    """Windows that are to be translated, by number."""

    def __init__(self) -> None:
        self._windows: dict[int, list[str]] = {}
        self._laid = asyncio.Condition()

    async def lay(self, number: int, texts: list[str], finished: int) -> None:
        """Lay out a window; those before number `finished` are done with."""
        async with self._laid:
            self._windows = {key: value for key, value in self._windows.items() if key >= finished} | {number: texts}
            self._laid.notify_all()

    async def take(self, number: int) -> list[str]:
        """The texts of a window, as soon as they are there."""
        async with self._laid:
            await self._laid.wait_for(lambda: number in self._windows)
            return self._windows[number]


class _Worker:
    """Translates windows."""

    def __init__(self, system: System, links: bool, full: bool, desk: Any) -> None:
        import ray

        self._get = ray.get
        self._begin = system.open(tokens=full).begin
        self._links, self._full, self._desk = links, full, desk

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """The answers of the window whose number is in the batch."""
        number = int(batch["id"][0])
        texts = self._get(self._desk.take.remote(number))
        begun = try_begin(self._begin, texts) if texts else None
        lines = translate_window(self._begin, texts, begun, self._links, self._full)
        return {"id": [number], "lines": ["\n".join(lines)]}


def _explained(failure: BaseException) -> NMTError:
    """What ended the job; a user's error that a worker met is that error."""
    cause: BaseException | None = failure
    while cause is not None:
        if isinstance(cause, NMTError):
            return cause
        cause = getattr(cause, "cause", None) or cause.__cause__
    return NMTError(f"Ray ended ({last_line(failure)}); the same command goes on")
