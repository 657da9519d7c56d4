"""The HTTP surface: a FastAPI app over any `Backend`. Checks, limits, deadline and words; no Ray, no model."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import ValidationError
from pydantic_core import from_json

import nmt
from nmt.inference.types import Translation
from serving import errors
from serving.access import Access
from serving.config import Limits, ServeConfig
from serving.errors import Refused
from serving.metrics import count_request
from serving.middleware import BodyLimit, Measured, RequestId
from serving.protocol import Backend, DeadlineExceeded, Overloaded, Overrides, ServedModel, Unavailable, UnknownModel
from serving.schema import (
    Alternative,
    Detail,
    ErrorResponse,
    ModelEntry,
    ModelList,
    Status,
    TranslateRequest,
    TranslateResponse,
)

_KNOWN = [name for name in TranslateRequest.model_fields if name != "api_key"]
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse} for status in (400, 401, 403, 404, 408, 413, 415, 422, 429, 500, 503)
}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": TranslateRequest.model_json_schema()}},
    }
}
_APIS = {"/v1/translate": "v1"}  # what is measured, and what it is called
_ASSETS = {
    "swagger-ui-bundle.js": "application/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}


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


def create_app(
    backend: Backend, config: ServeConfig, activity: Activity | None = None, request_ids: bool = True
) -> FastAPI:
    """The service's app. `request_ids=False` where the server before it already puts X-Request-ID on responses."""
    activity = activity or Activity(config.queue.requests)
    app = FastAPI(title="Strata", version=nmt.__version__, docs_url=None, redoc_url=None)
    app.add_middleware(BodyLimit, limit=config.limits.body_bytes)
    app.add_middleware(Measured, apis=_APIS, observe=count_request)
    if request_ids:
        app.add_middleware(RequestId)
    errors.install(app)
    _add_translate(app, backend, config, activity)
    _add_state(app, backend, activity)
    _add_docs(app)
    return app


def _add_translate(app: FastAPI, backend: Backend, config: ServeConfig, activity: Activity) -> None:
    access = Access(config)

    @app.post("/v1/translate", response_model=TranslateResponse, responses=_ERRORS, openapi_extra=_BODY)
    async def translate(request: Request) -> JSONResponse:
        """Translate a text or a list of texts."""
        with activity.request():
            known = access.admitted(request)
            wanted = parse(await _body(request, config.limits.body_seconds))
            if not known:
                access.admit(request, wanted.api_key)
            texts = [wanted.text] if isinstance(wanted.text, str) else wanted.text
            check(wanted, texts, config.limits)
            try:
                async with asyncio.timeout(config.deadline_s):
                    route = choose(wanted, await backend.models(), config.pivot)
                    request.state.pair = f"{route[0].info.source_language}-{route[-1].info.target_language}"
                    found = await _translated(backend, route, texts, wanted, config.deadline_s)
            except TimeoutError:
                raise DeadlineExceeded(f"not translated within {config.deadline_s:g} s") from None
            return JSONResponse(_answer(wanted, route, found))

    @app.get("/v1/models", response_model=ModelList, responses={503: {"model": ErrorResponse}})
    async def models() -> ModelList:
        """The models that are served."""
        async with asyncio.timeout(config.deadline_s):
            return ModelList(models=[_entry(model) for model in await backend.models()])


async def _translated(
    backend: Backend, route: list[ServedModel], texts: list[str], wanted: TranslateRequest, seconds: float
) -> list[Translation]:
    """The texts through one model, or through one after the other: then all but the last say their best alone."""
    ends = time.monotonic() + seconds
    *before, last = route
    for model in before:
        first = Overrides(wanted.beam_size, None, wanted.length_penalty)
        found = await backend.translate(model.info.name, texts, first, ends - time.monotonic())
        texts = [translation.text for translation in found]
    overrides = Overrides(wanted.beam_size, wanted.n_best, wanted.length_penalty)
    return await backend.translate(last.info.name, texts, overrides, ends - time.monotonic())


def _add_state(app: FastAPI, backend: Backend, activity: Activity) -> None:
    @app.get("/healthz", response_model=Status)
    async def healthz() -> Status:
        """Whether the process lives."""
        return Status(status="ok")

    @app.get("/readyz", response_model=Status, responses={503: {"model": ErrorResponse}})
    async def readyz() -> Status:
        """Whether every model answers; 503 while one does not, and while the service is stopping."""
        if activity.draining:
            raise Unavailable("the service is stopping")
        missing = await backend.ready()
        if missing:
            raise Unavailable(f"not ready: {', '.join(missing)}")
        return Status(status="ready")


def _add_docs(app: FastAPI) -> None:
    """The API page, with its script and style from the fastapi-swagger package, so that it works without a network."""

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="openapi.json",
            title=f"{app.title} API",
            swagger_js_url="docs/swagger-ui-bundle.js",
            swagger_css_url="docs/swagger-ui.css",
            swagger_favicon_url="docs/favicon-32x32.png",
        )

    @app.get("/docs/{name}", include_in_schema=False)
    async def asset(name: str) -> Response:
        if name not in _ASSETS:
            raise Refused(404, "no such path; see /docs")
        content = resources.files("fastapi_swagger").joinpath("resources", name).read_bytes()
        return Response(content, media_type=_ASSETS[name], headers={"Cache-Control": "max-age=86400"})


