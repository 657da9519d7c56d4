"""The JSON that goes in and out, and the reading of a request: exact about types, and with clear words when refused."""

from __future__ import annotations

import difflib
import json
import math
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from nmt.inference.types import DecodeOptions, Translation
from serving.config import Limits
from serving.contract import InvalidRequest, ModelCard, Refused

KINDS = {bool: "true or false", int: "a number", float: "a number", str: "a string", list: "a list", dict: "an object"}


class BadJSON(Refused):
    """The body is not JSON text."""

    status, code = 400, "invalid_json"


class WrongMediaType(Refused):
    """The body is not declared as JSON, or is compressed."""

    status, code = 415, "unsupported_media_type"


class TooLarge(Refused):
    """The request is over one of the limits on length and count."""

    status, code = 413, "too_large"


def _is_text(value: Any, name: str = "text") -> None:
    if not isinstance(value, str):
        kind = "null" if value is None else KINDS.get(type(value), "something else")
        expected = "a string or a list of strings" if name == "text" else "a string"
        raise PydanticCustomError(
            "text", "{name} must be {expected}, not {kind}", dict(name=name, expected=expected, kind=kind)
        )
    try:
        value.encode()
    except UnicodeEncodeError:
        raise PydanticCustomError(
            "text", "{name} has an unpaired surrogate, which is no character", dict(name=name)
        ) from None


def _check_text(value: Any) -> Any:
    """Words for the one field that may have two types; pydantic's own speak of both at once."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            _is_text(item, f"text[{index}]")
    else:
        _is_text(value)
    return value


class TranslateRequest(BaseModel):
    """The body of `POST /v1/translate`."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    text: Annotated[str | list[str], BeforeValidator(_check_text)] = Field(
        description="one text or a list of texts", examples=["Good morning.", ["Good morning.", "How are you?"]]
    )
    source: str | None = Field(None, max_length=64, description="language of the text, as in /v1/models")
    target: str | None = Field(None, max_length=64, description="language to translate into, as in /v1/models")
    model: str | None = Field(None, max_length=256, description="name of a model, where several fit")
    beam_size: int | None = Field(None, ge=1, description="hypotheses kept in the search; 1 is greedy")
    n_best: int | None = Field(None, ge=1, description="translations of each text, best first")
    length_penalty: float | None = Field(None, ge=0.0, le=5.0, description="above 1 favours longer translations")

    @property
    def texts(self) -> list[str]:
        """The texts as a list, whichever shape was sent."""
        return [self.text] if isinstance(self.text, str) else self.text

    def options(self, defaults: DecodeOptions, limits: Limits) -> DecodeOptions:
        """The model's defaults with the request's changes; raises `InvalidRequest` over a limit."""
        for name, value, most in (
            ("beam_size", self.beam_size, limits.max_beam_size),
            ("n_best", self.n_best, limits.max_n_best),
        ):
            if value is not None and value > most:
                raise InvalidRequest(f"{name} may be at most {most} here")
        n_best = defaults.n_best if self.n_best is None else self.n_best
        beam_size = max(defaults.beam_size, n_best) if self.beam_size is None else self.beam_size
        if n_best > beam_size:
            raise InvalidRequest("n_best may be at most beam_size: a search returns no more than it keeps")
        penalty = defaults.length_penalty if self.length_penalty is None else self.length_penalty
        changes = {"n_best": n_best, "beam_size": beam_size, "length_penalty": penalty}
        return defaults.model_copy(update=changes)


class Alternative(BaseModel):
    """A translation beside the best one."""

    text: str
    score: float | None


class Detail(BaseModel):
    """What is known of one translation. `truncated`: some part reached the length limit, so that text may be missing."""

    score: float | None = Field(description="length-normalised log probability; higher is better")
    truncated: bool
    segments: int = Field(description="parts that a long text was split into")
    source_tokens: int
    target_tokens: int
    alternatives: list[Alternative] | None = Field(None, description="the next best, when n_best is above 1")


class TranslateResponse(BaseModel):
    """The answer: `translation` has the shape that `text` had; `details` is a list with one entry for each text."""

    translation: str | list[str]
    model: str
    details: list[Detail]


class ModelEntry(BaseModel):
    """One model of `GET /v1/models`. `digest` is the SHA-256 of its weights."""

    name: str
    source: str
    target: str
    parameters: int
    layers: str
    digest: str
    defaults: dict[str, Any]
    scores: dict[str, Any]


class ModelsResponse(BaseModel):
    """The models that can be asked now, and the limits on a request."""

    models: list[ModelEntry]
    limits: dict[str, Any]


class ErrorBody(BaseModel):
    """`code` is for programs and `message` for people."""

    code: str
    message: str


