"""Inputs of lines: plain text, CSV, TSV, JSON lines. What is not translated passes through byte by byte."""

from __future__ import annotations

import codecs
import csv
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from nmt.batch.answers import Answer
from nmt.batch.inputs import Shape, Text, checked
from nmt.errors import DataError
from nmt.text.lines import unpacked

_LONGEST = 64 << 20  # bytes of a line
_WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_KEEP = "surrogateescape"  # bytes that are no UTF-8 come back as they were


class Record(NamedTuple):
    """A record as it stands, line end included, and its text; `head` are lines that have none, such as names of columns."""

    raw: str
    text: Text
    head: bool = False


class Rows(ABC):
    """Records that come one after another from a file (.gz, .zst too)."""

    links = False

    def __init__(self, path: Path, shape: Shape) -> None:
        self.name, self._path, self._shape = str(path), path, shape

    def texts(self) -> Iterator[Text]:
        """The text of each record."""
        return (record.text for record in self._records() if not record.head)

    def write(self, answers: Iterator[Answer], stream: BinaryIO) -> None:
        """Each record with its answer."""
        for record in self._records():
            line = self._titled(record.raw) if record.head else self._answered(record, next(answers))
            stream.write(line.encode("utf-8", _KEEP))

    @abstractmethod
    def _records(self) -> Iterator[Record]:
        """The records of the file."""

    @abstractmethod
    def _answered(self, record: Record, answer: Answer) -> str:
        """A record with its answer."""

    def _titled(self, raw: str) -> str:
        return raw

    def _lines(self) -> Iterator[str]:
        """The lines with their ends; bytes that are no UTF-8 become surrogates. A byte order mark stays."""
        with unpacked(self._path) as stream:
            number = 0
            while line := stream.readline(_LONGEST):
                number += 1
                if number == 1 and line.startswith(_WIDE):
                    raise DataError(f"{self.name}: is UTF-16 text; save it as UTF-8")
                if len(line) == _LONGEST and not line.endswith(b"\n"):
                    raise DataError(
                        f"{self.name}, line {number}: longer than {_LONGEST >> 20} MB; is this a file of text?"
                    )
                yield line.decode("utf-8", _KEEP)

    def _text(self, text: str) -> Text:
        found = checked(text, self._shape.max_characters)
        if found.text is None and not text.isascii() and any("\udc80" <= letter <= "\udcff" for letter in text):
            at = len(text[: next(i for i, letter in enumerate(text) if "\udc80" <= letter <= "\udcff")].encode())
            return Text(None, f"not valid UTF-8 (byte {at + 1})")
        return found


def _ended(raw: str) -> tuple[str, str]:
    """A line and its end."""
    line = raw.rstrip("\r\n")
    return line, raw[len(line) :]


class Lines(Rows):
    """Plain text, a text a line; as JSON objects with scores where the shape says so."""

    def _records(self) -> Iterator[Record]:
        for number, raw in enumerate(self._lines()):
            line = _ended(raw)[0]
            yield Record(raw, self._text(line.removeprefix("\ufeff") if number == 0 else line))

    def _answered(self, record: Record, answer: Answer) -> str:
        line, end = _ended(record.raw)
        if self._shape.full:
            shown = {"source": _shown(line), "translation": None, "error": answer.reason}
            return json.dumps(answer.full or shown, ensure_ascii=False) + "\n"
        if answer.text is None:
            return record.raw
        return ("\ufeff" if line.startswith("\ufeff") else "") + answer.text + end


def _shown(text: str) -> str:
    return text.encode("utf-8", _KEEP).decode("utf-8", "replace")


