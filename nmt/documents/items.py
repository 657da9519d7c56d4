"""What a paragraph of an office document consists of: text with its format, what is kept, and what stands around other items."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from lxml import etree

W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
A = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
T = "{urn:oasis:names:tc:opendocument:xmlns:text:1.0}"
OFFICE = "{urn:oasis:names:tc:opendocument:xmlns:office:1.0}"

_RANGES: dict[str, tuple[str, str]] = {  # what begins one, what ends it, and by which attribute they are told
    **{f"{W}{kind}Start": (f"{W}{kind}End", f"{W}id") for kind in ("bookmark", "commentRange", "perm", "moveToRange")},
    **{f"{T}{kind}-start": (f"{T}{kind}-end", f"{T}name") for kind in ("bookmark", "reference-mark")},
    **{
        f"{T}{kind}-mark-start": (f"{T}{kind}-mark-end", f"{T}id")
        for kind in ("toc", "alphabetical-index", "user-index")
    },
    f"{T}change-start": (f"{T}change-end", f"{T}change-id"),
    f"{OFFICE}annotation": (f"{OFFICE}annotation-end", f"{OFFICE}name"),
}
_ENDS: dict[str, str] = dict(_RANGES.values())
_FIELD = f"{W}fldChar"
_WRITTEN = (["HYPERLINK"], ["FORMTEXT"], ["TOC"], ["INDEX"], ["QUOTE"])  # fields that show what somebody wrote
_DEEPEST = 5  # ranges in each other; those in more stay as they are

Key = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Format:
    """How text looks: `key` is equal for what looks the same, `nodes` are a run's properties, or the spans around it, outer first."""

    key: Key = ()
    nodes: tuple[etree._Element, ...] = ()

    def links(self) -> bool:
        """Whether it is a link, which slides have among the properties of a run."""
        return any(node.find(f"{A}hlinkClick") is not None for node in self.nodes)


PLAIN = Format()


class Item:
    """What a paragraph consists of."""


@dataclass(slots=True)
class Text(Item):
    text: str
    format: Format


@dataclass(slots=True)
class Kept(Item):
    """What is not translated; one that stands in a run has its format. `space` is what it is to a reader."""

    node: etree._Element
    format: Format | None = None
    space: str = ""


@dataclass(slots=True)
class Mark(Item):
    """Items that stay together, without words that are translated."""

    items: list[Item]
    space: str = ""


@dataclass(slots=True)
class Group(Item):
    """Items with a shell around them, whose node `holder` they are in, or else between others."""

    items: list[Item]
    shell: etree._Element | None = None
    holder: etree._Element | None = None
    opening: list[Item] = field(default_factory=list)
    closing: list[Item] = field(default_factory=list)


def has_words(item: Item) -> bool:
    """Whether there is something to translate in it."""
    if isinstance(item, Text):
        return any(map(str.isalnum, item.text))
    return isinstance(item, Group) and any(map(has_words, item.items))


def usual(items: Iterable[Item]) -> Format:
    """The format of most letters that stand directly among the items; a link is not usual."""
    weights: dict[Key, tuple[int, Format]] = {}
    for item in items:
        if isinstance(item, Text):
            weight = 0 if item.format.links() else len("".join(item.text.split()))
            before, format = weights.get(item.format.key, (0, item.format))
            weights[format.key] = (before + weight, format)
    return max(weights.values(), key=lambda each: each[0])[1] if weights else PLAIN


def leaves(items: Iterable[Item]) -> Iterator[Item]:
    """The items, marks and ranges as what is in them."""
    for item in items:
        if isinstance(item, Mark):
            yield from leaves(item.items)
        elif isinstance(item, Group) and item.shell is None:
            yield from leaves([*item.opening, *item.items, *item.closing])
        else:
            yield item


def arranged(items: Sequence[Item]) -> list[Item]:
    """The items with ranges as groups, neighbours of one format as one text, and kept ones that touch as one mark."""
    return _joined(_ranged(items))


