"""Paragraphs of office documents as sequences of items: text with its format, what is kept, and what stands around other items; read from
their XML, and written as it."""

from __future__ import annotations

import copy
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence

from lxml import etree

from nmt.documents.items import OFFICE, PLAIN, A, Format, Group, Item, Kept, Key, Mark, T, Text, W, arranged, leaves

_STYLE = "{urn:oasis:names:tc:opendocument:xmlns:style:1.0}"
_FO = "{urn:oasis:names:tc:opendocument:xmlns:xsl-fo-compatible:1.0}"
_SPACE = "{http://www.w3.org/XML/1998/namespace}space"

_PARAGRAPHS = (f"{W}p", f"{A}p", f"{T}p", f"{T}h")
_GONE = (f"{W}del", f"{W}moveFrom", f"{T}tracked-changes")  # what was deleted
_SHELLS = {f"{W}{name}" for name in ("hyperlink", "ins", "moveTo", "smartTag", "customXml", "dir", "bdo", "sdt")} | {
    f"{T}{name}" for name in ("a", "meta", "meta-field")
}
_CHOSEN = {f"{W}{name}" for name in ("comboBox", "dropDownList", "date", "picture")} | {
    "{http://schemas.microsoft.com/office/word/2010/wordml}checkbox"
}  # controls whose content is no free text
_FIXED = {f"{W}pPr", f"{W}smartTagPr", f"{W}customXmlPr", f"{A}pPr", f"{A}endParaRPr"}  # of a paragraph or shell
_DROPPED = {f"{W}proofErr", f"{W}lastRenderedPageBreak", f"{W}softHyphen", f"{T}soft-page-break"}  # true of the source
_SPACES = {f"{W}tab": "\t", f"{W}ptab": "\t", f"{W}br": "\n", f"{W}cr": "\n", f"{A}br": "\n"} | {
    f"{T}tab": "\t",
    f"{T}line-break": "\n",
    f"{T}s": " ",
}
_LANGUAGES = {  # what a text is to spellers, not how it looks
    *(f"{W}lang", f"{W}noProof"),
    *("lang", "altLang", "dirty", "err", "smtClean", "noProof"),
    *(f"{_FO}{name}" for name in ("language", "country", "script")),
    *(f"{_STYLE}{name}" for name in ("language-asian", "country-asian", "script-asian", "rfc-language-tag-asian")),
    *(f"{_STYLE}{name}" for name in ("language-complex", "country-complex", "script-complex")),
    *(f"{_STYLE}{name}" for name in ("rfc-language-tag-complex", "rfc-language-tag")),
}
_DEEPEST = 20  # shells in each other,
_SPANS = 5  # and spans that change how text looks; what is in more is of less
_TABS = 100  # in one text that stay such; more become spaces

Content = str | etree._Element


def paragraphs(root: etree._Element) -> Iterator[tuple[etree._Element, Grammar, list[Item]]]:
    """The paragraphs of a part, those inside others too, each with the items in it."""
    styles = dict(_styles(root))
    for node in root.iter(*_PARAGRAPHS):
        if next(node.iterancestors(*_GONE), None) is None:
            grammar: Grammar = Spans(styles) if node.tag.startswith(T) else Runs(W if node.tag.startswith(W) else A)
            yield node, grammar, grammar.items(node)


class Grammar(ABC):
    """How items are written in a kind of document."""

    def items(self, container: etree._Element, depth: int = 0, format: Format = PLAIN) -> list[Item]:
        """What is in a node: ranges as groups, neighbours of one format as one text, and kept ones that touch as one mark."""
        return arranged(list(self._read(container, depth, format)))

    def fill(self, holder: etree._Element, items: Sequence[Item]) -> None:
        """Put the items into the node, in the place of what is in it."""
        content = self._content(items)
        last = [node for node in holder if node.tag == f"{A}endParaRPr"]
        for node in list(holder):
            if node.tag not in _FIXED or node in last:
                holder.remove(node)
        holder.text = None
        _append(holder, [*content, *last])

    @abstractmethod
    def _read(self, container: etree._Element, depth: int, format: Format) -> Iterator[Item]: ...

    @abstractmethod
    def _run(self, content: list[Content], format: Format) -> list[Content]:
        """Text and kept nodes of one format, as XML."""

    def _shell(self, node: etree._Element, depth: int, format: Format) -> Item:
        """The group of a node that stands around items, or what is kept of it where they are not for us."""
        holder: etree._Element | None = node
        if node.tag == f"{W}sdt":
            holder = node.find(f"{W}sdtContent")
            if any(each.tag in _CHOSEN for each in node.iterfind(f"{W}sdtPr/*")):
                holder = None
        if holder is None or depth >= _DEEPEST:
            return Kept(node)
        return Group(self.items(holder, depth + 1, format), node, holder)

    def _content(self, items: Iterable[Item]) -> list[Content]:
        found: list[Content] = []
        run: list[Content] = []
        format: Format | None = None
        for item in leaves(items):
            if isinstance(item, Text) and run and item.text.isspace():
                run.append(item.text)  # in whatever format
            elif isinstance(item, (Text, Kept)) and item.format is not None:
                if format is None or format.key != item.format.key:
                    found += self._run(run, format) if format else []
                    run, format = [], item.format
                run.append(item.text if isinstance(item, Text) else item.node)
            else:
                found += self._run(run, format) if format else []
                run, format = [], None
                if isinstance(item, Kept):
                    found.append(item.node)
                elif isinstance(item, Group):
                    assert item.shell is not None
                    assert item.holder is not None
                    self.fill(item.holder, item.items)
                    found.append(item.shell)
        return found + (self._run(run, format) if format else [])


