"""What all surfaces of the service share: who is let in, how much, which models translate, and the deadline. No words of any API."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from fastapi import Request
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from nmt.documents.markup import Html
from nmt.inference.types import Hypothesis, Translation
from serving import errors
from serving.access import Access
from serving.config import Limits, ServeConfig
from serving.errors import Refused
from serving.jobs import Desk, Jobs
from serving.protocol import Backend, DeadlineExceeded, Grid, Overloaded, Overrides, ServedModel, Unavailable
from serving.quota import Quota
from serving.routing import Wanted, choose, towards, translate_along

_T = TypeVar("_T")
_Model = TypeVar("_Model", bound=BaseModel)
_FORM = "application/x-www-form-urlencoded"
_FIELDS = 10_000  # of a form


class Activity:
    """How many requests are being answered, and whether the service still takes new ones."""

    def __init__(self, limit: int) -> None:
        """`limit`: requests at the same time."""
        self.draining = False
        self.in_flight = 0
        self._limit = limit

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count a request while it lasts; raise `Unavailable` while draining and `Overloaded` above the limit."""
        if self.draining:
            raise Unavailable("the service is stopping")
        if self.in_flight >= self._limit:
            raise Overloaded(f"{self.in_flight} requests are being answered already")
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1


class Service:
    """Translates for one gateway."""

    def __init__(
        self, backend: Backend, config: ServeConfig, activity: Activity | None = None, desk: Desk | None = None
    ) -> None:
        """`desk` is where documents go, by default one here."""
        self.backend, self.config = backend, config
        self.desk = desk or Jobs(backend, config.files, config.pivot, config.deadline_s)
        self.activity = activity or Activity(config.queue.requests)
        self.access = Access(config)
        self.quota = Quota(config.limits.characters_per_month)

    async def models(self) -> list[ServedModel]:
        """Those that are served. Raises `DeadlineExceeded`."""
        return await self._in_time(self.backend.models())

    async def translate(
        self, request: Request, texts: list[str], wanted: Wanted
    ) -> tuple[list[ServedModel], list[Translation]]:
        """The models that it took, one, or two through a language between, and a translation of each text.

        Raises `Refused`, `UnknownModel`, and what the backend raises.
        """
        check(texts, wanted.overrides, self.config.limits)
        if not self.quota.take(getattr(request.state, "caller", ""), sum(map(len, texts))):
            raise Refused(429, f"the quota of {self.quota.limit} characters a month is used up", "quota_exceeded")
        work = self._translate if wanted.format == "text" else self._pages
        return await self._in_time(work(request, texts, wanted, time.monotonic() + self.config.deadline_s))

    async def _pages(
        self, request: Request, texts: list[str], wanted: Wanted, ends: float
    ) -> tuple[list[ServedModel], list[Translation]]:
        """Texts of HTML or XML, by their passages, so many at a time as a request may have texts."""
        xml = None if wanted.format == "html" else wanted.xml
        pages = await asyncio.to_thread(lambda: [Html(text, xml) for text in texts])
        passages = [passage for page in pages for passage in page.texts]
        overrides = replace(wanted.overrides, alignment=True, keep_placeholders=True)
        wanted = replace(wanted, overrides=overrides)
        at_a_time, found = self.config.limits.texts, []
        for start in range(0, len(passages) or 1, at_a_time):
            route, some = await self._translate(request, passages[start : start + at_a_time], wanted, ends)
            found += some
        each = iter(found)
        its = [[next(each) for _ in page.texts] for page in pages]
        both = zip(pages, its, strict=True)
        return route, await asyncio.to_thread(lambda: [page.translation(some) for page, some in both])

    async def _translate(
        self, request: Request, texts: list[str], wanted: Wanted, ends: float
    ) -> tuple[list[ServedModel], list[Translation]]:
        route = choose(wanted, await self.backend.models(), self.config.pivot)
        request.state.pair = f"{route[0].info.source_language}-{route[-1].info.target_language}"
        return route, await translate_along(self.backend, route, texts, wanted.overrides, ends)

    async def score(
        self, request: Request, pairs: list[tuple[str, str]], wanted: Wanted
    ) -> tuple[ServedModel, list[Hypothesis]]:
        """The model, and what each of the given translations is worth to it. Raises as `translate`."""
        check([text for pair in pairs for text in pair], wanted.overrides, self.config.limits)
        ends = time.monotonic() + self.config.deadline_s

        async def work() -> tuple[ServedModel, list[Hypothesis]]:
            (model,) = choose(wanted, await self.backend.models(), pivot=False)
            request.state.pair = f"{model.info.source_language}-{model.info.target_language}"
            left = ends - time.monotonic()
            return model, await self.backend.score(model.info.name, pairs, towards(model, wanted.overrides), left)

        return await self._in_time(work())

    async def activations(
        self, request: Request, text: str, translation: str | None, wanted: Wanted
    ) -> tuple[ServedModel, Grid]:
        """The model, and what its layers do with one sentence. Raises as `translate`, and `NotAvailable`."""
        check([text, translation or ""], wanted.overrides, self.config.limits)

        async def work() -> tuple[ServedModel, Grid]:
            (model,) = choose(wanted, await self.backend.models(), pivot=False)
            request.state.pair = f"{model.info.source_language}-{model.info.target_language}"
            seconds = self.config.deadline_s
            return model, await self.backend.activations(model.info.name, text, translation, seconds)

        return await self._in_time(work())

    async def _in_time(self, work: Awaitable[_T]) -> _T:
        seconds = self.config.deadline_s
        try:
            async with asyncio.timeout(seconds):
                return await work
        except TimeoutError:
            raise DeadlineExceeded(f"not translated within {seconds:g} s") from None


