"""A glossary: terms of the source language and what they are to be called in a translation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from nmt.errors import InputError
from nmt.text.lines import read_lines
from nmt.text.normalize import normalize

_PIECE = re.compile(r"\w+|[^\w\s]")
_WORD = re.compile(r"\w")


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
        self._forms = {form: term for term in self.terms for form in (_capital(term), term)}
        self._lengths: dict[str, list[int]] = {}  # of forms by their first words, longest first
        for form in sorted(self._forms, key=len, reverse=True):
            lengths = self._lengths.setdefault(_PIECE.findall(form)[0], [])
            if len(form) not in lengths[-1:]:
                lengths.append(len(form))

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
        if not self.terms:
            return []
        text, end = normalize(text), 0
        found: dict[str, None] = {}
        for piece in _PIECE.finditer(text):
            start = piece.start()
            if start < end or (start and _WORD.match(text[start - 1])):
                continue
            for length in self._lengths.get(piece[0], ()):
                term = self._forms.get(text[start : start + length])
                if term is not None and not _WORD.match(text[start + length : start + length + 1]):
                    found[self.terms[term]] = None
                    end = start + length
                    break
        return list(found)


def _capital(term: str) -> str:
    """The term as at the beginning of a sentence."""
    first = term[0].upper()
    return first + term[1:] if len(first) == 1 else term
