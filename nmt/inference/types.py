"""What goes into and comes out of a translation: small values, importable without PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from pydantic import Field

from nmt.config import Section

Precision = Literal["auto", "fp32", "int8", "bf16", "fp16"]


class DecodeOptions(Section):
    """How a translation is searched for. A bundle carries its own defaults; a request may change them."""

    beam_size: int = Field(5, ge=1, le=64, description="hypotheses kept at each step; 1 is greedy search")
    length_penalty: float = Field(1.0, ge=0.0, le=5.0, description="a score is log P / length ** length_penalty")
    n_best: int = Field(1, ge=1, le=64, description="translations returned for each sentence, best first")
    max_length_ratio: float = Field(2.0, gt=0.0, le=10.0, description="target subwords allowed per source subword")
    max_length_extra: int = Field(10, ge=0, le=1000, description="target subwords allowed beyond that")
    min_length: int = Field(0, ge=0, le=1000, description="target subwords at least, as far as the limit allows")
    no_repeat_ngram: int = Field(
        0, ge=0, le=20, description="no so many subwords in a row are said twice; 0: any may be"
    )
    temperature: float = Field(
        0.0,
        ge=0.0,
        le=10.0,
        description="0 searches for the likeliest; above it n_best translations are drawn at random",
    )
    top_k: int = Field(0, ge=0, description="draw from so many likeliest subwords; 0: from all")
    top_p: float = Field(1.0, gt=0.0, le=1.0, description="draw from the likeliest that have this probability together")
    seed: int = Field(0, ge=0, le=2**63 - 1, description="what is drawn follows from it and from the text")


class TokenScore(NamedTuple):
    """A subword of a translation, or the end mark, and its log probability."""

    piece: str
    log_p: float


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One candidate translation; `score` is its length-normalised log probability, `tokens` are its subwords where they were kept."""

    text: str
    score: float
    tokens: tuple[TokenScore, ...] = ()


@dataclass(frozen=True, slots=True)
class Translation:
    """The result for one input text.

    `hypotheses` are best first, at least one. `segments` is the number of parts that a long text was split into.
    `truncated` says that some part reached the length limit before the model ended it, so that text may be missing.
    """

    source: str
    hypotheses: tuple[Hypothesis, ...]
    source_tokens: int
    target_tokens: int
    segments: int = 1
    truncated: bool = False

    @property
    def text(self) -> str:
        """The best translation."""
        return self.hypotheses[0].text

    @property
    def score(self) -> float:
        """The best translation's length-normalised log probability."""
        return self.hypotheses[0].score
