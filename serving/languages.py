"""Languages of the service: their names, and which of them a text is in."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterable, Sequence

from babel import Locale, UnknownLocaleError

from nmt.text.language import Detected, Detector
from serving.protocol import ServedModel

_LONG = 20_000  # characters, above which telling is done beside the event loop


def language_name(code: str) -> str:
    """In English, by the Unicode CLDR; the code where it has none."""
    try:
        return Locale.parse(code, sep="-" if "-" in code else "_").english_name or code
    except (UnknownLocaleError, ValueError):
        return code


def pairs(models: Iterable[ServedModel], pivot: bool) -> dict[str, list[str]]:
    """The target languages of each source language, by one model or, with `pivot`, by two."""
    direct: dict[str, set[str]] = {}
    for model in models:
        direct.setdefault(model.info.source_language, set()).update(model.info.targets)
    found = {source: set(targets) for source, targets in direct.items()}
    if pivot:
        for source, between in direct.items():
            found[source] |= {target for one in between for target in direct.get(one, ())} - {source}
    return {source: sorted(targets) for source, targets in found.items()}


async def detect(texts: Sequence[str], languages: Sequence[str]) -> list[list[Detected]]:
    """The languages that each text may be in, likeliest first; see `Detector.detect`."""
    detector = _detector(tuple(sorted(languages)))
    if sum(map(len, texts)) > _LONG:
        return await asyncio.to_thread(lambda: [detector.detect(text) for text in texts])
    return [detector.detect(text) for text in texts]


@functools.lru_cache(maxsize=8)
def _detector(languages: tuple[str, ...]) -> Detector:
    return Detector(languages)
