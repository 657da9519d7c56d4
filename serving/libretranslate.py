"""LibreTranslate's API (version 1.9), for the many clients that speak it: its shapes and words, stricter where it is lenient.

Errors are `{"error": "words"}`. Fields come as JSON, as a form, or in the query string. With `source: auto` each text is told by itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import quote

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from nmt.documents.formats import MEDIA_TYPES
from nmt.inference.types import Translation
from nmt.text.language import Detected
from serving import errors, languages
from serving.errors import Refused, Told
from serving.mixed import detect_sources, translate_each
from serving.protocol import DeadlineExceeded, Overrides, ServedModel
from serving.routing import Wanted
from serving.service import Service, check, read_fields, validated
from serving.uploads import FORM, download, found, multipart, read_upload, submit

PATHS = ("/translate", "/detect", "/languages", "/frontend", "/health", "/spec", "/translate_file", "/download_file")
_STATUS = {401: 403, 404: 400, 415: 400, 422: 400}  # what LibreTranslate answers with instead; its clients know these
_AUTO = "auto"
_LOOK_S = 0.1  # between looks at a document
_FORM = "application/x-www-form-urlencoded"


class _Question(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)

    q: str | list[str] = Field(description="one text, or a list of them; the answer has the same shape")
    api_key: Annotated[str, Field(max_length=200)] | None = Field(None, description="where keys are asked for")

    @property
    def texts(self) -> list[str]:
        return [self.q] if isinstance(self.q, str) else self.q


class TranslateQuestion(_Question):
    """What `POST /translate` takes."""

    source: Annotated[str, Field(max_length=100)] = Field(_AUTO, description="source language, or auto")
    target: Annotated[str, Field(max_length=100)] = Field(description="target language")
    format: Literal["text", "html"] = Field("text", description="what the texts are; html keeps its tags")
    alternatives: Annotated[int, Field(ge=0)] = Field(0, description="further translations of each text")


class DetectQuestion(_Question):
    """What `POST /detect` takes."""


_Asked = TypeVar("_Asked", bound=_Question)


class Found(BaseModel):
    """A language, and from 0 to 100 how sure it is."""

    confidence: float
    language: str


class TranslateAnswer(BaseModel):
    """What `POST /translate` answers: for a list of texts, a list of each."""

    translatedText: str | list[str]
    detectedLanguage: Found | list[Found] | None = Field(None, description="with source auto")
    alternatives: list[str] | list[list[str]] | None = Field(None, description="where they were asked for")


class Spoken(BaseModel):
    """A language of the service."""

    code: str
    name: str
    targets: list[str] = Field(description="the languages that it can be translated into")


class FileAnswer(BaseModel):
    """What `POST /translate_file` answers."""

    translatedFileUrl: str


class LibreError(BaseModel):
    """The body of every error."""

    error: str


def shape(what: Told) -> JSONResponse:
    """An error as LibreTranslate has it."""
    return JSONResponse({"error": what.message}, _STATUS.get(what.status, what.status), errors.headers(what))


def add(app: FastAPI, service: Service) -> None:
    """Put the surface on `app`."""
    router = APIRouter(tags=["LibreTranslate"])
    _add_translate(router, service)
    _add_detect(router, service)
    _add_files(router, service)
    _add_state(router, service)
    app.include_router(router)

    @app.get("/spec", include_in_schema=False)
    async def spec() -> dict[str, Any]:
        """The OpenAPI document, where LibreTranslate has it."""
        return app.openapi()


def _documented(question: type[BaseModel]) -> dict[str, Any]:
    schema = question.model_json_schema()
    body = {"requestBody": {"content": {kind: {"schema": schema} for kind in ("application/json", _FORM)}}}
    return {"responses": _ERRORS, "openapi_extra": body}


_Detection = list[Found] | list[list[Found]]
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": LibreError} for status in (400, 403, 408, 413, 429, 500, 503)
}


def _add_translate(router: APIRouter, service: Service) -> None:
    @router.post("/translate", response_model=TranslateAnswer, **_documented(TranslateQuestion))
    async def translate(request: Request) -> JSONResponse:
        """Translate a text or a list of texts, as LibreTranslate does."""
        with service.activity.request():
            asked = await _asked(request, service, TranslateQuestion)
            overrides = Overrides(n_best=asked.alternatives + 1)
            check(asked.texts, overrides, service.config.limits)
            wanted = Wanted(None, asked.target, None, overrides, asked.format)
            detected = await detect_sources(service, asked.texts, wanted) if asked.source == _AUTO else None
            sources = [each.language for each in detected] if detected else [asked.source] * len(asked.texts)
            found = await translate_each(request, service, asked.texts, sources, wanted)
            return JSONResponse(_answer(asked, found, detected))


async def _asked(request: Request, service: Service, kind: type[_Asked]) -> _Asked:
    """The question, of a caller who may ask."""
    known = service.access.admitted(request)
    fields = await read_fields(request, service.config.limits.body_seconds)
    number = fields.get("alternatives")
    if isinstance(number, str) and number.isdecimal() and len(number) < 10:
        fields["alternatives"] = int(number)
    asked = validated(kind, fields, 400)
    if not known:
        service.access.admit(request, asked.api_key)
    return asked


def _answer(
    asked: TranslateQuestion, found: Sequence[Translation | None], detected: Sequence[Detected] | None
) -> dict[str, Any]:
    """One of each for a text, a list of each for a list."""
    columns: dict[str, list[Any]] = {
        "translatedText": [each.text if each else text for each, text in zip(found, asked.texts, strict=True)]
    }
    if detected is not None:
        columns["detectedLanguage"] = [_shown(each) for each in detected]
    if asked.alternatives:
        columns["alternatives"] = [[other.text for other in each.hypotheses[1:]] if each else [] for each in found]
    return {name: values[0] if isinstance(asked.q, str) else values for name, values in columns.items()}


def _shown(found: Detected) -> dict[str, Any]:
    return {"confidence": round(100 * found.confidence, 1), "language": found.language}


def _add_detect(router: APIRouter, service: Service) -> None:
    @router.post("/detect", response_model=_Detection, **_documented(DetectQuestion))
    async def detect(request: Request) -> JSONResponse:
        """Which of the service's languages a text is in; for a list of texts, a list of such answers."""
        with service.activity.request():
            asked = await _asked(request, service, DetectQuestion)
            check(asked.texts, Overrides(), service.config.limits)
            spoken = _spoken(await service.models(), service.config.pivot)
            found = [
                [_shown(each) for each in one or [Detected(next(iter(spoken)), 0.0)]]
                for one in await languages.detect(asked.texts, list(spoken))
            ]
            return JSONResponse(found[0] if isinstance(asked.q, str) else found)