def _ranged(items: Sequence[Item]) -> list[Item]:
    """The items, those between the beginning and the end of a range as a group; ranges that cross stay as they are."""
    ends: dict[int, int] = {}
    opened: dict[Key, list[int]] = {}
    for number, item in enumerate(items):
        opens, closes = _edge(item)
        if opens:
            opened.setdefault(opens, []).append(number)
        elif opened.get(closes):
            ends[opened[closes].pop()] = number
    levels: list[list[Item]] = [[]]
    stack: list[tuple[int, int]] = []
    for number, item in enumerate(items):
        if number in ends and len(stack) < _DEEPEST and (not stack or ends[number] < stack[-1][1]):
            stack.append((number, ends[number]))
            levels.append([])
        elif stack and number == stack[-1][1]:
            inside = levels.pop()
            levels[-1].append(_range(items[stack.pop()[0]], inside, item))
        else:
            levels[-1].append(item)
    return levels[0]


def _edge(item: Item) -> tuple[Key, Key]:
    """Of what an item is the beginning, and of what the end."""
    if not isinstance(item, Kept):
        return (), ()
    node = item.node
    if node.tag == _FIELD:
        kind = node.get(f"{W}fldCharType")
        return (_FIELD,) if kind == "begin" else (), (_FIELD,) if kind == "end" else ()
    if node.tag in _RANGES:
        end, name = _RANGES[node.tag]
        return (end, node.get(name)), ()
    return (), (node.tag, node.get(_ENDS[node.tag])) if node.tag in _ENDS else ()


def _range(first: Item, inside: list[Item], last: Item) -> Item:
    """A range with its ends; a field that shows what a program reckons is kept as it is."""
    opening = [first]
    if isinstance(first, Kept) and first.node.tag == _FIELD:
        nodes = [item.node if isinstance(item, Kept) else None for item in inside]
        shown = next(
            (
                number + 1
                for number, node in enumerate(nodes)
                if node is not None and node.get(f"{W}fldCharType") == "separate"
            ),
            0,
        )
        code = "".join(node.text or "" for node in nodes[:shown] if node is not None and node.tag == f"{W}instrText")
        if not shown or code.split()[:1] not in _WRITTEN:
            return Mark([first, *inside, last])
        opening, inside = [first, *inside[:shown]], inside[shown:]
    return Group(_joined(inside), opening=opening, closing=[last])


def _joined(items: Iterable[Item]) -> list[Item]:
    """The items, neighbours of one format as one text, and what has no words as marks."""
    found: list[Item] = []
    for item in items:
        last = found[-1] if found else None
        if isinstance(item, Text):
            _add(found, item)
        elif has_words(item):
            found.append(item)
        elif isinstance(last, Mark):
            last.items.append(item)
            last.space = last.space or _space(item)
        else:
            found.append(Mark([item], _space(item)))
    return found


def _add(found: list[Item], item: Text) -> None:
    """Add a text; of white space on both sides of a mark, one belongs to it: what is before it, or behind one that is such itself."""
    last = found[-1] if found else None
    before = found[-2] if len(found) > 1 else None
    if isinstance(last, Mark):
        rest = item.text.lstrip() if last.space else item.text
        if len(rest) < len(item.text):
            last.items.append(Text(item.text[: len(item.text) - len(rest)], item.format))
        elif isinstance(before, Text) and item.text[0].isspace() and before.text[-1].isspace() and before.text.strip():
            kept = before.text.rstrip()
            last.items.insert(0, Text(before.text[len(kept) :], before.format))
            before.text = kept
        if rest:
            found.append(Text(rest, item.format))
    elif isinstance(last, Text) and last.format.key == item.format.key:
        last.text += item.text
    else:
        found.append(item)


def _space(item: Item) -> str:
    """What an item without words is to a reader."""
    if isinstance(item, (Kept, Mark)):
        return item.space
    if isinstance(item, Group):
        return next(filter(None, map(_space, item.items)), "")
    return " " if isinstance(item, Text) and any(map(str.isspace, item.text)) else ""
