"""The outermost layer of the service: what no request gets past, whatever lies behind it.

`Guard` wraps the gateway's application and, under `nmt serve`, Ray Serve's HTTP proxy too: there a request over a limit
is answered in the proxy, before it costs a replica anything.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import uuid
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nmt.config import parse
from serving.config import Limits

logger = logging.getLogger(__name__)

LIMITS_VARIABLE = "STRATA_LIMITS"  # how the launcher tells the proxies, which take no arguments
MAX_REQUEST_ID = 128
UNCOUNTED_PATHS = ("/healthz", "/readyz", "/-/")  # answered however busy the service is; /-/ is Ray Serve's own

# With these headers a client could tell Ray Serve to wait for ever, not to notice that the client has gone, or which
# replica to choose. Serve takes - and _ as equal.
CONTROL_HEADERS = {
    b"x-request-timeout-seconds",
    b"x-request-disconnect-disabled",
    b"serve-multiplexed-model-id",
    b"x-session-id",
}

# Ray Serve answers some requests itself, in plain text. What it says of its own insides becomes words for clients.
SERVE_ERRORS = {
    404: (404, "not_found", "there is nothing at this path; see /docs"),
    408: (503, "deadline_exceeded", "the request took too long; try again later"),
    429: (429, "overloaded", "too many requests; try again later"),
}
SERVE_FAILURE = (503, "unavailable", "the service is starting, restarting or stopping; try again later")


def error_response(status: int, code: str, message: str, retry_after_s: int | None = None) -> JSONResponse:
    """The one shape of every error."""
    headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    return JSONResponse({"error": {"code": code, "message": message}}, status_code=status, headers=headers)


class Guard:
    """ASGI middleware: drops control headers, bounds concurrency and bodies, and gives every error one JSON shape."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app = app
        self._limits = limits
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(Headers(scope=scope).get("x-request-id", ""))
        kept = [(name, value) for name, value in scope["headers"] if not _is_controlled(name)]
        scope = {**scope, "headers": [*kept, (b"x-request-id", request_id.encode())]}
        reply = _Reply(send, request_id, rewrites=not scope["path"].startswith("/-/"))
        if scope["path"].startswith(UNCOUNTED_PATHS):
            await self._run(scope, receive, reply)
        elif self._in_flight >= self._limits.max_concurrent_requests:
            refusal = error_response(429, "overloaded", "too many requests at once; try again later", 1)
            await refusal(scope, receive, reply)
        else:
            self._in_flight += 1
            try:
                await self._run(scope, receive, reply)
            finally:
                self._in_flight -= 1

    async def _run(self, scope: Scope, receive: Receive, reply: _Reply) -> None:
        """Read the body, which is small or refused, then call the application with it."""
        try:
            async with asyncio.timeout(self._limits.body_timeout_s):
                body = await _read_body(receive, Headers(scope=scope), self._limits.max_body_bytes)
        except _Disconnected:
            return
        except _TooLarge:
            words = f"the body is over the limit of {self._limits.max_body_bytes} bytes"
            await error_response(413, "too_large", words)(scope, receive, reply)
            return
        except TimeoutError:
            words = f"the body did not arrive within {self._limits.body_timeout_s:g} s"
            await error_response(408, "request_timeout", words)(scope, receive, reply)
            return
        try:
            await self._app(scope, _Replay(body, receive), reply)
        except Exception:
            logger.exception("request %s failed", reply.request_id)
            if reply.started:
                raise
            words = f"the server failed; its log has details of request {reply.request_id}"
            await error_response(500, "internal_error", words)(scope, receive, reply)


class _Disconnected(Exception):
    """The client went away before it had sent its whole request."""


class _TooLarge(Exception):
    """The body is over the limit."""


async def _read_body(receive: Receive, headers: Headers, limit: int) -> bytes:
    declared = headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared[:20]) > limit:
        raise _TooLarge
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Disconnected
        body += message.get("body", b"")
        if len(body) > limit:
            raise _TooLarge
        if not message.get("more_body", False):
            return bytes(body)


class _Replay:
    """A `receive` that gives the whole body at once and after that listens for the client's going away."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._message: Message | None = {"type": "http.request", "body": body, "more_body": False}
        self._receive = receive

    async def __call__(self) -> Message:
        message, self._message = self._message, None
        return message if message is not None else await self._receive()


class _Reply:
    """A `send` that adds the request's id and, where `rewrites`, turns a plain-text error into the JSON shape."""

    def __init__(self, send: Send, request_id: str, rewrites: bool) -> None:
        self.request_id = request_id
        self.started = False
        self._send = send
        self._rewrites = rewrites
        self._replacement: bytes | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            message = self._start(message)
        elif self._replacement is not None and message["type"] == "http.response.body":
            if message.get("more_body", False):
                return
            message = {"type": "http.response.body", "body": self._replacement}
        await self._send(message)

    def _start(self, message: Message) -> Message:
        headers = MutableHeaders(raw=list(message.get("headers", [])))
        plain = headers.get("content-type", "text/plain").startswith("text/plain")
        if self._rewrites and plain and message["status"] >= 400:
            status, code, words = SERVE_ERRORS.get(message["status"], SERVE_FAILURE)
            retry_after = headers.get("retry-after", "1" if status in (429, 503) else "")
            replacement = error_response(status, code, words, int(retry_after) if retry_after.isdigit() else None)
            self._replacement = bytes(replacement.body)
            message = {**message, "status": status}
            headers = replacement.headers
        headers["x-request-id"] = self.request_id
        return {**message, "headers": headers.raw}


def _is_controlled(name: bytes) -> bool:
    return name == b"x-request-id" or name.replace(b"_", b"-") in CONTROL_HEADERS


def _request_id(given: str) -> str:
    return re.sub(r"[^A-Za-z0-9-]", "", given[:MAX_REQUEST_ID]) or uuid.uuid4().hex


def proxy_middleware() -> list[Middleware]:
    """The callback that Ray Serve's HTTP proxies import: a `Guard` with the launcher's limits."""
    data: dict[str, Any] = json.loads(os.environ.get(LIMITS_VARIABLE, "{}"))
    return [Middleware(Guard, limits=parse(Limits, data, LIMITS_VARIABLE))]
