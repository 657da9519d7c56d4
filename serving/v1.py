"""Our own API: `/v1/translate`, streamed too, `/v1/score` and `/v1/models`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, TypeVar

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel

from nmt.inference.types import Hypothesis, Translation
from nmt.text.normalize import normalize
from nmt.text.segment import stretches
from serving import errors
from serving.errors import Refused
from serving.protocol import Grid, Overrides, ServedModel
from serving.routing import Wanted, choose
from serving.schema import (
    ActivationsRequest,
    ActivationsResponse,
    Alternative,
    Detail,
    ErrorResponse,
    Finish,
    ModelEntry,
    ModelList,
    Piece,
    ScoreRequest,
    ScoreResponse,
    Shown,
    TranslateRequest,
    TranslateResponse,
)
from serving.service import Service, check, json_object, read_body, validated

_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse} for status in (400, 401, 403, 404, 408, 413, 415, 422, 429, 500, 501, 503)
}
_NDJSON, _SSE = "application/x-ndjson", "text/event-stream"
_AHEAD = 64  # sentences of a stream that are translated at the same time
_Asked = TypeVar("_Asked", TranslateRequest, ScoreRequest, ActivationsRequest)


def add(app: FastAPI, service: Service) -> None:
    """Put the surface on `app`."""
    router = APIRouter(prefix="/v1", tags=["Strata"])

    @router.post("/translate", response_model=TranslateResponse, **_documented(TranslateRequest, streams=True))
    async def translate(request: Request) -> Response:
        """Translate a text or a list of texts. With `Accept: application/x-ndjson` or `text/event-stream` each sentence is sent when it and
        all before it are finished."""
        with service.activity.request():
            asked = await _asked(request, service, TranslateRequest)
            texts = [asked.text] if isinstance(asked.text, str) else asked.text
            wanted = Wanted(asked.source, asked.target, asked.model, _overrides(asked), asked.format)
            kind = _streamed(request)
            if kind is None:
                return JSONResponse(_answer(asked, *await service.translate(request, texts, wanted)))
            check(texts, wanted.overrides, service.config.limits)
            if (asked.n_best or 1) > 1 or asked.format != "text" or asked.prefix:
                raise Refused(422, "n_best, prefix and html can't be streamed: leave Accept out, or these")
            route = choose(wanted, await service.models(), service.config.pivot)
        pieces = _pieces(request, service, asked, texts, wanted, route)
        return StreamingResponse(_stream(service, pieces, route, kind), media_type=kind)

    @router.post("/score", response_model=ScoreResponse, **_documented(ScoreRequest))
    async def score(request: Request) -> JSONResponse:
        """What given translations are worth to a model. Each text is one sentence."""
        with service.activity.request():
            asked = await _asked(request, service, ScoreRequest)
            many = isinstance(asked.text, list)
            sources, targets = ([each] if isinstance(each, str) else each for each in (asked.text, asked.translation))
            if isinstance(asked.translation, list) != many or len(sources) != len(targets):
                raise Refused(422, "text and translation must have the same shape: one for each")
            wanted = Wanted(asked.source, asked.target, asked.model, _overrides(asked))
            model, found = await service.score(request, list(zip(sources, targets, strict=True)), wanted)
            scores = [each.score for each in found]
            details = [Shown(**_shown(asked, each)) for each in found]
            answer = ScoreResponse(score=scores if many else scores[0], model=model.info.name, details=details)
            return JSONResponse(answer.model_dump(exclude_none=True))

    @router.post("/activations", response_model=ActivationsResponse, **_documented(ActivationsRequest))
    async def activations(request: Request) -> Response:
        """What the layers of a model do with one sentence; 501 where PyTorch is not installed beside the models."""
        with service.activity.request():
            asked = await _asked(request, service, ActivationsRequest)
            wanted = Wanted(asked.source, asked.target, asked.model)
            model, found = await service.activations(request, asked.text, asked.translation, wanted)
            return await asyncio.to_thread(_activations, model, found)

    @router.get("/models", response_model=ModelList, responses={503: {"model": ErrorResponse}})
    async def list_models() -> ModelList:
        """The models that are served."""
        return ModelList(models=[_entry(model) for model in await service.models()])

    app.include_router(router)


def _documented(question: type[BaseModel], streams: bool = False) -> dict[str, Any]:
    body = {"required": True, "content": {"application/json": {"schema": question.model_json_schema()}}}
    responses: dict[int | str, dict[str, Any]] = dict(_ERRORS)
    if streams:
        line = {"schema": {"type": "string", "description": "lines of JSON: pieces, and at the end `done` or `error`"}}
        responses[200] = {"content": {_NDJSON: line, _SSE: line}}
    return {"responses": responses, "openapi_extra": {"requestBody": body}}


async def _asked(request: Request, service: Service, kind: type[_Asked]) -> _Asked:
    """The question, of a caller who may ask."""
    known = service.access.admitted(request)
    _only_json(request)
    asked = parse(await read_body(request, service.config.limits.body_seconds), kind)
    if not known:
        service.access.admit(request, asked.api_key)
    return asked


def _only_json(request: Request) -> None:
    kind, _, parameters = request.headers.get("content-type", "").lower().partition(";")
    if kind.strip() != "application/json":
        raise Refused(415, "send JSON with the header Content-Type: application/json")
    charset = parameters.partition("charset=")[2].split(";")[0].strip(' "')
    if charset not in ("", "utf-8", "utf8"):
        raise Refused(415, "send JSON in UTF-8")


def parse(body: bytes, kind: type[_Asked]) -> _Asked:
    """The request in a body; raise `Refused` (400 for what is not JSON, 422 for the rest) that never quotes it."""
    data = json_object(body)
    known = sorted((name for name in kind.model_fields if name != "api_key"), key=lambda name: name != "text")
    for key in data:  # said at the first, as with `only_strings`
        if key not in kind.model_fields:
            raise Refused(422, errors.describe([{"loc": (key[:100],), "type": "extra_forbidden"}], known))
    return validated(kind, data, 422)


def _overrides(asked: TranslateRequest | ScoreRequest) -> Overrides:
    alignment = asked.alignment or asked.attention or None
    if isinstance(asked, ScoreRequest):
        return Overrides(length_penalty=asked.length_penalty, alignment=alignment)
    return Overrides(
        asked.beam_size,
        asked.n_best,
        asked.length_penalty,
        asked.split_sentences,
        asked.keep_placeholders,
        alignment,
        prefix=asked.prefix or None,
        glossary=tuple(asked.glossary.items()) if asked.glossary else None,
    )


# --- answers ----------------------------------------------------------------------------------------------------------------


def _answer(asked: TranslateRequest, route: list[ServedModel], found: list[Translation]) -> dict[str, Any]:
    several = (asked.n_best or route[-1].defaults.n_best) > 1
    texts = [translation.text for translation in found]
    response = TranslateResponse(
        translation=texts[0] if isinstance(asked.text, str) else texts,
        **_by(route),
        details=[_detail(asked, item, several) for item in found],
    )
    return response.model_dump(exclude_none=True)


def _by(route: list[ServedModel]) -> dict[str, Any]:
    return {
        "model": " > ".join(model.info.name for model in route),
        "pivot": route[0].info.target_language if len(route) > 1 else None,
    }


def _detail(asked: TranslateRequest, found: Translation, several: bool = False) -> Detail:
    return Detail(
        truncated=found.truncated,
        segments=found.segments,
        source_tokens=found.source_tokens,
        target_tokens=found.target_tokens,
        source_subwords=list(found.source_subwords) if asked.attention and found.source_subwords else None,
        alternatives=[Alternative(text=each.text, **_shown(asked, each)) for each in found.hypotheses]
        if several
        else None,
        **_shown(asked, found.hypotheses[0]),
    )


def _shown(asked: TranslateRequest | ScoreRequest, found: Hypothesis) -> dict[str, Any]:
    return {
        "score": found.score,
        "tokens": [(token.piece, round(token.log_p, 6)) for token in found.tokens] if asked.tokens else None,
        "alignment": list(found.alignment) if asked.alignment else None,
        "anchors": list(found.anchors) if asked.alignment and found.anchors else None,
        "attention": [[[round(float(weight), 6) for weight in row] for row in part] for part in found.attention]
        if asked.attention
        else None,
    }


def _activations(model: ServedModel, found: Grid) -> JSONResponse:
    encoder, decoder = (
        [layer.astype(float).round(5).tolist() for layer in layers] for layers in (found.encoder, found.decoder)
    )
    answer = {
        "translation": found.translation,
        "model": model.info.name,
        "source_subwords": found.source,
        "target_subwords": found.target,
        "encoder": encoder,
        "decoder": decoder,
    }
    return JSONResponse(answer)


def _entry(model: ServedModel) -> ModelEntry:
    info = model.info
    return ModelEntry(
        name=info.name,
        source=info.source_language,
        target=info.target_language,
        targets=list(info.targets),
        parameters=info.parameters,
        architecture=info.architecture,
        scores=info.scores,
        digest=info.digest,
        beam_size=model.defaults.beam_size,
        length_penalty=model.defaults.length_penalty,
    )


# --- streams ----------------------------------------------------------------------------------------------------------------


def _streamed(request: Request) -> str | None:
    """The kind of stream that is asked for, if one is."""
    accepted = [each.partition(";")[0].strip() for each in request.headers.get("accept", "").lower().split(",")]
    return next((kind for kind in (_NDJSON, _SSE) if kind in accepted), None)


async def _stream(
    service: Service, pieces: AsyncIterator[Piece], route: list[ServedModel], kind: str
) -> AsyncIterator[str]:
    """A line for each sentence, and one at the end; an error in the middle is the last line."""

    def line(item: BaseModel | dict[str, Any]) -> str:
        data = item.model_dump(exclude_none=True) if isinstance(item, BaseModel) else item
        text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
        return f"data: {text}\n\n" if kind == _SSE else f"{text}\n"

    with service.activity.request():
        try:
            async for piece in pieces:
                yield line(piece)
            yield line(Finish(**_by(route)))
        except asyncio.CancelledError:
            raise
        except Exception as error:
            yield line({"error": errors.problem(errors.told(error))})


async def _pieces(
    request: Request,
    service: Service,
    asked: TranslateRequest,
    texts: list[str],
    wanted: Wanted,
    route: list[ServedModel],
) -> AsyncIterator[Piece]:
    sentences = asked.split_sentences if asked.split_sentences is not None else route[0].defaults.split_sentences
    whole = replace(wanted, overrides=replace(wanted.overrides, split_sentences=False))
    room = asyncio.Semaphore(_AHEAD)

    async def one(text: str) -> Translation:
        async with room:
            return (await service.translate(request, [text], whole))[1][0]

    work: list[tuple[int, str, asyncio.Task[Translation] | None]] = []
    for index, text in enumerate(texts):
        found, rest = stretches(text, route[0].info.source_language, sentences)
        work += [(index, each.before, asyncio.create_task(one(each.text))) for each in found]
        if not found and not normalize(text):
            work.append((index, "", None))
        elif rest:
            work.append((index, rest, None))
    try:
        for index, before, task in work:
            if task is None:
                yield Piece(index=index, translation=before)
            else:
                result = await task
                yield Piece(index=index, translation=before + result.text, detail=_detail(asked, result))
    finally:
        for _, _, task in work:
            if task is not None:
                task.cancel()
        await asyncio.gather(*(task for *_, task in work if task is not None), return_exceptions=True)
