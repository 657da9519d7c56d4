"""What a translation is to hold as it stands: placeholders of programs, addresses, code, emoji; and what a model reads in their place.

A model has rarely seen `%1$s` or an address, and would take it apart. It reads a name or a number instead, which it is used to copying and
which the grammar of the sentence has a place for; what it has made of that is turned back (`nmt.inference.copying`).
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_PRIVATE = range(0xE000, 0xF8FF)  # of Unicode, for what the model is not to see

_MAYBE = re.compile("[%{$@`#\u20e3\u231a-\u2bff\U0001f000-\U0001faff]|://|www\\.")
_BASE = "[\u231a\u231b\u23e9-\u23fa\u2600-\u27bf\u2b00-\u2bff\U0001f000-\U0001faff]"
_AFTER = "[\ufe0f\u20e3\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f]*"
_CLOSED = r"[^\s<>\"“”„«»]*[^\s<>\"“”„«».,;:!?'’)\]}]"  # an address does not end with what ends a sentence
# Of printf: with its argument named or counted, or else not after a number, as in "100 %ige Sicherheit", and not the beginning of a word.
_PERCENT = (
    r"(?<![\d%]) % (?: (?:\(\w+\)|\d+\$) | (?<![^%L]\d[ ]%)(?<!^\d[ ]%) ) [-+\#0']* (?:\*|\d+)? (?:\.(?:\*|\d+))?"
)
_APART = r"(?![^\W\d_]{3})"
_HELD = re.compile(
    rf"""
    (?P<emoji> (?: {_BASE}{_AFTER} (?:\u200d{_BASE}{_AFTER})* | [0-9\#*]\ufe0f?\u20e3 )+ )
  | (?P<number> {_PERCENT} (?:hh|h|ll|l|L|z|j|t|q)? [diuoxXeEfFgG] {_APART} )
  | (?P<name>
        {_PERCENT} (?:hh|h|ll|l)? [aAcCsSpn@] {_APART}
      | (?<![\d%]) % (?: L?\d{{1,2}} (?![\d%$]) | [A-Za-z_]\w*% )  # of Qt, of Windows
      | \$?\{{\{{ [^{{}}\n]{{0,200}} \}}\}} | [$\#@]?\{{ [\w.\[\]\-]* (?:[:!,][^{{}}\n]{{0,200}})? \}}
      | (?<![\w$]) \$[A-Za-z_]\w*
      | (?:https?|ftp|file|sftp|ssh|git|irc|mailto):// {_CLOSED} | (?<![\w@.]) www\. {_CLOSED}
      | (?<![\w.+-]) [\w.+-]+@[\w-]+(?:\.[\w-]+)+
      | `[^`\n]{{1,200}}`
      | (?<![\w@]) @[^\W\d]\w* | (?<![\w#&]) \#[^\W\d]\w*
    )
    """,
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class StandIns:
    """What models copy well, in the place of names and of numbers; most corpora are full of these."""

    name: tuple[str, ...] = ("Tom", "Boston", "Peter", "Anna", "Paul", "Berlin", "Max")
    number: tuple[str, ...] = ("37", "42", "53", "68", "74", "86", "91")

    def known(self, known: Callable[[str], bool]) -> StandIns:
        """Those that a model has subwords for."""
        return StandIns(tuple(filter(known, self.name)), tuple(filter(known, self.number)))


STAND_INS = StandIns()


@dataclass(frozen=True, slots=True)
class Held:
    """A stretch of the source that is to be in the translation, and the word that the model reads in its place, or a character of Unicode's
    private area, which it does not see."""

    text: str
    stand_in: str

    @property
    def hidden(self) -> bool:
        """Whether the model is to see nothing of it."""
        return ord(self.stand_in[0]) in _PRIVATE


@dataclass(frozen=True, slots=True)
class Kept:
    """What is held of a text; the word of the text, from 0, that each word of what the model reads is; and how many words the text has."""

    held: tuple[Held, ...]
    origin: tuple[int, ...]
    words: int

    def of(self, first: int, count: int) -> Kept:
        """The same for the words from `first` of what the model reads, `count` of them."""
        origin = tuple(word - self.origin[first] for word in self.origin[first : first + count])
        return Kept(self.held, origin, origin[-1] + 1)


def held_spans(text: str) -> list[tuple[int, int, str]]:
    """Where in `text` that stands which is to stay, and whether it is a `name`, a `number` or an `emoji`; what touches, or has no space
    between, is one."""
    if not _MAYBE.search(text):
        return []
    spans: list[tuple[int, int, str]] = []
    for start, end, kind in _matches(text):
        if spans and kind != "emoji" != spans[-1][2] and not re.search(r"\s", text[spans[-1][1] : start]):
            start, kind = spans[-1][0], kind if kind == spans.pop()[2] else "name"
        spans.append((start, end, kind))
    return spans


def _matches(text: str) -> Iterator[tuple[int, int, str]]:
    at = 0
    while match := _HELD.search(text, at):
        yield match.start(), (at := match.end()), match.lastgroup or "name"
        # A digit that is held is no number before a percent sign.
        if text[at - 1].isdigit() and text.startswith(" %", at) and (beside := _HELD.match(text[at + 1 : at + 100])):
            yield at + 1, (at := at + 1 + beside.end()), beside.lastgroup or "name"


def hold(text: str, stand_ins: StandIns = STAND_INS) -> tuple[str, Kept | None]:
    """What a model is to read of `text`, and what is held; None where nothing is."""
    spans = held_spans(text)
    if not spans:
        return text, None
    free = {"name": _free(stand_ins.name, text), "number": _free(stand_ins.number, text), "emoji": iter(())}
    private = (character for character in map(chr, _PRIVATE) if character not in text)
    pieces: list[tuple[str, int]] = []  # what is read, and where it comes from
    held, end = [], 0
    for start, after, kind in spans:
        held.append(Held(text[start:after], next(free[kind], "") or next(private)))
        pieces += [(text[place], place) for place in range(end, start)]
        apart = " " if held[-1].hidden else ""
        pieces += [(apart, start), (held[-1].stand_in, start), (apart, start)]
        end = after
    pieces += [(text[place], place) for place in range(end, len(text))]
    words = [match.start() for match in re.finditer(r"\S+", text)]
    offsets = [place for piece, place in pieces for _ in piece]
    read = "".join(piece for piece, _ in pieces)
    origin = tuple(bisect_right(words, offsets[match.start()]) - 1 for match in re.finditer(r"\S+", read))
    return read, Kept(tuple(held), origin, len(words))


def hold_again(text: str, kept: Kept) -> str:
    """What a model is to read of a `text` that goes with one of which `kept` is held: with the same words in the place of the same."""
    stand_ins = {each.text: each.stand_in for each in kept.held if not each.hidden}
    read, end = "", 0
    for start, after, _ in held_spans(text):
        read += text[end:start] + stand_ins.get(text[start:after], text[start:after])
        end = after
    return read + text[end:]


def _free(stand_ins: tuple[str, ...], text: str) -> Iterator[str]:
    """Those that the text does not have itself."""
    return (each for each in stand_ins if each not in text)
