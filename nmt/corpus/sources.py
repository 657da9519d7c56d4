"""Reading pairs of sentences from wherever a recipe says they are: hub, local folder, Parquet, JSON lines, TSV, files."""

from __future__ import annotations

import glob
import gzip
import hashlib
import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from nmt.corpus.recipe import Source
from nmt.errors import ConfigError, DataError

Pair = tuple[str, str]
_ROWS = 1000  # rows fetched at a time from Arrow tables


def read_pairs(source: Source, languages: tuple[str, str]) -> Iterator[Pair]:
    """Yield the (source, target) texts of `source` as they are stored; a null becomes "".

    Raises `DataError` when the data is missing or not what the recipe says: what, where, and what to do.
    """
    readers = {
        "hub": _read_hub,
        "folder": _read_folder,
        "parquet": _read_parquet,
        "jsonl": _read_jsonl,
        "tsv": _read_tsv,
        "files": _read_files,
        "generate": _generate,
    }
    return itertools.islice(readers[source.kind](source, languages), source.limit)


def fingerprint(source: Source) -> str:
    """What identifies the content of `source`: a digest of local files; for the hub its name and revision alone."""
    paths: list[Path] = []
    if source.folder:
        root = local_path(source.folder)
        if not root.is_dir():
            raise DataError(f"{root}: no such folder (named by the recipe's `folder`)")
        paths = sorted(path for path in root.rglob("*") if path.is_file() and not path.name.startswith("."))
    elif source.parquet and not source.parquet.startswith("hf://"):
        paths = _glob(source.parquet)
    elif source.jsonl:
        paths = _glob(source.jsonl)
    elif source.tsv:
        paths = [local_path(source.tsv)]
    elif source.files:
        paths = [local_path(path) for path in source.files]
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.name}\0".encode())
        with _open(path, raw=True) as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def local_path(path: Path | str) -> Path:
    """`path` with `~` and `${VARIABLE}` replaced; an unset variable is a `ConfigError` that names it."""

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in os.environ:
            raise ConfigError(f"{path}: set the environment variable {name} to the folder that holds the corpora")
        return os.environ[name]

    return Path(re.sub(r"\$\{(\w+)\}", value, str(path))).expanduser()


# --- tables, where a row is a mapping from column names -----------------------------------------------------------


def _read_hub(source: Source, languages: tuple[str, str]) -> Iterator[Pair]:
    arguments: dict[str, Any] = {"name": source.config, "revision": source.revision}
    if source.data_files:
        arguments["data_files"] = {_split_name(source): source.data_files}
    return _read_datasets(str(source.hub), arguments, source, languages)


def _read_folder(source: Source, languages: tuple[str, str]) -> Iterator[Pair]:
    root = local_path(source.folder or "")
    if not root.is_dir():
        raise DataError(f"{root}: no such folder (named by the recipe's `folder`)")
    return _read_datasets(str(root), {"name": source.config}, source, languages)


