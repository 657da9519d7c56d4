"""Which models translate what is asked for, and how a text goes through two of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from nmt.documents.markup import Xml
from nmt.inference.types import Translation
from serving import languages
from serving.errors import Refused
from serving.protocol import Backend, Overrides, ServedModel, UnknownModel

Links = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which model is asked for, by its name or its languages, and how it is to search."""

    source: str | None = None
    target: str | None = None
    model: str | None = None
    overrides: Overrides = field(default_factory=Overrides)
    format: Literal["text", "html", "xml"] = "text"
    xml: Xml = field(default_factory=Xml)


def choose(wanted: Wanted, models: list[ServedModel], pivot: bool = True) -> list[ServedModel]:
    """The one model that fits the request's `model`, `source` and `target`, or where none does two, through a language between.

    A language matches without regard to case, exactly or else by its first part, so that en-GB finds en. Raises `UnknownModel`
    when none fits, `Refused` (422) when several do.
    """
    served = ", ".join(f"{m.info.name} ({m.info.source_language}-{'/'.join(m.info.targets)})" for m in models)
    fitting = [model for model in models if wanted.model in (None, model.info.name)]
    if not fitting:
        raise UnknownModel(f"no such model; served: {served}")
    exact = [model for model in fitting if _speaks(wanted, model, exactly=True)]
    fitting = exact or [model for model in fitting if _speaks(wanted, model, exactly=False)]
    if len(fitting) > 1:
        raise Refused(422, f"several models fit: name source and target, or model; served: {served}", "ambiguous_model")
    if fitting:
        return [_into(fitting[0], wanted.target)]
    if pivot and wanted.model is None and wanted.source and wanted.target:
        for first in models:
            for second in models:
                between = [one for one in first.info.targets if same_language(one, second.info.source_language)]
                if (
                    between
                    and same_language(wanted.source, first.info.source_language)
                    and any(same_language(wanted.target, one) for one in second.info.targets)
                ):
                    return [_into(first, between[0]), _into(second, wanted.target)]
    raise UnknownModel(f"no model for these languages; served: {served}")


def sources_of(models: Sequence[ServedModel], asked: str, pivot: bool) -> tuple[list[str], str]:
    """The languages from which there is a way to the language `asked`, and its code here. Raises `UnknownModel`."""
    ways = languages.pairs(models, pivot)
    target = next((one for each in ways.values() for one in each if same_language(one, asked)), None)
    sources = [source for source, targets in ways.items() if target in targets]
    if target is None or not sources:
        known = sorted({one for each in ways.values() for one in each})
        raise UnknownModel(f"no model for these languages; target languages: {', '.join(known)}")
    return sources, target


async def translate_along(
    backend: Backend, route: Sequence[ServedModel], texts: list[str], overrides: Overrides, ends: float
) -> list[Translation]:
    """A translation of each text by the models of `route`, at `ends` (of `time.monotonic`) at the latest.

    Raises what the backend raises, and `Refused` for what a way through another language can't do.
    """
    *before, last = route
    if before and (overrides.prefix or overrides.glossary):
        raise Refused(422, "prefix and glossary need a model that translates directly")
    firsts: list[Translation] = []
    for model in before:  # which say their best alone
        alone = replace(towards(model, overrides), n_best=None)
        firsts = await backend.translate(model.info.name, texts, alone, ends - time.monotonic())
        texts = [translation.text for translation in firsts]
    found = await backend.translate(last.info.name, texts, towards(last, overrides), ends - time.monotonic())
    return [through(*both) for both in zip(firsts, found, strict=True)] if before else found


def towards(model: ServedModel, overrides: Overrides) -> Overrides:
    """The options with the target language of a model that has several."""
    return replace(overrides, target=model.info.target_language) if model.info.target_languages else overrides


def through(first: Translation, second: Translation) -> Translation:
    """A translation by way of another language, linked where both are."""

    def composed(before: Links, after: Links) -> Links:
        sources: dict[int, set[int]] = {}
        for source, between in before:
            sources.setdefault(between, set()).add(source)
        return tuple(sorted({(source, to) for at, to in after for source in sources.get(at, ())}))

    hypotheses = tuple(
        replace(
            each,
            alignment=composed(first.hypotheses[0].alignment, each.alignment),
            anchors=composed(first.hypotheses[0].links, each.links),
            attention=(),
        )
        for each in second.hypotheses
    )
    return Translation(
        first.source,
        hypotheses,
        first.source_tokens,
        second.target_tokens,
        first.segments,
        first.truncated or second.truncated,
    )


def same_language(asked: str, has: str) -> bool:
    """Whether two codes name a language, whatever they say of its region."""
    return _language(asked, False) == _language(has, False)


def _speaks(wanted: Wanted, model: ServedModel, exactly: bool) -> bool:
    pairs = ((wanted.source, (model.info.source_language,)), (wanted.target, model.info.targets))
    return all(
        asked is None or _language(asked, exactly) in {_language(one, exactly) for one in has} for asked, has in pairs
    )


def _into(model: ServedModel, asked: str | None) -> ServedModel:
    """The model with the one of its target languages that is asked for."""
    if asked is None or not model.info.target_languages:
        return model
    exact = [one for one in model.info.targets if _language(one, True) == _language(asked, True)]
    alike = [one for one in model.info.targets if same_language(one, asked)]
    return replace(model, info=replace(model.info, target_language=(exact or alike)[0]))


def _language(code: str, exactly: bool) -> str:
    code = code.lower().replace("_", "-")
    return code if exactly else code.partition("-")[0]
