"""HTML: what of a page is text, and the page with its translation. Nothing of it is parsed into a tree or written anew: broken or not, all
that is not text stays as it is, to the byte.

Tags are told as browsers do (WHATWG HTML, 13.2.5, tokenization), in time that grows with the length alone.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from nmt.documents.collected import Collected
from nmt.documents.inline import Passage
from nmt.inference.types import Hypothesis, Translation

# A tag: possessive, so that nothing is tried twice.
_TAG = re.compile(
    r"<(?P<end>/?)(?P<name>[a-zA-Z][^\s/>]*+)"
    r"(?P<attributes>(?:[\s/]++|[^\s/>][^\s/>=]*+(?:\s*+=\s*+(?:\"[^\"]*+\"|'[^']*+'|[^\s>]*+))?)*+)>"
)
_ATTRIBUTE = re.compile(r"([^\s/>=]++)(?:\s*+=\s*+(?:\"([^\"]*+)\"|'([^']*+)'|([^\s>]*+)))?")
_MARK = re.compile(r"<(?=[a-zA-Z!?]|/\S)")


def _names(words: str) -> frozenset[str]:
    return frozenset(words.split())


INLINE = _names(
    "a abbr acronym b bdi bdo big button cite code data del dfn em font i img input ins kbd label mark math nobr noscript object q rb rp rt"
    " ruby s samp script small span strike strong style sub sup svg template textarea time tt u var wbr"
)
_VOID = _names("area base br col embed hr img input link meta param source track wbr")
_RAW = _names("script style xmp iframe noembed noframes plaintext textarea")  # there are no tags in these
_KEPT = _RAW | _names("code kbd samp var pre svg math template object")
_UNSEEN = _names("script style template")  # of which a reader sees nothing
_SPACE = " \t\n\r\f"
_LETTERS = range(0x20000, 0x2A6DF)  # of rare ideographs, for what is held
_MOST = 100  # elements and placeholders in a passage


@dataclass(frozen=True, slots=True)
class _Token:
    start: int
    end: int
    name: str = ""  # of a tag; "" for text, "!" for a comment or anything else
    closes: bool = False
    kept: bool | None = None  # what it says of its content: that it stays, or that it does not
    alone: bool = False  # has no content


@dataclass(frozen=True, slots=True)
class Xml:
    """XML in the place of HTML: which tags are inline. With `outline` those are, which stand in text or have text beside them; else all."""

    outline: bool = True
    inline: frozenset[str] = frozenset()
    split: frozenset[str] = frozenset()
    kept: frozenset[str] = frozenset()  # whose content stays


def tokens(page: str, xml: Xml | None = None) -> Iterator[_Token]:
    """The tags of a page and what is between them; together they are the page."""
    at, text = 0, 0
    raw = ""  # the element that has no tags in it
    while at < len(page):
        mark = re.compile(rf"</(?={raw}[\s/>])", re.IGNORECASE).search(page, at) if raw else _MARK.search(page, at)
        if mark is None:
            break
        at = mark.start()
        if at > text:
            yield _Token(text, at, "!" if raw else "")
        token = _token(page, at, xml)
        raw = token.name if not xml and token.name in _RAW and not token.closes and not token.alone else ""
        yield token
        at = text = token.end
    if text < len(page):
        yield _Token(text, len(page), "!" if raw else "")


def plain(page: str) -> str:
    """What there is to read in a page."""
    return " ".join(html.unescape(page[token.start : token.end]) for token in tokens(page) if not token.name)


def _token(page: str, at: int, xml: Xml | None) -> _Token:
    """The tag, or comment, that begins at `at`; what never ends goes on to the end of the page."""
    if page.startswith("<!--", at):
        end = page.find("-->", at + 4)
        return _Token(at, len(page) if end < 0 else end + 3, "!")
    found = _TAG.match(page, at)
    if found is None:
        bogus = page[at + 1] in "!?" or (page[at + 1] == "/" and not page[at + 2].isalpha())
        end = page.find(">", at) if bogus else -1
        return _Token(at, len(page) if end < 0 else end + 1, "!")
    name, closes = found["name"].lower(), bool(found["end"])
    attributes = {key.lower(): a or b or c for key, a, b, c in _ATTRIBUTE.findall(found["attributes"])}
    kept: bool | None = None
    if "translate" in attributes:
        kept = attributes["translate"].lower() == "no"
    elif "notranslate" in attributes.get("class", "").split() or name in (xml.kept if xml else _KEPT):
        kept = True
    alone = found["attributes"].endswith("/")
    if xml is None:
        alone = name in _VOID or (alone and name not in INLINE - {"svg", "math"} and name not in _RAW)
    return _Token(at, found.end(), name, closes, kept, alone)


@dataclass(slots=True)
class _Slot:
    """A passage between two pieces of a page that stay."""

    passage: Passage
    held: dict[str, str]  # by their placeholders
    after: str = ""  # white space


class Html:
    """A page: `texts` are its passages, and `write` is the page with their translations.

    A passage is what stands between two tags that are not inline. What is not to be translated in it, such as code, is a placeholder of the
    kind `{{x0}}`, which `nmt.text.placeholders` keeps.
    """

    def __init__(self, page: str, xml: Xml | None = None) -> None:
        """With `xml` the page is XML."""
        self._page = page
        self._pieces: list[str | _Slot] = []
        names = (f"x{number or ''}" for number in range(len(page) + 1))
        self._name = next(name for name in names if f"{{{{{name}" not in page)
        cut = list(tokens(page, xml))
        self._read(cut, _inline(cut, page, xml))
        self._slots = [piece for piece in self._pieces if isinstance(piece, _Slot)]
        self.texts = [slot.passage.text for slot in self._slots]

    def write(self, found: Sequence[Hypothesis]) -> str:
        """The page, given a translation of each passage, with its links."""
        translations = iter(found)
        return "".join(
            piece if isinstance(piece, str) else _filled(piece, next(translations)) for piece in self._pieces
        )

    def translation(self, found: Sequence[Translation]) -> Translation:
        """The page as a translation of its source, out of translations of its passages with their links."""
        count = max((len(each.hypotheses) for each in found), default=1)
        ranked = [[each.hypotheses[min(rank, len(each.hypotheses) - 1)] for each in found] for rank in range(count)]
        scores = [sum(each.score for each in its) / max(1, len(its)) for its in ranked]
        return Translation(
            self._page,
            tuple(Hypothesis(self.write(its), score) for its, score in zip(ranked, scores, strict=True)),
            sum(each.source_tokens for each in found),
            sum(each.target_tokens for each in found),
            sum(each.segments for each in found),
            any(each.truncated for each in found),
        )

    def _read(self, cut: list[_Token], inline: set[int]) -> None:
        ends = _ends(cut)
        reader = _Reader(self._page, self._name)
        number = 0
        while number < len(cut):
            token = cut[number]
            last = ends.get(number, number) if token.kept else number
            raw = self._page[token.start : cut[last].end]
            if token.name in ("", "!") or (number in inline and reader.size < _MOST):
                reader.add(token, raw, whole=token.kept is True and last > number)
            else:
                self._pieces += [*reader.flush(token.start), raw]
                reader = _Reader(self._page, self._name, cut[last].end)
            number = last + 1
        self._pieces += reader.flush(len(self._page))


def _inline(cut: Sequence[_Token], page: str, xml: Xml | None) -> set[int]:
    """The places of tags that are inline."""
    if xml is None:
        return {number for number, token in enumerate(cut) if token.name in INLINE}
    found: set[int] = set()
    levels: list[tuple[list[int], list[bool]]] = [([], [])]  # of open elements: tags in them, and whether there is text

    def leave() -> None:
        tags, text = levels.pop()
        found.update(tags if text or not xml.outline else ())

    for number, token in enumerate(cut):
        if not token.name:
            levels[-1][1].extend([True] if page[token.start : token.end].strip() else ())
        elif token.name != "!":
            if token.closes and len(levels) > 1:
                leave()
            levels[-1][0].append(number)
            if not token.closes and not token.alone:
                levels.append(([], []))
    while levels:
        leave()
    named = {number for number, token in enumerate(cut) if token.name in xml.inline}
    return (found | named) - {number for number, token in enumerate(cut) if token.name in xml.split}


def _ends(cut: Sequence[_Token]) -> dict[int, int]:
    """For each beginning of an element the place of its end; where there is none, it has no entry."""
    found: dict[int, int] = {}
    opened: dict[str, list[int]] = {}
    for number, token in enumerate(cut):
        if token.closes:
            if opened.get(token.name):
                found[opened[token.name].pop()] = number
        elif token.name not in ("", "!") and not token.alone:
            opened.setdefault(token.name, []).append(number)
    return found


@dataclass(slots=True)
class _Reader:
    """Reads a passage of a page."""

    page: str
    name: str  # of placeholders
    start: int = 0  # in the page
    collected: Collected = field(default_factory=Collected)
    spaces: dict[int, str] = field(default_factory=dict)  # how white space is written, by place
    held: dict[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Elements and placeholders so far."""
        return len(self.collected.elements) + len(self.held)

    def add(self, token: _Token, raw: str, whole: bool) -> None:
        """Text or an inline tag; `whole` if `raw` is an element whose content stays."""
        if not token.name:
            lead, trail = raw[: len(raw) - len(raw.lstrip(_SPACE))], raw[len(raw.rstrip(_SPACE)) :]
            before = len(self.collected.text)
            self.collected.add(re.sub(f"[{_SPACE}]+", " ", html.unescape(raw)), lead)
            if trail and len(self.collected.text) > before:
                self.spaces[len(self.collected.text) - 1] = trail
        elif whole and token.name not in _UNSEEN:
            placeholder = f"{{{{{self.name}{len(self.held)}}}}}"
            self.held[placeholder] = raw
            self.collected.add(placeholder)
        elif whole or token.name == "!" or token.alone:
            self.collected.mark(raw)
        elif token.closes:
            self.collected.close(token.name, raw)
        else:
            self.collected.open(token.name, raw)

    def flush(self, end: int) -> list[str | _Slot]:
        """What has been read, up to character `end` of the page, as pieces of it."""
        words = self.collected.text
        for placeholder in self.held:
            words = words.replace(placeholder, "", 1)
        raw = self.page[self.start : end]
        if not any(map(str.isalnum, words)):
            return [raw] if raw else []
        passage, after = self.collected.passage(self.spaces)
        return [_Slot(passage, self.held, after)]


def _filled(slot: _Slot, found: Hypothesis) -> str:
    letters = (letter for letter in map(chr, _LETTERS) if letter not in found.text)
    said, stand_ins = found.text, {}
    for placeholder, raw in slot.held.items():  # a letter each, within which no element ends
        letter = next(letters)
        stand_ins[letter] = raw
        said = said.replace(placeholder, letter, 1) if placeholder in said else f"{said} {letter}"
    written = slot.passage.write(said, found.links, lambda text: html.escape(text, quote=False))
    for letter, raw in stand_ins.items():
        written = written.replace(letter, raw, 1)
    return written + slot.after
