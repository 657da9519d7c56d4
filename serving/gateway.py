"""The HTTP surface: a FastAPI app over any `Backend`. Checks, limits, deadline and words; no Ray, no model."""

from __future__ import annotations

from importlib import resources

from fastapi import FastAPI, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse

import nmt
from serving import deepl, errors, libretranslate, uploads, v1
from serving.config import ServeConfig
from serving.errors import Refused, Told
from serving.jobs import Desk
from serving.libretranslate import LibreError
from serving.metrics import count_request
from serving.middleware import BodyLimit, Measured, RequestId
from serving.protocol import Backend, Unavailable
from serving.schema import ErrorResponse, Status
from serving.service import Activity, Service

_APIS = {
    "/v1/translate": "v1",
    "/v1/score": "v1",
    "/translate": "libretranslate",
    "/v2/translate": "deepl",
}  # what is measured, and what it is called
_HEALTH = "/v2/health"  # as the Open Inference Protocol has it
_UPLOADS = ("/v1/documents", "/translate_file", "/v2/document")
_FORM_BYTES = 65_536  # of a form, beside the file
_ASSETS = {
    "swagger-ui-bundle.js": "application/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}


def create_app(
    backend: Backend,
    config: ServeConfig,
    activity: Activity | None = None,
    request_ids: bool = True,
    desk: Desk | None = None,
) -> FastAPI:
    """The service's app. `request_ids=False` where the server before it already puts X-Request-ID on responses; `desk` as for `Service`."""
    service = Service(backend, config, activity, desk)
    app = FastAPI(title="Strata", version=nmt.__version__, docs_url=None, redoc_url=None)
    shapes = {
        _HEALTH: _inference_shape,
        deepl.PATH: deepl.shape,
        **dict.fromkeys(libretranslate.PATHS, libretranslate.shape),
    }
    larger = dict.fromkeys(_UPLOADS, config.files.bytes + _FORM_BYTES)
    app.add_middleware(BodyLimit, limit=config.limits.body_bytes, shapes=shapes, larger=larger)
    app.add_middleware(Measured, apis=_APIS, observe=count_request)
    if request_ids:
        app.add_middleware(RequestId)
    errors.install(app, shapes)
    v1.add(app, service)
    uploads.add(app, service)
    libretranslate.add(app, service)
    deepl.add(app, service)
    _add_state(app, service)
    _add_docs(app)
    return app


def _add_state(app: FastAPI, service: Service) -> None:
    @app.get("/healthz", response_model=Status)
    async def healthz() -> Status:
        """Whether the process lives."""
        return Status(status="ok")

    @app.get("/readyz", response_model=Status, responses={503: {"model": ErrorResponse}})
    async def readyz() -> Status:
        """Whether every model answers; 503 while one does not, and while the service is stopping."""
        await _check_ready(service)
        return Status(status="ready")

    @app.get(f"{_HEALTH}/live", tags=["Open Inference"])
    async def live() -> dict[str, bool]:
        """Whether the process lives."""
        return {"live": True}

    @app.get(f"{_HEALTH}/ready", tags=["Open Inference"], responses={503: {"model": LibreError}})
    async def ready() -> dict[str, bool]:
        """Whether every model answers."""
        await _check_ready(service)
        return {"ready": True}


async def _check_ready(service: Service) -> None:
    if service.activity.draining:
        raise Unavailable("the service is stopping")
    missing = await service.backend.ready()
    if missing:
        raise Unavailable(f"not ready: {', '.join(missing)}")


def _inference_shape(what: Told) -> JSONResponse:
    return JSONResponse({"error": what.message}, what.status, errors.headers(what))


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
