"""The HTTP interface as a FastAPI application over any `Backend`; knows nothing of Ray."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles

from nmt import __version__
from nmt.inference.types import Translation
from serving.config import ServeConfig
from serving.contract import Backend, Late, Lifecycle, Refused, Unavailable
from serving.edge import Guard, error_response
from serving.schema import (
    ErrorResponse,
    ModelsResponse,
    TranslateRequest,
    TranslateResponse,
    choose_model,
    read_request,
    to_response,
)

logger = logging.getLogger(__name__)

READINESS_TIMEOUT_S = 3.0
RETRY_SOON_S = 2
HTTP_CODES = {404: "not_found", 405: "method_not_allowed"}
HTTP_WORDS = {404: "there is nothing at this path; see /docs", 405: "this path does not accept that method; see /docs"}
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse, "description": words}
    for status, words in {
        400: "The body is not JSON",
        408: "The body took too long to arrive",
        413: "The request is over a limit on length or count",
        415: "The body is not declared as JSON",
        422: "The request asks for something that cannot be done",
        429: "Too much work is waiting; see Retry-After",
        500: "A defect of the server",
        503: "No answer in time, or the service is starting or stopping; see Retry-After",
    }.items()
}
REQUEST_BODY = {
    "required": True,
    "content": {"application/json": {"schema": TranslateRequest.model_json_schema()}},
}


def create_app(backend: Backend, config: ServeConfig, lifecycle: Lifecycle | None = None) -> FastAPI:
    """The service's HTTP interface: /v1/translate, /v1/models, /healthz, /readyz, /docs and /openapi.json."""
    state = lifecycle or Lifecycle()
    app = FastAPI(
        title="Strata",
        version=__version__,
        summary="Translation by deep LSTM networks.",
        docs_url=None,  # FastAPI's page loads its script from elsewhere; ours is served from here
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
    )
    app.add_middleware(Guard, limits=config.limits)
    _add_errors(app)
    _add_docs(app)
    _add_health(app, backend, state)
    _add_translation(app, backend, config, state)
    return app


def _add_translation(app: FastAPI, backend: Backend, config: ServeConfig, state: Lifecycle) -> None:
    @app.post(
        "/v1/translate",
        response_model=TranslateResponse,
        responses=ERRORS,
        openapi_extra={"requestBody": REQUEST_BODY},
        summary="Translate one text or a list of texts",
    )
    async def translate(request: Request) -> Response:
        async with _counted(state), _deadline(config.deadline_s):
            headers = request.headers
            encoding = headers.get("content-encoding", "")
            body = read_request(await request.body(), headers.get("content-type", ""), encoding, config.limits)
            cards = await backend.cards()
            if not cards:
                raise Unavailable("the models are still loading", RETRY_SOON_S)
            key = choose_model(body, cards)
            options = body.options(cards[key].defaults, config.limits)
            translations: list[Translation] = []
            if body.texts:
                translations = await backend.translate(key, body.texts, options, config.deadline_s)
            return JSONResponse(to_response(body, cards[key], translations))

    @app.get("/v1/models", response_model=ModelsResponse, responses={503: ERRORS[503]}, summary="Models and limits")
    async def models() -> Response:
        async with _deadline(config.deadline_s):
            cards = await backend.cards()
        entries = [{**asdict(card), "defaults": card.defaults.model_dump()} for card in cards.values()]
        return JSONResponse({"models": entries, "limits": config.limits.model_dump()})


def _add_health(app: FastAPI, backend: Backend, state: Lifecycle) -> None:
    @app.get("/healthz", summary="The process lives")
    async def healthz() -> Response:
        return JSONResponse({"status": "ok"})

    @app.get("/readyz", responses={503: {"description": "Not ready"}}, summary="Every model has translated a canary")
    async def readyz() -> Response:
        if state.draining:
            return error_response(503, "draining", "the service is stopping", RETRY_SOON_S)
        try:
            async with asyncio.timeout(READINESS_TIMEOUT_S):
                problems = {key: problem for key, problem in (await backend.readiness()).items() if problem}
        except TimeoutError:
            problems = {"service": "no answer from the replicas"}
        if problems:
            words = "; ".join(f"{key}: {problem}" for key, problem in problems.items())
            return error_response(503, "not_ready", words, RETRY_SOON_S)
        return JSONResponse({"status": "ready"})


def _add_docs(app: FastAPI) -> None:
    app.mount("/docs/assets", StaticFiles(packages=[("fastapi_swagger", "resources")]), name="docs-assets")

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        root = request.scope.get("root_path", "").rstrip("/")
        return get_swagger_ui_html(
            openapi_url=f"{root}{app.openapi_url}",
            title="Strata",
            swagger_js_url=f"{root}/docs/assets/swagger-ui-bundle.js",
            swagger_css_url=f"{root}/docs/assets/swagger-ui.css",
            swagger_favicon_url=f"{root}/docs/assets/favicon-32x32.png",
        )


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        return error_response(error.status, error.code, str(error), error.retry_after_s)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        code = HTTP_CODES.get(error.status_code, "http_error")
        response = error_response(error.status_code, code, HTTP_WORDS.get(error.status_code, str(error.detail)))
        response.headers.update(error.headers or {})  # 405 says in Allow what is allowed
        return response


@asynccontextmanager
async def _counted(state: Lifecycle) -> AsyncIterator[None]:
    """Count a request as in progress; refuse it when the service is to stop."""
    if state.draining:
        raise Unavailable("the service is stopping; try again later", RETRY_SOON_S)
    state.in_flight += 1
    try:
        yield
    finally:
        state.in_flight -= 1


@asynccontextmanager
async def _deadline(seconds: float) -> AsyncIterator[None]:
    """The gateway's own clock: an answer comes in time even when what lies behind it hangs."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise Late(f"no translation within {seconds:g} s; send less at once or try again later", RETRY_SOON_S) from None
