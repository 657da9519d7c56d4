"""Catalogues of messages (gettext .po and .pot, by polib): what in them is not translated, and the catalogue with its translation. All but
the new translations stays as it is, to the byte."""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from dataclasses import dataclass

import polib

from nmt.documents.plain import decode, split_lines
from nmt.errors import InputError
from nmt.inference.types import Hypothesis

_MOST_PLURALS = 10  # Arabic has 6
_LINE = re.compile(r"(?:#.*|(?:msg(?:ctxt|id|id_plural|str|str\[\d\])\s*)?\"(?:[^\"\\]|\\.)*+\")?", re.DOTALL)
_WIDTH = 78  # of gettext's lines


class _Lines(str):
    """A text of which polib takes only what ends lines in files for such ends, and not what does in Unicode."""

    def splitlines(self, keepends: bool = False) -> list[str]:
        return [line if keepends else line.rstrip("\r\n") for line in split_lines(self)]


@dataclass(frozen=True, slots=True)
class _Message:
    """A message that is not translated: where it is, in lines, and what is."""

    entry: polib.POEntry
    first: int  # line of it, or a comment before it
    start: int  # lines of its translations
    end: int


class Catalogue:
    """A catalogue: `texts` are the messages without a translation, and for those with a plural this too."""

    def __init__(self, content: bytes, fuzzy: bool = False) -> None:
        """With `fuzzy` the translations are marked as fuzzy, which is to say, to be looked at."""
        text, self._encoding = decode(content)
        self._fuzzy = fuzzy
        self._lines = split_lines(text)
        for number, line in enumerate(self._lines, 1):
            if not _LINE.fullmatch(line.strip()):
                raise _broken(f"(line {number})")
        try:
            catalogue = polib.pofile(_Lines(text + "\n"), encoding="utf-8")  # so it is not the name of a file
        except OSError as problem:
            raise _broken(str(problem)) from None
        _check_charset(catalogue.metadata.get("Content-Type", ""), self._encoding.codec)
        self._plurals = _plurals(catalogue.metadata.get("Plural-Forms", ""))
        self._wrapped = all(
            len(line.rstrip()) <= _WIDTH + len('""') for line in self._lines if not line.startswith("#")
        )
        self._messages = [self._message(entry) for entry in catalogue if _untranslated(entry)]
        self.texts: list[str] = []
        for message in self._messages:
            self.texts += [each.strip() for each in (message.entry.msgid, message.entry.msgid_plural) if each]

    def write(self, found: Sequence[Hypothesis]) -> bytes:
        """The catalogue, given a translation of each text."""
        translations = iter([each.text for each in found])
        pieces: list[str] = []
        end = 0
        for message in self._messages:
            entry = message.entry
            pieces += self._lines[end : message.first]
            pieces += self._commented(self._lines[message.first : message.start])
            singular = _framed(next(translations), entry.msgid)
            if entry.msgid_plural:
                plural = _framed(next(translations), entry.msgid_plural)
                pieces.append(self._written(message, self._forms(entry, singular, plural)))
            else:
                pieces.append(self._written(message, singular))
            end = message.end
        return self._encoding.encode("".join([*pieces, *self._lines[end:]]))

    def _message(self, entry: polib.POEntry) -> _Message:
        first = start = max((entry.linenum or 1) - 1, 0)
        while start < len(self._lines) and not self._lines[start].lstrip().startswith("msgstr"):
            start += 1
        if start == len(self._lines):
            raise InputError(
                f"line {start}: message {entry.msgid[:50]!r} has no msgstr; is the end of the file missing?"
            )
        end = start + 1
        while end < len(self._lines) and self._lines[end].lstrip().startswith(("msgstr", '"')):
            end += 1
        return _Message(entry, first, start, end)

    def _forms(self, entry: polib.POEntry, singular: str, plural: str) -> dict[int, str]:
        """The plural forms, by number; the first is the singular, unless there are no others."""
        count = self._plurals or max(len(entry.msgstr_plural), 2)
        forms = {number: plural if number or count == 1 else singular for number in range(count)}
        return forms | {number: text for number, text in entry.msgstr_plural.items() if text}

    def _written(self, message: _Message, translated: str | dict[int, str]) -> str:
        """The lines of a translation, as polib would write them."""
        entry = polib.POEntry(msgid="")
        if isinstance(translated, str):
            entry.msgstr = translated
        else:
            entry.msgstr_plural = translated
        _, _, lines = entry.__unicode__(wrapwidth=_WIDTH if self._wrapped else 0).partition("\n")
        line = self._lines[message.start]
        line_end = line[len(line.rstrip("\r\n")) :]
        last = self._lines[message.end - 1]
        return lines.rstrip("\n").replace("\n", line_end or "\n") + last[len(last.rstrip("\r\n")) :]

    def _commented(self, lines: Sequence[str]) -> list[str]:
        """The lines before a translation, with the flag of a fuzzy one where it is wanted."""
        if not self._fuzzy:
            return list(lines)
        for number, line in enumerate(lines):
            if line.startswith("#,"):
                return [*lines[:number], line.replace("#,", "#, fuzzy,", 1), *lines[number + 1 :]]
            if line.lstrip().startswith(("msg", "#|")):
                line_end = line[len(line.rstrip("\r\n")) :]
                return [*lines[:number], f"#, fuzzy{line_end}", *lines[number:]]
        return list(lines)


def _untranslated(entry: polib.POEntry) -> bool:
    empty = not entry.msgstr and (not entry.msgstr_plural or not all(entry.msgstr_plural.values()))
    return bool(entry.msgid.strip()) and empty and not entry.obsolete and not entry.fuzzy


def _framed(text: str, message: str) -> str:
    """A translation between the white space that the message begins and ends with."""
    core = message.strip()
    start = message.index(core)
    return message[:start] + text.strip() + message[start + len(core) :]


def _plurals(formula: str) -> int:
    """How many plural forms a header says there are; 0 for none that is known."""
    found = re.match(r"\s*nplurals\s*=\s*(\d{1,9})\s*;", formula)
    count = int(found[1]) if found else 0
    if found and not 1 <= count <= _MOST_PLURALS:
        raise InputError(f"the header's Plural-Forms has nplurals={count}; it has to be from 1 to {_MOST_PLURALS}")
    return count


def _check_charset(content_type: str, codec: str) -> None:
    """Refuse a catalogue whose header names another encoding than the one that it has."""
    found = re.search(r"charset=([\w.:-]+)", content_type)
    try:
        named = codecs.lookup(found[1]).name if found else codec
    except LookupError:  # such as CHARSET, in a template
        return
    if named not in ("utf-8", "ascii") and named[:6] != codec[:6]:
        raise InputError(
            f"the header says charset={found[1] if found else ''}; convert the catalogue: msgconv --to-code=UTF-8"
        )


def _broken(problem: str) -> InputError:
    """polib's error as one line."""
    found = re.search(r"\(line (\d+)\)(?::\s*(.*))?$", problem)
    line, reason = (found[1], found[2]) if found else ("?", None)
    return InputError(f"line {line}: not valid in a .po file ({reason or 'syntax error'}); msgfmt --check shows more")
