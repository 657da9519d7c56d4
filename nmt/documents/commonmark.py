"""Where in a Markdown source there is text, and markup in it: CommonMark with GitHub's tables and strikethrough, by markdown-it-py."""

from __future__ import annotations

import itertools
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.parser_inline import RuleFuncInlineType
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token

from nmt.documents.plain import place_lines

# Of a paragraph: the box of a task, the name of a footnote or of an alert.
_LABEL = re.compile(r"\[[ xX]\][ \t]+|\[\^[^\]\s]+\]:[ \t]+|\[![A-Za-z]+\][ \t]*(?:\n|$)")
_NOTE = re.compile(r"\[\^[^\]\s]+\]:[ \t]")
_FOOTNOTE = re.compile(r"\[\^[^\]\s]{1,100}\]")
_MAYBE = re.compile(r"[\\`*_\[<&~\n]")  # without these there is no markup
_BRACKETS = 6  # inside each other at most, in a text
_LONG = 20_000  # characters that are searched for markup at once
_Lines = Sequence[tuple[int, str]]  # where in the source they begin, and without their ends


@dataclass(frozen=True, slots=True)
class Region:
    """A paragraph, a heading or a cell: its text, without what stands before each line, and where in the source its lines are."""

    content: str
    starts: tuple[int, ...]  # of lines in the content
    places: tuple[int, ...]  # of lines in the source
    kind: str  # "paragraph", "heading" or "cell"

    def at(self, offset: int) -> int:
        """The place in the source of a place in the content."""
        line = bisect_right(self.starts, offset) - 1
        return self.places[line] + offset - self.starts[line]

    def begins(self) -> int:
        """Where in the content the text begins, after a label."""
        label = _LABEL.match(self.content) if self.kind == "paragraph" else None
        return label.end() if label else 0

    def parts(self) -> Iterator[tuple[int, int]]:
        """The content, cut between words where it is very long, from one place to another."""
        start = self.begins()
        while start < len(self.content):
            end = len(self.content)
            if end > start + _LONG:
                space = max(self.content.rfind(each, start + 1, start + _LONG) for each in " \n")
                end = space + 1 or start + _LONG
            yield start, end
            start = end


@dataclass(frozen=True, slots=True)
class Mark:
    """Markup or an escaped character: where in the text it stands, and what it is."""

    start: int
    end: int
    token: Token


class Source:
    """A Markdown source, and where there is text in it."""

    def __init__(self, source: str) -> None:
        self._parser = _parser()
        self._references: dict[str, Any] = {}
        lines = place_lines(source)
        self._lines = lines[_front_matter([line for _, line in lines]) :]
        self._tokens: list[Token] = []
        text = "\n".join(line for _, line in self._lines)
        self._parser.block.parse(text, self._parser, self._references, self._tokens)
        self._parser.options["maxNesting"] = _BRACKETS

    def regions(self) -> Iterator[Region]:
        """The paragraphs, headings and cells, in order."""
        row: list[str] = []
        for before, token in itertools.pairwise(self._tokens):
            lines = self._lines[token.map[0] : token.map[1]] if token.map else []
            if token.type == "inline" and before.type in ("th_open", "td_open"):
                row.append(token.content.replace("|", "\\|"))
                (line,) = lines
            elif token.type == "inline":
                yield from _located(token.content, lines, before.type.partition("_")[0])
            elif token.type == "tr_close":
                yield from _cells(row, *line)
                row = []

    def marks(self, text: str) -> list[Mark]:
        """The markup in a text, in order."""
        if not _MAYBE.search(text):
            return []
        state = StateInline(text, self._parser, self._references, [])
        self._parser.inline.tokenize(state)
        for rule in self._parser.inline.ruler2.getRules(""):
            rule(state)
        found: list[Mark] = []
        for token in state.tokens:
            if token.type != "text" and "span" in token.meta:
                start, end = token.meta["span"]
                if token.type in ("softbreak", "hardbreak"):
                    start = len(text[:start].rstrip(" \t")) if text[start] == "\n" else start
                found.append(Mark(start - (token.type == "strong_open"), end + (token.type == "strong_close"), token))
        return sorted(found, key=lambda mark: mark.start)


