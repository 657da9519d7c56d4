"""Reading pairs of sentences from wherever a recipe says they are: hub, local folder, Parquet, JSON lines, TSV, files."""

from __future__ import annotations

import glob
import hashlib
import importlib
import itertools
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from nmt.corpus.recipe import Source
from nmt.errors import ConfigError, DataError
from nmt.text.lines import read_lines

_log = logging.getLogger(__name__)

Pair = tuple[str, str]
_ROWS = 1000  # rows fetched at a time from Arrow tables
_SAMPLE = 1000  # pairs that stand for a generated corpus in its fingerprint
_PAUSES = (1.0, 2.0, 4.0, 8.0)  # seconds before each new try after a broken connection
_MESSAGE = 400  # characters of another library's message that are shown
_HUB_URL = re.compile(r"hf://datasets/([^/@]+/[^/@]+)(?:@(refs/(?:convert|pr)/[^/]+|[^/]+))?/(.+)")


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


def fingerprint(source: Source, languages: tuple[str, str]) -> str:
    """What identifies the content of `source`: a digest of local files, or of the first pairs where it is generated.

    Of the hub nothing is asked, so that a corpus once prepared needs no network: there the recipe alone counts.
    """
    digest = hashlib.sha256()
    for name, path in _local_files(source):
        digest.update(f"{name}\0".encode("utf-8", "surrogateescape"))
        try:
            with path.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
        except OSError as error:
            raise _unreadable(path, error) from None
    if source.generate:
        digest.update(repr(list(itertools.islice(read_pairs(source, languages), _SAMPLE))).encode())
    return digest.hexdigest()


def _local_files(source: Source) -> list[tuple[str, Path]]:
    """(name within the source, path) of every file that `source` reads or that says how to read it."""
    if source.folder:
        root = _folder(source)
        inside = [(path.relative_to(root), path) for path in sorted(root.rglob("*"))]
        # Hidden folders hold what version control and downloaders note for themselves.
        return [
            (name.as_posix(), path)
            for name, path in inside
            if not any(part.startswith(".") for part in name.parts) and path.is_file()
        ]
    paths: list[Path] = []
    if source.parquet and not source.parquet.startswith("hf://"):
        paths = _glob(source.parquet)
    elif source.jsonl:
        paths = _glob(source.jsonl)
    elif source.tsv:
        paths = [local_path(source.tsv)]
    elif source.files:
        paths = [local_path(path) for path in source.files]
    return [(path.name, path) for path in paths]


def local_path(path: Path | str) -> Path:
    """`path` with `~` and `${VARIABLE}` replaced; an unset variable is a `ConfigError` that names it."""

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in os.environ:
            raise ConfigError(f"{path}: set the environment variable {name} to the folder that holds the corpora")
        return os.environ[name]

    try:
        return Path(re.sub(r"\$\{(\w+)\}", value, str(path))).expanduser()
    except RuntimeError:
        raise ConfigError(f"{path}: no such user; write the path in full") from None


# --- tables, where a row is a mapping from column names -----------------------------------------------------------


def _read_hub(source: Source, languages: tuple[str, str]) -> Iterator[Pair]:
    if source.data_files is None:
        return _read_datasets(str(source.hub), {"name": source.config, "revision": source.revision}, source, languages)
    # Downloaded first and then read as a local folder, because `datasets` cannot find such a choice in its cache again.
    root = _download(source, str(source.hub), source.revision, source.data_files)
    files = {source.split.partition("[")[0]: source.data_files}
    return _read_datasets(str(root), {"data_files": files}, source, languages)


def _read_folder(source: Source, languages: tuple[str, str]) -> Iterator[Pair]:
    # Absolute, because a relative `csv` or `owner/name` would mean something else to `datasets`.
    return _read_datasets(str(_folder(source).absolute()), {"name": source.config}, source, languages)


def _folder(source: Source) -> Path:
    root = local_path(source.folder or "")
    if not root.is_dir():
        raise DataError(f"{root}: no such folder (named by the recipe's `folder`)")
    return root


def _read_parquet(source: Source, languages: tuple[str, str]) -> Iterator[Pair]:
    pyarrow, parquet = _require("pyarrow"), _require("pyarrow.parquet")
    for path in _parquet_files(source):
        try:
            with parquet.ParquetFile(path) as table:
                _check_columns(table.schema_arrow.names, source, str(path))
                for batch in table.iter_batches(_ROWS, columns=_columns(source)):
                    yield from _pairs(batch.to_pylist(), source, languages, str(path))
        except (OSError, ValueError, pyarrow.ArrowException) as error:
            raise DataError(
                f"{path}: not a readable Parquet file ({_cause(error)}); get it anew, or leave it out of the recipe"
            ) from None


def _parquet_files(source: Source) -> list[Path]:
    name = str(source.parquet)
    if not name.startswith("hf://"):
        return _glob(name)
    found = _HUB_URL.fullmatch(name.replace("%2F", "/"))
    if not found:
        raise ConfigError(f"{name}: expected hf://datasets/OWNER/NAME@REVISION/PATH, where @REVISION may be left out")
    repository, revision, pattern = found.groups()
    root = _download(source, repository, revision, pattern)
    paths = sorted(root.glob(pattern))
    if not paths:
        raise DataError(f"{source.label}: the data set has no such file")
    return paths


def _download(source: Source, repository: str, revision: str | None, pattern: str) -> Path:
    """The folder in the hub's local cache that holds the files of a data set that match `pattern`."""
    hub = _require("huggingface_hub")

    def fetch() -> str:
        path: str = hub.snapshot_download(repository, repo_type="dataset", revision=revision, allow_patterns=pattern)
        return path

    return Path(_load(fetch, source))


