"""The HTTP surface: a FastAPI app over any `Backend`. Checks, limits, deadline and words; no Ray, no model."""

from __future__ import annotations

from importlib import resources
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import ValidationError

import nmt
from nmt.inference.types import Translation
from serving import errors, libretranslate
from serving.config import ServeConfig
from serving.errors import Refused
from serving.metrics import count_request
from serving.middleware import BodyLimit, Measured, RequestId
from serving.protocol import Backend, Overrides, ServedModel, Unavailable
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
from serving.service import Activity, Service, Wanted, json_object, only_strings, read_body

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
_APIS = {"/v1/translate": "v1", "/translate": "libretranslate"}  # what is measured, and what it is called
_ASSETS = {
    "swagger-ui-bundle.js": "application/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}


def create_app(
    backend: Backend, config: ServeConfig, activity: Activity | None = None, request_ids: bool = True
) -> FastAPI:
    """The service's app. `request_ids=False` where the server before it already puts X-Request-ID on responses."""
    service = Service(backend, config, activity)
    app = FastAPI(title="Strata", version=nmt.__version__, docs_url=None, redoc_url=None)
    app.add_middleware(BodyLimit, limit=config.limits.body_bytes)
    app.add_middleware(Measured, apis=_APIS, observe=count_request)
    if request_ids:
        app.add_middleware(RequestId)
    errors.install(app, libretranslate.PATHS)
    _add_translate(app, service)
    libretranslate.add(app, service)
    _add_state(app, service)
    _add_docs(app)
    return app


def _add_translate(app: FastAPI, service: Service) -> None:
    @app.post("/v1/translate", response_model=TranslateResponse, responses=_ERRORS, openapi_extra=_BODY)
    async def translate(request: Request) -> JSONResponse:
        """Translate a text or a list of texts."""
        with service.activity.request():
            known = service.access.admitted(request)
            _only_json(request)
            asked = parse(await read_body(request, service.config.limits.body_seconds))
            if not known:
                service.access.admit(request, asked.api_key)
            texts = [asked.text] if isinstance(asked.text, str) else asked.text
            overrides = Overrides(asked.beam_size, asked.n_best, asked.length_penalty, asked.split_sentences)
            wanted = Wanted(asked.source, asked.target, asked.model, overrides)
            return JSONResponse(_answer(asked, *await service.translate(request, texts, wanted)))

    @app.get("/v1/models", response_model=ModelList, responses={503: {"model": ErrorResponse}})
    async def models() -> ModelList:
        """The models that are served."""
        return ModelList(models=[_entry(model) for model in await service.models()])


def _add_state(app: FastAPI, service: Service) -> None:
    @app.get("/healthz", response_model=Status)
    async def healthz() -> Status:
        """Whether the process lives."""
        return Status(status="ok")

    @app.get("/readyz", response_model=Status, responses={503: {"model": ErrorResponse}})
    async def readyz() -> Status:
        """Whether every model answers; 503 while one does not, and while the service is stopping."""
        if service.activity.draining:
            raise Unavailable("the service is stopping")
        missing = await service.backend.ready()
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


def _only_json(request: Request) -> None:
    kind, _, parameters = request.headers.get("content-type", "").lower().partition(";")
    if kind.strip() != "application/json":
        raise Refused(415, "send JSON with the header Content-Type: application/json")
    charset = parameters.partition("charset=")[2].split(";")[0].strip(' "')
    if charset not in ("", "utf-8", "utf8"):
        raise Refused(415, "send JSON in UTF-8")


def parse(body: bytes) -> TranslateRequest:
    """The request in a body; raise `Refused` (400 for what is not JSON, 422 for the rest) that never quotes it."""
    data = json_object(body)
    for key in data:  # said at the first, as with `only_strings`
        if key not in TranslateRequest.model_fields:
            raise Refused(422, errors.describe([{"loc": (key[:100],), "type": "extra_forbidden"}], _KNOWN))
    only_strings("text", data.get("text"))
    try:
        return TranslateRequest.model_validate(data)
    except ValidationError as error:
        raise Refused(422, errors.describe(error.errors(include_url=False, include_input=False), _KNOWN)) from None


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