def _parser() -> MarkdownIt:
    """A parser that notes where in the text its inline tokens stand, in their `meta`."""
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    ruler = parser.inline.ruler
    ruler.before("link", "footnote_ref", _footnote)
    for name, rule in zip(ruler.get_active_rules(), ruler.getRules(""), strict=True):
        if name != "text":
            ruler.at(name, _noting(rule))
    return parser


def _footnote(state: StateInline, silent: bool) -> bool:
    """An inline rule: a reference to a footnote."""
    found = _FOOTNOTE.match(state.src, state.pos, state.posMax)
    if found is None:
        return False
    if not silent:
        state.push("footnote_ref", "", 0)
    state.pos = found.end()
    return True


def _noting(rule: RuleFuncInlineType) -> RuleFuncInlineType:
    """The inline rule, with a note of where its tokens are."""

    def noting(state: StateInline, silent: bool) -> bool:
        start, count = state.pos, len(state.tokens)
        if not rule(state, silent):
            return False
        made = [] if silent else state.tokens[count:]
        if made and made[-1].type == "text":  # marks of emphasis, one by one
            end = state.pos
            while end > start:
                token = made.pop()
                token.meta["span"] = end - len(token.content), end
                end -= len(token.content)
        elif made and made[-1].type == "link_close" and not made[-1].info:
            label = state.md.helpers.parseLinkLabel(state, start, True)
            next(token for token in made if token.type == "link_open").meta["span"] = start, start + 1
            made[-1].meta["span"] = label, state.pos
        elif made:
            made[-1].meta["span"] = start, state.pos
        return True

    return noting


def _front_matter(lines: Sequence[str]) -> int:
    """How many lines at the beginning are metadata, as YAML or TOML."""
    mark = lines[0].rstrip() if lines else ""
    if mark in ("---", "+++"):
        for number, line in enumerate(lines[1:], 2):
            if line.rstrip() == mark or (line.rstrip() == "..." and mark == "---"):
                return number
    return 0


def _located(content: str, lines: _Lines, kind: str) -> Iterator[Region]:
    """The region with this content, of which each line ends a line of the source; none if it does not. A footnote begins another."""
    groups: list[list[tuple[int, str]]] = []
    for part, (start, line) in zip(content.split("\n"), lines, strict=False):
        at = line.rfind(part.strip())
        if at < 0:
            return
        if not groups or (kind == "paragraph" and _NOTE.match(line, at)):
            groups.append([])
        groups[-1].append((start + at, line[at:] if kind == "paragraph" else part.strip()))
    for group in groups:
        texts = [text for _, text in group]
        starts = itertools.accumulate((len(text) + 1 for text in texts[:-1]), initial=0)
        yield Region("\n".join(texts).rstrip(), tuple(starts), tuple(place for place, _ in group), kind)


def _cells(contents: Sequence[str], start: int, line: str) -> Iterator[Region]:
    """The cells of a table's row, of which no mark of a list or a quotation before them is part."""
    bounds = [-1, *(found.start() for found in re.finditer(r"(?<!\\)\|", line)), len(line)]
    fields = [(first + 1, line[first + 1 : last].rstrip()) for first, last in itertools.pairwise(bounds)]
    for skipped in (0, 1):  # with and without a cell before the first mark
        pairs = list(zip(contents, fields[skipped:], strict=False))
        if all(
            text.endswith(content) if number == skipped == 0 else text.strip() == content
            for number, (content, (_, text)) in enumerate(pairs)
        ):
            for content, (place, text) in pairs:
                yield Region(content, (0,), (start + place + len(text) - len(content),), "cell")
            return
