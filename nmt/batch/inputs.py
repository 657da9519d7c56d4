"""What a job reads, and what it writes: the texts of one input in their order, and the same input with their translations."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from nmt.batch.answers import Answer

HUB = re.compile(r"hf://datasets/([^/@\s]+/[^/@\s]+|[^/@\s]+)")
_PACKED = (".gz", ".zst")
_KINDS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    **dict.fromkeys(
        (".docx", ".htm", ".html", ".md", ".odt", ".po", ".pot", ".pptx", ".srt", ".vtt", ".xhtml"), "document"
    ),
}
KINDS = ("lines", "csv", "tsv", "jsonl", "parquet", "document", "dataset")


class Text(NamedTuple):
    """A text to be translated, or None and why it can't be."""

    text: str | None
    reason: str = ""


class Input(Protocol):
    """One input. Both methods read it from its beginning, one record at a time (a document is read as a whole)."""

    name: str
    links: bool  # whether it needs them

    def texts(self) -> Iterator[Text]:
        """Its texts; raises `DataError` or `InputError` where it can't be read as what it is said to be."""

    def write(self, answers: Iterator[Answer], stream: BinaryIO) -> None:
        """The output: the input with an answer for each of its texts; what has none is passed on as it is."""


@dataclass(frozen=True)
class Shape:
    """How inputs are read: `kind` instead of what the name says, the column (or field) with the text, that of its translation, how cells of
    a CSV file are divided, and which part of a hub dataset. With `full` lines of text become JSON objects with scores."""

    kind: str = ""
    column: str = ""
    output_column: str = "translation"
    delimiter: str = ""
    header: bool = True
    config: str = ""
    split: str = "train"
    full: bool = False
    max_characters: int = 100_000


def kind_of(name: str) -> str:
    """The kind of an input or output by its name; lines of text where nothing else is known."""
    if HUB.fullmatch(name) or Path(name).is_dir():
        return "dataset"
    suffixes = Path(name).suffixes
    if suffixes and suffixes[-1].lower() in _PACKED:
        suffixes.pop()
    return _KINDS.get(suffixes[-1].lower(), "lines") if suffixes else "lines"


def identity(name: str) -> list[object]:
    """What tells whether an input has changed: the size and time of a file, or of all files of a folder; of the hub its name alone."""
    path = Path(name)
    files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    found = [each.stat() for each in files] if path.exists() else []
    return [name, sum(each.st_size for each in found), max((each.st_mtime_ns for each in found), default=0)]


def checked(text: str, limit: int) -> Text:
    """The text, or why it can't be translated."""
    if len(text) > limit:
        return Text(None, f"{len(text):,} characters: more than --max-characters {limit:,}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return Text(None, f"a lone surrogate at character {error.start + 1}: not valid Unicode")
    return Text(text)