class ErrorResponse(BaseModel):
    """The shape of every answer with a status of 400 or above."""

    error: ErrorBody


def read_request(body: bytes, content_type: str, content_encoding: str, limits: Limits) -> TranslateRequest:
    """Read the body of `POST /v1/translate`; raises a `Refused` whose words never repeat the text that was sent."""
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise WrongMediaType("send JSON, with the header Content-Type: application/json")
    if content_encoding.strip().lower() not in ("", "identity"):
        raise WrongMediaType("compressed bodies are not accepted; send plain JSON")
    data = _decode(body)
    if not isinstance(data, dict):
        raise InvalidRequest('the body must be an object such as {"text": "Good morning."}')
    try:
        request = TranslateRequest.model_validate(data)
    except ValidationError as error:
        raise InvalidRequest(_describe(error)) from None
    _check_size(request.texts, limits)
    return request


def _decode(body: bytes) -> Any:
    if not body.strip():
        raise BadJSON("the body is empty; send JSON")
    try:
        return json.loads(body.decode("utf-8-sig"), parse_constant=_no_constant, object_pairs_hook=_no_duplicates)
    except Refused:
        raise
    except UnicodeDecodeError as error:
        raise BadJSON(f"the body is not UTF-8 (byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise BadJSON(f"the body is not JSON: {error.msg} (line {error.lineno}, column {error.colno})") from None
    except RecursionError:
        raise BadJSON("the body is nested too deeply") from None
    except ValueError:  # an integer of thousands of digits
        raise BadJSON("the body holds a number that is too long") from None


def _no_constant(_: str) -> Any:
    raise BadJSON("the body is not JSON: NaN and Infinity are not JSON numbers")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise InvalidRequest("a key appears twice in an object")
    return result


def _describe(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_input=False)[0]
    name = ascii(str(problem["loc"][0])[:40]) if problem["loc"] else "the body"
    if problem["type"] == "extra_forbidden":
        known = list(TranslateRequest.model_fields)
        close = difflib.get_close_matches(name.strip("'"), known, n=1)
        return f"unknown key {name} ({f'did you mean {close[0]!r}?' if close else 'known keys: ' + ', '.join(known)})"
    if problem["type"] == "missing":
        return f"missing key {name}"
    if problem["type"] == "text":
        return problem["msg"]
    return f"{name}: {problem['msg'][:1].lower()}{problem['msg'][1:]}"


def _check_size(texts: list[str], limits: Limits) -> None:
    if len(texts) > limits.max_texts:
        raise TooLarge(f"{len(texts)} texts in one request; at most {limits.max_texts} are accepted")
    for index, text in enumerate(texts):
        if len(text) > limits.max_characters:
            raise TooLarge(f"text {index + 1} has {len(text)} characters; at most {limits.max_characters} are accepted")
    if (total := sum(map(len, texts))) > limits.max_total_characters:
        raise TooLarge(f"{total} characters in one request; at most {limits.max_total_characters} are accepted")


def choose_model(request: TranslateRequest, cards: dict[str, ModelCard]) -> str:
    """The key of the one model that the request means; raises `InvalidRequest` when there is none or more than one."""
    pairs = ", ".join(sorted(f"{card.source}-{card.target} ({card.name})" for card in cards.values()))
    found = [
        key
        for key, card in cards.items()
        if request.model in (None, card.name)
        and (request.source is None or request.source.casefold() == card.source.casefold())
        and (request.target is None or request.target.casefold() == card.target.casefold())
    ]
    if not found:
        raise InvalidRequest(f"no model for that language pair or name; this server has {pairs}")
    if len(found) > 1:
        raise InvalidRequest(f"several models fit; name source and target, or the model; this server has {pairs}")
    return found[0]


def to_response(request: TranslateRequest, card: ModelCard, translations: list[Translation]) -> dict[str, Any]:
    """The answer as plain JSON values, a `TranslateResponse`."""
    texts = [translation.text for translation in translations]
    return {
        "translation": texts[0] if isinstance(request.text, str) else texts,
        "model": card.name,
        "details": [_detail(translation) for translation in translations],
    }


def _detail(translation: Translation) -> dict[str, Any]:
    detail: dict[str, Any] = {
        "score": _finite(translation.score),
        "truncated": translation.truncated,
        "segments": translation.segments,
        "source_tokens": translation.source_tokens,
        "target_tokens": translation.target_tokens,
    }
    if len(translation.hypotheses) > 1:
        rest = translation.hypotheses[1:]
        detail["alternatives"] = [{"text": item.text, "score": _finite(item.score)} for item in rest]
    return detail


def _finite(score: float) -> float | None:
    return score if math.isfinite(score) else None  # JSON has no word for the others