def _read_parquet(source: Source, languages: tuple[str, str]) -> Iterator[Pair]:
    name = str(source.parquet)
    if name.startswith("hf://"):
        url = re.sub(r"@refs/convert/parquet", "@refs%2Fconvert%2Fparquet", name)
        yield from _read_datasets("parquet", {"data_files": {_split_name(source): url}}, source, languages)
        return
    pq = _require("pyarrow.parquet")
    for path in _glob(name):
        try:
            table = pq.ParquetFile(path)
            _check_columns(table.schema_arrow.names, source, str(path))
            for batch in table.iter_batches(_ROWS, columns=_columns(source)):
                yield from _pairs(batch.to_pylist(), source, languages, str(path))
        except (OSError, ValueError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{path}: not a readable Parquet file ({_first_line(error)})") from None


def _read_datasets(path: str, arguments: dict[str, Any], source: Source, languages: tuple[str, str]) -> Iterator[Pair]:
    datasets = _require("datasets")
    split = _split_name(source) if "data_files" in arguments else source.split
    try:
        data = datasets.load_dataset(path, split=split, **{k: v for k, v in arguments.items() if v is not None})
    except Exception as error:  # the library raises its own, requests', httpx', pyarrow's and the system's errors
        raise DataError(
            f"{source.label}: split {source.split!r} could not be loaded: {_first_line(error)} "
            "(check the name, the configuration and the network; HF_HUB_OFFLINE=1 reads the cache alone)"
        ) from None
    _check_columns(data.column_names, source, source.label)
    for batch in data.select_columns(_columns(source)).iter(_ROWS):
        rows = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
        yield from _pairs(rows, source, languages, source.label)


def _read_jsonl(source: Source, languages: tuple[str, str]) -> Iterator[Pair]:
    for path in _glob(str(source.jsonl)):
        for number, line in _lines(path):
            where = f"{path}, line {number}"
            try:
                row = json.loads(line)
            except ValueError:
                raise DataError(f"{where}: not a JSON object") from None
            if not isinstance(row, dict):
                raise DataError(f"{where}: not a JSON object")
            _check_columns(list(row), source, where)
            yield from _pairs([row], source, languages, where)


def _split_name(source: Source) -> str:
    return source.split.partition("[")[0]


def _columns(source: Source) -> list[str]:
    return [source.columns.source, source.columns.target] if source.columns else ["translation"]


def _check_columns(found: list[str], source: Source, where: str) -> None:
    for name in _columns(source):
        if name not in found:
            hint = "name the two columns by `columns: {source: ..., target: ...}` in the recipe"
            raise DataError(f"{where}: no column {name!r}, found {', '.join(map(str, found)) or 'none'} ({hint})")


def _pairs(rows: list[dict[str, Any]], source: Source, languages: tuple[str, str], where: str) -> Iterator[Pair]:
    for row in rows:
        if source.columns:
            yield (
                _text(row[source.columns.source], source.columns.source, where),
                _text(row[source.columns.target], source.columns.target, where),
            )
            continue
        pair = row["translation"]
        if not isinstance(pair, Mapping) or any(language not in pair for language in languages):
            found = ", ".join(pair) if isinstance(pair, Mapping) else type(pair).__name__
            raise DataError(f"{where}: `translation` should hold {' and '.join(languages)}, found {found}")
        yield _text(pair[languages[0]], languages[0], where), _text(pair[languages[1]], languages[1], where)


def _text(value: Any, column: str, where: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(f"{where}: column {column!r} holds {type(value).__name__}, text was expected")
    return value


# --- lines of text files --------------------------------------------------------------------------------------------


def _read_tsv(source: Source, languages: tuple[str, str]) -> Iterator[Pair]:
    path = local_path(source.tsv or "")
    assert source.columns is not None  # the recipe is checked for it
    names = [source.columns.source, source.columns.target]
    lines = _lines(path)
    if source.header:
        header = next(lines, (1, ""))[1].split("\t")
        _check_columns(header, source, str(path))
        positions = [header.index(name) for name in names]
    elif all(name.isdecimal() for name in names):
        positions = [int(name) for name in names]
    else:
        raise DataError(f"{path}: columns {names} are names; say `header: true`, or give 0-based numbers")
    for number, line in lines:
        cells = line.split("\t")
        if max(positions) >= len(cells):
            raise DataError(f"{path}, line {number}: {len(cells)} column(s), but column {max(positions)} is asked for")
        yield cells[positions[0]], cells[positions[1]]


def _read_files(source: Source, languages: tuple[str, str]) -> Iterator[Pair]:
    first, second = (local_path(path) for path in source.files or ())
    ended = (-1, "")
    counts = [0, 0]
    for left, right in itertools.zip_longest(_lines(first), _lines(second), fillvalue=ended):
        counts = [counts[0] + (left is not ended), counts[1] + (right is not ended)]
        if counts[0] == counts[1]:
            yield left[1], right[1]
    if counts[0] != counts[1]:
        raise DataError(f"{first} has {counts[0]} lines but {second} has {counts[1]}: parallel files must agree")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """(1-based number, text) of each line; only a line feed ends a line; a byte order mark is dropped."""
    with _open(path) as stream:
        try:
            for number, line in enumerate(stream, 1):
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise DataError(f"{path}, line {number}: not valid UTF-8 (byte {error.start + 1})") from None
                yield number, text.rstrip("\r\n")
        except (gzip.BadGzipFile, EOFError):
            raise DataError(f"{path}: the gzip file is damaged or cut short") from None


def _open(path: Path, raw: bool = False) -> IO[bytes]:
    try:
        return gzip.open(path) if path.suffix == ".gz" and not raw else path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: {(error.strerror or str(error)).lower()}") from None


def _glob(pattern: str) -> list[Path]:
    expanded = str(local_path(pattern))
    paths = [Path(name) for name in sorted(glob.glob(expanded, recursive=True))]
    if not paths:
        raise DataError(f"{expanded}: no such file")
    return paths


# --- the rest -------------------------------------------------------------------------------------------------------


def _generate(source: Source, languages: tuple[str, str]) -> Iterator[Pair]:
    from nmt.corpus.numbers import generate  # num2words and babel are loaded only when asked for

    assert source.limit is not None  # the recipe is checked for it
    return generate(languages[0], languages[1], source.limit, source.seed)


def _require(module: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError:
        raise ConfigError(f"reading this source needs {module}: pip install 'strata-nmt[train]'") from None


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else 'no message'}"
