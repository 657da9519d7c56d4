"""Files in requests: read from a form, taken to the desk, and fetched from there in our own words."""

from __future__ import annotations

import asyncio
import re
from dataclasses import asdict
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from nmt.documents.formats import MEDIA_TYPES, kind_of
from serving.errors import Refused
from serving.jobs import Progress, State, Upload
from serving.schema import ErrorResponse
from serving.service import Service

_FIELDS = 20
_MULTIPART = "multipart/form-data"
_GONE = "there is no such document: it has expired, or the service was started anew or changed since; send it again"


class DocumentState(BaseModel):
    """How far a document is."""

    id: str
    name: str
    state: State
    source: str | None = Field(None, description="its language, given or told")
    target: str
    passages: int
    done: int = Field(description="passages that are translated")
    characters: int
    seconds_left: float | None = Field(None, description="while it is being translated")
    truncated: int = Field(description="passages that the length limit ended: text may be missing there")
    error: str | None = Field(None, description="why it could not be translated")


_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse} for status in (400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 500, 503)
}
FORM: dict[str, Any] = {
    "type": "object",
    "required": ["file", "target"],
    "properties": {
        "file": {"type": "string", "format": "binary", "description": f"one of: {' '.join(MEDIA_TYPES)}"},
        "target": {"type": "string", "maxLength": 100},
        "source": {"type": "string", "maxLength": 100, "description": "left out or auto: it is told"},
    },
}


def multipart(schema: dict[str, Any]) -> dict[str, Any]:
    """How a form with a file is described in the OpenAPI document."""
    return {"requestBody": {"required": True, "content": {_MULTIPART: {"schema": schema}}}}


async def read_upload(
    request: Request, service: Service, target: str = "target", source: str = "source", key: str = "api_key"
) -> tuple[dict[str, str], Upload]:
    """The fields of a form and the file in it, of a caller who may ask; what the fields are called. Raises `Refused`."""
    known = service.access.admitted(request)
    if not request.headers.get("content-type", "").lower().startswith(_MULTIPART):
        raise Refused(415, f"send a form as {_MULTIPART}, with the file in it")
    try:
        async with asyncio.timeout(service.config.limits.body_seconds):
            form = await request.form(max_files=1, max_fields=_FIELDS)
    except TimeoutError:
        raise Refused(408, f"the body did not arrive within {service.config.limits.body_seconds:g} s") from None
    except HTTPException as error:
        raise Refused(400, f"the form can't be read: {error.detail}") from None
    try:
        fields = {name: value for name, value in form.multi_items() if isinstance(value, str)}
        if not known:
            service.access.admit(request, fields.get(key))
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise Refused(422, "missing key 'file'")
        if not fields.get(target):
            raise Refused(422, f"missing key {target!r}")
        if any(len(value) > 200 for value in fields.values()):
            raise Refused(422, "a field of the form is too long")
        name = re.sub(r"[^\w. ()-]", "_", (fields.get("filename") or file.filename or "").rsplit("/", 1)[-1])[-100:]
        said = fields.get(source, "").lower()
        caller = getattr(request.state, "caller", "")
        content = await file.read()
        return fields, Upload(name, content, fields[target], None if said in ("", "auto") else said, caller)
    finally:
        await form.close()


async def submit(service: Service, upload: Upload) -> Progress:
    """Take a document in, against the quota of its caller."""
    progress = await service.desk.submit(upload)
    if not service.quota.take(upload.caller, progress.characters):
        await service.desk.drop(progress.number)
        raise Refused(429, f"the quota of {service.quota.limit} characters a month is used up", "quota_exceeded")
    return progress


def download(name: str, content: bytes) -> Response:
    """A file as an answer, which a browser saves and never shows."""
    headers = {
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name)}",
        "X-Content-Type-Options": "nosniff",
    }
    return Response(content, media_type=MEDIA_TYPES[kind_of(name)], headers=headers)


def add(app: FastAPI, service: Service) -> None:
    """Put `/v1/documents` on `app`."""
    router = APIRouter(prefix="/v1/documents", tags=["Documents"])

    @router.post("", status_code=202, response_model=DocumentState, responses=_ERRORS, openapi_extra=multipart(FORM))
    async def upload_document(request: Request) -> JSONResponse:
        """Take a document in; it is translated while you ask how far it is."""
        with service.activity.request():
            _, upload = await read_upload(request, service)
            return JSONResponse(_shown(await submit(service, upload)), 202)

    @router.get("/{document_id}", response_model=DocumentState, responses=_ERRORS)
    async def document_state(request: Request, document_id: str) -> JSONResponse:
        """How far a document is."""
        _admit(request, service)
        return JSONResponse(_shown(await found(service, document_id)))

    @router.get("/{document_id}/result", response_class=Response, responses={**_ERRORS, 200: {"content": _ANY}})
    async def document_result(request: Request, document_id: str) -> Response:
        """The translated document; 409 while it is not finished."""
        _admit(request, service)
        progress = await found(service, document_id)
        content = await service.desk.fetch(document_id)
        if content is None:
            raise Refused(409, progress.error or f"the document is {progress.state}", "not_finished")
        return download(progress.name, content)

    @router.delete("/{document_id}", status_code=204, responses=_ERRORS)
    async def delete_document(request: Request, document_id: str) -> Response:
        """Forget a document, finished or not."""
        _admit(request, service)
        await found(service, document_id)
        await service.desk.drop(document_id)
        return Response(status_code=204)

    app.include_router(router)


_ANY: dict[str, Any] = {
    media: {"schema": {"type": "string", "format": "binary"}} for media in sorted(set(MEDIA_TYPES.values()))
}


def _admit(request: Request, service: Service) -> None:
    if not service.access.admitted(request):
        service.access.admit(request, None)


async def found(service: Service, number: str) -> Progress:
    """How far a document is; raise `Refused` (404) for one that is not there."""
    progress = await service.desk.look(number)
    if progress is None:
        raise Refused(404, _GONE, "unknown_document")
    return progress


def _shown(progress: Progress) -> dict[str, Any]:
    fields = asdict(progress) | {"id": progress.number}
    return DocumentState.model_validate({name: fields[name] for name in DocumentState.model_fields}).model_dump(
        exclude_none=True
    )