def _spoken(models: list[ServedModel], pivot: bool) -> dict[str, list[str]]:
    """All languages, those that are no source with no targets."""
    ways = languages.pairs(models, pivot)
    return ways | {target: [] for targets in ways.values() for target in targets if target not in ways}


def _add_files(router: APIRouter, service: Service) -> None:
    @router.post("/translate_file", response_model=FileAnswer, responses=_ERRORS, openapi_extra=multipart(FORM))
    async def translate_file(request: Request) -> JSONResponse:
        """Translate a document, and wait for it."""
        with service.activity.request():
            _, upload = await read_upload(request, service)
            progress = await submit(service, upload)
            ends = time.monotonic() + service.config.files.wait_s
            while progress.state in ("queued", "translating"):
                if time.monotonic() > ends:
                    await service.desk.drop(progress.number)
                    raise DeadlineExceeded(
                        f"not translated within {service.config.files.wait_s:g} s: use /v1/documents"
                    )
                await asyncio.sleep(_LOOK_S)
                progress = await found(service, progress.number)
            if progress.error:
                await service.desk.drop(progress.number)
                raise Refused(400, progress.error)
            name = quote(f"{progress.number}.{progress.name}")
            return JSONResponse({"translatedFileUrl": f"{service.access.base_url(request)}/download_file/{name}"})

    @router.get("/download_file/{name}", response_class=Response, responses=_ERRORS)
    async def download_file(name: str) -> Response:
        """Fetch a document by the address that /translate_file gave."""
        progress = await found(service, name.partition(".")[0])
        content = await service.desk.fetch(progress.number)
        if content is None:
            raise Refused(404, "there is no such document, or it has expired")
        return download(progress.name, content)


def _add_state(router: APIRouter, service: Service) -> None:
    @router.get("/languages")
    async def list_languages() -> list[Spoken]:
        """The languages of the service, and into which each can be translated."""
        ways = _spoken(await service.models(), service.config.pivot)
        return [
            Spoken(code=code, name=languages.language_name(code), targets=targets) for code, targets in ways.items()
        ]

    @router.get("/frontend/settings")
    async def settings() -> dict[str, Any]:
        """What a page in front of the service needs to know."""
        ways, limits = languages.pairs(await service.models(), service.config.pivot), service.config.limits
        target = next(iter(ways.values()))[0]
        return {
            "apiKeys": service.config.keys is not None,
            "keyRequired": service.config.keys is not None,
            "charLimit": limits.characters,
            "frontendTimeout": 500,
            "suggestions": False,
            "filesTranslation": True,
            "supportedFilesFormat": list(MEDIA_TYPES),
            "language": {
                "source": {"code": _AUTO, "name": "Auto Detect"},
                "target": {"code": target, "name": languages.language_name(target)},
            },
        }

    @router.get("/health")
    async def health() -> dict[str, str]:
        """Whether the process lives."""
        return {"status": "ok"}
