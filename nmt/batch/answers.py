"""What becomes of a text: one line of JSON, which is what a job keeps on disk and what workers send."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from nmt.errors import InputError, NMTError, ServiceError
from nmt.inference.rendering import to_json
from nmt.inference.types import Translation

LENGTH_LIMIT = "the length limit ended the translation: text may be missing"
_REFUSED = (400, 413, 422)  # by a server, because of the text


class Pending(Protocol):
    """Translations that have been begun."""

    def results(self) -> list[Translation]:
        """One for each text, in order; waits."""

    def cancel(self) -> None:
        """Give up what is not finished."""


Begin = Callable[[list[str]], Pending]


@dataclass(frozen=True, slots=True)
class Answer:
    """The translation of a text, or None and why there is none. `links` are there for documents, `full` (a JSON object with scores) where
    it was asked for."""

    text: str | None
    reason: str = ""
    truncated: bool = False
    links: tuple[tuple[int, int], ...] = ()
    full: dict[str, Any] | None = None


def encode(translation: Translation, links: bool, full: bool) -> str:
    """A translation as a line, without its line feed; `links` and `full` say what of it is kept beside the text."""
    kept: dict[str, Any] = {"t": translation.text}
    if translation.truncated:
        kept["cut"] = True
    if links:
        kept["links"] = translation.hypotheses[0].links
    if full:
        kept["full"] = to_json(translation)
    return _line(kept)


def failed(reason: str) -> str:
    """The line of a text that can't be translated."""
    return _line({"reason": reason})


def _line(kept: dict[str, Any]) -> str:
    # ASCII: neither an odd separator nor half a character can end the line or fail to be written.
    return json.dumps(kept, separators=(",", ":"))


def decode(line: str | bytes) -> Answer:
    """The answer that a line holds."""
    kept = json.loads(line)
    links = tuple((source, target) for source, target in kept.get("links", ()))
    return Answer(kept.get("t"), kept.get("reason", ""), kept.get("cut", False), links, kept.get("full"))


def translate_window(begin: Begin, texts: list[str], begun: Pending | None, links: bool, full: bool) -> list[str]:
    """A line for each text. Where they fail together (`begun` is None, or fails) each is tried by itself, so that one alone is lost.

    Raises what is wrong with more than a text: a server that is gone, or an error that all of several texts meet.
    """
    if begun is not None:
        try:
            return [encode(each, links, full) for each in begun.results()]
        except Exception as error:
            _of_the_text(error)
    lines: list[str] = []
    unexpected: list[Exception] = []
    for text in texts:
        try:
            lines += [encode(each, links, full) for each in begin([text]).results()]
        except Exception as error:
            lines.append(failed(_of_the_text(error)))
            unexpected += [] if isinstance(error, NMTError) else [error]
    if len(unexpected) == len(texts) > 1:  # no text is at fault
        raise unexpected[0]
    return lines


def try_begin(begin: Begin, texts: list[str]) -> Pending | None:
    """`begin`, or None where it refuses one of the texts."""
    try:
        return begin(texts)
    except (InputError, ServiceError) as error:
        _of_the_text(error)
        return None


def _of_the_text(error: Exception) -> str:
    """What the error says of a text; it is raised again where it is not because of one."""
    if isinstance(error, InputError) or (isinstance(error, ServiceError) and error.status in _REFUSED):
        return str(error)
    if isinstance(error, NMTError):
        raise error
    return f"it could not be translated ({type(error).__name__}: {error})"


def words_linked(text: str) -> Sequence[tuple[int, int]]:
    """The links of a text that stays as it is: each word to itself."""
    return [(index, index) for index in range(len(text.split()))]
