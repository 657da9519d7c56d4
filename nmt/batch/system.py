"""What translates: a bundle with a search, or a server; a value that any process can open."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from nmt.batch.answers import Begin, Pending
from nmt.config import apply_overrides, parse
from nmt.errors import ConfigError
from nmt.inference.types import DecodeOptions, Translation

if TYPE_CHECKING:
    from nmt.inference.client import Options
    from nmt.inference.types import Precision


@dataclass(frozen=True)
class Opened:
    """Something that translates lists of texts, from language `source` ("" where it is not known); `identity` is what its answers follow
    from."""

    begin: Begin
    source: str
    language: Callable[[], str]
    identity: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)

    def translate(self, texts: list[str]) -> list[Translation]:
        """A translation for each text, in order; waits."""
        pending = self.begin(texts)
        try:
            return pending.results()
        finally:
            pending.cancel()


@dataclass(frozen=True)
class System:
    """A bundle (with an ensemble), or the address of a server; `given` are options of the search, `overrides` such as `key=value`,
    `glossary` a file, `cache` subwords of sentences that are remembered."""

    bundle: Path | None = None
    server: str = ""
    key: str | None = None
    ensemble: tuple[Path, ...] = ()
    threads: int | None = None
    precision: Precision = "auto"
    given: dict[str, Any] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    prefix: str = ""
    glossary: Path | None = None
    source: str = ""
    cache: int = 0

    def open(self, tokens: bool = False) -> Opened:
        """Load the bundle, or make a client of the server, which then sends scores of `tokens` too. Raises `ConfigError`, `BundleError`,
        `InputError`."""
        if not self.server and self.bundle is None:
            raise ConfigError("give a bundle, or --server URL")
        return self._at_server(tokens) if self.server else self._here()

    def _here(self) -> Opened:
        from nmt.inference.cache import Cache
        from nmt.inference.engine import Priority
        from nmt.inference.translator import Translator
        from nmt.text.glossary import Glossary

        assert self.bundle is not None
        translator = Translator.load(self.bundle, self.threads, "cpu", self.ensemble, self.precision)
        translator.cache = Cache(self.cache)
        asked = apply_overrides(translator.defaults.model_dump() | self.given, self.overrides)
        decode = parse(DecodeOptions, asked, "search options")
        demands = Glossary.read(self.glossary).phrases if self.glossary else None

        def begin(texts: list[str]) -> Pending:
            prefixes = [self.prefix] * len(texts) if self.prefix else None
            return translator.begin(texts, decode, Priority.DOCUMENT, prefixes, demands)

        identity = {"model": translator.info.digest, "search": decode.model_dump(mode="json"), **self._same()}
        language = decode.target or translator.info.target_language
        return Opened(begin, translator.info.source_language, lambda: language, identity, decode.model_dump())

    def _at_server(self, tokens: bool) -> Opened:
        from nmt.inference.client import Client
        from nmt.text.glossary import Glossary

        if self.ensemble or self.overrides:
            raise ConfigError("--ensemble and --set are for a bundle: a server has its own, leave them out")
        client = Client(self.server, self.key)
        asked: dict[str, Any] = self.given | ({"tokens": True} if tokens else {})
        asked |= {name: value for name in ("prefix", "source") if (value := getattr(self, name))}
        if tokens and self.given.get("alignment"):
            asked["attention"] = True
        if self.glossary:
            asked["glossary"] = Glossary.read(self.glossary).terms
        pool = ThreadPoolExecutor(2)

        def begin(texts: list[str]) -> Pending:
            return _Asked(pool.submit(client.translate, texts, cast("Options", asked)))

        identity = {"server": client.url, "search": self.given, **self._same()}
        return Opened(
            begin, self.source, lambda: str(self.given.get("target") or client.target_language()), identity, asked
        )

    def _same(self) -> dict[str, Any]:
        terms = hashlib.sha256(self.glossary.read_bytes()).hexdigest() if self.glossary else ""
        return {"prefix": self.prefix, "glossary": terms, "source language": self.source}


@dataclass(frozen=True)
class _Asked:
    """A request to a server."""

    future: Future[list[Translation]]

    def results(self) -> list[Translation]:
        """What it answered."""
        return self.future.result()

    def cancel(self) -> None:
        """Not to be sent, where it has not been."""
        self.future.cancel()
