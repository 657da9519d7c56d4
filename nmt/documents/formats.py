"""Which kinds of files there are, and how each is opened: by the end of its name."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePath
from typing import Protocol

from nmt.documents.markup import Html
from nmt.errors import InputError
from nmt.inference.types import Hypothesis, Translation

_AT_A_TIME = 64  # passages
_META = re.compile(rb"<meta[^>]{0,200}charset=[\"']?\s*([\w.:-]{1,40})", re.IGNORECASE)


class Document(Protocol):
    """A file: `texts` are its passages in their order, and `write` is the file with their translations."""

    texts: list[str]

    def write(self, found: Sequence[Hypothesis]) -> bytes:
        """The file, given a translation of each passage, with its links."""


class HtmlFile:
    """A page as a file; what the encoding that it names has no characters for is written as references."""

    def __init__(self, content: bytes) -> None:
        named = _META.search(content[:2048])
        codec = (
            "utf-16"
            if content[:2] in (b"\xff\xfe", b"\xfe\xff")
            else "utf-8-sig"
            if content[:3] == b"\xef\xbb\xbf"
            else ""
        )
        self._codec = codec or (named[1].decode("ascii").lower() if named else "utf-8")
        try:
            self._page = Html(content.decode(self._codec))
        except LookupError:
            raise InputError(
                f"the page says that it is in {self._codec!r}, which is not known: save it as UTF-8"
            ) from None
        except UnicodeError as error:
            at = getattr(error, "start", 0)
            raise InputError(f"byte {at + 1} of the page is not {self._codec}: save it as UTF-8") from None
        self.texts = self._page.texts

    def write(self, found: Sequence[Hypothesis]) -> bytes:
        """The page with the translations."""
        return self._page.write(found).encode(self._codec, "xmlcharrefreplace")


# What opens which: the module of `nmt.documents`, and its class.
_OPENS: dict[str, tuple[str, str]] = {
    ".csv": ("plain", "Table"),
    ".docx": ("office", "Office"),
    ".htm": ("formats", "HtmlFile"),
    ".html": ("formats", "HtmlFile"),
    ".md": ("markdown", "Markdown"),
    ".odt": ("office", "Office"),
    ".po": ("catalogue", "Catalogue"),
    ".pot": ("catalogue", "Catalogue"),
    ".pptx": ("office", "Office"),
    ".srt": ("subtitles", "Srt"),
    ".tsv": ("plain", "Table"),
    ".txt": ("plain", "PlainText"),
    ".vtt": ("subtitles", "Vtt"),
    ".xhtml": ("formats", "HtmlFile"),
}
MEDIA_TYPES = {
    ".csv": "text/csv",
    ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ".htm": "text/html",
    ".html": "text/html",
    ".md": "text/markdown",
    ".odt": "application/vnd.oasis.opendocument.text",
    ".po": "text/x-gettext-translation",
    ".pot": "text/x-gettext-translation",
    ".pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    ".srt": "application/x-subrip",
    ".tsv": "text/tab-separated-values",
    ".txt": "text/plain",
    ".vtt": "text/vtt",
    ".xhtml": "application/xhtml+xml",
}


def kind_of(name: str) -> str:
    """The end of a file's name, by which it is opened; raise `InputError` for one that is not known."""
    suffix = PurePath(name).suffix.lower()
    if suffix not in _OPENS:
        raise InputError(f"{suffix or 'a file without an ending'} can't be translated; what can: {' '.join(_OPENS)}")
    return suffix


def open_document(content: bytes, name: str) -> Document:
    """The document in `content`, of the kind that `name` ends with.

    Raises `InputError` for a kind that is not known, for what is wrong with the file, and where its kind needs a package that is not there.
    """
    suffix = kind_of(name)
    module, what = _OPENS[suffix]
    try:
        found = getattr(importlib.import_module(f"nmt.documents.{module}"), what)
    except ImportError as error:
        raise InputError(f"{suffix} files need {error.name}: pip install 'strata-nmt[documents]'") from None
    document: Document = found(content, suffix) if what == "Office" else found(content)
    return document


def translated(
    document: Document,
    translate: Callable[[list[str]], list[Translation]],
    done: Callable[[int], object] = lambda _: None,
) -> tuple[bytes, int]:
    """The document with its translation, and in how many passages the length limit ended one. `translate` gives links, too; `done` is told
    how many passages have been finished."""
    found: list[Translation] = []
    for some in slices(document.texts):
        found += translate(some)
        done(len(some))
    return document.write([each.hypotheses[0] for each in found]), sum(each.truncated for each in found)


def slices(texts: list[str]) -> Iterator[list[str]]:
    """Passages as many as are translated at a time."""
    for start in range(0, len(texts), _AT_A_TIME):
        yield texts[start : start + _AT_A_TIME]
