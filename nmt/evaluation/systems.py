"""What translates a test set: a bundle or a server, with what is said of it on the record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from nmt.errors import ServiceError
from nmt.evaluation.results import System
from nmt.inference.bundle import WEIGHTS, read_config
from nmt.inference.client import Client, Options, ServedModel
from nmt.inference.translator import Translator
from nmt.inference.types import DecodeOptions, Translation

Detail = Literal["text", "links", "attention"]  # what a translation comes with; "attention" is links and more


@dataclass(frozen=True)
class Opened:
    """A system that can be asked: `ask(texts, detail, n_best)` gives their translations, whose best text is the same however much is
    asked for. `beam_size` is the most candidates that it has; `target_language` is "" where it is not known."""

    about: System
    search: str
    options: dict[str, Any]
    target_language: str
    beam_size: int
    ask: Callable[[Sequence[str], Detail, int], list[Translation]]


def open_bundle(translator: Translator, decode: DecodeOptions, path: Path, ensemble: Sequence[Path] = ()) -> Opened:
    """The bundle at `path`, or the ensemble that it begins, opened as `translator`."""
    info, first = translator.info, read_config(path)
    members = (
        {"name": config.name, "digest": config.sha256[WEIGHTS], "where": str(each)}
        for each, config in ((each, read_config(each)) for each in ensemble)
    )
    search = f"beam {decode.beam_size}, length penalty {decode.length_penalty:g}"
    target = decode.target or info.target_language

    def ask(texts: Sequence[str], detail: Detail, n_best: int) -> list[Translation]:
        wanted = {"alignment": detail != "text", "n_best": n_best}
        return translator.translate(texts, decode.model_copy(update=wanted))

    return Opened(
        System(
            name=first.name,
            kind="bundle",
            where=str(path),
            source_language=info.source_language,
            target_language=target,
            architecture=info.architecture,
            digest=first.sha256[WEIGHTS],
            ensemble=tuple(members),
        ),
        f"ensemble of {1 + len(ensemble)}, {search}" if ensemble else search,
        decode.model_dump(mode="json"),
        target,
        1 if decode.temperature else decode.beam_size,  # what is drawn at random has no order
        ask,
    )


def open_server(client: Client, asked: dict[str, Any]) -> Opened:
    """A running server, with the options `asked` of it; raise `ServiceError` where it has no model for them."""
    models, wanted = client.models(), str(asked.get("target", ""))
    fit = [model for model in models if not wanted or wanted in (model["target"], *model.get("targets", []))]
    if not fit:
        raise ServiceError(
            f"{client.url}: no model translates into {wanted!r}" if models else f"{client.url}: no model"
        )
    only = fit[0] if len(fit) == 1 else None
    known = {name: only[name] for name in ("beam_size", "length_penalty")} if only else {}
    options = known | asked
    languages = {model["target"] for model in fit}
    target = wanted or (languages.pop() if len(languages) == 1 else "")
    beam = min(int(asked.get("beam_size", model["beam_size"])) for model in fit)
    if only:
        search = f"beam {options['beam_size']}, length penalty {options['length_penalty']:g}"
    else:
        search = ", ".join(f"{key} {value}" for key, value in asked.items()) or "the server's defaults"

    def ask(texts: Sequence[str], detail: Detail, n_best: int) -> list[Translation]:
        more = detail != "text"
        shown = {"alignment": more, "tokens": more, "attention": detail == "attention", "n_best": n_best}
        return client.translate(texts, cast("Options", asked | shown))

    return Opened(_served(client.url, only, target), search, options, target, beam, ask)


def _served(url: str, model: ServedModel | None, target: str) -> System:
    if model is None:
        return System(name=url, kind="server", where=url, target_language=target)
    return System(
        name=model["name"],
        kind="server",
        where=url,
        source_language=model["source"],
        target_language=target,
        architecture=model["architecture"],
        digest=model["digest"],
    )
