"""Office documents (.docx, .pptx, .odt): what of them is text, and the document with its translation.

A paragraph is a passage. Its formatting goes to the words that come from the formatted ones; what is no text, such as images, notes and
fields, stays in it. All else of the document stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from lxml import etree

from nmt.documents.inline import Element, Passage, Placed
from nmt.documents.items import Format, Group, Item, Mark, Text, has_words, usual
from nmt.documents.packages import Package
from nmt.documents.runs import Grammar, paragraphs
from nmt.errors import InputError
from nmt.inference.types import Hypothesis

_MOST = 100  # elements in a passage
_ILLEGAL = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")  # in XML


class Office:
    """A document: `texts` are its passages, and `write` is the document with their translations.

    What it says several times is one passage: a text box is in it twice, for programs of two ages, and a diagram beside its drawing. Tabs
    and ends of lines are such in a passage too. InputError: the content is no document with that suffix, or encrypted, or damaged, or could
    be an attack (`nmt.documents.packages`).
    """

    def __init__(self, content: bytes, suffix: str) -> None:
        self._package = Package(content, suffix)
        slots = (slot for name in self._package.parts for paragraph in self._read(name)[1] for slot in paragraph.slots)
        self.texts = list(dict.fromkeys(slot.passage.text for slot in slots))

    def write(self, found: Sequence[Hypothesis]) -> bytes:
        """The document, given a translation of each passage, with its links."""
        said = dict(zip(self.texts, found, strict=True))
        changed: dict[str, bytes] = {}
        for name in self._package.parts:
            tree, read = self._read(name)
            for paragraph in read:
                paragraph.write(said)
            if any(paragraph.slots for paragraph in read):
                changed[name] = self._package.with_tree(name, tree)
        return self._package.write(changed)

    def _read(self, name: str) -> tuple[etree._ElementTree, list[_Paragraph]]:
        tree = self._package.xml(name)
        root = tree.getroot()
        if root.tag.startswith("{http://purl.oclc.org/"):
            raise InputError(f"{name} is Strict Open XML: save the document as an ordinary one, not as Strict")
        return tree, [_Paragraph(*found) for found in paragraphs(root)]


class _Paragraph:
    def __init__(self, node: etree._Element, grammar: Grammar, items: list[Item]) -> None:
        self._node, self._grammar = node, grammar
        self._items = _cut(items)
        self.slots = list(_slots(self._items))

    def write(self, said: Mapping[str, Hypothesis]) -> None:
        for slot in self.slots:
            slot.say(said[slot.passage.text])
        if self.slots:
            self._grammar.fill(self._node, self._items)


def _slots(items: Iterable[Item]) -> Iterator[_Slot]:
    for item in items:
        if isinstance(item, _Slot):
            yield item
        elif isinstance(item, Group):
            yield from _slots(item.items)


def _cut(items: Iterable[Item]) -> list[Item]:
    """The items, with slots in the place of those that are translated as one."""
    found: list[Item] = []
    together: list[Item] = []
    count = 0
    for item in items:
        size = _size(item)
        if count + size > _MOST:
            found += _slotted(together)
            together, count = [], 0
        together.append(item)
        count += size
    return found + _slotted(together)


def _size(item: Item) -> int:
    return 1 + (sum(map(_size, item.items)) if isinstance(item, Group) else 0)


def _slotted(items: list[Item]) -> list[Item]:
    """The items from the first that can be seen to the last as a slot. What is around them stays, so does a group around all of them."""
    if not any(map(has_words, items)):
        return items
    places = [
        place
        for place, item in enumerate(items)
        if (isinstance(item, Text) and not item.text.isspace()) or has_words(item)
    ]
    first, last = places[0], places[-1] + 1
    only = items[first]
    if isinstance(only, Group) and last == first + 1:
        only.items = _cut(only.items)
        return items
    return [*items[:first], _Slot(items[first:last]), *items[last:]]


class _Slot(Mark):
    """Items that are a passage; those of its translation once it is said."""

    def __init__(self, items: list[Item]) -> None:
        super().__init__(items)
        self._usual = usual(items)
        self._held: list[Format | Mark | Group] = []  # by the numbers of elements
        self._spans: list[tuple[int, int]] = []
        self._text = ""
        self._add(items, self._usual)
        text = self._text.lstrip(" ")
        lead = len(self._text) - len(text)
        text = text.rstrip()
        self._around = self._text[:lead], self._text[lead + len(text) :].strip("\t\n")
        spans = [(min(max(start - lead, 0), len(text)), min(end - lead, len(text))) for start, end in self._spans]
        self.passage = Passage(text, tuple(Element(start, max(start, end), "", "") for start, end in spans))

    def say(self, found: Hypothesis) -> None:
        """Put its translation in the place of the items."""
        self._begins = True
        self._swallows = False  # a space that stands for what has just been put there
        before, after = self._around
        pieces = self.passage.placed(before + found.text + after, found.links)
        self.items = list(self._said(pieces, self._usual))

    def _add(self, items: Sequence[Item], format: Format) -> None:
        """Add the items to the text and the elements; text of that format is none."""
        for item in items:
            start = len(self._text)
            if isinstance(item, Text):
                self._text += item.text
                if item.format.key != format.key:
                    self._hold(item.format, start)
            elif isinstance(item, Mark):
                self._add_space(item)
                self._hold(item, start)
            elif isinstance(item, Group):
                number = len(self._held)
                self._hold(item, start)
                inside, last = _divided(item)
                self._add(inside, usual(inside))
                self._spans[number] = (start, len(self._text))
                for mark in last:
                    self._add_space(mark)

    def _hold(self, held: Format | Mark | Group, start: int) -> None:
        self._held.append(held)
        self._spans.append((start, len(self._text)))

    def _add_space(self, mark: Mark) -> None:
        if mark.space != " " or not self._text[-1:].isspace():
            self._text += mark.space

    def _said(self, pieces: Iterable[str | Placed], format: Format) -> Iterator[Item]:
        for piece in pieces:
            if isinstance(piece, str):
                if text := self._cleaned(piece):
                    yield Text(text, format)
                    self._begins = False
                continue
            held = self._held[piece.number]
            if isinstance(held, Format):
                yield from self._said(piece.inside, held)
            elif isinstance(held, Mark):
                first = held.items[0]
                if self._begins and isinstance(first, Text) and first.text.isspace():
                    held.items = [*held.items[1:], first]
                yield held
                self._swallows = bool(held.space) and not piece.inside
            else:
                inside, last = _divided(held)
                yield replace(held, items=[*self._said(piece.inside, usual(inside)), *last])
                self._swallows = any(mark.space for mark in last)

    def _cleaned(self, text: str) -> str:
        if self._swallows and text[0].isspace():
            text = text[1:]
        self._swallows = False
        return re.sub(r" *[\t\r\n]+ *", " ", _ILLEGAL.sub("", text))


def _divided(group: Group) -> tuple[list[Item], list[Mark]]:
    """What is in a group, apart from a mark at its end, which stays there."""
    last = group.items[-1]
    return (group.items[:-1], [last]) if isinstance(last, Mark) else (group.items, [])