def _read_datasets(path: str, arguments: dict[str, Any], source: Source, languages: tuple[str, str]) -> Iterator[Pair]:
    datasets, pyarrow = _require("datasets"), _require("pyarrow")
    given = {key: value for key, value in arguments.items() if value is not None}
    data = _load(lambda: datasets.load_dataset(path, split=source.split, **given), source)
    _check_columns(data.column_names, source, source.label)
    try:
        for batch in data.select_columns(_columns(source)).iter(_ROWS):
            rows = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
            yield from _pairs(rows, source, languages, source.label)
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise DataError(f"{source.label}: not readable ({_cause(error)}); get the data anew") from None


def _load(load: Callable[[], Any], source: Source) -> Any:
    """`load()`, tried again when a connection breaks: the hub's libraries do so for some kinds of breaking alone."""
    offline = bool(_require("huggingface_hub.constants").HF_HUB_OFFLINE)
    pauses = iter(() if offline else _PAUSES)
    while True:
        try:
            return load()
        except Exception as error:  # the libraries raise their own, httpx's, requests', pyarrow's and the system's
            pause = next(pauses, None) if _is_broken_connection(error) else None
            if pause is None:
                raise DataError(
                    f"{source.label}: could not be loaded: {_cause(error)} ({_remedy(source, str(error), offline)})"
                ) from None
            _log.warning("%s: %s; trying again in %g s", source.label, _cause(error), pause)
        time.sleep(pause)


def _is_broken_connection(error: BaseException) -> bool:
    for link in _causes(error):
        library = type(link).__module__.partition(".")[0]
        if isinstance(link, ConnectionError | TimeoutError) or library in ("httpx", "httpx2", "requests", "urllib3"):
            return getattr(link, "response", None) is None  # an answer, however bad, came through
    return False


def _remedy(source: Source, message: str, offline: bool) -> str:
    if source.kind == "folder":
        return "check the split, the configuration and the files of the folder"
    if "scripts are no longer supported" in message:
        return (
            "its files are made by a program, which is not run; read the hub's Parquet copy: "
            f"parquet: hf://datasets/{source.hub}@refs/convert/parquet/CONFIG/SPLIT/*.parquet"
        )
    if offline:
        return "HF_HUB_OFFLINE is set: only what was loaded before can be read; unset it to download"
    return "check the name, the configuration, the split and the network; HF_HUB_OFFLINE=1 reads the cache alone"


def _read_jsonl(source: Source, languages: tuple[str, str]) -> Iterator[Pair]:
    for path in _glob(str(source.jsonl)):
        for number, line in _lines(path):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                raise DataError(f"{where}: not a JSON object; correct or remove the line") from None
            if not isinstance(row, dict):
                raise DataError(f"{where}: not a JSON object; correct or remove the line")
            _check_columns(list(row), source, where)
            for pair in _pairs([row], source, languages, where):
                # JSON alone can spell half a character; the check would cost time on every other line.
                if "\\u" in line and not all(map(_is_unicode, pair)):
                    raise DataError(f"{where}: holds half of a surrogate pair, which is not text; correct the line")
                yield pair


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _columns(source: Source) -> list[str]:
    """The columns to read: those of the pair, and those by which rows are chosen."""
    pair = [source.columns.source, source.columns.target] if source.columns else ["translation"]
    return list(dict.fromkeys([*pair, *source.where]))


def _check_columns(found: list[str], source: Source, where: str) -> None:
    for name in _columns(source):
        if name not in found:
            hint = "name the two columns by `columns: {source: ..., target: ...}` in the recipe"
            if name in source.where:
                hint = "it is named by `where` in the recipe"
            raise DataError(f"{where}: no column {name!r}, found {', '.join(map(str, found)) or 'none'} ({hint})")


def _pairs(rows: list[dict[str, Any]], source: Source, languages: tuple[str, str], where: str) -> Iterator[Pair]:
    for row in rows:
        if any(row[column] != value for column, value in source.where.items()):
            continue
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
        if not line.strip():
            continue
        cells = line.split("\t")
        if max(positions) >= len(cells):
            raise DataError(
                f"{path}, line {number}: {len(cells)} column(s), but column number {max(positions)} (from 0) is asked "
                "for; correct the line or the recipe's `columns`"
            )
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
        raise DataError(
            f"{first} has {counts[0]} lines but {second} has {counts[1]}: parallel files must agree line by line; "
            "align them again"
        )


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """(1-based number, text) of each line."""
    return enumerate(read_lines(path, DataError), 1)


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"{path}: {(error.strerror or str(error)).lower()} (named by the recipe)")


def _glob(pattern: str) -> list[Path]:
    expanded = str(local_path(pattern))
    paths = [Path(name) for name in sorted(glob.glob(expanded, recursive=True))]
    if not paths:
        raise DataError(f"{expanded}: no such file (named by the recipe)")
    return paths


# --- the rest -------------------------------------------------------------------------------------------------------


def _generate(source: Source, languages: tuple[str, str]) -> Iterator[Pair]:
    from nmt.corpus.numbers import generate  # num2words and babel are loaded only when asked for

    assert source.limit is not None  # the recipe is checked for it
    return generate(languages[0], languages[1], source.limit, source.seed)


def _require(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ConfigError(f"reading this source needs {module}: pip install 'strata-nmt[train]'") from None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """`error`, what it was raised from, and so on."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__


def _cause(error: BaseException) -> str:
    """What went wrong in one line; where `datasets` says no more than that something did, what that was."""
    told = next((link for link in _causes(error) if type(link).__name__ != "DatasetGenerationError"), error)
    text = " ".join(str(told).split())
    return f"{type(told).__name__}: {text[:_MESSAGE] or 'no message'}"
