"""The client of a running server: texts in, translations out, as a `Translator` gives them. Needs nothing but Python and NumPy."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPResponse
from typing import Any, Literal, TypedDict

import numpy as np

from nmt.errors import ServiceError
from nmt.inference.types import Hypothesis, TokenScore, Translation

_CHUNK = 32  # texts of one request
_CONCURRENCY = 4  # requests in flight; the server batches them together
_TRIES = 8


class ServedModel(TypedDict):
    """A model as `GET /v1/models` describes it."""

    name: str
    source: str
    target: str
    targets: list[str]
    parameters: int
    architecture: str
    scores: list[dict[str, Any]]
    digest: str
    beam_size: int
    length_penalty: float


class Options(TypedDict, total=False):
    """What `POST /v1/translate` takes beside texts; what is left out is as the server has it."""

    source: str
    target: str
    model: str
    format: Literal["text", "html"]
    beam_size: int
    n_best: int
    length_penalty: float
    split_sentences: bool
    keep_placeholders: bool
    prefix: str
    glossary: dict[str, str]
    tokens: bool
    alignment: bool
    attention: bool


class Client:
    """Speaks the `/v1` API of a server. All raise `ServiceError` when the server can't be reached or refuses; refusals for load are
    tried again."""

    def __init__(self, url: str, key: str | None = None, timeout: float = 120.0) -> None:
        """`url` is the server's, such as http://127.0.0.1:8000; `timeout` is for one request, in seconds."""
        if not url.startswith(("http://", "https://")):
            raise ServiceError(f"{url}: not the address of a server (expected http://HOST:PORT)")
        self.url, self.timeout = url.rstrip("/"), timeout
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})

    def models(self) -> list[ServedModel]:
        """What the server says of its models."""
        models: list[ServedModel] = self._ask("/v1/models", None).get("models", [])
        return models

    def target_language(self) -> str:
        """The language that it translates into; "" where there are several."""
        languages = {str(model.get("target")) for model in self.models()}
        return languages.pop() if len(languages) == 1 else ""

    def languages(self) -> dict[str, list[str]]:
        """The languages of the server, and into which each can be translated."""
        return {each["code"]: each["targets"] for each in self._open("/languages", None)}

    def detect(self, texts: Sequence[str]) -> list[str]:
        """The likeliest language of each text, among those of the server."""
        found = self._open("/detect", {"q": list(texts)})
        return [each[0]["language"] for each in found]

    def translate(self, texts: Sequence[str], options: Options | None = None) -> list[Translation]:
        """A `Translation` for each text, in order."""
        chunks = [list(texts[i : i + _CHUNK]) for i in range(0, len(texts), _CHUNK)]
        with ThreadPoolExecutor(_CONCURRENCY) as pool:
            answers = list(
                pool.map(lambda chunk: self._ask("/v1/translate", {"text": chunk, **(options or {})}), chunks)
            )
        results: list[Translation] = []
        for chunk, answer in zip(chunks, answers, strict=True):
            said, details = answer.get("translation"), answer.get("details")
            if (
                not isinstance(said, list)
                or not isinstance(details, list)
                or not len(said) == len(details) == len(chunk)
            ):
                raise ServiceError(
                    f"{self.url}: the answer does not hold one translation for each text: is this a Strata server?"
                )
            results += [_translation(*each) for each in zip(chunk, said, details, strict=True)]
        return results

    def stream(self, texts: Sequence[str], options: Options | None = None) -> Iterator[tuple[int, str]]:
        """The number of a text and the next piece of its translation, sentence by sentence as they are finished, texts in their order; the
        pieces of a text joined are its translation."""
        body = {"text": list(texts), **(options or {})}
        with self._send("/v1/translate", body, {"Accept": "application/x-ndjson"}) as answer:
            for line in answer:
                piece = json.loads(line)
                if "error" in piece:
                    raise ServiceError(f"{self.url}: {piece['error']['message']}")
                if "done" in piece:
                    return
                yield piece["index"], piece["translation"]
        raise ServiceError(f"{self.url}: the answer ended too soon")

    def score(self, pairs: Sequence[tuple[str, str]], options: Options | None = None) -> list[Hypothesis]:
        """What each given target is worth as a translation of its source."""
        sources, targets = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        answer = self._ask("/v1/score", {"text": sources, "translation": targets, **(options or {})})
        return [_hypothesis(target, detail) for target, detail in zip(targets, answer["details"], strict=True)]

    def _ask(self, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        answer = self._open(path, body)
        if not isinstance(answer, dict):
            raise ServiceError(f"{self.url}{path}: the answer is not an object: is this a Strata server?")
        return answer

    def _open(self, path: str, body: dict[str, Any] | None) -> Any:
        with self._send(path, body) as answer:
            try:
                return json.loads(answer.read())
            except ValueError:
                raise ServiceError(f"{self.url}{path}: the answer is not JSON: is this a Strata server?") from None

    def _send(self, path: str, body: dict[str, Any] | None, headers: Mapping[str, str] | None = None) -> HTTPResponse:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, self._headers | dict(headers or {}))
        for attempt in range(_TRIES):
            try:
                response: HTTPResponse = urllib.request.urlopen(request, timeout=self.timeout)
            except urllib.error.HTTPError as error:
                if error.code not in (429, 503) or attempt == _TRIES - 1:
                    raise ServiceError(f"{self.url}{path}: {error.code} {_message(error)}", error.code) from None
                time.sleep(min(float(error.headers.get("Retry-After") or 1), 10.0))
            except OSError as error:
                reason = getattr(error, "reason", None) or error
                raise ServiceError(f"{self.url}: cannot be reached ({reason}); is `nmt serve` running there?") from None
            else:
                return response
        raise AssertionError("the loop returns or raises")


def _translation(source: str, said: str, detail: Mapping[str, Any]) -> Translation:
    alternatives = detail.get("alternatives") or [{"text": said, **detail}]
    return Translation(
        source,
        tuple(_hypothesis(each["text"], each) for each in alternatives),
        detail["source_tokens"],
        detail["target_tokens"],
        detail["segments"],
        detail["truncated"],
        tuple(detail.get("source_subwords") or ()),
    )


def _hypothesis(text: str, shown: Mapping[str, Any]) -> Hypothesis:
    return Hypothesis(
        text,
        shown["score"],
        tuple(TokenScore(*each) for each in shown.get("tokens") or ()),
        tuple((source, target) for source, target in shown.get("alignment") or ()),
        tuple(np.array(part, np.float32) for part in shown.get("attention") or ()),
        tuple((source, target) for source, target in shown.get("anchors") or ()),
    )


def _message(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.loads(error.read())["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return str(error.reason)