def _append(holder: etree._Element, content: Iterable[Content]) -> None:
    last: etree._Element | None = None
    for piece in content:
        if not isinstance(piece, str):
            piece.tail = None
            holder.append(piece)
            last = piece
        elif last is None:
            holder.text = (holder.text or "") + piece
        else:
            last.tail = (last.tail or "") + piece


class Runs(Grammar):
    """Of Open XML, in the namespace of Word or of drawings: text stands in runs, which have properties."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace

    def _read(self, container: etree._Element, depth: int, format: Format) -> Iterator[Item]:
        for node in container:
            if node.tag == f"{self._namespace}r":
                yield from self._pieces(node)
            elif node.tag in _SHELLS:
                yield self._shell(node, depth, format)
            elif node.tag not in _FIXED and node.tag not in _DROPPED:
                yield Kept(node, space=_SPACES.get(node.tag, ""))

    def _pieces(self, run: etree._Element) -> Iterator[Item]:
        properties = run.find(f"{self._namespace}rPr")
        format = PLAIN if properties is None else Format(_look(properties), (properties,))
        for node in run:
            if node.tag == f"{self._namespace}t":
                text = re.sub(r"[\r\n]+", " ", node.text or "")
                if self._namespace == W and text != text.strip() and not _preserves(node):
                    text = text.strip()
                for number, piece in enumerate(re.split("(\t+)", text, maxsplit=_TABS)):
                    if number % 2:
                        yield Mark([Text(piece, format)], "\t")
                    elif piece:
                        yield Text(piece.replace("\t", " "), format)
            elif node.tag == f"{W}noBreakHyphen":
                yield Text("\u2011", format)
            elif node is not properties and node.tag not in _DROPPED:
                yield Kept(node, format, _SPACES.get(node.tag, ""))

    def _run(self, content: list[Content], format: Format) -> list[Content]:
        run = etree.Element(f"{self._namespace}r")
        run.extend(copy.deepcopy(node) for node in format.nodes)
        text: etree._Element | None = None
        for piece in content:
            if isinstance(piece, str):
                if text is None:
                    text = etree.SubElement(run, f"{self._namespace}t")
                text.text = (text.text or "") + piece
                if self._namespace == W and text.text != text.text.strip():
                    text.set(_SPACE, "preserve")
            else:
                text = None
                run.append(piece)
        return [run]


def _preserves(node: etree._Element) -> bool:
    """Whether white space around the text of a node is text."""
    said = (each.get(_SPACE) for each in (node, *node.iterancestors()))
    return next(filter(None, said), "") == "preserve"


class Spans(Grammar):
    """Of OpenDocument: text stands in the paragraph itself and in spans, and white space is one space."""

    def __init__(self, styles: dict[str, Key]) -> None:
        self._styles = styles
        self._spaced = True  # white space that follows is not there

    def _read(self, container: etree._Element, depth: int, format: Format) -> Iterator[Item]:
        yield from self._text(container.text, format)
        for node in container:
            if node.tag == f"{T}span":
                name = node.get(f"{T}style-name", "")
                key = self._styles.get(name, (name,)) if name else ()
                changes = key and len(format.nodes) < _SPANS
                inside = Format((*format.key, key), (*format.nodes, node)) if changes else format
                yield from self._read(node, depth, inside)
            elif node.tag in _SHELLS:
                yield self._shell(node, depth, format)
            elif node.tag not in _DROPPED:
                self._spaced = self._spaced and node.tag not in _SPACES and not len(node) and not node.text
                yield Kept(node, format, _SPACES.get(node.tag, ""))
            yield from self._text(node.tail, format)

    def _text(self, raw: str | None, format: Format) -> Iterator[Item]:
        text = re.sub("[ \t\r\n]+", " ", raw or "")
        if self._spaced:
            text = text.removeprefix(" ")
        if text:
            self._spaced = text.endswith(" ")
            yield Text(text, format)

    def _run(self, content: list[Content], format: Format) -> list[Content]:
        content = [each for piece in content for each in (_spaced(piece) if isinstance(piece, str) else [piece])]
        for node in reversed(format.nodes):
            span = etree.Element(node.tag, {str(name): str(value) for name, value in node.attrib.items()})
            _append(span, content)
            content = [span]
        return content


def _spaced(text: str) -> Iterator[Content]:
    """The text with elements for spaces that follow on one."""
    for number, piece in enumerate(re.split("(?<= )( +)", text)):
        if number % 2:
            yield etree.Element(f"{T}s", {f"{T}c": str(len(piece))})
        elif piece:
            yield piece


def _styles(root: etree._Element) -> Iterator[tuple[str, Key]]:
    """The automatic styles of OpenDocument with how they look; () for one that only has a language, or who wrote it."""
    for style in root.iterfind(f"{OFFICE}automatic-styles/{_STYLE}style"):
        if style.get(f"{_STYLE}family") == "text":
            looks = tuple(look for look in map(_look, style) if look)
            parent = style.get(f"{_STYLE}parent-style-name")
            yield style.get(f"{_STYLE}name", ""), (parent, *looks) if parent or looks else ()


def _look(node: etree._Element) -> Key:
    """A node as a value, () where it has nothing in it; without what text is to spellers and to revisions."""
    attributes = sorted(
        (str(name), str(value))
        for name, value in node.attrib.items()
        if name not in _LANGUAGES and not str(name).endswith("rsid")
    )
    inside = [(child.tag, _look(child)) for child in node if child.tag not in _LANGUAGES]
    return (*attributes, *inside)
