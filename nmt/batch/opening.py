"""Opening an input as what it is: lines, a table, JSON lines, Parquet, a hub dataset, a document."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from nmt.batch import rows
from nmt.batch.answers import Answer, words_linked
from nmt.batch.inputs import Input, Shape, Text, kind_of
from nmt.documents.formats import open_document
from nmt.errors import ConfigError, DataError, InputError
from nmt.inference.types import Hypothesis


def open_input(name: str, shape: Shape) -> Input:
    """The input of that name. Raises `ConfigError` where options do not go with its kind, `InputError` or `DataError` for what is wrong
    with it."""
    kind = shape.kind or kind_of(name)
    if shape.full and kind != "lines":
        raise ConfigError(f"{name}: --json is for lines of text; a {kind} input keeps its form")
    if kind in ("lines", "document") and shape.column:
        raise ConfigError(
            f"{name}: --column is for tables, JSON lines and datasets; this is read as {kind} (see --format)"
        )
    if kind in ("csv", "tsv", "jsonl", "parquet", "dataset") and not shape.column:
        raise ConfigError(f"{name}: say by --column NAME which column or field of it is to be translated")
    if kind != "dataset" and not Path(name).is_file():
        raise InputError(f"{name}: {'is a folder' if Path(name).is_dir() else 'no such file'}")
    if kind == "document":
        return DocumentInput(Path(name))
    if kind in ("parquet", "dataset"):
        try:
            importlib.import_module("pyarrow")
        except ImportError:
            raise ConfigError(f"{name}: needs pyarrow: pip install 'strata-nmt[batch]'") from None
        from nmt.batch import tables

        return tables.DatasetInput(name, shape) if kind == "dataset" else tables.ParquetInput(name, shape)
    opens: dict[str, type[rows.Rows]] = {"csv": rows.Csv, "tsv": rows.Tsv, "jsonl": rows.JsonLines, "lines": rows.Lines}
    return opens[kind](Path(name), shape)


class DocumentInput:
    """A document of `nmt.documents`, whose texts are its passages."""

    links = True

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        try:
            self._document = open_document(path.read_bytes(), path.name)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        except OSError as error:
            raise DataError(f"{path}: {(error.strerror or str(error)).lower()}") from None

    def texts(self) -> Iterator[Text]:
        """Its passages."""
        return map(Text, self._document.texts)

    def write(self, answers: Iterator[Answer], stream: BinaryIO) -> None:
        """The document with the translations."""
        found = []
        for text, answer in zip(self._document.texts, answers, strict=True):
            said, links = (text, tuple(words_linked(text))) if answer.text is None else (answer.text, answer.links)
            found.append(Hypothesis(said, 0.0, alignment=links))
        stream.write(self._document.write(found))
