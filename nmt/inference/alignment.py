"""Which source word each word of a translation comes from, by attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nmt.text.tokenizer import SPACE

Weights = NDArray[np.float32]


@dataclass(frozen=True)
class Word:
    """A word of a translation, the number of the source word that it comes from, None where the model looked at none, what share of the
    attention went there, and whether no other word looks there more."""

    text: str
    source: int | None
    share: float = 1.0
    mutual: bool = True


def word_numbers(pieces: Sequence[str]) -> list[int]:
    """For each subword, with SentencePiece's mark for a space, the number of the word that it is of, from 0."""
    numbers, number, fresh = [], -1, True
    for piece in pieces:
        fresh = fresh or piece.startswith(SPACE)
        if fresh and piece != SPACE:
            number, fresh = number + 1, False
        numbers.append(number + fresh)
    return numbers


def by_words(attention: Weights, source: Sequence[int], target: Sequence[str]) -> Weights:
    """How much (..., words, source words + 1) the words of the subwords `target` look at each source word and at the end mark, by
    `attention` (..., T, S), whose last column is the end mark's.

    Added up over the subwords of both sides, those of punctuation in a word with letters or digits apart. `source` are the numbers of the
    words that the source's subwords are of, -1 for one of none, which counts as the end mark does; rows beyond `target` are left out.
    """
    numbers = word_numbers(target)
    lettered = [any(map(str.isalnum, piece)) for piece in target]
    with_letters = {number for number, letters in zip(numbers, lettered, strict=True) if letters}
    rows = np.zeros((max(numbers, default=-1) + 1, len(target)), np.float32)
    for place, number in enumerate(numbers):
        rows[number, place] = lettered[place] or number not in with_letters
    end = max(source, default=-1) + 1
    columns = np.zeros((len(source) + 1, end + 1), np.float32)
    columns[np.arange(len(source) + 1), [*source, end]] = 1
    return np.asarray(rows @ attention[..., : len(target), :] @ columns, np.float32)


def aligned(attention: Weights, source: Sequence[int], target: Sequence[str]) -> tuple[list[Word], Weights]:
    """The words of the subwords `target`, with the source word that each looks at most, and how much each looks at which; arguments as
    `by_words`."""
    looks = by_words(attention, source, target)
    texts = [""] * len(looks)
    for number, piece in zip(word_numbers(target), target, strict=True):
        texts[number] += piece.replace(SPACE, "")
    best, end = looks.argmax(axis=1), looks.shape[1] - 1
    shared = looks / np.maximum(looks.sum(axis=1, keepdims=True), 1e-9)
    shares, most = shared.max(axis=1), shared.argmax(axis=0) if len(looks) else best
    said = [place for place, text in enumerate(texts) if text]
    words = [
        Word(texts[i], None if best[i] == end else int(best[i]), float(shares[i]), bool(most[best[i]] == i))
        for i in said
    ]
    return words, looks[said]
