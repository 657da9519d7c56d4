"""A passage of text with elements in it, such as bold words and links, and where they belong in its translation, by the word alignment."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

Links = Sequence[tuple[int, int]]  # source word and target word, as white space divides them, from 0
_WORD = re.compile(r"\S+")
_SEPARATOR = re.compile(r"[\t\n]")


@dataclass(frozen=True, slots=True)
class Element:
    """An element over the characters `start` to `end` of a passage, none where they are equal; what begins and what ends it."""

    start: int
    end: int
    opening: str
    closing: str


@dataclass(frozen=True, slots=True)
class Placed:
    """An element in a translation: its number among those of the passage, and what it is around."""

    number: int
    inside: tuple[str | Placed, ...]


@dataclass(frozen=True, slots=True)
class Passage:
    """Text that is translated as one, and its elements in the order of their beginnings, outer before inner; they are nested or apart."""

    text: str
    elements: tuple[Element, ...] = ()

    def write(self, translation: str, links: Links, escape: Callable[[str], str]) -> str:
        """The translation with each element once, as `placed` says, and text through `escape`."""
        return self._joined(self.placed(translation, links), escape)

    def placed(self, translation: str, links: Links) -> tuple[str | Placed, ...]:
        """The translation as text and elements, each of these once.

        An element is put around the run of words that come from its own words rather than from others, inside the element that it is inside
        of; one that none come from, or without text, stands after what comes from the words before it. One that begins or ends in a word
        does so where the translation has the same word, and one over a tab or an end of line is over that where it has the same ones.
        """
        return _Placement(self, translation, links).pieces()

    def _joined(self, pieces: Iterable[str | Placed], escape: Callable[[str], str]) -> str:
        written = ""
        for piece in pieces:
            if isinstance(piece, str):
                written += escape(piece)
            else:
                element = self.elements[piece.number]
                written += element.opening + self._joined(piece.inside, escape) + element.closing
        return written


_Numbered = tuple[int, Element]


class _Placement:
    def __init__(self, passage: Passage, translation: str, links: Links) -> None:
        self._passage, self._text = passage, translation
        self._source = [match.span() for match in _WORD.finditer(passage.text)]
        self._target = [match.span() for match in _WORD.finditer(translation)]
        if not links and self._source and self._target:  # a model that shows none: words in their order
            step = len(self._source) / len(self._target)
            links = [(int(place * step), place) for place in range(len(self._target))]
        self._from: list[set[int]] = [set() for _ in self._target]
        self._last: dict[int, int] = {}  # word that comes from a word
        for source, target in links:
            if target < len(self._from):
                self._from[target].add(source)
                self._last[source] = max(target, self._last.get(source, target))

    def pieces(self) -> tuple[str | Placed, ...]:
        return self._range(self._roots(list(enumerate(self._passage.elements))), 0, len(self._text))

    def _roots(self, elements: Sequence[_Numbered]) -> list[tuple[_Numbered, list[_Numbered]]]:
        """The outermost of them, each with those inside it."""
        found: list[tuple[_Numbered, list[_Numbered]]] = []
        for number, element in elements:
            if found and element.end <= found[-1][0][1].end and element.start < found[-1][0][1].end:
                found[-1][1].append((number, element))
            else:
                found.append(((number, element), []))
        return found

    def _range(self, roots: list[tuple[_Numbered, list[_Numbered]]], begin: int, end: int) -> tuple[str | Placed, ...]:
        """The characters from `begin` to `end` of the translation with these elements in them."""
        places: list[tuple[int, int, int, list[_Numbered]]] = []
        for (number, element), inside in roots:
            start, stop = self._place(element, begin, end, [(first, last) for first, last, _, _ in places])
            places.append((start, stop, number, inside))
        pieces: list[str | Placed] = []
        at = begin
        for start, stop, number, inside in sorted(places, key=lambda place: place[:2]):
            pieces += [self._text[at:start], Placed(number, self._range(self._roots(inside), start, stop))]
            at = max(at, stop)  # one without text may stand where another has been put around
        pieces.append(self._text[at:end])
        return tuple(piece for piece in pieces if piece)

    def _place(self, element: Element, begin: int, end: int, taken: list[tuple[int, int]]) -> tuple[int, int]:
        """Where in the translation, between `begin` and `end` and beside what is taken, the element belongs."""
        copied = self._separator(element) or self._copied(element)
        if copied and begin <= copied[0] and copied[1] <= end and not any(_overlap(copied, span) for span in taken):
            return copied
        words = set(self._words(element))
        if words:
            best, where = 0.0, None
            for run in self._runs(begin, end, taken):
                for gain, span in _heaviest([self._weight(place, words) for place in run]):
                    if gain > best:
                        best, where = gain, (run[span[0]], run[span[1]])
            if where is not None:
                return self._trimmed(element, *where, begin, end)
        at = self._after(element, begin, end)
        for start, stop in taken:
            if start < at < stop:
                at = stop
        return at, at

    def _separator(self, element: Element) -> tuple[int, int] | None:
        """For an element that is over a tab or an end of line: the same one of the translation."""
        text = self._passage.text
        if text[element.start : element.end] not in ("\t", "\n"):
            return None
        found = list(_SEPARATOR.finditer(self._text))
        if [match.group() for match in found] != _SEPARATOR.findall(text):
            return None
        return found[len(_SEPARATOR.findall(text, 0, element.start))].span()

    def _copied(self, element: Element) -> tuple[int, int] | None:
        """For an element that begins or ends inside a word: the same letters, where the translation has the same words."""
        touched = self._touched(element)
        if not touched:
            return None
        first, last = self._source[touched[0]], self._source[touched[-1]]
        if element.start <= first[0] and element.end >= last[1]:
            return None
        words = [self._passage.text[slice(*self._source[number])] for number in touched]
        for place in range(len(self._target) - len(words) + 1):
            spans = self._target[place : place + len(words)]
            if all(number in self._from[place + step] for step, number in enumerate(touched)) and words == [
                self._text[slice(*span)] for span in spans
            ]:
                start = spans[0][0] + max(0, element.start - first[0])
                stop = spans[-1][1] - max(0, last[1] - element.end)
                return start, stop
        return None

    def _touched(self, element: Element) -> range:
        """The source words that the element has characters of; for one without text the word that it is inside."""
        return range(
            bisect_right(self._source, element.start, key=lambda span: span[1]),
            bisect_left(self._source, element.end, key=lambda span: span[0]),
        )

    def _words(self, element: Element) -> Iterator[int]:
        """The source words that the element is around, or holds letters of."""
        for number in self._touched(element):
            start, end = self._source[number]
            inner = self._passage.text[max(start, element.start) : min(end, element.end)]
            if any(map(str.isalnum, inner)) or (inner and not any(map(str.isalnum, self._passage.text[start:end]))):
                yield number

    def _runs(self, begin: int, end: int, taken: list[tuple[int, int]]) -> list[list[int]]:
        """The target words between the two, in stretches that nothing else has taken."""
        runs: list[list[int]] = [[]]
        spans, number = sorted(taken), 0
        for place in range(bisect_right(self._target, begin, key=lambda span: span[1]), len(self._target)):
            start, stop = self._target[place]
            if start >= end:
                break
            while number < len(spans) and spans[number][1] <= start:
                if spans[number][0] < spans[number][1]:
                    runs.append([])
                number += 1
            if number < len(spans) and _overlap((start, stop), spans[number]):
                runs.append([])
            else:
                runs[-1].append(place)
        return [run for run in runs if run]

    def _weight(self, place: int, words: set[int]) -> float:
        origin = self._from[place]
        if not origin:
            return -0.1
        return 1.0 if origin & words else -1.0

    def _trimmed(self, element: Element, first: int, last: int, begin: int, end: int) -> tuple[int, int]:
        """From word `first` to word `last`, without the marks around them where the element has none itself."""
        whole = start, stop = max(begin, self._target[first][0]), min(end, self._target[last][1])
        inside = self._passage.text[element.start : element.end].strip()
        if inside[:1].isalnum():
            while start < stop and not self._text[start].isalnum():
                start += 1
        if inside[-1:].isalnum():
            while start < stop and not self._text[stop - 1].isalnum():
                stop -= 1
        return (start, stop) if start < stop else whole

    def _after(self, element: Element, begin: int, end: int) -> int:
        """Behind what comes from the words before the element, nearest first."""
        text = self._passage.text
        before = bisect_right(self._source, element.start, key=lambda span: span[1])
        if before == len(self._source):
            return end
        inside = any(map(str.isalnum, text[self._source[before][0] : element.start]))
        for number in reversed(range(before + inside)):
            if number in self._last:
                start, at = self._target[self._last[number]]
                if number == before:  # between a word and the mark behind it
                    letters = [place for place in range(start, at) if self._text[place].isalnum()]
                    at = letters[-1] + 1 if letters else at
                elif text[element.start - 1 : element.start].isspace() and at < end:
                    at += 1
                return min(max(at, begin), end)
        return begin


def _overlap(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def _heaviest(weights: Sequence[float]) -> Iterator[tuple[float, tuple[int, int]]]:
    """Runs of weights with their sums, the heaviest among them (Kadane's algorithm)."""
    total, start = 0.0, 0
    for place, weight in enumerate(weights):
        if total <= 0:
            total, start = 0.0, place
        total += weight
        yield total, (start, place)
