"""From the candidates of a text's parts to its translation: text, scores, and which word comes from which."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from nmt.inference.alignment import Word, aligned, word_numbers
from nmt.inference.copying import Copy, copies, with_copies, with_given, with_held, with_numbers
from nmt.inference.search import Candidate
from nmt.inference.types import DecodeOptions, Hypothesis, TokenScore, Translation
from nmt.text.normalize import normalize
from nmt.text.placeholders import Kept, hold_again
from nmt.text.tokenizer import EOS, UNK, Tokenizer

_MARKS = ".,;:!?()[]{}'\"„“”‚‘’«»"
UNSPACED = {"zh", "ja", "th", "lo", "km", "my", "bo"}  # languages whose sentences are joined without a space


@dataclass(frozen=True)
class Vocabularies:
    """The tokenizers of both sides, the same one twice where the vocabulary is joint."""

    source: Tokenizer
    target: Tokenizer


@dataclass(frozen=True)
class Part:
    """A segment of a text on its way through the model."""

    text: int  # the number of the text
    ids: list[int]  # with the end mark; without what is kept from the model
    content: str  # the segment, normalised, with what stands in for what is held
    subwords: list[str]
    words: list[int]  # the word of `content` that each subword is of
    copied: dict[int, Copy] = field(default_factory=dict)
    inside_word: bool = False  # whether it goes on where the segment before it was cut within a word
    before: str | None = None  # what stands before it in the text; None where it was cut from the part before it
    after: str = ""  # what stands after it at the end of the text
    kept: Kept | None = None  # what is held of it
    faithful: bool = False  # whether its numbers are to be those of the translation
    tags: int = 0  # ids before those of the text, which tell the target language

    @classmethod
    def of(
        cls,
        text: int,
        content: str,
        ids: Sequence[int],
        vocabulary: Tokenizer,
        copying: bool = False,
        inside_word: bool = False,
        before: str | None = None,
        kept: Kept | None = None,
        faithful: bool = False,
        tag: Sequence[int] = (),
    ) -> Part:
        """The segment `content`, whose subwords are `ids`. With `copying`, or where something is held, the characters that have none are
        copied, else the model sees that there are some. The model reads the `tag` first, which is of no word."""
        surfaces = vocabulary.surfaces(content)
        seen, copied = copies(ids, surfaces) if UNK in ids and (copying or kept) else (list(range(len(ids))), {})
        numbers = word_numbers(surfaces)
        return cls(
            text,
            [*tag, *(ids[place] for place in seen), EOS],
            content,
            [*vocabulary.pieces(tag), *(surfaces[place] for place in seen)],
            [*[-1] * len(tag), *(numbers[place] for place in seen)],
            with_held(copied, kept.held, content.split(" ")) if kept else copied,
            inside_word,
            before,
            kept=kept,
            faithful=faithful and any(map(str.isdigit, content)),
            tags=len(tag),
        )

    @property
    def plain(self) -> str:
        """Its text, without what stands in for what is held."""
        held = self.kept.held if self.kept else ()
        return functools.reduce(lambda text, each: text.replace(each.stand_in, "_"), held, self.content)

    @property
    def aligned(self) -> bool:
        """Whether it takes the word alignment to write its translation."""
        return bool(self.copied) or self.faithful

    @property
    def source_words(self) -> int:
        """How many words it has in the text."""
        return self.kept.words if self.kept else self.content.count(" ") + 1

    def source_word(self, number: int) -> int:
        """The word of the text, counted from the part's first, that word `number` of what the model reads is."""
        return self.kept.origin[number] if self.kept else number

    @property
    def silent(self) -> bool:
        """Whether there is nothing for the model to translate."""
        return len(self.ids) == 1 + self.tags


# The only candidate for a part that is silent.
NOTHING = Candidate([], 0.0, 0.0, ended=True, each=[], attention=np.zeros((0, 1), np.float32))

Chosen = Sequence[tuple[Part, Candidate]]  # a candidate for each part of a text


