"""ASGI middleware: limits and headers that have to be handled before a request is a request. Pure ASGI, any server."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving import haproxy
from serving.errors import Shape, Told, shaped

REQUEST_ID = "x-request-id"
_CONTROL = {name.replace("_", "-") for name in haproxy.CONTROL}
_SAFE = re.compile(haproxy.SAFE_ID.rstrip("$"))


def clean_request_id(value: str | None) -> str:
    """A request id that is safe to echo and to log, which is at most 128 of [A-Za-z0-9-]; a new one in the place of any other."""
    return value if value is not None and _SAFE.fullmatch(value) else uuid.uuid4().hex


def proxy_middleware() -> list[Middleware]:
    """What Ray Serve's proxy puts in front of the service (RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH)."""
    return [Middleware(ControlHeaders)]


class ControlHeaders:
    """Takes out the headers that are between Serve's parts, and makes the request id safe before Serve echoes it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            kept = [(key, value) for key, value in scope["headers"] if not _controls(key)]
            identifier = clean_request_id(Headers(scope=scope).get(REQUEST_ID))
            scope = {**scope, "headers": [*kept, (REQUEST_ID.encode(), identifier.encode())]}
        await self._app(scope, receive, send)


def _controls(key: bytes) -> bool:
    name = key.decode("latin-1").lower().replace("_", "-")
    return name in _CONTROL or name == REQUEST_ID


class RequestId:
    """Puts the request's id, or a new one, on the response, where no proxy before us does it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        identifier = clean_request_id(Headers(scope=scope).get(REQUEST_ID))

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[REQUEST_ID] = identifier
            await send(message)

        await self._app(scope, receive, send_with_id)


class Measured:
    """Tells `observe(api, pair, status, seconds)` of every request to one of `apis` (path to name); 499 where the client went away.

    The handler leaves the language pair in `request.state.pair`.
    """

    def __init__(self, app: ASGIApp, apis: Mapping[str, str], observe: Callable[[str, str, int, float], None]) -> None:
        self._app, self._apis, self._observe = app, apis, observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        api = self._apis.get(scope["path"]) if scope["type"] == "http" else None
        if api is None:
            await self._app(scope, receive, send)
            return
        started, status = time.monotonic(), 499

        async def send_noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        state = scope.setdefault("state", {})
        try:
            await self._app(scope, receive, send_noted)
        finally:
            self._observe(api, state.get("pair", ""), status, time.monotonic() - started)


class _TooLarge(Exception):
    """The body passed the limit while it was being read."""


class BodyLimit:
    """Refuses a body above `limit` bytes, or what `larger` says for a path, by 413: by its announced length, or while it streams in."""

    def __init__(self, app: ASGIApp, limit: int, shapes: Mapping[str, Shape], larger: Mapping[str, int]) -> None:
        self._app, self._limit, self._shapes, self._larger = app, limit, shapes, larger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._larger.get(scope["path"], self._limit)
        refusal = shaped(scope["path"], self._shapes)(
            Told(413, f"the body is larger than {limit} bytes; split the texts over several requests")
        )
        refusal.headers["Connection"] = "close"
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdigit() and len(announced) < 20 and int(announced) > limit:
            await refusal(scope, receive, send)
            return
        received, started = 0, False

        async def receive_some() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise _TooLarge
            return message

        async def send_some(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive_some, send_some)
        except _TooLarge:
            if not started:
                await refusal(scope, receive, send)
