"""DeepL's API v2, for the clients that speak it: texts, documents, languages and usage.

Errors are `{"message": "words"}`. What a model of ours can't do is refused (a formality, DeepL's own glossaries); what does not change a
translation is taken and left aside (`context`, `model_type`).
"""

from __future__ import annotations

import math
import secrets
from typing import Annotated, Any, Literal

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from nmt.documents.markup import Xml
from serving import errors, languages
from serving.errors import Refused, Told
from serving.jobs import Progress, State
from serving.mixed import detect_sources, translate_each
from serving.protocol import Overrides
from serving.routing import Wanted
from serving.service import Service, check, read_fields, validated
from serving.uploads import FORM, download, found, multipart, read_upload, submit

PATH = "/v2"
_STATUS = {401: 403, 415: 400, 422: 400}
_UNLIMITED = 10**12  # characters a month, where there is no quota


def _tags(value: object) -> object:
    """A list of tags, or their names with commas between."""
    values = value if isinstance(value, list) else [value]
    return [tag.strip().lower() for each in values if isinstance(each, str) for tag in each.split(",") if tag.strip()]


Tags = Annotated[list[str], BeforeValidator(_tags)]


class DeepLQuestion(BaseModel):
    """What `POST /v2/translate` takes."""

    model_config = ConfigDict(extra="ignore")

    text: str | list[str] = Field(description="one text, or a list of them")
    target_lang: Annotated[str, Field(max_length=100)] = Field(description="target language")
    source_lang: Annotated[str, Field(max_length=100)] | None = Field(None, description="left out, each text is told")
    split_sentences: Literal["0", "1", "nonewlines"] = Field("1", description="nonewlines: a line end is a space")
    preserve_formatting: bool = Field(False, description="formatting is always preserved")
    formality: Literal["default", "prefer_more", "prefer_less", "more", "less"] = Field("default")
    tag_handling: Literal["html", "xml"] | None = Field(None, description="what the texts are; plain text without it")
    outline_detection: bool = Field(True, description="of XML: tags beside text are inline")
    splitting_tags: Tags = Field([], description="of XML: tags that divide the text")
    non_splitting_tags: Tags = Field([], description="of XML: tags that don't")
    ignore_tags: Tags = Field([], description="of XML: tags whose content stays")
    glossary_id: str | None = Field(None, description="refused: there are none here")
    auth_key: Annotated[str, Field(max_length=200)] | None = Field(None, description="better in the header")


class DeepLTranslation(BaseModel):
    """A translated text."""

    detected_source_language: str
    text: str
    billed_characters: int


class DeepLAnswer(BaseModel):
    """What `POST /v2/translate` answers."""

    translations: list[DeepLTranslation]


class DeepLLanguage(BaseModel):
    """A language of the service."""

    language: str
    name: str
    supports_formality: bool = False


class DeepLUsage(BaseModel):
    """How much has been translated this month, and how much may be."""

    character_count: int
    character_limit: int


class DeepLTicket(BaseModel):
    """By what a document is asked for."""

    document_id: str
    document_key: str


class DeepLDocument(BaseModel):
    """How far a document is."""

    document_id: str
    status: State
    seconds_remaining: int | None = None
    billed_characters: int | None = None
    error_message: str | None = None


class DeepLError(BaseModel):
    """The body of every error."""

    message: str


_KEY = {
    "requestBody": {
        "required": True,
        "content": {
            kind: {
                "schema": {
                    "type": "object",
                    "required": ["document_key"],
                    "properties": {"document_key": {"type": "string"}},
                }
            }
            for kind in ("application/json", "application/x-www-form-urlencoded")
        },
    }
}
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": DeepLError} for status in (400, 403, 404, 408, 413, 429, 456, 500, 503)
}


def shape(what: Told) -> JSONResponse:
    """An error as DeepL has it."""
    status = 456 if what.code == "quota_exceeded" else 400 if what.code == "unknown_model" else what.status
    return JSONResponse({"message": what.message}, _STATUS.get(status, status), errors.headers(what))


def add(app: FastAPI, service: Service) -> None:
    """Put the surface on `app`."""
    router = APIRouter(prefix=PATH, tags=["DeepL"])
    schema = DeepLQuestion.model_json_schema()
    kinds = ("application/json", "application/x-www-form-urlencoded")
    body = {"requestBody": {"required": True, "content": {kind: {"schema": schema} for kind in kinds}}}

    @router.post("/translate", response_model=DeepLAnswer, responses=_ERRORS, openapi_extra=body)
    async def translate(request: Request) -> JSONResponse:
        """Translate texts, as DeepL does."""
        with service.activity.request():
            asked = await _asked(request, service)
            return JSONResponse({"translations": await _translations(request, service, asked)})

    @router.get("/languages", response_model=list[DeepLLanguage], responses=_ERRORS)
    async def list_languages(request: Request) -> list[DeepLLanguage]:
        """The languages of the service: those of `type` source, or target."""
        fields = await _admitted(request, service)
        kind = fields.get("type", "source")
        if kind not in ("source", "target"):
            raise Refused(400, "type: source or target was expected")
        ways = languages.pairs(await service.models(), service.config.pivot)
        codes = sorted(ways if kind == "source" else {target for targets in ways.values() for target in targets})
        return [DeepLLanguage(language=code.upper(), name=languages.language_name(code)) for code in codes]

    @router.get("/usage", response_model=DeepLUsage, responses=_ERRORS)
    async def usage(request: Request) -> DeepLUsage:
        """How much the caller has had translated this month, and may have."""
        await _admitted(request, service)
        used = service.quota.used(request.state.caller)
        return DeepLUsage(character_count=used, character_limit=service.quota.limit or _UNLIMITED)

    _add_documents(router, service)
    app.include_router(router)


