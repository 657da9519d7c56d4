"""What of a text is translated by itself: its sentences, with what is between them kept to the byte; then the parts of a sentence that is
longer than a model can take: at sentence ends that were not seen as such, at clause marks, then between words."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import sentencex

from nmt.text.placeholders import held_spans

# Where no space follows, a straight quote may open what comes next, and stays with it.
_SENTENCE_END = re.compile(r"(?<=[.!?…。！？])[\"'”’»)\]」』）】》]*\s+|(?<=[。！？])(?![。！？])[”’»)\]」』）】》]*")
_CLAUSE_END = re.compile(r"(?<=[,;:–—])\s+|(?<=[、，；：])\s*|\s+(?=[-–—(])")
_WORD_END = re.compile(r"\s+")


# Between these is never a sentence: ends of lines and paragraphs, tabs as between columns.
_CELL = re.compile("[^\n\r\t\v\f\x1c-\x1e\x85\u2028\u2029]+")
# What a line of several may begin with that is no part of its first sentence.
_MARK = re.compile(r"\s*(?:[-*+•◦▪‣·>#–—]+|\(?(?:\d{1,3}|[a-z])[.)]|\[[ xX]\])\s+")


@dataclass(frozen=True, slots=True)
class Stretch:
    """What is translated by itself, and what stands before it in the text, which stays as it is."""

    before: str
    text: str


def stretches(text: str, language: str, sentences: bool = True) -> tuple[list[Stretch], str]:
    """What of `text` is to be translated, in order, and what stands after the last of it; all of it joined is `text` again.

    Lines and cells between tabs are always apart; with `sentences` so are the sentences of a line (sentencex, by Wikimedia, which knows the
    abbreviations of `language`). White space around them, marks of lists and quotations at the beginning of lines, and what has no letters
    or digits belong to none.
    """
    found: list[Stretch] = []
    end, several = 0, "\n" in text.strip() or "\r" in text.strip()
    for cell in _CELL.finditer(text):
        start = cell.start()
        if several:
            while mark := _MARK.match(text, start, cell.end()):
                start = mark.end()
        for sentence in _sentences(text[start : cell.end()], language) if sentences else (text[start : cell.end()],):
            content = sentence.strip()
            if _has_words(content):
                begins = start + sentence.index(content)
                found.append(Stretch(text[end:begins], content))
                end = begins + len(content)
            start += len(sentence)
    return found, text[end:]


def _has_words(text: str) -> bool:
    """Whether there are letters or digits in `text`, apart from what is held."""
    end, rest = 0, ""
    for start, after, _ in held_spans(text):
        rest += text[end:start]
        end = after
    return any(map(str.isalnum, rest + text[end:]))


def _sentences(line: str, language: str) -> Iterator[str]:
    """The sentences of a line with the white space around them; joined they are the line. None ends within what is held."""
    cut: list[str] = sentencex.segment(language.partition("-")[0], line)
    if "".join(cut) != line:
        return iter((line,))
    ends = list(itertools.accumulate(map(len, cut)))
    for start, end, _ in held_spans(line) if len(cut) > 1 else ():
        ends = [each for each in ends if not start < each < end]
    return (line[start:end] for start, end in itertools.pairwise([0, *ends]))


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a text, what stood before it (a space or nothing), and whether the cut before it is inside a word."""

    text: str
    separator: str = " "
    inside_word: bool = False


def split_long(text: str, length: Callable[[str], int], limit: int) -> list[Segment]:
    """Split normalised `text` into parts of at most `limit` by the measure `length`; nothing of it is lost.

    A text within the limit is one segment. Otherwise each sentence is one; a sentence that is too long is cut at clause
    marks, then between words, and at last inside a word, into parts as long as they may be.
    """
    if length(text) <= limit:
        return [Segment(text)]
    segments: list[Segment] = []
    for sentence in _cut(text, _SENTENCE_END):
        if length(sentence.text) <= limit:
            segments.append(sentence)
        else:
            segments += _pack(sentence, (_CLAUSE_END, _WORD_END), length, limit)
    return segments


def _cut(text: str, boundary: re.Pattern[str]) -> list[Segment]:
    """Parts of `text` between matches; what a match holds beside white space stays with the part before it."""
    parts: list[Segment] = []
    start, separator = 0, " "
    for match in boundary.finditer(text):
        held = match.group().rstrip()
        if part := text[start : match.start()] + held:
            parts.append(Segment(part, separator))
            separator = " " if match.group() != held else ""
        start = match.end()
    if text[start:]:
        parts.append(Segment(text[start:], separator))
    return parts


def _pack(
    segment: Segment, boundaries: tuple[re.Pattern[str], ...], length: Callable[[str], int], limit: int
) -> list[Segment]:
    """Cut `segment` at the first kind of boundary and join neighbours while they fit; descend where one does not."""
    if not boundaries:
        return _pack_characters(segment, length, limit)
    packed: list[Segment] = []
    for number, part in enumerate(_cut(segment.text, boundaries[0])):
        opening = part if number else segment
        whole = Segment(part.text, opening.separator, opening.inside_word)
        joined = packed[-1].text + part.separator + part.text if packed and number else ""
        if joined and length(joined) <= limit:
            packed[-1] = Segment(joined, packed[-1].separator, packed[-1].inside_word)
        elif length(part.text) <= limit:
            packed.append(whole)
        else:
            packed += _pack(whole, boundaries[1:], length, limit)
    return packed


def _pack_characters(segment: Segment, length: Callable[[str], int], limit: int) -> list[Segment]:
    """Halve a word until its parts fit; a single character is taken as it is."""
    text = segment.text
    if length(text) <= limit or len(text) == 1:
        return [segment]
    middle = len(text) // 2
    halves = Segment(text[:middle], segment.separator, segment.inside_word), Segment(text[middle:], "", True)
    return [part for half in halves for part in _pack_characters(half, length, limit)]
