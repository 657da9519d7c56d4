"""Lines of UTF-8 text files, read one at a time; only a line feed ends a line."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from nmt.errors import InputError, NMTError


def read_lines(path: Path, error: type[NMTError] = InputError) -> Iterator[str]:
    """The lines of a file (.gz too); raise `error` naming the file, and the line that is not UTF-8."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            yield from decode_lines(stream, str(path), error)
    except (gzip.BadGzipFile, zlib.error, EOFError):
        raise error(f"{path}: the gzip file is damaged or cut short") from None
    except OSError as problem:
        raise error(f"{path}: {(problem.strerror or str(problem)).lower()}") from None


def decode_lines(stream: Iterable[bytes], name: str, error: type[NMTError] = InputError) -> Iterator[str]:
    """The lines of a binary stream as text, without their line ends; a byte order mark is dropped."""
    for number, line in enumerate(stream, 1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as problem:
            raise error(
                f"{name}, line {number}: not valid UTF-8 (byte {problem.start + 1}); convert the file first"
            ) from None
