"""Every error of the HTTP surface: `{"error": {"code": ..., "message": ...}}`, or in the shape of the API that a path belongs to."""

from __future__ import annotations

import difflib
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match

from nmt.errors import InputError
from serving.protocol import DeadlineExceeded, NotAvailable, Overloaded, Unavailable, UnknownModel

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
    501: "not_available",
    503: "unavailable",
}


class Refused(Exception):
    """A request that is answered by `status` with a message for the caller; `code` defaults to the status' own."""

    def __init__(self, status: int, message: str, code: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.retry_after = status, message, code, retry_after


@dataclass(frozen=True, slots=True)
class Told:
    """What a caller is told of an error; `retry_after` in seconds."""

    status: int
    message: str
    code: str | None = None
    retry_after: float | None = None


def told(error: Exception) -> Told:
    """The words for whatever can be raised below the surfaces."""
    if isinstance(error, Refused):
        return Told(error.status, error.message, error.code, error.retry_after)
    if isinstance(error, InputError):
        return Told(422, str(error))
    if isinstance(error, UnknownModel):
        return Told(404, str(error), "unknown_model")
    if isinstance(error, NotAvailable):
        return Told(501, str(error), "not_available")
    if isinstance(error, Unavailable):
        status = 429 if isinstance(error, Overloaded) else 503
        code = "deadline_exceeded" if isinstance(error, DeadlineExceeded) else None
        return Told(status, f"{error}; try again later", code, error.retry_after)
    _log.error("request failed: %s", type(error).__name__, exc_info=error)
    return Told(500, "internal error; the server's log has the details")


def problem(what: Told) -> dict[str, str]:
    """The words as our own API has them in `error`."""
    return {"code": what.code or _CODES.get(what.status, "error"), "message": what.message}


def answer(what: Told) -> JSONResponse:
    """The response for an error."""
    return JSONResponse({"error": problem(what)}, what.status, headers(what))


def headers(what: Told) -> dict[str, str]:
    """Those of an error; times are rounded up to whole seconds."""
    return {} if what.retry_after is None else {"Retry-After": str(max(1, math.ceil(what.retry_after)))}


Shape = Callable[[Told], JSONResponse]


def describe(problems: Sequence[Any], known: Sequence[str]) -> str:
    """Words for the problems of a pydantic `ValidationError` (`errors()`); never a piece of what the caller sent."""
    parts = dict.fromkeys(_describe_one(problem, known) for problem in problems)
    return "; ".join(list(parts)[:5])


def shaped(path: str, shapes: Mapping[str, Shape]) -> Shape:
    """The shape of errors at a path; `shapes` by what paths begin with, our own for any other."""
    return next((one for begin, one in shapes.items() if path == begin or path.startswith(f"{begin}/")), answer)


def install(app: FastAPI, shapes: Mapping[str, Shape]) -> None:
    """Give `app` the handlers for everything that can be raised below it; `shapes` as for `shaped`."""

    def respond(request: Request, what: Told) -> JSONResponse:
        response = shaped(request.url.path, shapes)(what)
        if response.status_code == 401:
            response.headers["WWW-Authenticate"] = "Bearer"
        return response

    async def known(request: Request, error: Exception) -> JSONResponse:
        return respond(request, told(error))

    for kind in (Refused, InputError, UnknownModel, NotAvailable, Unavailable, Exception):
        app.add_exception_handler(kind, known)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        words = {404: "no such path; see /docs", 405: f"{request.method} is not allowed here; see /docs"}
        status = error.status_code
        response = respond(request, Told(status, words.get(status, str(error.detail))))
        response.headers.update(error.headers or {})
        if status == 405:  # Starlette names the methods of the first route only
            response.headers["Allow"] = ", ".join(sorted(_methods(app, request)))
        return response


def _methods(app: FastAPI, request: Request) -> set[str]:
    """Those that the path of a request has."""
    found: set[str] = set()
    for method in ("GET", "POST", "DELETE", "PUT", "PATCH"):
        scope = {**request.scope, "method": method}
        if any(route.matches(scope)[0] is Match.FULL for route in app.router.routes):
            found.add(method)
    return found


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
    if key in ("text", "q", "translation"):
        items = [part for part in location[1:] if isinstance(part, int)]
        return (
            f"{key}: item {items[0] + 1} is not a string" if items else f"{key}: expected a string or a list of strings"
        )
    message = str(problem["msg"]).removeprefix("Value error, ")
    return f"{key}: {message[:1].lower()}{message[1:]}"
