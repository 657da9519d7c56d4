"""Markdown: what of a document is text, and the document with its translation. The translations are put into the source in the place of the
text, so that all the rest of it stays, to the byte."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from nmt.documents.collected import Collected
from nmt.documents.commonmark import Mark, Region, Source
from nmt.documents.inline import Passage
from nmt.documents.plain import decode
from nmt.inference.types import Hypothesis

_MOST = 100  # elements and placeholders in a passage
_HELD = (
    0xD800  # the first of the characters that stand for what elements are not to divide: surrogates, which no text has
)
_SPECIAL = "\\`*_[]<|"  # is escaped where a translation has more of them than the text
# What would begin a block at the beginning of a paragraph, and of another line in it; a backslash belongs behind the match.
_BLOCK = re.compile(r"\d{1,9}(?=[.)](?:\s|$))|(?=(?:[-+*]|#{1,6})(?:\s|$)|(?:-+|=+)\s*$|>|~{3})")
_BREAK = re.compile(_BLOCK.pattern.replace(r"\d{1,9}", "0*1"))
_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9-]*)")
_KEPT = ("code", "kbd", "samp", "var")
_NEAR = 1000  # characters, within which their ends are
_VOID = ("hr", "img", "input", "wbr")


@dataclass(frozen=True, slots=True)
class _Slot:
    """A passage between two pieces of a document that stay."""

    passage: Passage
    held: list[str]  # what `_HELD` and the characters after it stand for
    spelled: dict[str, list[str]]  # how each occurrence of a character is written
    breaks: dict[int, str]  # places of spaces at which lines end, and what is between the lines
    shortcuts: list[tuple[str, str, str]]  # links whose text is their label: this, their end, and that for another text
    guarded: bool  # whether it begins a line, where no block is to begin
    after: str


class Markdown:
    """A document: `texts` are its passages, and `write` is the document with their translations.

    A passage is a paragraph, a heading or a cell of a table, or what is between hard line breaks in it. Code in it and addresses are
    placeholders of the kind `{{x0}}`, which `nmt.text.placeholders` keeps. A paragraph has as many lines in the translation, if it can.
    """

    def __init__(self, content: bytes) -> None:
        text, self._encoding = decode(content)
        names = (f"x{number or ''}" for number in range(len(text) + 1))
        self._name = next(name for name in names if f"{{{{{name}" not in text)
        self._placeholder = re.compile(rf"\{{\{{{self._name}(\d{{1,2}})\}}\}}")
        source = Source(text)
        self._pieces: list[str | _Slot] = []
        end = 0
        for region in source.regions():
            self._pieces.append(text[end : region.at(region.begins())])
            for start, stop in region.parts():
                marks = source.marks(region.content[start:stop])
                self._pieces += _Reader(text, region, start).pieces(marks, stop)
            end = region.at(len(region.content))
        self._pieces.append(text[end:])
        self._slots = [piece for piece in self._pieces if isinstance(piece, _Slot)]
        shown = {_HELD + number: f"{{{{{self._name}{number}}}}}" for number in range(_MOST)}
        self.texts = [slot.passage.text.translate(shown) for slot in self._slots]

    def write(self, found: Sequence[Hypothesis]) -> bytes:
        """The document, given a translation of each passage, with its links."""
        filled = iter([self._filled(slot, each) for slot, each in zip(self._slots, found, strict=True)])
        return self._encoding.encode("".join(each if isinstance(each, str) else next(filled) for each in self._pieces))

    def _filled(self, slot: _Slot, found: Hypothesis) -> str:
        """The passage's translation as Markdown."""
        held = {str(number): chr(_HELD + number) for number in range(len(slot.held))}
        text = self._placeholder.sub(lambda match: held.get(match[1], match[0]), found.text)
        text = _in_lines(text, slot)
        ends = iter(slot.breaks.values())
        ways = {character: iter(each) for character, each in slot.spelled.items()}

        def spelled(match: re.Match[str]) -> str:
            character = match.group()
            if character == "\n":
                return next(ends)
            more = "\\" + character if character in _SPECIAL else slot.spelled[character][-1]
            return next(ways.get(character, iter(())), more)

        special = _any(_SPECIAL + "\n" + "".join(slot.spelled))
        written = slot.passage.write(text, found.links, lambda piece: special.sub(spelled, piece))
        missing = [raw for raw, character in zip(slot.held, held.values(), strict=True) if character not in written]
        written = " ".join([written, *missing]).translate(dict(enumerate(slot.held, _HELD)))
        for number, (label, short, full) in enumerate(slot.shortcuts, 1):
            before, _, behind = written.partition(f"\0{number}\0")
            written = before + (short if before.endswith(label) else full) + behind
        if slot.guarded and (block := _BLOCK.match(written)):
            written = f"{written[: block.end()]}\\{written[block.end() :]}"
        return written + slot.after


