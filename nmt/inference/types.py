"""What goes into and comes out of a translation: small values, importable without PyTorch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nmt.config import Section


class AlignmentHead(Section):
    """The head of attention that shows which source subword each target subword comes from; None: the mean of the layer's heads."""

    layer: int = Field(-1, ge=-1, description="of the decoder's attentions, from 0 at the bottom; -1 is the last")
    head: int | None = Field(None, ge=0)


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
    coverage_penalty: float = Field(
        0.0, ge=0.0, le=10.0, description="weight of what the source words lack of being attended to once"
    )
    split_sentences: bool = Field(True, description="translate the sentences of a line one by one")
    keep_placeholders: bool = Field(
        True, description="keep placeholders, addresses, code, emoji and numbers as they are in the text"
    )
    shortlist: bool = Field(False, description="say only what is on the model's lexical shortlist, which is faster")
    alignment: bool = Field(False, description="say which source word each word of a translation comes from")
    target: str = Field("", description="target language, of a model with several; the first one by default")
    seed: int = Field(0, ge=0, le=2**63 - 1, description="what is drawn follows from it and from the text")


class TokenScore(NamedTuple):
    """A subword of a translation, or the end mark, and its log probability."""

    piece: str
    log_p: float


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One candidate translation; `score` is its length-normalised log probability, `tokens` are its subwords where they were kept.

    Where `alignment` was asked for: pairs (source word, target word), numbered from 0 and by source word, words being what white space
    divides; and `attention` (T, S), for each part of the text, of its subwords and end mark over those of the source.
    """

    text: str
    score: float
    tokens: tuple[TokenScore, ...] = ()
    alignment: tuple[tuple[int, int], ...] = ()
    attention: tuple[NDArray[np.float32], ...] = field(default=(), compare=False)
    anchors: tuple[tuple[int, int], ...] = ()

    @property
    def links(self) -> tuple[tuple[int, int], ...]:
        """The surest that is known of which word comes from which."""
        return self.anchors or self.alignment


@dataclass(frozen=True, slots=True)
class Translation:
    """The result for one input text.

    `hypotheses` are best first, at least one. `segments` is the number of parts that the text was divided into.
    `truncated` says that some part reached the length limit before the model ended it, so that text may be missing.
    """

    source: str
    hypotheses: tuple[Hypothesis, ...]
    source_tokens: int
    target_tokens: int
    segments: int = 1
    truncated: bool = False
    source_subwords: tuple[str, ...] = ()  # and an end mark after each part, where `alignment` was asked for

    @property
    def text(self) -> str:
        """The best translation."""
        return self.hypotheses[0].text

    @property
    def score(self) -> float:
        """The best translation's length-normalised log probability."""
        return self.hypotheses[0].score
