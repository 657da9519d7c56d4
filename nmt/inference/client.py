"""A translation server seen as a translator: texts in, texts out, over HTTP."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from nmt.errors import ServiceError
from nmt.inference.types import DecodeOptions

_CHUNK = 32  # texts of one request
_CONCURRENCY = 4  # requests in flight; the server batches them together
_TRIES = 8
_OPTIONS = {"beam_size", "length_penalty", "split_sentences"}  # of a search, which a request can change


class ServerTranslator:
    """Translates through `POST /v1/translate` of a running server; refusals for load are tried again."""

    def __init__(self, url: str, timeout: float = 120.0) -> None:
        """`url` is the server's, such as http://127.0.0.1:8000; `timeout` is for one request, in seconds."""
        if not url.startswith(("http://", "https://")):
            raise ServiceError(f"{url}: not the address of a server (expected http://HOST:PORT)")
        self.url, self.timeout = url.rstrip("/"), timeout

    def models(self) -> list[dict[str, Any]]:
        """What the server says of its models."""
        answer = self._ask("/v1/models", None)
        models: list[dict[str, Any]] = answer.get("models", [])
        return models

    def translate(self, texts: Sequence[str], options: DecodeOptions | None = None) -> list[str]:
        """The best translation of each text, in order; raise `ServiceError` when the server can't be reached or refuses."""
        extra = options.model_dump(include=_OPTIONS) if options is not None else {}
        chunks = [list(texts[i : i + _CHUNK]) for i in range(0, len(texts), _CHUNK)]
        with ThreadPoolExecutor(_CONCURRENCY) as pool:
            answers = list(pool.map(lambda chunk: self._ask("/v1/translate", {"text": chunk} | extra), chunks))
        results: list[str] = []
        for chunk, answer in zip(chunks, answers, strict=True):
            translations = answer.get("translation")
            if not isinstance(translations, list) or len(translations) != len(chunk):
                raise ServiceError(
                    f"{self.url}: the answer does not hold one translation for each text: is this a Strata server?"
                )
            results += translations
        return results

    def _ask(self, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        for attempt in range(_TRIES):
            try:
                with urllib.request.urlopen(request, timeout=self.timeout) as answer:
                    result = json.loads(answer.read())
                if not isinstance(result, dict):
                    raise ValueError("not an object")
                return result
            except urllib.error.HTTPError as error:
                if error.code not in (429, 503) or attempt == _TRIES - 1:
                    raise ServiceError(f"{self.url}{path}: {error.code} {_message(error)}") from None
                time.sleep(min(float(error.headers.get("Retry-After") or 1), 10.0))
            except ValueError:
                raise ServiceError(f"{self.url}{path}: the answer is not JSON: is this a Strata server?") from None
            except OSError as error:
                reason = getattr(error, "reason", None) or error
                raise ServiceError(f"{self.url}: cannot be reached ({reason}); is `nmt serve` running there?") from None
        raise AssertionError("the loop returns or raises")


def _message(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.loads(error.read())["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return str(error.reason)