def json_object(body: bytes) -> dict[str, Any]:
    """The object in a body; raise `Refused` (400 for what is not JSON, 422 for other JSON)."""
    try:
        data = from_json(body)
    except ValueError as error:
        raise Refused(400, f"the body is not valid JSON: {error}", "invalid_json") from None
    if not isinstance(data, dict):
        raise Refused(422, "the body must be a JSON object")
    return data


def validated(kind: type[_Model], fields: dict[str, Any], status: int) -> _Model:
    """The fields as a model; raise `Refused` by `status` for what does not fit, in words that never quote it."""
    for key in ("text", "q", "translation"):
        only_strings(key, fields.get(key))
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        names = [name for name in kind.model_fields if name not in ("api_key", "auth_key")]
        problems = error.errors(include_url=False, include_input=False)
        raise Refused(status, errors.describe(problems, names)) from None


def only_strings(key: str, value: object) -> None:
    """Raise `Refused` (422) at the first item of a list that is not a string.

    Pydantic lists every fault before it tells the first: with half a million of them the event loop would stand still.
    """
    for number, item in enumerate(value if isinstance(value, list) else (), start=1):
        if not isinstance(item, str):
            raise Refused(422, f"{key}: item {number} is not a string")


async def read_fields(request: Request, seconds: float) -> dict[str, Any]:
    """What the query string and the body say, JSON or a form; a field that a form says several times is a list. Raises `Refused`."""
    kind = request.headers.get("content-type", "").lower().partition(";")[0].strip()
    body = await read_body(request, seconds)
    said = list(request.query_params.multi_items())
    if kind == "application/json" and body.strip():
        return json_object(body)
    if kind == _FORM:
        try:
            said += parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=_FIELDS)
        except UnicodeDecodeError:
            raise Refused(400, "the form is not UTF-8") from None
        except ValueError:
            raise Refused(400, f"the form has more than {_FIELDS} fields") from None
    elif body.strip():
        raise Refused(400, f"send JSON, or a form as {_FORM}, with a Content-Type that says which")
    values: dict[str, list[str]] = {}
    for name, value in said:
        values.setdefault(name, []).append(value)
    return {name: its[0] if len(its) == 1 else its for name, its in values.items()}


async def read_body(request: Request, seconds: float) -> bytes:
    """The body of a request, if it arrives in time; raise `Refused`."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refused(415, "send the body without Content-Encoding")
    try:
        async with asyncio.timeout(seconds):
            return await request.body()
    except TimeoutError:
        raise Refused(408, f"the body did not arrive within {seconds:g} s") from None


def check(texts: Sequence[str], wanted: Overrides, limits: Limits) -> None:
    """Raise `Refused` for a request above a limit: 413 for its size, 422 for its options."""
    if len(texts) > limits.texts:
        raise Refused(413, f"{len(texts)} texts in one request; at most {limits.texts} are allowed")
    for number, text in enumerate(texts, start=1):
        if len(text) > limits.characters:
            where = f"text {number} has" if len(texts) > 1 else "the text has"
            raise Refused(413, f"{where} {len(text)} characters; at most {limits.characters} are allowed")
    total = sum(map(len, texts))
    if total > limits.total_characters:
        raise Refused(413, f"{total} characters in all; at most {limits.total_characters} are allowed in one request")
    for name, value, most in (
        ("beam_size", wanted.beam_size, limits.beam_size),
        ("n_best", wanted.n_best, limits.n_best),
    ):
        if value is not None and value > most:
            raise Refused(422, f"{name} is too large; at most {most} is allowed")
    if wanted.beam_size and wanted.n_best and wanted.n_best > wanted.beam_size:
        raise Refused(422, f"n_best {wanted.n_best} is more than beam_size {wanted.beam_size}: raise beam_size")