@dataclass(slots=True)
class _Reader:
    """Reads the passages of a part of a region."""

    source: str
    region: Region
    start: int  # of the passage that is being read, in the region
    collected: Collected = field(default_factory=Collected)
    held: list[str] = field(default_factory=list)
    spelled: dict[int, str] = field(default_factory=dict)  # how characters are written, by their places
    breaks: dict[int, str] = field(default_factory=dict)
    shortcuts: list[tuple[str, str, str]] = field(default_factory=list)
    label: int = 0  # where that of the last link begins

    def pieces(self, marks: Sequence[Mark], end: int) -> Iterator[str | _Slot]:
        """What is read, up to `end`, as passages and what is between them."""
        content, begin, at = self.region.content, self.start, self.start
        for mark in marks:
            start, stop = begin + mark.start, begin + mark.end
            if stop <= at:  # inside what stays as a whole
                continue
            start = max(start, at)
            self.collected.add(content[at:start])
            tag = _TAG.match(content, start) if mark.token.type == "html_inline" else None
            if mark.token.type == "hardbreak" or (tag and tag[2].lower() == "br"):
                yield from self._flush(start)
                yield self._raw(start, stop)
                self._begin(stop)
            elif tag:
                stop = self._add_tag(tag, stop)
            else:
                self._add_mark(mark, start, stop)
            at = stop
            if len(self.collected.elements) + len(self.held) >= _MOST:
                yield from self._flush(at)
                self._begin(at)
        self.collected.add(content[at:end])
        yield from self._flush(end)

    def _raw(self, start: int, end: int) -> str:
        return self.source[self.region.at(start) : self.region.at(end)]

    def _begin(self, start: int) -> None:
        self.start, self.collected = start, Collected()
        self.held, self.spelled, self.breaks, self.shortcuts = [], {}, {}, []

    def _add_mark(self, mark: Mark, start: int, stop: int) -> None:
        raw, token, before = self._raw(start, stop), mark.token, len(self.collected.text)
        if token.type == "softbreak":
            if before and not self.collected.text.endswith(" "):
                self.breaks[before] = raw
                self.collected.add(" ")
            else:
                self.collected.mark(raw)
        elif token.type == "text_special":
            self.collected.add(token.content)
            if len(self.collected.text) == before + 1:
                self.spelled[before] = raw
        elif token.type == "code_inline" or token.info == "auto":
            self._hold(raw)
        elif token.nesting > 0:
            self.label = stop if token.type == "link_open" else self.label
            self.collected.open(token.tag, raw)
        elif token.nesting < 0:
            if raw in ("]", "][]"):
                label = " ".join(self.region.content[self.label : start].split())
                self.shortcuts.append((f"[{self._raw(self.label, start)}", raw, f"][{label}]"))
                raw = f"\0{len(self.shortcuts)}\0"  # of which there are none in a text
            self.collected.close(token.tag, raw)
        else:
            self.collected.mark(raw)

    def _add_tag(self, tag: re.Match[str], stop: int) -> int:
        """An HTML tag, up to `stop`, or an element whose content stays; where it ends."""
        raw, name = self._raw(tag.start(), stop), tag[2].lower()
        end = self.region.content.find(f"</{tag[2]}>", stop, stop + _NEAR) if name in _KEPT else -1
        if end >= 0 and not tag[1]:
            stop = end + len(f"</{tag[2]}>")
            self._hold(self._raw(tag.start(), stop))
        elif tag[1] and self.collected.opens(f"<{name}"):
            self.collected.close(f"<{name}", raw)
        elif tag[1] or name in _VOID or raw.endswith("/>"):
            self.collected.mark(raw)
        else:
            self.collected.open(f"<{name}", raw)
        return stop

    def _hold(self, raw: str) -> None:
        self.collected.add(chr(_HELD + len(self.held)))
        self.held.append(raw)

    def _flush(self, end: int) -> Iterator[str | _Slot]:
        """The passage that has been read, which ends at `end` in the region; as it was, where it has no words."""
        if not any(map(str.isalnum, self.collected.text)):
            yield self._raw(self.start, end)
            return
        passage, after = self.collected.passage(self.breaks)
        characters = _SPECIAL + "".join(passage.text[place : place + 1] for place in self.spelled)
        spelled: dict[str, list[str]] = {}
        for match in _any(characters).finditer(passage.text):
            spelled.setdefault(match.group(), []).append(self.spelled.get(match.start(), match.group()))
        breaks = {place: raw for place, raw in self.breaks.items() if place < len(passage.text)}
        line = self.region.kind == "paragraph" and self.region.content[self.start - 1 : self.start] in ("", "\n")
        guarded = line and not _BLOCK.match(self.region.content, self.start)
        yield _Slot(passage, self.held, spelled, breaks, self.shortcuts, guarded, after)


def _any(characters: str) -> re.Pattern[str]:
    return re.compile(f"[{re.escape(characters)}]")


def _in_lines(text: str, slot: _Slot) -> str:
    """The translation with line feeds in the place of spaces, in proportion to where the lines of the passage end."""
    spaces = [match.start() for match in re.finditer(r"(?<![ \t]) (?![ \t])", text)] if slot.breaks else []
    safe = [space for space in spaces if not _BREAK.match(text, space + 1)]
    pieces, end = [], 0
    for place in slot.breaks:
        choices = (
            spaces if _BREAK.match(slot.passage.text, place + 1) else safe
        )  # so far to the right that it begins nothing
        wanted = place * len(text) // len(slot.passage.text)
        first = bisect_left(choices, end)
        number = bisect_left(choices, wanted, first)
        if number > first and (number == len(choices) or wanted - choices[number - 1] < choices[number] - wanted):
            number -= 1
        if number == len(choices):
            break
        pieces.append(text[end : choices[number]])
        end = choices[number] + 1
    return "\n".join([*pieces, text[end:]])
