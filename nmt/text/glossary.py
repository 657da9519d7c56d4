"""A glossary: terms of the source language and what they are to be called in a translation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from nmt.errors import InputError
from nmt.text.lines import read_lines
from nmt.text.normalize import normalize


class Glossary:
    """Terms and their translations.

    A term is found where it stands as whole words, in its own case; its first letter may be a capital, as at the beginning of a sentence.
    Of terms that overlap, the longest counts.
    """

    def __init__(self, terms: Mapping[str, str]) -> None:
        """Raise `InputError` for a term or a translation without text."""
        self.terms = {normalize(term): normalize(translation) for term, translation in terms.items()}
        for term, translation in self.terms.items():
            if not term or not translation:
                raise InputError(f"glossary: {term or translation!r} has an empty side")
        longest_first = sorted(self.terms, key=lambda term: (-len(term), term))
        alternatives = "|".join(f"({_first_letter(term)})" for term in longest_first)
        self._names = longest_first
        self._pattern = re.compile(rf"(?<!\w)(?:{alternatives})(?!\w)") if longest_first else None

    @classmethod
    def read(cls, path: Path) -> Glossary:
        """A file of lines TERM, tab, TRANSLATION; empty lines don't count. Raise `InputError` naming file and line."""
        terms: dict[str, str] = {}
        for number, line in enumerate(read_lines(path), start=1):
            if not line.strip():
                continue
            sides = [normalize(side) for side in line.split("\t")]
            if len(sides) != 2 or not all(sides):
                raise InputError(f"{path}, line {number}: a term, one tab and its translation were expected")
            if terms.setdefault(sides[0], sides[1]) != sides[1]:
                raise InputError(
                    f"{path}, line {number}: {sides[0]!r} has another translation above: {terms[sides[0]]!r}"
                )
        return cls(terms)

    def phrases(self, text: str) -> list[str]:
        """The translations of the terms in `text`, each once, in the order of the text."""
        if self._pattern is None:
            return []
        found = (
            self.terms[self._names[(match.lastindex or 1) - 1]] for match in self._pattern.finditer(normalize(text))
        )
        return list(dict.fromkeys(found))


def _first_letter(term: str) -> str:
    first, rest = term[0], re.escape(term[1:])
    capital = first.upper()
    return (
        f"[{first}{capital}]" if first.isalpha() and len(capital) == 1 and capital != first else re.escape(first)
    ) + rest