async def _body(request: Request, seconds: float) -> bytes:
    """The request's body, if it is JSON in UTF-8 and arrives in time."""
    kind, _, parameters = request.headers.get("content-type", "").lower().partition(";")
    if kind.strip() != "application/json":
        raise Refused(415, "send JSON with the header Content-Type: application/json")
    charset = parameters.partition("charset=")[2].split(";")[0].strip(' "')
    if charset not in ("", "utf-8", "utf8"):
        raise Refused(415, "send JSON in UTF-8")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refused(415, "send the body without Content-Encoding")
    try:
        async with asyncio.timeout(seconds):
            return await request.body()
    except TimeoutError:
        raise Refused(408, f"the body did not arrive within {seconds:g} s") from None


def parse(body: bytes) -> TranslateRequest:
    """The request in a body; raise `Refused` (400 for what is not JSON, 422 for the rest) that never quotes it.

    Pydantic lists every fault before it tells the first: with half a million of them the event loop would stand still, so the two
    faults that can come in any number are looked for first.
    """
    try:
        data = from_json(body)
    except ValueError as error:
        raise Refused(400, f"the body is not valid JSON: {error}", "invalid_json") from None
    if not isinstance(data, dict):
        raise Refused(422, "the body must be a JSON object")
    for key in data:
        if key not in TranslateRequest.model_fields:
            raise Refused(422, errors.describe([{"loc": (key[:100],), "type": "extra_forbidden"}], _KNOWN))
    text = data.get("text")
    if isinstance(text, list):
        for number, item in enumerate(text, start=1):
            if not isinstance(item, str):
                raise Refused(422, f"text: item {number} is not a string")
    try:
        return TranslateRequest.model_validate(data)
    except ValidationError as error:
        raise Refused(422, errors.describe(error.errors(include_url=False, include_input=False), _KNOWN)) from None


def check(wanted: TranslateRequest, texts: list[str], limits: Limits) -> None:
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


def choose(wanted: TranslateRequest, models: list[ServedModel], pivot: bool = True) -> list[ServedModel]:
    """The one model that fits the request's `model`, `source` and `target`, or where none does two, through a language between.

    A language matches without regard to case, exactly or else by its first part, so that en-GB finds en. Raises `UnknownModel`
    when none fits, `Refused` (422) when several do.
    """
    served = ", ".join(f"{m.info.name} ({m.info.source_language}-{m.info.target_language})" for m in models)
    fitting = [model for model in models if wanted.model in (None, model.info.name)]
    if not fitting:
        raise UnknownModel(f"no such model; served: {served}")
    exact = [model for model in fitting if _speaks(wanted, model, exactly=True)]
    fitting = exact or [model for model in fitting if _speaks(wanted, model, exactly=False)]
    if len(fitting) > 1:
        raise Refused(422, f"several models fit: name source and target, or model; served: {served}", "ambiguous_model")
    if fitting:
        return fitting
    if pivot and wanted.model is None and wanted.source and wanted.target:
        for first in models:
            for second in models:
                between = _language(first.info.target_language, False) == _language(second.info.source_language, False)
                if (
                    between
                    and _is(wanted.source, first.info.source_language)
                    and _is(wanted.target, second.info.target_language)
                ):
                    return [first, second]
    raise UnknownModel(f"no model for these languages; served: {served}")


def _is(asked: str, has: str) -> bool:
    return _language(asked, False) == _language(has, False)


def _speaks(wanted: TranslateRequest, model: ServedModel, exactly: bool) -> bool:
    pairs = ((wanted.source, model.info.source_language), (wanted.target, model.info.target_language))
    return all(asked is None or _language(asked, exactly) == _language(has, exactly) for asked, has in pairs)


def _language(code: str, exactly: bool) -> str:
    code = code.lower().replace("_", "-")
    return code if exactly else code.partition("-")[0]


def _answer(wanted: TranslateRequest, route: list[ServedModel], found: list[Translation]) -> dict[str, Any]:
    several = (wanted.n_best or route[-1].defaults.n_best) > 1
    texts = [translation.text for translation in found]
    details = [
        Detail(
            score=item.score,
            truncated=item.truncated,
            segments=item.segments,
            source_tokens=item.source_tokens,
            target_tokens=item.target_tokens,
            alternatives=[Alternative(text=h.text, score=h.score) for h in item.hypotheses] if several else None,
        )
        for item in found
    ]
    response = TranslateResponse(
        translation=texts[0] if isinstance(wanted.text, str) else texts,
        model=" > ".join(model.info.name for model in route),
        pivot=route[0].info.target_language if len(route) > 1 else None,
        details=details,
    )
    return response.model_dump(exclude_none=True)


def _entry(model: ServedModel) -> ModelEntry:
    info = model.info
    return ModelEntry(
        name=info.name,
        source=info.source_language,
        target=info.target_language,
        parameters=info.parameters,
        architecture=info.architecture,
        scores=info.scores,
        digest=info.digest,
        beam_size=model.defaults.beam_size,
        length_penalty=model.defaults.length_penalty,
    )
