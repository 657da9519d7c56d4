"""Faults that can be counted without a reader: too short, too long, said again, cut off, not translated."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from nmt.evaluation.results import EvaluationFile, Segment
from nmt.evaluation.words import is_spaced, words

SHORT, LONG, APART = 0.6, 1.6, 3
LETTERS = 4  # of a content word
_UNLINKED = 0.5  # of a sentence's content words, which makes it a case
_FEWEST = 3  # content words of a sentence that is judged by them


@dataclass(frozen=True)
class Case:
    """A sentence with the fault: its number from 0, what is wrong in words, and how bad it is, more being worse."""

    index: int
    remark: str
    size: float


@dataclass(frozen=True)
class Fault:
    """A kind of fault, the rule that it is found by, and its cases, worst first, out of `judged` sentences."""

    name: str
    rule: str
    judged: int
    cases: tuple[Case, ...]


@dataclass(frozen=True)
class Coverage:
    """Content words of the sources, and those that no word of the translation is linked to."""

    words: int
    unlinked: int

    @property
    def share(self) -> float:
        """Of the content words, those without a link."""
        return self.unlinked / max(1, self.words)


def find_faults(results: EvaluationFile) -> list[Fault]:
    """All kinds that the file lets be judged, with their cases.

    Words are what white space divides, or characters where words are written without spaces.
    """
    with_references = [(index, one) for index, one in enumerate(results.segments) if one.references]
    segments = list(enumerate(results.segments))
    spaced = [is_spaced(code) for code in (results.system.source_language, results.system.target_language)]
    unit = "words" if spaced[1] else "characters"
    rule = f"{unit}, and at least {APART} {unit} {{}}; of several references the one of the closest length counts."
    found = [
        Fault(
            "under-translation",
            f"The translation has fewer than {SHORT} times the reference's {rule.format('fewer')}",
            len(with_references),
            _sorted(case for index, one in with_references for case in _length(index, one, spaced[1], short=True)),
        ),
        Fault(
            "over-translation",
            f"The translation has more than {LONG} times the reference's {rule.format('more')}",
            len(with_references),
            _sorted(case for index, one in with_references for case in _length(index, one, spaced[1], short=False)),
        ),
        Fault(
            "repetition",
            f"{_repeatable(spaced[1])} said again at once, more often than in the source or in any reference; "
            "case and punctuation do not count.",
            len(segments),
            _sorted(case for index, one in segments for case in _repetition(index, one, spaced)),
        ),
        Fault(
            "cut off",
            "The search reached its length limit before the model ended the sentence.",
            len(segments),
            tuple(Case(index, "", 0.0) for index, one in segments if one.truncated),
        ),
    ]
    linked = [(index, one) for index, one in segments if one.links]
    if spaced[0] and linked:
        found.append(
            Fault(
                "words without a link",
                f"At least half of the source's content words (with {LETTERS} letters or more, or with a digit), and at least "
                f"{_FEWEST} such words in all, have no word of the translation linked to them by attention. A hint, no proof.",
                len(linked),
                _sorted(case for index, one in linked for case in _untranslated(index, one)),
            )
        )
    return found


def coverage(results: EvaluationFile) -> Coverage | None:
    """How many content words of the sources are linked to by nothing; None where the file has no links, or words are not divided."""
    linked = [one for one in results.segments if one.links]
    if not linked or not is_spaced(results.system.source_language):
        return None
    counts = [(len(content), len(alone)) for content, alone in map(_unlinked, linked)]
    return Coverage(sum(count for count, _ in counts), sum(count for _, count in counts))


def _sorted(cases: Iterable[Case]) -> tuple[Case, ...]:
    return tuple(sorted(cases, key=lambda case: -case.size))


def _length(index: int, segment: Segment, spaced: bool, short: bool) -> Iterator[Case]:
    said = len(words(segment.hypothesis, spaced))
    wanted = min((len(words(text, spaced)) for text in segment.references), key=lambda length: abs(length - said))
    apart = wanted - said if short else said - wanted
    if apart >= APART and (said < SHORT * wanted if short else said > LONG * wanted):
        yield Case(index, f"{said} instead of {wanted}", apart)


# --- said again ---------------------------------------------------------------------------------------------------------


def _sizes(spaced: bool) -> range:
    """Of what is looked for twice: words, or characters, of which two alike are no fault."""
    return range(1, 5) if spaced else range(3, 9)


def _repeatable(spaced: bool) -> str:
    return "One to four words" if spaced else "Three to eight characters"


def _repetition(index: int, segment: Segment, spaced: Sequence[bool]) -> Iterator[Case]:
    said = _bare(segment.hypothesis, spaced[1])
    others = [_bare(segment.source, spaced[0]), *(_bare(text, spaced[1]) for text in segment.references)]
    worst = Case(index, "", 0.0)
    for size in _sizes(spaced[1]):
        places = repeats(said, size)
        more = len(places) - max(len(repeats(other, size)) for other in others) if places else 0
        if more * size > worst.size:
            phrase = (" " if spaced[1] else "").join(said[places[0] : places[0] + size])
            times = f"{len(places)} times" if len(places) > 1 else "once"
            worst = Case(index, f"“{phrase}”: said again {times}", more * size)
    if worst.size:
        yield worst


def repeats(said: Sequence[str], size: int) -> list[int]:
    """Where `size` words are followed by the same again; what is said three times is so twice."""
    found, place = [], 0
    while place + 2 * size <= len(said):
        if said[place : place + size] == said[place + size : place + 2 * size]:
            found.append(place)
            place += size
        else:
            place += 1
    return found


def _bare(text: str, spaced: bool) -> list[str]:
    """The words in lower case without the marks around them; what is nothing else is left out."""
    return [bare for word in words(text.lower(), spaced) if (bare := _stripped(word))]


def _stripped(word: str) -> str:
    lettered = [place for place, character in enumerate(word) if character.isalnum()]
    return word[lettered[0] : lettered[-1] + 1] if lettered else ""


# --- not translated -----------------------------------------------------------------------------------------------------


def _unlinked(segment: Segment) -> tuple[list[str], list[str]]:
    """The content words of the source, and those without a link."""
    linked = {source for source, _ in segment.links}
    content = [
        (place, bare) for place, word in enumerate(segment.source.split()) if _is_content(bare := _stripped(word))
    ]
    return [word for _, word in content], [word for place, word in content if place not in linked]


def _is_content(word: str) -> bool:
    return sum(map(str.isalpha, word)) >= LETTERS or any(map(str.isdigit, word))


def _untranslated(index: int, segment: Segment) -> Iterator[Case]:
    content, alone = _unlinked(segment)
    if len(content) >= _FEWEST and len(alone) >= _UNLINKED * len(content):
        shown = ", ".join(alone[:8]) + (", ..." if len(alone) > 8 else "")
        yield Case(index, f"{len(alone)} of {len(content)}: {shown}", len(alone))