class _Table(Rows):
    """Rows of cells: the text is that of one column, and its translation becomes another one at the end."""

    @abstractmethod
    def _rows(self) -> Iterator[tuple[str, list[str]]]:
        """Each row as it stands, and its cells."""

    @abstractmethod
    def _cell(self, text: str) -> str:
        """A text as a cell, with what divides it from the one before."""

    def _records(self) -> Iterator[Record]:
        rows, width, place = self._rows(), 0, -1
        for raw, cells in rows:
            if not cells or cells == [""]:
                yield Record(raw, Text(""))
                continue
            if place < 0:
                width = len(cells)
                place = self._place(cells)
                if self._shape.header:
                    yield Record(raw, Text(""), head=True)
                    continue
            if len(cells) != width:
                yield Record(raw, Text(None, f"the row has {len(cells)} cells, the first one has {width}"))
            else:
                yield Record(raw, self._text(cells[place]))

    def _place(self, cells: Sequence[str]) -> int:
        """The place of the column, by name or else by number from 1."""
        name = self._shape.column
        names = [cell.removeprefix("\ufeff") for cell in cells] if self._shape.header else []
        if self._shape.output_column in names:
            raise DataError(
                f"{self.name}: has a column {self._shape.output_column!r}; name another one by --output-column"
            )
        if name in names:
            return names.index(name)
        if name.isdecimal() and 1 <= int(name) <= len(cells):
            return int(name) - 1
        found = f"found {', '.join(map(_shown, names[:20]))}" if names else f"there are {len(cells)}, numbered from 1"
        raise DataError(f"{self.name}: no column {name!r} ({found})")

    def _titled(self, raw: str) -> str:
        line, end = _ended(raw)
        return line + self._cell(self._shape.output_column) + end

    def _answered(self, record: Record, answer: Answer) -> str:
        line, end = _ended(record.raw)
        if not line or (record.text.text is None and record.text.reason.startswith("the row has")):
            return record.raw
        return line + self._cell(answer.text or "") + end


class Csv(_Table):
    """Comma-separated values (RFC 4180), or what else divides them."""

    def _rows(self) -> Iterator[tuple[str, list[str]]]:
        taken: list[str] = []

        def tape() -> Iterator[str]:
            for line in self._lines():
                taken.append(line)
                yield line

        reader = csv.reader(tape(), delimiter=self._shape.delimiter or ",", strict=True)
        while True:
            limit = csv.field_size_limit(_LONGEST)  # which is that of the whole process: others have theirs
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise DataError(
                    f"{self.name}, line {reader.line_num}: not valid CSV ({error}); correct it; --format tsv reads cells without quotes"
                ) from None
            finally:
                csv.field_size_limit(limit)
            yield "".join(taken), cells
            taken.clear()

    def _cell(self, text: str) -> str:
        divider = self._shape.delimiter or ","
        if any(mark in text for mark in (divider, '"', "\n", "\r")):
            text = '"' + text.replace('"', '""') + '"'
        return divider + text


class Tsv(_Table):
    """Cells divided by tabs, without quotes."""

    def _rows(self) -> Iterator[tuple[str, list[str]]]:
        for raw in self._lines():
            yield raw, _ended(raw)[0].split("\t")

    def _cell(self, text: str) -> str:
        return "\t" + " ".join(text.split("\t"))


class JsonLines(Rows):
    """A JSON object a line; the text is that of a field (`a.b`: field b of the object a), all others pass through."""

    def _records(self) -> Iterator[Record]:
        for number, raw in enumerate(self._lines()):
            line = raw.removeprefix("\ufeff") if number == 0 else raw
            yield Record(raw, self._of(line, number + 1) if line.strip() else Text(""))

    def _of(self, line: str, number: int) -> Text:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            return Text(None, "not a JSON object")
        if not isinstance(row, dict):
            return Text(None, "not a JSON object")
        if self._shape.output_column in row:
            name = self._shape.output_column
            raise DataError(f"{self.name}, line {number}: has a field {name!r}; name another one by --output-column")
        found = _at(row, self._shape.column)
        if isinstance(found, str):
            return self._text(found)
        said = "no field" if found is _NOTHING else f"{type(found).__name__} instead of text in field"
        return Text(None, f"{said} {self._shape.column!r}")

    def _answered(self, record: Record, answer: Answer) -> str:
        line = record.raw.rstrip()
        if not line.endswith("}") or record.text.reason == "not a JSON object":
            return record.raw
        added = f"{json.dumps(self._shape.output_column)}: {json.dumps(answer.text, ensure_ascii=False)}}}"
        first = line[:-1].rstrip()
        return first + ("" if first.endswith("{") else ", ") + added + record.raw[len(line) :]


_NOTHING = object()


def _at(row: Any, path: str) -> Any:
    """The value at `path`, a name or names with points between them; `_NOTHING` where there is none."""
    if not isinstance(row, dict):
        return _NOTHING
    if path in row:
        return row[path]
    first, _, rest = path.partition(".")
    return _at(row[first], rest) if rest and first in row else _NOTHING
