"""Who may ask, and how often: API keys where the configuration names a file of them, and a rate for each key or address."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path

from fastapi import Request

from serving.config import ServeConfig
from serving.errors import Refused
from serving.keys import KeyStore, presented
from serving.rates import RateLimit


class Access:
    """Lets requests of one gateway in. Raises `Refused`: 401 without a key, 403 for a wrong one, 429 for too many requests."""

    def __init__(self, config: ServeConfig) -> None:
        self._keys = None if config.keys is None else KeyStore.open(Path(config.keys))
        self._rate = RateLimit(config.limits.requests_per_minute)
        # HAProxy says in X-Forwarded-For whom it has the request from; Serve's own proxy is no hop of that kind.
        self._proxies = config.proxies + (os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "1")

    def admitted(self, request: Request) -> bool:
        """Let a request in by its headers; False where a key is asked for and only the body can have it."""
        if self._keys is not None and presented(request.headers, None) is None:
            return False
        self.admit(request, None)
        return True

    def admit(self, request: Request, field: str | None) -> None:
        """Let a request in by its headers, or by the key in its body."""
        most = None
        if self._keys is None:
            caller = f"address {self._address(request)}"
        else:
            given = presented(request.headers, field)
            if given is None:
                raise Refused(401, "a key is needed: send the header Authorization: Bearer KEY")
            key = self._keys.find(given)
            if key is None:
                self._count(f"address {self._address(request)}", None)  # so that keys can't be tried without end
                raise Refused(403, "the key is not known here")
            caller, most = f"key {key.name}", key.requests_per_minute
        self._count(caller, most)
        request.state.caller = caller

    def _count(self, caller: str, most: int | None) -> None:
        if wait := self._rate.take(caller, most):
            raise Refused(429, "too many requests; try again later", "rate_limited", wait)

    def base_url(self, request: Request) -> str:
        """The address by which the caller knows the service, for links: of what stands before it, where that says it."""
        scheme = request.headers.get("x-forwarded-proto", "").lower() if self._proxies else ""
        url = request.base_url.replace(scheme=scheme) if scheme in ("http", "https") else request.base_url
        return str(url).rstrip("/")

    def _address(self, request: Request) -> str:
        """Of the client: what the last of our proxies has it from, else who the connection is from. A network of IPv6 counts as one."""
        told = [each.strip() for each in ",".join(request.headers.getlist("x-forwarded-for")).split(",")]
        peer = request.client.host if request.client else ""
        found = told[-self._proxies] if 0 < self._proxies <= len(told) and told[-self._proxies] else peer
        try:
            address = ipaddress.ip_address(found)
        except ValueError:
            return peer
        if address.version == 6:
            return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))
        return str(address)
