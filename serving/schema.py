"""The JSON of the HTTP surface, as pydantic models; the OpenAPI page is made from them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field


class TranslateRequest(BaseModel):
    """What `POST /v1/translate` takes. Types are strict and unknown keys are refused."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        json_schema_extra={"examples": [{"text": ["Good morning!", "How are you?"]}]},
    )

    text: str | list[str] = Field(description="one text, or a list of them; the answer has the same shape")
    source: Annotated[str, Field(max_length=100)] | None = Field(None, description="source language, such as en")
    target: Annotated[str, Field(max_length=100)] | None = Field(None, description="target language, such as de")
    model: Annotated[str, Field(max_length=200)] | None = Field(None, description="a name from /v1/models")
    beam_size: Annotated[int, Field(ge=1)] | None = Field(None, description="hypotheses kept at each step")
    n_best: Annotated[int, Field(ge=1)] | None = Field(None, description="translations returned for each text")
    length_penalty: Annotated[float, Field(ge=0, le=5)] | None = Field(None, description="0 favours short translations")
    split_sentences: bool | None = Field(
        None, description="whether the sentences of a line are translated one by one; lines always are"
    )
    api_key: Annotated[str, Field(max_length=200)] | None = Field(
        None, description="where keys are asked for; better in the header Authorization: Bearer KEY"
    )


class Alternative(BaseModel):
    """One of the `n_best` translations of a text."""

    text: str
    score: float


class Detail(BaseModel):
    """More about the translation of one text."""

    score: float = Field(description="length-normalised log probability")
    truncated: bool = Field(description="the length limit ended the translation: text may be missing")
    segments: int = Field(description="parts that the text was divided into")
    source_tokens: int
    target_tokens: int
    alternatives: list[Alternative] | None = Field(None, description="best first; with n_best above 1")


class TranslateResponse(BaseModel):
    """What `POST /v1/translate` answers."""

    translation: str | list[str] = Field(description="in the shape of the request's `text`")
    model: str = Field(description="its name; two names with > between them where it took two models")
    pivot: str | None = Field(None, description="the language between those two")
    details: list[Detail] = Field(description="one for each text")


class ModelEntry(BaseModel):
    """One model that is served."""

    name: str
    source: str
    target: str
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
