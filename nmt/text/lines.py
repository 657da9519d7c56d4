"""Lines of UTF-8 text files, read one at a time; only a line feed ends a line."""

from __future__ import annotations

import contextlib
import gzip
import io
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from nmt.errors import InputError, NMTError


def read_lines(path: Path, error: type[NMTError] = InputError) -> Iterator[str]:
    """The lines of a file (.gz and .zst too); raise `error` naming the file, and the line that is not UTF-8."""
    with unpacked(path, error) as stream:
        yield from decode_lines(stream, str(path), error)


@contextlib.contextmanager
def unpacked(path: Path, error: type[NMTError] = InputError) -> Iterator[BinaryIO]:
    """The bytes of a file, those of .gz and .zst as they were before; raise `error` naming the file where it can't be read.

    For generators that only read: what else goes wrong inside would be taken for an error of the file.
    """
    try:
        with _opened(path) as stream:
            yield stream
    except ImportError:
        raise error(f"{path}: .zst files need pyarrow: pip install 'strata-nmt[batch]'") from None
    except (gzip.BadGzipFile, zlib.error, EOFError):
        raise error(f"{path}: the gzip file is damaged or cut short") from None
    except OSError as problem:
        raise error(f"{path}: {(problem.strerror or str(problem)).lower()}") from None


def _opened(path: Path) -> BinaryIO:
    if path.suffix == ".gz":
        return cast("BinaryIO", gzip.open(path))
    if path.suffix == ".zst" and path.is_file():
        import pyarrow

        return cast("BinaryIO", io.BufferedReader(pyarrow.input_stream(str(path), compression="zstd")))
    return path.open("rb")


def packing(path: Path) -> BinaryIO:
    """A new file to write bytes to, which are packed where its name ends with .gz or .zst; raise `OSError` where it can't be made."""
    if path.suffix == ".gz":
        return cast("BinaryIO", gzip.GzipFile(path, "wb", compresslevel=6, mtime=0))
    if path.suffix == ".zst":
        import pyarrow

        return cast("BinaryIO", pyarrow.output_stream(str(path), compression="zstd"))
    return path.open("wb")


def decode_lines(stream: Iterable[bytes], name: str, error: type[NMTError] = InputError) -> Iterator[str]:
    """The lines of a binary stream as text, without their line ends; a byte order mark is dropped."""
    for number, line in enumerate(stream, 1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as problem:
            raise error(
                f"{name}, line {number}: not valid UTF-8 (byte {problem.start + 1}); convert the file first"
            ) from None
