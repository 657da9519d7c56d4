"""A translator without a model for the tests of the service, named by `loader: serving_stub:StubTranslator`.

It translates to upper case. Texts can ask for trouble: `sleep:SECONDS` takes that long, `boom` raises, `stall` never ends, `die`
kills the process.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from pathlib import Path
from typing import Any, cast

from nmt.errors import InputError
from nmt.inference.bundle import ModelInfo
from nmt.inference.cache import Cache
from nmt.inference.engine import Priority, Statistics
from nmt.inference.translator import Pending
from nmt.inference.types import DecodeOptions, Hypothesis, Translation

PER_TEXT_S = 0.002


class StubTranslator:
    """Answers like `nmt.inference.translator.Translator`; a bundle is a folder whose name is NAME_SOURCE_TARGET."""

    def __init__(self, path: Path, threads: int | None) -> None:
        name, source, target = path.name.split("_")
        self.info = ModelInfo(name, source, target, str(path), 1, f"stub, {threads} threads", [], "0" * 64)
        self.defaults = DecodeOptions(beam_size=4)
        self.engine = StubEngine()
        self.cache = Cache(0)

    @classmethod
    def load(cls, path: Path, threads: int | None = None, device: str = "cpu") -> StubTranslator:
        if (path / "slow").is_file():
            time.sleep(float((path / "slow").read_text()))
        if (path / "broken").is_file():
            raise InputError(f"{path}: broken on purpose")
        return cls(path, threads)

    def validate(self, text: str) -> None:
        if "\x00" in text:
            raise InputError("the text holds a NUL character")

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    def begin(
        self,
        texts: Sequence[str],
        options: DecodeOptions | None = None,
        priority: Priority = Priority.INTERACTIVE,
        *_: object,
    ) -> Pending[Translation]:
        jobs: list[tuple[str, Future[Any]]] = [(text, Future()) for text in texts]
        for job in jobs:
            self.engine.jobs.put((*job, options or self.defaults))
        return Pending([future for _, future in jobs], cast(Callable[..., list[Translation]], list))


class StubEngine:
    """One thread that does one text after the other."""

    def __init__(self) -> None:
        self.jobs: queue.Queue[tuple[str, Future[Any], DecodeOptions]] = queue.Queue()
        self.steps = self.running = 0
        threading.Thread(target=self._work, daemon=True).start()

    def statistics(self) -> Statistics:
        waiting = self.jobs.qsize()
        return Statistics(1, self.running, 0, waiting, waiting, 0.0, self.steps, self.steps, self.steps, 0.0, 0, 0)

    def _work(self) -> None:
        while True:
            self.running = 0
            text, future, options = self.jobs.get()
            self.running = 1
            time.sleep(PER_TEXT_S)
            try:
                result = self._obey(text, future, options)
            except ValueError as error:
                future.set_exception(error)
            else:
                with contextlib.suppress(InvalidStateError):
                    future.set_result(result)
            self.steps += 1

    def _obey(self, text: str, future: Future[Any], options: DecodeOptions) -> Translation:
        word, _, value = text.partition(":")
        if word == "sleep":
            ends = time.monotonic() + float(value.split()[0])
            while time.monotonic() < ends and not future.cancelled():
                time.sleep(0.02)
        elif word == "boom":
            raise ValueError("boom")
        elif word == "stall":
            time.sleep(10_000)
        elif word == "die":
            os._exit(1)
        return self._translation(text, options)

    def _translation(self, text: str, options: DecodeOptions) -> Translation:
        best = tuple(Hypothesis(text.upper() + "'" * rank, -0.5 - rank) for rank in range(options.n_best))
        tokens = len(text.split())
        return Translation(text, best, tokens, tokens, segments=1, truncated=False)
