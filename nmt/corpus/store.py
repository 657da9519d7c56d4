"""A prepared corpus on disk: token ids as flat arrays that are memory-mapped, evaluation text, and a manifest.

manifest.json             recipe, content hash, counts, cleaning report, length quantiles, versions
report.md                 the cleaning report for people
tokenizer.model           SentencePiece, joint; or source.model and target.model
train.source.ids          uint16, all sentences end to end, no special ids;  train.target.ids likewise
train.source.lengths.npy  uint16, one a sentence;  train.target.lengths.npy likewise
validation.jsonl          {"source", "target"}, text as published;  test.jsonl likewise
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmt.errors import BundleError, DataError
from nmt.text.tokenizer import Tokenizer

FORMAT = 1
MANIFEST = "manifest.json"


_BLOCK = 16  # sentences: where each block begins is kept in memory, half a byte a sentence


@dataclass(frozen=True)
class Ragged:
    """Sentences of different lengths: sentence i is `ids[starts[i] : starts[i] + lengths[i]]`."""

    ids: NDArray[np.uint16]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]

    @classmethod
    def of(cls, sentences: Sequence[Sequence[int]]) -> Ragged:
        """The same from lists of ids."""
        lengths = np.array([len(sentence) for sentence in sentences], dtype=np.int64)
        ids = np.fromiter((i for sentence in sentences for i in sentence), dtype=np.uint16, count=int(lengths.sum()))
        return cls(ids, np.cumsum(lengths) - lengths, lengths)

    def padded(self, width: int, padding: int) -> NDArray[np.int64]:
        """The sentences as rows (N, width), which none is longer than."""
        columns = np.arange(width)
        real = columns < self.lengths[:, None]
        made = np.full(real.shape, padding, dtype=np.int64)
        made[real] = self.ids[(self.starts[:, None] + columns)[real]]
        return made


class TokenColumn:
    """One side of the training pairs: sentence i is `column[i]`, a view of memory-mapped ids."""

    def __init__(self, ids: Path, lengths: Path) -> None:
        """Map the two files; raise `DataError` when one is missing or they disagree."""
        try:
            self.lengths: NDArray[np.uint16] = np.load(lengths, mmap_mode="r", allow_pickle=False)
            self._ids = np.memmap(ids, dtype=np.uint16, mode="r") if ids.stat().st_size else np.zeros(0, np.uint16)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{ids.parent}: {error} (run `nmt prepare` again)") from None
        if self.lengths.ndim != 1 or self.lengths.dtype != np.uint16:
            raise DataError(f"{lengths}: damaged (run `nmt prepare` again)")
        blocks = np.arange(0, len(self.lengths), _BLOCK)
        sizes = np.add.reduceat(self.lengths, blocks, dtype=np.int64) if len(blocks) else np.zeros(0, np.int64)
        if int(sizes.sum()) != len(self._ids):
            raise DataError(f"{ids}: size does not match {lengths.name} (run `nmt prepare` again)")
        self._begins = np.cumsum(sizes) - sizes  # of each block of sentences

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> NDArray[np.uint16]:
        one = self.take(np.array([index], dtype=np.int64))
        return self._ids[int(one.starts[0]) : int(one.starts[0] + one.lengths[0])]

    def take(self, rows: NDArray[np.int64]) -> Ragged:
        """The sentences of these numbers, still memory-mapped."""
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"there are {len(self)} sentences, one of {rows.min()} to {rows.max()} was asked for")
        block, place = np.divmod(rows, _BLOCK)
        neighbours = np.minimum(block[:, None] * _BLOCK + np.arange(_BLOCK), len(self) - 1)
        before = np.where(np.arange(_BLOCK) < place[:, None], self.lengths[neighbours].astype(np.int64), 0).sum(axis=1)
        return Ragged(self._ids, self._begins[block] + before, self.lengths[rows].astype(np.int64))


class ColumnWriter:
    """Writes one `TokenColumn`, a batch of sentences at a time; a context manager."""

    def __init__(self, folder: Path, name: str) -> None:
        self._lengths_path = folder / f"{name}.lengths.npy"
        self._ids = (folder / f"{name}.ids").open("wb")
        self._lengths: list[NDArray[np.uint16]] = []

    def write(self, sentences: list[list[int]]) -> None:
        """Append sentences of ids."""
        self._ids.write(np.fromiter((i for sentence in sentences for i in sentence), dtype=np.uint16).tobytes())
        self._lengths.append(np.array([len(sentence) for sentence in sentences], dtype=np.uint16))

    def __enter__(self) -> ColumnWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ids.close()
        if error is None:
            np.save(self._lengths_path, np.concatenate(self._lengths) if self._lengths else np.zeros(0, np.uint16))


@dataclass(frozen=True)
class PreparedCorpus:
    """A prepared corpus, opened. Needs neither the recipe's sources nor the `datasets` library."""

    path: Path
    manifest: dict[str, Any]
    source_tokenizer: Tokenizer
    target_tokenizer: Tokenizer

    @classmethod
    def open(cls, path: Path) -> PreparedCorpus:
        """Open the folder that `nmt prepare` made; raise `DataError` when it is not one."""
        try:
            manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise DataError(
                f"{path}: not a prepared corpus (make it with `nmt prepare RECIPE --output {path}`)"
            ) from None
        except OSError as error:
            raise DataError(f"{path / MANIFEST}: {(error.strerror or str(error)).lower()}") from None
        except ValueError:
            manifest = None
        if not _is_manifest(manifest):
            raise DataError(f"{path / MANIFEST}: damaged (run `nmt prepare` again)")
        if manifest["format"] != FORMAT:
            raise DataError(f"{path}: format {manifest['format']}, this version reads {FORMAT}: prepare it again")
        names = ("tokenizer", "tokenizer") if manifest["recipe"]["tokenizer"]["joint"] else ("source", "target")
        try:
            source, target = (Tokenizer.load(path / f"{name}.model") for name in names)
        except BundleError as error:
            raise DataError(f"{error} (run `nmt prepare` again)") from None
        return cls(path, manifest, source, target)

    @property
    def joint(self) -> bool:
        """Whether the two languages share one vocabulary."""
        return bool(self.manifest["recipe"]["tokenizer"]["joint"])

    @property
    def languages(self) -> tuple[str, str]:
        """Source and target language codes."""
        return self.manifest["recipe"]["source_language"], self.manifest["recipe"]["target_language"]

    @property
    def target_languages(self) -> tuple[str, ...]:
        """All of them, where there are several."""
        return tuple(self.manifest["recipe"].get("target_languages") or ())

    def train(self) -> tuple[TokenColumn, TokenColumn]:
        """Source and target ids of the training pairs."""
        source, target = (
            TokenColumn(self.path / f"train.{side}.ids", self.path / f"train.{side}.lengths.npy")
            for side in ("source", "target")
        )
        if len(source) != len(target) or not len(source):
            raise DataError(f"{self.path}: {len(source)} source and {len(target)} target sentences (prepare it again)")
        return source, target

    def weights(self) -> list[tuple[int, float]]:
        """(number of pairs, weight) of each training source, in the order of the stored pairs."""
        return [(int(item["pairs"]), float(item["weight"])) for item in self.manifest["sources"]]

    def pairs(self, split: str) -> list[tuple[str, str]]:
        """The text of an evaluation split, as published; raise `DataError` when the corpus has no such split."""
        path = self.path / f"{split}.jsonl"
        if split not in ("validation", "test") or not path.is_file():
            has = [name for name in ("validation", "test") if (self.path / f"{name}.jsonl").is_file()]
            raise DataError(f"{self.path}: no text of split {split!r} (has {', '.join(has) or 'none'})")
        try:
            with path.open(encoding="utf-8", newline="\n") as lines:
                rows = [json.loads(line) for line in lines]
            return [(row["source"], row["target"]) for row in rows]
        except (ValueError, KeyError, TypeError):
            raise DataError(f"{path}: damaged (run `nmt prepare` again)") from None


def _is_manifest(value: Any) -> bool:
    keys = {"format", "content_hash", "recipe", "sources", "splits"}
    return isinstance(value, dict) and keys <= value.keys() and "tokenizer" in value["recipe"]


def write_pairs(path: Path, pairs: list[tuple[str, str]]) -> None:
    """Write an evaluation split as JSON lines."""
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        for source, target in pairs:
            stream.write(json.dumps({"source": source, "target": target}, ensure_ascii=False) + "\n")
