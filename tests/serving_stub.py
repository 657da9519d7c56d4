"""A translator without a model for the tests of the service, named by `loader: serving_stub:StubTranslator`.

It translates to upper case. Texts can ask for trouble: `sleep:SECONDS` takes that long, `boom` raises, `die` kills the process.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from nmt.errors import InputError
from nmt.inference.bundle import ModelInfo
from nmt.inference.types import DecodeOptions, Hypothesis, Translation

PER_BATCH_S = 0.01


class StubTranslator:
    """Answers like `nmt.inference.translator.Translator`; a bundle is a folder whose name is NAME_SOURCE_TARGET."""

    def __init__(self, path: Path, threads: int | None) -> None:
        name, source, target = path.name.split("_")
        self.info = ModelInfo(name, source, target, str(path), 1, f"stub, {threads} threads", [], "0" * 64)
        self.defaults = DecodeOptions(beam_size=4)

    @classmethod
    def load(cls, path: Path, threads: int | None = None) -> StubTranslator:
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

    def translate(
        self,
        texts: Sequence[str],
        options: DecodeOptions | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> list[Translation]:
        options = options or self.defaults
        time.sleep(PER_BATCH_S)
        for text in texts:
            self._obey(text, cancelled)
        return [self._translation(text, options) for text in texts]

    def _obey(self, text: str, cancelled: Callable[[], bool] | None) -> None:
        word, _, value = text.partition(":")
        if word == "sleep":
            ends = time.monotonic() + float(value)
            while time.monotonic() < ends and not (cancelled and cancelled()):
                time.sleep(0.02)
        elif word == "boom":
            raise ValueError("boom")
        elif word == "die":
            os._exit(1)

    def _translation(self, text: str, options: DecodeOptions) -> Translation:
        best = tuple(Hypothesis(text.upper() + "'" * rank, -0.5 - rank) for rank in range(options.n_best))
        tokens = len(text.split())
        return Translation(text, best, tokens, tokens, segments=1, truncated=False)
