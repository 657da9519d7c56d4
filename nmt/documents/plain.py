"""Plain text and tables (CSV, TSV), and how text files are encoded."""

from __future__ import annotations

import codecs
import csv
import difflib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nmt.errors import InputError
from nmt.inference.types import Hypothesis
from nmt.text.segment import stretches

_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\n|\r)|[^\r\n]+")
_DELIMITERS = ",;\t|"
_ONE_COLUMN = "\x1f"  # where no delimiter is seen: Unicode's unit separator, which tables do not have
_SAMPLE = 100  # lines from which the delimiter is told


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a file's characters are written, and its byte order mark."""

    codec: str
    mark: bytes = b""

    def encode(self, text: str) -> bytes:
        """The file with this text."""
        return self.mark + text.encode(self.codec)


def decode(content: bytes) -> tuple[str, Encoding]:
    """The text of a file in UTF-8, with or without byte order mark, or in UTF-16 with one; its line ends stay.

    Raises InputError, with line and byte, for anything else.
    """
    mark, codec = next((each for each in _MARKS if content.startswith(each[0])), (b"", "utf-8"))
    encoding = Encoding(codec, mark)
    try:
        text = content[len(mark) :].decode(codec)
    except UnicodeDecodeError as problem:
        at = len(mark) + problem.start
        line = content[len(mark) : at].decode(codec, errors="replace").count("\n") + 1
        name = "UTF-16" if codec.startswith("utf-16") else "UTF-8"
        raise InputError(
            f"line {line}: byte {at + 1} of the file (0x{content[at]:02x}) is not {name};"
            " if it is a text file, save it as UTF-8"
        ) from None
    if (at := text.find("\0")) >= 0:
        byte = len(encoding.encode(text[:at])) + 1
        raise InputError(
            f"line {text.count(chr(10), 0, at) + 1}: byte {byte} of the file is NUL, so this is no text file;"
            " if it is UTF-16 or UTF-32, save it as UTF-8"
        )
    return text, encoding


def split_lines(text: str) -> list[str]:
    """The lines of a text with their ends, which are `\\n`, `\\r\\n` and `\\r`."""
    return _LINE.findall(text)


def place_lines(text: str) -> list[tuple[int, str]]:
    """The lines of a text without their ends, and where they begin."""
    return [(line.start(), line.group().rstrip("\r\n")) for line in _LINE.finditer(text)]


class PlainText:
    """A text file: `texts` are its lines, without what is no part of a sentence, such as marks of lists, and cells between tabs apart."""

    def __init__(self, content: bytes) -> None:
        text, self._encoding = decode(content)
        self._stretches, self._rest = stretches(text, "", sentences=False)
        self.texts = [each.text for each in self._stretches]

    def write(self, found: Sequence[Hypothesis]) -> bytes:
        """The file, given a translation of each text."""
        written = [each.before + one.text for each, one in zip(self._stretches, found, strict=True)]
        return self._encoding.encode("".join([*written, self._rest]))


@dataclass(frozen=True, slots=True)
class _Row:
    raw: str
    cells: list[str]


