"""Which source word each word of a translation comes from, by attention; and words that the model can't say, copied by that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nmt.text.tokenizer import SPACE, UNK

Weights = NDArray[np.float32]

_SURE = 0.9  # share of its attention by which a word is taken to be a part of an unknown name


@dataclass(frozen=True)
class Word:
    """A word of a translation, the number of the source word that it comes from, None where the model looked at none, and what share of the
    attention went there."""

    text: str
    source: int | None
    share: float = 1.0


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
    words that the source's subwords are of; rows beyond `target` are left out.
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


def aligned(attention: Weights, source: Sequence[int], target: Sequence[str]) -> list[Word]:
    """The words of the subwords `target`, with the source word that each looks at most; arguments as `by_words`."""
    looks = by_words(attention, source, target)
    texts = [""] * len(looks)
    for number, piece in zip(word_numbers(target), target, strict=True):
        texts[number] += piece.replace(SPACE, "")
    best, end = looks.argmax(axis=1), looks.shape[1] - 1
    shares = looks.max(axis=1) / np.maximum(looks.sum(axis=1), 1e-9)
    return [
        Word(text, None if at == end else int(at), float(share))
        for text, at, share in zip(texts, best, shares, strict=True)
        if text
    ]


# --- what the model has no subwords for -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Copy:
    """What stands in a source word that holds characters without a subword: all of it, if it has letters that the model knows, too."""

    text: str
    whole: bool


def copies(ids: Sequence[int], surfaces: Sequence[str]) -> tuple[list[int], dict[int, Copy]]:
    """The places of the subwords that the model is to see, and what is to be copied, by the number of its word.

    A name with an unknown letter stays: the model knows what to do with the rest. An emoji, or a word in a script that it never saw, is
    kept from it.
    """
    numbers = word_numbers(surfaces)
    hidden: set[int] = set()
    found: dict[int, Copy] = {}
    for number in sorted({numbers[place] for place, one in enumerate(ids) if one == UNK}):
        places = [place for place, each in enumerate(numbers) if each == number]
        unknown = [place for place in places if ids[place] == UNK]
        if any(ids[place] != UNK and any(map(str.isalnum, surfaces[place])) for place in places):
            found[number] = Copy("".join(surfaces[place] for place in places).replace(SPACE, ""), whole=True)
        else:
            found[number] = Copy("".join(surfaces[place] for place in unknown), whole=False)
            hidden.update(unknown, (place for place in places if surfaces[place] == SPACE))
    return [place for place in range(len(ids)) if place not in hidden], found


def with_copies(words: Sequence[Word], copied: Mapping[int, Copy], last: int) -> list[Word]:
    """The words of a translation, and among them what is copied from the source (Luong et al. 2015, "Addressing the rare word problem").

    A whole word takes the place of what the model made of it: the word that looks there most, and its neighbours that surely do. Anything
    else comes after what comes from the words before it, or at the end where no word comes after it; `last` is the source's last word that
    the model knows.
    """
    found = list(words)
    for number, copy in copied.items():
        text = copy.text
        made = [place for place, word in enumerate(found) if copy.whole and word.source == number]
        if made:
            first = last_made = max(made, key=lambda place: found[place].share)
            while first - 1 in made and found[first - 1].share > _SURE:
                first -= 1
            while last_made + 1 in made and found[last_made + 1].share > _SURE:
                last_made += 1
            said = found[last_made].text
            if text[-1].isalnum():
                text += said[len(said.rstrip(".,;:!?")) :]
            found[first : last_made + 1] = [Word(text, number)]
        else:
            before = [place for place, word in enumerate(found) if word.source is not None and word.source < number]
            nearest = max((found[place].source or 0 for place in before), default=0)
            place = max((place for place in before if found[place].source == nearest), default=-1)
            if number >= last:
                place = len(found) - 1
            found.insert(place + 1, Word(text, number))
    return found
