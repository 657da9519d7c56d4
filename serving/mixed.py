"""Texts of one request that are in several languages: which each is in, and each translated by the model for it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from fastapi import Request

from nmt.documents.markup import plain
from nmt.inference.types import Translation
from nmt.text.language import Detected
from serving import languages
from serving.routing import Wanted, same_language, sources_of
from serving.service import Service


async def detect_sources(service: Service, texts: Sequence[str], wanted: Wanted) -> list[Detected]:
    """The language of each text, among those from which there is a way to the target, and the target itself. Raises `UnknownModel`."""
    sources, target = sources_of(await service.models(), wanted.target or "", service.config.pivot)
    texts = texts if wanted.format == "text" else [plain(text) for text in texts]
    found = await languages.detect(texts, [*sources, target])
    return [each[0] if each else Detected(sources[0], 0.0) for each in found]


async def translate_each(
    request: Request, service: Service, texts: Sequence[str], sources: Sequence[str], wanted: Wanted
) -> list[Translation | None]:
    """A translation of each text out of its language; None for one that is in the target language already. Raises as it does."""
    found: list[Translation | None] = [None] * len(texts)
    groups: dict[str, list[int]] = {}
    for number, source in enumerate(sources):
        groups.setdefault(source, []).append(number)

    async def one(source: str, numbers: list[int]) -> None:
        its = Wanted(source, wanted.target, wanted.model, wanted.overrides, wanted.format, wanted.xml)
        _, translations = await service.translate(request, [texts[number] for number in numbers], its)
        for number, translation in zip(numbers, translations, strict=True):
            found[number] = translation

    work = [one(*group) for group in groups.items() if not same_language(group[0], wanted.target or "")]
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:  # where one has failed, the others are not wanted
            task.cancel()
    return found