class Table:
    """A file of rows, as CSV: `texts` are the cells of some columns that have letters in them."""

    def __init__(
        self,
        content: bytes,
        columns: Sequence[str] | None = None,
        delimiter: str | None = None,
        header: bool = True,
    ) -> None:
        """`columns` are names in the header or numbers from 1; without them they are those in which most cells have letters.

        The delimiter is told from the first rows where none is given. With `header` the first row has names and stays as it is.
        """
        text, self._encoding = decode(content)
        lines = split_lines(text)
        self._delimiter = delimiter or _sniffed(lines[:_SAMPLE])
        self._quoted = True
        try:
            self._rows = list(_rows(lines, self._delimiter, quoted=True))
        except InputError:
            if self._delimiter != "\t":
                raise
            self._quoted = False  # as most programs write such files
            self._rows = list(_rows(lines, self._delimiter, quoted=False))
        filled = [(number, row.cells) for number, row in enumerate(self._rows) if row.cells]
        names = filled.pop(0)[1] if header and filled else []
        chosen = _lettered([cells for _, cells in filled]) if columns is None else self._numbered(columns, names)
        self._places = [
            (number, column)
            for number, cells in filled
            for column in chosen
            if column < len(cells) and _has_letters(cells[column])
        ]
        self.texts = [self._rows[number].cells[column].strip() for number, column in self._places]

    def write(self, found: Sequence[Hypothesis]) -> bytes:
        """The file, given a translation of each text."""
        changed: dict[int, dict[int, str]] = {}
        for (number, column), each in zip(self._places, found, strict=True):
            changed.setdefault(number, {})[column] = each.text
        rows = [
            self._written(row, changed[number]) if number in changed else row.raw
            for number, row in enumerate(self._rows)
        ]
        return self._encoding.encode("".join(rows))

    def _numbered(self, columns: Sequence[str], names: Sequence[str]) -> list[int]:
        """The places of columns, by name or else by number."""
        width = max((len(row.cells) for row in self._rows), default=0)
        found: set[int] = set()
        for wanted in columns:
            places = [place for place, name in enumerate(names) if name.strip() == wanted.strip()]
            if not places and wanted.strip().isdecimal() and 1 <= int(wanted) <= width:
                places = [int(wanted) - 1]
            if not places:
                near = difflib.get_close_matches(wanted, names) or names[:10]
                known = f"the header has {', '.join(map(repr, near))}" if near else "there is no header"
                raise InputError(
                    f"no column {wanted!r} in the table: {known}; give a name or a number from 1 to {width}"
                )
            found.update(places)
        return sorted(found)

    def _written(self, row: _Row, cells: dict[int, str]) -> str:
        """The row with other text in these cells, each quoted where it was, or where it has to be now."""
        pattern = rf"[^{re.escape(self._delimiter)}\r\n]*+"
        if self._quoted:
            pattern = rf'"(?:[^"]++|"")*+"|{pattern}'
        pieces, end = [], 0
        for column, place in enumerate(re.finditer(rf"(?:^|(?<={re.escape(self._delimiter)}))(?:{pattern})", row.raw)):
            if column in cells:
                old = row.cells[column]
                core = old.strip()
                new = old[: old.index(core)] + cells[column] + old[old.index(core) + len(core) :]
                pieces += [row.raw[end : place.start()], self._cell(new, place.group().startswith('"'))]
                end = place.end()
        return "".join([*pieces, row.raw[end:]])

    def _cell(self, text: str, quoted: bool) -> str:
        if not self._quoted:
            return re.sub(rf"[\r\n{self._delimiter}]+", " ", text)
        if quoted or text.startswith('"') or re.search(rf"[\r\n{re.escape(self._delimiter)}]", text):
            return '"' + text.replace('"', '""') + '"'
        return text


def _has_letters(cell: str) -> bool:
    return any(map(str.isalpha, cell))


def _rows(lines: Sequence[str], delimiter: str, quoted: bool) -> Iterator[_Row]:
    """The rows of a table, each with the lines that it was read from."""
    reader = csv.reader(
        lines, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE, strict=True
    )
    first = 0
    try:
        for cells in reader:
            yield _Row("".join(lines[first : reader.line_num]), cells)
            first = reader.line_num
    except csv.Error as problem:
        raise InputError(
            f"line {first + 1}: the row that begins there cannot be read ({problem});"
            " is a quotation mark not closed, or the delimiter another one?"
        ) from None


def _sniffed(lines: Sequence[str]) -> str:
    """The delimiter that gives most rows as many cells as the first row has, which are two or more."""
    best, found = (0.5, 1), _ONE_COLUMN
    for delimiter in _DELIMITERS:
        try:
            widths = [len(cells) for cells in csv.reader(lines, delimiter=delimiter) if cells]
        except csv.Error:
            continue
        if widths and widths[0] > 1:
            score = widths.count(widths[0]) / len(widths), widths[0]
            if score > best:
                best, found = score, delimiter
    return found


def _lettered(rows: Sequence[Sequence[str]]) -> list[int]:
    """The columns in which most cells that are not empty have letters."""
    filled: Counter[int] = Counter()
    letters: Counter[int] = Counter()
    for cells in rows:
        for column, cell in enumerate(cells):
            filled[column] += bool(cell.strip())
            letters[column] += _has_letters(cell)
    return sorted(column for column, count in letters.items() if 2 * count > filled[column])
