"""A passage of text with elements in it, such as bold words and links, and where they belong in its translation, by the word alignment."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

Links = Sequence[tuple[int, int]]  # source word and target word, as white space divides them, from 0
_WORD = re.compile(r"\S+")


@dataclass(frozen=True, slots=True)
class Element:
    """An element over the characters `start` to `end` of a passage, none where they are equal; what begins and what ends it."""

    start: int
    end: int
    opening: str
    closing: str


@dataclass(frozen=True, slots=True)
class Passage:
    """Text that is translated as one, and its elements in the order of their beginnings, outer before inner; they are nested or apart."""

    text: str
    elements: tuple[Element, ...] = ()

    def write(self, translation: str, links: Links, escape: Callable[[str], str]) -> str:
        """The translation with each element once, and text through `escape`.

        An element is put around the run of words that come from its own words rather than from others, inside the element that it is inside
        of; one that none come from, or without text, stands after what comes from the words before it.
        """
        return _Writer(self, translation, links, escape).written()


class _Writer:
    def __init__(self, passage: Passage, translation: str, links: Links, escape: Callable[[str], str]) -> None:
        self._passage, self._text, self._escape = passage, translation, escape
        self._source = [match.span() for match in _WORD.finditer(passage.text)]
        self._target = [match.span() for match in _WORD.finditer(translation)]
        if not links and self._source and self._target:  # a model that shows none: words in their order
            step = len(self._source) / len(self._target)
            links = [(int(place * step), place) for place in range(len(self._target))]
        self._from: list[set[int]] = [set() for _ in self._target]
        for source, target in links:
            if target < len(self._from):
                self._from[target].add(source)

    def written(self) -> str:
        return self._range(self._roots(self._passage.elements), 0, len(self._text))

    def _roots(self, elements: Sequence[Element]) -> list[tuple[Element, list[Element]]]:
        """The outermost of them, each with those inside it."""
        found: list[tuple[Element, list[Element]]] = []
        for element in elements:
            if found and element.end <= found[-1][0].end and element.start < found[-1][0].end:
                found[-1][1].append(element)
            else:
                found.append((element, []))
        return found

    def _range(self, roots: list[tuple[Element, list[Element]]], begin: int, end: int) -> str:
        """The characters from `begin` to `end` of the translation with these elements in them."""
        places: list[tuple[int, int, Element, list[Element]]] = []
        for element, inside in roots:
            start, stop = self._place(element, begin, end, [(first, last) for first, last, _, _ in places])
            places.append((start, stop, element, inside))
        written, at = "", begin
        for start, stop, element, inside in sorted(places, key=lambda place: place[:2]):
            written += self._escape(self._text[at:start]) + element.opening
            written += self._range(self._roots(inside), start, stop) + element.closing
            at = stop
        return written + self._escape(self._text[at:end])

    def _place(self, element: Element, begin: int, end: int, taken: list[tuple[int, int]]) -> tuple[int, int]:
        """Where in the translation, between `begin` and `end` and beside what is taken, the element belongs."""
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

    def _words(self, element: Element) -> Iterator[int]:
        """The source words that the element is around, or holds letters of."""
        for number, (start, end) in enumerate(self._source):
            inner = self._passage.text[max(start, element.start) : min(end, element.end)]
            if any(map(str.isalnum, inner)) or (inner and not any(map(str.isalnum, self._passage.text[start:end]))):
                yield number

    def _runs(self, begin: int, end: int, taken: list[tuple[int, int]]) -> list[list[int]]:
        """The target words between the two, in stretches that nothing else has taken."""
        runs: list[list[int]] = [[]]
        for place, (start, stop) in enumerate(self._target):
            if stop <= begin or start >= end:
                continue
            if any(start < last and first < stop for first, last in taken):
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
        start, stop = max(begin, self._target[first][0]), min(end, self._target[last][1])
        inside = self._passage.text[element.start : element.end].strip()
        if inside[:1].isalnum():
            while start < stop and not self._text[start].isalnum():
                start += 1
        if inside[-1:].isalnum():
            while start < stop and not self._text[stop - 1].isalnum():
                stop -= 1
        return (start, stop) if start < stop else (self._target[first][0], self._target[last][1])

    def _after(self, element: Element, begin: int, end: int) -> int:
        """Behind what comes from the words before the element, nearest first."""
        before = [number for number, (_, stop) in enumerate(self._source) if stop <= element.start]
        if len(before) == len(self._source):
            return end
        for number in reversed(before):
            places = [place for place, origin in enumerate(self._from) if number in origin]
            if places:
                at = self._target[max(places)][1]
                if self._passage.text[element.start - 1 : element.start].isspace() and at < end:
                    at += 1
                return min(max(at, begin), end)
        return begin


def _heaviest(weights: Sequence[float]) -> Iterator[tuple[float, tuple[int, int]]]:
    """Runs of weights with their sums, the heaviest among them (Kadane's algorithm)."""
    total, start = 0.0, 0
    for place, weight in enumerate(weights):
        if total <= 0:
            total, start = 0.0, place
        total += weight
        yield total, (start, place)
