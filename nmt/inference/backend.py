"""What runs a model for the search: four verbs, encode, insert, step and select. Importable without PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Encoded = Any  # sentences that a backend has encoded, for its own running batches


@dataclass(frozen=True)
class Scores:
    """What a step says of R rows, to be read before the next step: log probabilities (R, M) of the M likeliest next tokens, best first,
    their `ids` (R, M), and where it was asked for those (R, V) of all tokens and the weights (R, S) of the head of attention that shows
    which source token the next one comes from."""

    best: NDArray[np.float32]
    ids: Ints
    log_p: NDArray[np.float32] | None = None
    attention: NDArray[np.float32] | None = None


class Rows(Protocol):
    """A running batch: N sentences with K rows (hypotheses) each, in which sentences come and go between two steps."""

    def insert(self, encoded: Encoded) -> None:
        """Let encoded sentences join after those that are there."""

    def step(self, tokens: Ints, top: int, whole: bool = False, attention: bool = False) -> Scores:
        """Feed a token (N K,) to each row; the `top` likeliest next ones of each, with `whole` what all tokens are worth, and with
        `attention` where each row looks in its source."""

    def select(self, rows: Ints, sentences: Ints | None = None) -> None:
        """Keep these of the rows, in this order, one perhaps several times. Where `sentences` is given, those alone stay; else the rows of
        a sentence remain its own."""


class Backend(Protocol):
    """A model that can be searched."""

    vocabulary: int
    joins: bool  # whether sentences may join a running batch that is under way
    shows: bool  # whether it can say where its rows look
    shortlist: bool  # whether it has a lexical shortlist
    rows: int  # of a running batch that make good use of the processor

    def encode(self, sentences: Sequence[Sequence[int]]) -> Encoded:
        """Encode sentences of ids, end marks included, at least one."""

    def running(self, beam: int, width: int, shortlist: bool = False) -> Rows:
        """An empty running batch of `beam` rows a sentence, for sources of up to `width` tokens, within the shortlist or not."""
