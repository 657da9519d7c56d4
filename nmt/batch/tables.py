"""Inputs of columns: Parquet files and hub datasets; the output is a Parquet file with one column more."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow
import pyarrow.compute
import pyarrow.parquet

from nmt.batch.answers import Answer
from nmt.batch.inputs import HUB, Shape, Text, checked
from nmt.errors import ConfigError, DataError

_ROWS = 2000  # of a batch
_HUB_TYPES = b"huggingface"  # what `datasets` notes of the columns, which would lack the new one


class _Tables(ABC):
    """Batches of rows that come one after another."""

    links = False

    def __init__(self, name: str, shape: Shape) -> None:
        self.name, self._shape = name, shape

    @abstractmethod
    def _schema(self) -> Any:
        """The schema of the rows."""

    @abstractmethod
    def _batches(self) -> Iterator[Any]:
        """The rows, as tables of some of them."""

    def check(self) -> None:
        """Raise `DataError` where the columns are not as the shape says."""
        schema, path = self._schema(), self._shape.column.split(".")
        kind = schema
        for name in [self._shape.column] if self._shape.column in schema.names else path:
            names = [field.name for field in kind] if kind is schema or pyarrow.types.is_struct(kind) else []
            if name not in names:
                raise DataError(f"{self.name}: no column {self._shape.column!r}, found {', '.join(schema.names)}")
            kind = kind.field(name).type
        if not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
            raise DataError(f"{self.name}: column {self._shape.column!r} holds {kind}, text was expected")
        if self._shape.output_column in schema.names:
            raise DataError(
                f"{self.name}: has a column {self._shape.output_column!r}; name another one by --output-column"
            )

    def texts(self) -> Iterator[Text]:
        """The text of each row."""
        for batch in self._batches():
            for value in self._column(batch).to_pylist():
                yield Text(None, "no text (null)") if value is None else checked(value, self._shape.max_characters)

    def _column(self, batch: Any) -> Any:
        name = self._shape.column
        if name in batch.schema.names:
            return batch[name]
        first, *rest = name.split(".")
        return pyarrow.compute.struct_field(batch[first], rest)

    def write(self, answers: Iterator[Answer], stream: BinaryIO) -> None:
        """All columns, and that of the translations."""
        schema = self._schema()
        noted = {key: value for key, value in (schema.metadata or {}).items() if key != _HUB_TYPES}
        whole = schema.with_metadata(noted or None).append(pyarrow.field(self._shape.output_column, pyarrow.string()))
        with pyarrow.parquet.ParquetWriter(stream, whole) as writer:
            for batch in self._batches():
                said = pyarrow.array([next(answers).text for _ in range(batch.num_rows)], pyarrow.string())
                columns = [batch[name] for name in schema.names]
                writer.write_table(pyarrow.Table.from_arrays([*columns, said], schema=whole))


class ParquetInput(_Tables):
    """A Parquet file."""

    def __init__(self, name: str, shape: Shape) -> None:
        super().__init__(name, shape)
        self.check()

    def _schema(self) -> Any:
        try:
            return pyarrow.parquet.read_schema(self.name)
        except (OSError, ValueError, pyarrow.ArrowException) as error:
            raise self._unreadable(error) from None

    def _batches(self) -> Iterator[Any]:
        try:
            with pyarrow.parquet.ParquetFile(self.name) as table:
                yield from table.iter_batches(_ROWS)
        except (OSError, ValueError, pyarrow.ArrowException) as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: Exception) -> DataError:
        return DataError(f"{self.name}: not a readable Parquet file ({' '.join(str(error).split())[:300]})")


class DatasetInput(_Tables):
    """A dataset of the hub, or a folder with the layout of one."""

    def __init__(self, name: str, shape: Shape) -> None:
        super().__init__(name, shape)
        try:
            import datasets
        except ImportError:
            raise ConfigError(f"{name}: needs datasets: pip install 'strata-nmt[train]'") from None
        hub = HUB.fullmatch(name)
        where = hub[1] if hub else str(Path(name).absolute())
        try:
            data = datasets.load_dataset(where, shape.config or None, split=shape.split)
        except Exception as error:  # the library raises its own, those of the network and the system's
            raise DataError(
                f"{name}: could not be loaded ({' '.join(str(error).split())[:300]}); see to name, --config, --split and network"
            ) from None
        self._data = data.with_format("arrow")
        self.check()

    def _schema(self) -> Any:
        return self._data.features.arrow_schema

    def _batches(self) -> Iterator[Any]:
        for table in self._data.iter(_ROWS):
            yield table.cast(self._schema())