class Output:
    """Writes translations into one language out of another."""

    def __init__(self, vocabularies: Vocabularies, source_language: str, target_language: str) -> None:
        self._vocabularies = vocabularies
        self._source_spaced, self._target_spaced = (
            language.partition("-")[0] not in UNSPACED for language in (source_language, target_language)
        )

    def translation(
        self, text: str, found: Sequence[tuple[Part, Sequence[Candidate]]], options: DecodeOptions, prefix: str = ""
    ) -> Translation:
        """The translation of `text` out of the candidates of its parts, best first, which begin with `prefix` where they are of one part;
        without parts the text, "" for white space."""
        if not found:
            return Translation(text, (Hypothesis(text if normalize(text) else "", 0.0),), 0, 0)
        count = min(options.n_best, max(len(candidates) for _, candidates in found))
        hypotheses = []
        for rank in range(count):
            chosen = [(part, candidates[min(rank, len(candidates) - 1)]) for part, candidates in found]
            hypotheses.append(self.hypothesis(chosen, options.alignment, prefix))
        best = [candidates[0] for _, candidates in found]
        return Translation(
            source=text,
            hypotheses=tuple(hypotheses),
            source_tokens=sum(len(part.ids) - 1 for part, _ in found),
            target_tokens=sum(len(candidate.ids) for candidate in best),
            segments=len(found),
            truncated=not all(candidate.ended for candidate in best),
            source_subwords=tuple(piece for part, _ in found for piece in (*part.subwords, "</s>"))
            if options.alignment
            else (),
        )

    def hypothesis(self, chosen: Chosen, alignment: bool, prefix: str = "") -> Hypothesis:
        """One candidate translation, with the links of its words where `alignment` is wanted and the model shows them."""
        text, before, words = "", 0, 0  # source words of the parts before, target words so far
        links: list[tuple[int, int, bool]] = []
        for number, (part, candidate) in enumerate(chosen):
            said, piece = self._said(part, candidate, prefix)
            between, goes_on = self._between(part, bool(piece and text), first=not number)
            before += len(between.split()) - goes_on
            words += len(between.split()) - bool(text and piece and not between)
            places = itertools.accumulate((len(word.text.split()) for word in said), initial=words)
            copied = _copied(part, said)
            links += [
                (
                    before + part.source_word(word.source),
                    place,
                    word.text == copied[word.source] if word.source in copied else word.mutual,
                )
                for word, place in zip(said, places, strict=False)
                if word.source is not None
            ]
            text += between + piece + part.after
            before += part.source_words
            words += len(piece.split())
        return Hypothesis(
            text,
            sum(candidate.score for _, candidate in chosen) / len(chosen),
            tuple(token for _, candidate in chosen for token in self._tokens(candidate)),
            tuple(sorted({(source, target) for source, target, _ in links})) if alignment else (),
            tuple(c.attention for _, c in chosen if c.attention is not None) if alignment else (),
            _anchors(links) if alignment else (),
        )

    def _between(self, part: Part, words: bool, first: bool) -> tuple[str, bool]:
        """What is written before a part, with `words` on both sides or not; and whether its source goes on with the word before."""
        if part.before is None:
            goes_on = part.inside_word and self._source_spaced  # elsewhere every cut is between words, as we know
            return " " if words and self._target_spaced and not goes_on else "", goes_on
        if first or part.before.strip(" "):
            return part.before, False
        # Between two sentences of a line: as the languages have it, where they differ.
        unspaced = "" if self._source_spaced else " "
        return (part.before or unspaced) if words and self._target_spaced else "", not part.before

    def _said(self, part: Part, candidate: Candidate, prefix: str) -> tuple[list[Word], str]:
        """A candidate's words, with what they come from where that is known, and its text."""
        text = self._vocabularies.target.decode(candidate.ids).strip()
        begun = self.begin(part, prefix) if prefix and self._target_spaced else []
        if candidate.attention is None:
            words = said = [Word(word, None) for word in text.split()]
            fixed = len(self._vocabularies.target.decode(begun).split())
        else:
            pieces = self._vocabularies.target.pieces(candidate.ids)
            words, looks = aligned(candidate.attention, part.words, pieces)
            fixed = max(word_numbers(pieces[: len(begun)]), default=-1) + 1
            said = with_numbers(words, part.content.split(" "), looks, fixed) if part.faithful else words
        if UNK in begun and fixed == len(given := normalize(prefix).split()):
            said = with_given(said, given, self._vocabularies.target.pieces([UNK])[0], part.copied)
        if part.copied:
            said = with_copies(said, part.copied, max(part.words, default=-1), fixed)
        if said != words:
            text = (" " if self._target_spaced else "").join(word.text for word in said)
        return said, text

    def begin(self, part: Part, prefix: str) -> list[int]:
        """The ids that a translation of the part begins with, so that it begins with `prefix`."""
        read = hold_again(prefix, part.kept) if part.kept else prefix
        return self._vocabularies.target.encode([normalize(read)])[0]

    def _tokens(self, candidate: Candidate) -> Iterator[TokenScore]:
        pieces = self._vocabularies.target.pieces([*candidate.ids, EOS])
        return itertools.starmap(TokenScore, zip(pieces, candidate.each, strict=False))


def _copied(part: Part, said: Sequence[Word]) -> dict[int, str]:
    """The words of a translation that are what they come from, by the source word."""
    words = [word.strip(_MARKS) for word in part.content.split(" ")]
    return {
        word.source: word.text
        for word in said
        if word.source is not None and word.text.strip(_MARKS) == words[word.source]
    }


def _anchors(links: Sequence[tuple[int, int, bool]]) -> tuple[tuple[int, int], ...]:
    """The links without those that are nobody's best of a source word that has such."""
    sure = {source for source, _, mutual in links if mutual}
    return tuple(sorted({(source, target) for source, target, mutual in links if mutual or source not in sure}))
