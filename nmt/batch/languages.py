"""Texts that are in another language than the one that is translated: noticed, or passed on."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from typing import BinaryIO

from nmt.batch.answers import Answer
from nmt.batch.inputs import Input, Text
from nmt.errors import ConfigError
from nmt.text.language import Detector

_SURE = 0.9  # confidence from which a language counts
_CHARACTERS = 20  # of a text, below which none does
_EVERY = 20  # where texts are only looked at: so many of them at a time are represented by one
_MANY = 0.1  # share of others that is worth a word


class Watched:
    """An input whose texts are looked at. With `passed` those of another language are passed on, else a part is looked at and counted."""

    def __init__(self, watched: Input, language: str, passed: bool) -> None:
        """`language` is that of the texts, "" where it is not known. Raises `ConfigError` where `passed` asks for what is not installed."""
        self.name, self.links = watched.name, watched.links
        self._input, self._language, self._passed = watched, language.partition("-")[0].lower(), passed
        self._seen = 0
        self._others: collections.Counter[str] = collections.Counter()
        self._detector: Detector | None = None
        if language:
            try:
                self._detector = Detector.of_all()
            except ConfigError:
                if passed:
                    raise

    def texts(self) -> Iterator[Text]:
        """Those of the input."""
        self._seen, self._others = 0, collections.Counter()
        for number, text in enumerate(self._input.texts()):
            if text.text is not None and (self._passed or number % _EVERY == 0) and (other := self._other(text.text)):
                self._others[other] += 1
                if self._passed:
                    yield Text(None, f"it seems to be in {other}, not in {self._language}")
                    continue
            yield text

    def write(self, answers: Iterator[Answer], stream: BinaryIO) -> None:
        """As the input does."""
        self._input.write(answers, stream)

    def warning(self) -> str:
        """What is to be said of the texts that have been read; "" for nothing."""
        others = self._others.total()
        if self._passed or others < 2 or others < _MANY * self._seen:
            return ""
        which = ", ".join(f"{count} {language}" for language, count in self._others.most_common(3))
        return (
            f"{self.name}: of {self._seen} texts that were looked at {others} are not in {self._language}, which is translated ({which}); "
            "--other-languages pass leaves such as they are"
        )

    def _other(self, text: str) -> str:
        """The language of a text that is surely not in ours; "" for one that is, or can't be told."""
        if self._detector is None or len(text) < _CHARACTERS:
            return ""
        found = self._detector.detect(text)
        if not found or found[0].confidence < _SURE:
            return ""
        self._seen += 1
        return "" if found[0].language == self._language else found[0].language
