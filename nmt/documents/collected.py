"""A passage as it is being read, mark by mark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from nmt.documents.inline import Element, Passage

_SPACE = " \t"


@dataclass(slots=True)
class Collected:
    """What has been read: text, and elements, which are None until their end has come.

    White space at the beginning, or after a space, goes with the mark there, so that `text` has each space once.
    """

    text: str = ""
    elements: list[Element | None] = field(default_factory=list)
    _opened: list[tuple[int, str, int, str]] = field(default_factory=list)  # place in the list, kind, start, opening
    _left: set[str] = field(default_factory=set)  # kinds of elements that one around them ended
    _marked: bool = False  # whether what was read last is a mark without text

    def add(self, text: str, lead: str = "") -> None:
        """Text without markup; `lead` is how the white space before it is written, where it is written otherwise."""
        core = text.lstrip(_SPACE)
        if core != text and (not self.text or self.text[-1] in _SPACE):
            self.mark(lead or text[: len(text) - len(core)])
            text = core
        self.text += text
        self._marked = self._marked and not text

    def mark(self, raw: str) -> None:
        """What has no text in it, joined to the mark before it where there is one."""
        place, last = len(self.text), self.elements[-1] if self._marked else None
        if last is not None:
            self.elements[-1] = replace(last, opening=last.opening + raw)
        else:
            self.elements.append(Element(place, place, raw, ""))
        self._marked = True

    def open(self, kind: str, raw: str) -> None:
        """What begins an element."""
        self._opened.append((len(self.elements), kind, len(self.text), raw))
        self.elements.append(None)
        self._marked = False

    def opens(self, kind: str) -> bool:
        """Whether an element of the kind is open."""
        return any(each[1] == kind for each in self._opened)

    def close(self, kind: str, raw: str) -> None:
        """What ends the latest element of the kind, and those in it, whose own ends are then marks. Where there is none, it began in a
        passage before."""
        if not self.opens(kind):
            if self._opened or kind in self._left:
                self.mark(raw)
            else:
                self.elements.insert(0, Element(0, len(self.text), "", raw))
                self._marked = False
            return
        self._marked = False
        while True:
            place, ended, start, opening = self._opened.pop()
            self._end(place, Element(start, len(self.text), opening, raw if ended == kind else ""))
            if ended == kind:
                return
            self._left.add(ended)

    def _end(self, place: int, element: Element) -> None:
        """Put an element in its place, together with the marks that stand at its end."""
        inside = ""
        while len(self.elements) > place + 1 and (last := self.elements[-1]) and last.start == element.end:
            inside = last.opening + last.closing + inside
            self.elements.pop()
        closing = inside + element.closing
        if element.start == element.end:  # a mark too
            element, closing = replace(element, opening=element.opening + closing), ""
        self.elements[place] = replace(element, closing=closing)

    def passage(self, spaces: Mapping[int, str]) -> tuple[Passage, str]:
        """The passage, whose open elements have no end, and the white space at its end, if no mark stands there that takes it along.

        `spaces` says what stands in the source for spaces, by their places, other than these.
        """
        for place, _, start, opening in self._opened:
            self.elements[place] = Element(start, len(self.text), opening, "")
        text = self.text.rstrip(_SPACE)
        after = "".join(spaces.get(place, self.text[place]) for place in range(len(text), len(self.text)))
        elements = [each for each in self.elements if each is not None]
        for place, each in enumerate(elements):
            if after and each.start == len(self.text):
                elements[place], after = replace(each, opening=after + each.opening), ""
        for place, each in reversed(list(enumerate(elements))):
            if after and each.end == len(self.text) and each.closing:
                elements[place], after = replace(each, closing=after + each.closing), ""
        within = (replace(each, start=min(each.start, len(text)), end=min(each.end, len(text))) for each in elements)
        return Passage(text, tuple(within)), after
