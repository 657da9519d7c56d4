"""Every error of the HTTP surface: `{"error": {"code": ..., "message": ...}}`, or in the shape of the API that a path belongs to."""

from __future__ import annotations

import difflib
import logging
import math
from collections.abc import Collection, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from nmt.errors import InputError
from serving.protocol import DeadlineExceeded, Overloaded, Unavailable, UnknownModel

_log = logging.getLogger(__name__)

_CODES = {
    400: "bad_request",
    401: "no_key",
    403: "unknown_key",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "too_large",
    415: "unsupported_media_type",
    422: "invalid_request",
    429: "overloaded",
    500: "internal_error",
    503: "unavailable",
}

# What LibreTranslate answers with instead; its clients know these.
_LIBRETRANSLATE = {401: 403, 404: 400, 415: 400, 422: 400}


class Refused(Exception):
    """A request that is answered by `status` with a message for the caller; `code` defaults to the status' own."""

    def __init__(self, status: int, message: str, code: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.retry_after = status, message, code, retry_after


def answer(status: int, message: str, code: str | None = None, retry_after: float | None = None) -> JSONResponse:
    """The response for an error; `retry_after` (seconds) is rounded up to whole seconds."""
    headers = {} if retry_after is None else {"Retry-After": str(max(1, math.ceil(retry_after)))}
    body = {"error": {"code": code or _CODES.get(status, "error"), "message": message}}
    return JSONResponse(body, status, headers)


def describe(problems: Sequence[Any], known: Sequence[str]) -> str:
    """Words for the problems of a pydantic `ValidationError` (`errors()`); never a piece of what the caller sent."""
    parts = dict.fromkeys(_describe_one(problem, known) for problem in problems)
    return "; ".join(list(parts)[:5])


def install(app: FastAPI, libretranslate: Collection[str] = ()) -> None:
    """Give `app` the handlers for everything that can be raised below it; `libretranslate` are the paths of that API."""

    def respond(request: Request, status: int, *words: Any) -> JSONResponse:
        if request.url.path not in libretranslate:
            return answer(status, *words)
        response = answer(_LIBRETRANSLATE.get(status, status), *words)
        response.body = response.render({"error": words[0]})
        response.headers["Content-Length"] = str(len(response.body))
        return response

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> JSONResponse:
        response = respond(request, error.status, error.message, error.code, error.retry_after)
        if response.status_code == 401:
            response.headers["WWW-Authenticate"] = "Bearer"
        return response

    @app.exception_handler(InputError)
    async def unacceptable(request: Request, error: InputError) -> JSONResponse:
        return respond(request, 422, str(error))

    @app.exception_handler(UnknownModel)
    async def unknown_model(request: Request, error: UnknownModel) -> JSONResponse:
        return respond(request, 404, str(error), "unknown_model")

    @app.exception_handler(Unavailable)
    async def unavailable(request: Request, error: Unavailable) -> JSONResponse:
        status = 429 if isinstance(error, Overloaded) else 503
        code = "deadline_exceeded" if isinstance(error, DeadlineExceeded) else None
        return respond(request, status, f"{error}; try again later", code, error.retry_after)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        words = {404: "no such path; see /docs", 405: f"{request.method} is not allowed here; see /docs"}
        response = respond(request, error.status_code, words.get(error.status_code, str(error.detail)))
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        _log.error("request failed: %s", type(error).__name__, exc_info=error)
        return respond(request, 500, "internal error; the server's log has the details")


def _describe_one(problem: Any, known: Sequence[str]) -> str:
    location, kind = problem["loc"], problem["type"]
    if kind == "json_invalid":
        return f"the body is not valid JSON: {problem['ctx']['error']}"
    if not location:
        return "the body must be a JSON object"
    key = str(location[0])
    if kind == "extra_forbidden":
        close = difflib.get_close_matches(key, known, n=1)
        return f"unknown key (did you mean {close[0]!r}?)" if close else f"unknown key; known keys: {', '.join(known)}"
    if kind == "missing":
        return f"missing key {key!r}"
    if key in ("text", "q"):
        items = [part for part in location[1:] if isinstance(part, int)]
        return (
            f"{key}: item {items[0] + 1} is not a string" if items else f"{key}: expected a string or a list of strings"
        )
    message = str(problem["msg"]).removeprefix("Value error, ")
    return f"{key}: {message[:1].lower()}{message[1:]}"
