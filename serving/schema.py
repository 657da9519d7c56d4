"""The JSON of the HTTP surface, as pydantic models; the OpenAPI page is made from them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Request(BaseModel):
    """What every request of `/v1` may say. Types are strict and unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    source: Annotated[str, Field(max_length=100)] | None = Field(None, description="source language, such as en")
    target: Annotated[str, Field(max_length=100)] | None = Field(None, description="target language, such as de")
    model: Annotated[str, Field(max_length=200)] | None = Field(None, description="a name from /v1/models")
    api_key: Annotated[str, Field(max_length=200)] | None = Field(
        None, description="where keys are asked for; better in the header Authorization: Bearer KEY"
    )


class TranslateRequest(_Request):
    """What `POST /v1/translate` takes."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"text": ["Good morning!", "How are you?"]}]})

    text: str | list[str] = Field(description="one text, or a list of them; the answer has the same shape")
    beam_size: Annotated[int, Field(ge=1)] | None = Field(None, description="hypotheses kept at each step")
    n_best: Annotated[int, Field(ge=1)] | None = Field(None, description="translations returned for each text")
    length_penalty: Annotated[float, Field(ge=0, le=5)] | None = Field(None, description="0 favours short translations")
    format: Literal["text", "html"] = Field("text", description="what the texts are; html keeps its tags")
    split_sentences: bool | None = Field(
        None, description="whether the sentences of a line are translated one by one; lines always are"
    )
    keep_placeholders: bool | None = Field(
        None, description="whether placeholders, addresses, code, emoji and numbers stay as they are"
    )
    prefix: Annotated[str, Field(max_length=2000)] | None = Field(
        None, description="what each translation is to begin with; each text is then one sentence"
    )
    glossary: Annotated[dict[str, str], Field(max_length=1000)] | None = Field(
        None, description="terms of the source language, and what they are to be called"
    )
    tokens: bool = Field(False, description="say the subwords of each translation with their log probabilities")
    alignment: bool = Field(False, description="say which source word each word of a translation comes from")
    attention: bool = Field(False, description="say how much each subword looks at which subword of the source")


class Shown(BaseModel):
    """What is said of a translation where it was asked for."""

    score: float = Field(description="length-normalised log probability")
    tokens: list[tuple[str, float]] | None = Field(
        None, description="subwords, with the end mark of each part, and their log probabilities"
    )
    alignment: list[tuple[int, int]] | None = Field(
        None, description="source word and word of the translation, as white space divides them, from 0"
    )
    anchors: list[tuple[int, int]] | None = Field(
        None, description="of those, the surer ones: without words that only look at what another word comes from"
    )
    attention: list[list[list[float]]] | None = Field(
        None, description="for each part a row for each subword and end mark, over those of the source"
    )


class Alternative(Shown):
    """One of the `n_best` translations of a text."""

    text: str


class Detail(Shown):
    """More about the translation of one text."""

    truncated: bool = Field(description="the length limit ended the translation: text may be missing")
    segments: int = Field(description="parts that the text was divided into")
    source_tokens: int
    target_tokens: int
    source_subwords: list[str] | None = Field(None, description="of all parts, with end marks; with attention")
    alternatives: list[Alternative] | None = Field(None, description="best first; with n_best above 1")


class TranslateResponse(BaseModel):
    """What `POST /v1/translate` answers."""

    translation: str | list[str] = Field(description="in the shape of the request's `text`")
    model: str = Field(description="its name; two names with > between them where it took two models")
    pivot: str | None = Field(None, description="the language between those two")
    details: list[Detail] = Field(description="one for each text")


class Piece(BaseModel):
    """A line of a streamed answer: the next sentence of a text, with the white space before it. The pieces of an `index` joined are the
    translation of that text; texts come in their order."""

    index: int = Field(description="of the text, from 0")
    translation: str
    detail: Detail | None = Field(None, description="of the sentence; none for what is not translated")


class Finish(BaseModel):
    """The last line of a streamed answer."""

    done: Literal[True] = True
    model: str
    pivot: str | None = None


class ScoreRequest(_Request):
    """What `POST /v1/score` takes."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"text": "Good morning!", "translation": "Guten Morgen!"}]}
    )

    text: str | list[str] = Field(description="one source text, or a list of them")
    translation: str | list[str] = Field(description="a translation of each, in the same shape")
    length_penalty: Annotated[float, Field(ge=0, le=5)] | None = Field(None, description="0 favours short translations")
    tokens: bool = Field(False, description="say the subwords of each translation with their log probabilities")
    alignment: bool = Field(False, description="say which source word each word of a translation comes from")
    attention: bool = Field(False, description="say how much each subword looks at which subword of the source")


class ScoreResponse(BaseModel):
    """What `POST /v1/score` answers."""

    score: float | list[float] = Field(description="length-normalised log probability, in the shape of the request")
    model: str
    details: list[Shown] = Field(description="one for each text")


class ActivationsRequest(_Request):
    """What `POST /v1/activations` takes."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"text": "I am tired."}]})

    text: str = Field(description="one sentence")
    translation: str | None = Field(None, description="its translation; the model's own without it")


class ActivationsResponse(BaseModel):
    """What `POST /v1/activations` answers: H_t^L, what each layer hands on at each step, lowest layer first."""

    translation: str
    model: str
    source_subwords: list[str] = Field(description="with the end mark")
    target_subwords: list[str] = Field(description="with the end mark")
    encoder: list[list[list[float]]] = Field(description="layer, source subword, unit")
    decoder: list[list[list[float]]] = Field(description="layer, target subword, unit")


class ModelEntry(BaseModel):
    """One model that is served."""

    name: str
    source: str
    target: str = Field(description="the target language, or the first of several")
    targets: list[str] = Field(description="all target languages")
    parameters: int
    architecture: str
    scores: list[dict[str, Any]] = Field(description="each with the signature that says how it was measured")
    digest: str = Field(description="SHA-256 of the weights")
    beam_size: int = Field(description="used when the request names none")
    length_penalty: float


class ModelList(BaseModel):
    """What `GET /v1/models` answers."""

    models: list[ModelEntry]


class Problem(BaseModel):
    """What went wrong."""

    code: str = Field(description="one word for programs")
    message: str = Field(description="words for people")


class ErrorResponse(BaseModel):
    """The body of every error."""

    error: Problem


class Status(BaseModel):
    """State of the service."""

    status: str