_FORM = FORM | {
    "required": ["file", "target_lang"],
    "properties": {
        "file": FORM["properties"]["file"],
        "target_lang": FORM["properties"]["target"],
        "source_lang": FORM["properties"]["source"],
        "filename": {"type": "string", "maxLength": 200},
    },
}


def _add_documents(router: APIRouter, service: Service) -> None:
    @router.post("/document", response_model=DeepLTicket, responses=_ERRORS, openapi_extra=multipart(_FORM))
    async def upload_document(request: Request) -> DeepLTicket:
        """Take a document in."""
        with service.activity.request():
            fields, upload = await read_upload(request, service, "target_lang", "source_lang", "auth_key")
            _check_formality(fields.get("formality", ""), fields.get("glossary_id"))
            if (
                fields.get("output_format", upload.name.rpartition(".")[2]).lower()
                != upload.name.rpartition(".")[2].lower()
            ):
                raise Refused(400, "output_format: a document stays of the kind that it is")
            progress = await submit(service, upload)
            return DeepLTicket(document_id=progress.number, document_key=progress.key)

    @router.post("/document/{document_id}", response_model=DeepLDocument, responses=_ERRORS, openapi_extra=_KEY)
    async def document_state(request: Request, document_id: str) -> JSONResponse:
        """How far a document is."""
        progress = await _theirs(request, service, document_id)
        answer = DeepLDocument(
            document_id=document_id,
            status=progress.state,
            seconds_remaining=None if progress.seconds_left is None else math.ceil(progress.seconds_left),
            billed_characters=progress.characters if progress.state == "done" else None,
            error_message=progress.error,
        )
        return JSONResponse(answer.model_dump(exclude_none=True))

    @router.post("/document/{document_id}/result", response_class=Response, responses=_ERRORS, openapi_extra=_KEY)
    async def document_result(request: Request, document_id: str) -> Response:
        """The translated document, once."""
        progress = await _theirs(request, service, document_id)
        content = await service.desk.fetch(document_id)
        if content is None:
            raise Refused(503, progress.error or "Document translation is not done")
        await service.desk.drop(document_id)
        return download(progress.name, content)


async def _theirs(request: Request, service: Service, number: str) -> Progress:
    fields = await _admitted(request, service)
    progress = await found(service, number)
    if not secrets.compare_digest(str(fields.get("document_key", "")).encode(), progress.key.encode()):
        raise Refused(404, "there is no such document, or it has another document_key")
    return progress


def _check_formality(formality: str, glossary: str | None) -> None:
    if formality in ("more", "less"):
        raise Refused(400, "formality is not supported for this target_lang")
    if glossary:
        raise Refused(404, "glossary_id: there is no such glossary")


async def _admitted(request: Request, service: Service) -> dict[str, Any]:
    """The fields of the request of a caller who may ask."""
    known = service.access.admitted(request)
    fields = await read_fields(request, service.config.limits.body_seconds)
    if not known:
        key = fields.get("auth_key")
        service.access.admit(request, key if isinstance(key, str) else None)
    return fields


async def _asked(request: Request, service: Service) -> DeepLQuestion:
    asked = validated(DeepLQuestion, await _admitted(request, service), 400)
    _check_formality(asked.formality, asked.glossary_id)
    return asked


async def _translations(request: Request, service: Service, asked: DeepLQuestion) -> list[dict[str, Any]]:
    texts = [asked.text] if isinstance(asked.text, str) else asked.text
    billed = [len(text) for text in texts]
    if asked.split_sentences == "nonewlines" and asked.tag_handling is None:
        texts = [" ".join(text.splitlines()) for text in texts]
    overrides = Overrides(split_sentences=False if asked.split_sentences == "0" else None)
    check(texts, overrides, service.config.limits)
    kept, split, inline = (
        frozenset(tags) for tags in (asked.ignore_tags, asked.splitting_tags, asked.non_splitting_tags)
    )
    xml = Xml(asked.outline_detection, inline, split, kept)
    wanted = Wanted(None, asked.target_lang, None, overrides, asked.tag_handling or "text", xml)
    if asked.source_lang:
        sources = [asked.source_lang] * len(texts)
    else:
        sources = [each.language for each in await detect_sources(service, texts, wanted)]
    found = await translate_each(request, service, texts, sources, wanted)
    return [
        {
            "detected_source_language": source.upper(),
            "text": translation.text if translation else text,
            "billed_characters": characters,
        }
        for source, translation, text, characters in zip(sources, found, texts, billed, strict=True)
    ]
