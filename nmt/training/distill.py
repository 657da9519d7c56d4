"""Sequence-level knowledge distillation (Kim and Rush 2016): a prepared corpus whose targets are a teacher's translations.

The student is trained on it as on any other. The work goes through the corpus window by window, and through a window by length. That
order follows from the corpus alone, so the file that keeps the translations needs no numbers, and a run that was stopped goes on after
the last line.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import nmt
import nmt.config
from nmt.corpus.prepare import count_tokens, is_current, lock, swap_in
from nmt.corpus.store import MANIFEST, ColumnWriter, PreparedCorpus, TokenColumn
from nmt.errors import ConfigError, DataError
from nmt.inference.bundle import CONFIG, Bundle, check_alike, sha256
from nmt.inference.translator import Translator
from nmt.inference.types import DecodeOptions, Translation
from nmt.progress import progress
from nmt.text.normalize import normalize
from nmt.text.tokenizer import UNK

_CHUNK = 256  # pairs whose translations are written at once: what an interruption can cost
_WINDOW = 32 * _CHUNK  # pairs that are sorted by length together
_SAMPLES = 5  # pairs shown in the report
DISTILLED = "distilled"  # the key of the manifest that tells such a corpus from others
_COPIED = ("tokenizer.model", "source.model", "target.model", "validation.jsonl", "test.jsonl")
KEPT = {
    "source_unknown": "the source holds a character that the corpus has no subword for, so the teacher can't be shown it",
    "truncated": "the search reached its length limit before the teacher ended the sentence",
    "empty": "the translation is empty",
    "tokens": "the translation has more subwords than the corpus allows (cleaning.max_tokens)",
    "target_unknown": "the translation holds a character that the corpus has no subword for",
}

Target = list[int] | str  # the ids of a translation, or the reason in KEPT for which the original target stays


@dataclass(frozen=True)
class DistillOptions:
    """How to distil. `limit` takes the first pairs of the corpus alone; `keep_original` adds them with their own targets too;
    the search is the teacher's default but for `beam_size`."""

    beam_size: int | None = None
    keep_original: bool = False
    limit: int | None = None
    threads: int | None = None
    device: str = "cpu"


@dataclass(frozen=True)
class _Job:
    """What is to be made: of which corpus, by which teachers, how."""

    corpus: PreparedCorpus
    source: TokenColumn
    target: TokenColumn
    count: int  # pairs
    decode: DecodeOptions
    keep_original: bool
    teachers: list[dict[str, str]]

    def origin(self) -> dict[str, Any]:
        """All that the new corpus follows from, as it stands in its manifest."""
        return {
            "corpus": self.corpus.manifest["content_hash"],
            "teachers": self.teachers,
            "search": self.decode.model_dump(),
            "keep_original": self.keep_original,
            "pairs": self.count,
        }

    @property
    def digest(self) -> str:
        """The content hash of the new corpus: equal digests, equal corpora."""
        return hashlib.sha256(json.dumps(["distilled", self.origin()], sort_keys=True).encode()).hexdigest()

    def windows(self) -> Iterator[NDArray[np.int64]]:
        """The numbers of the pairs of each window, in the order of the work."""
        for start in range(0, self.count, _WINDOW):
            yield start + np.argsort(self.source.lengths[start : min(start + _WINDOW, self.count)], kind="stable")

    def chunks(self) -> Iterator[NDArray[np.int64]]:
        """The windows in pieces of `_CHUNK` pairs."""
        for window in self.windows():
            yield from (window[start : start + _CHUNK] for start in range(0, len(window), _CHUNK))

    def sources(self) -> Iterator[dict[str, Any]]:
        """The sources of the corpus, as in its manifest, as far as the work goes."""
        left = self.count
        for item in self.corpus.manifest["sources"]:
            pairs = min(left, item["pairs"])
            left -= pairs
            if pairs:
                yield item | {"pairs": pairs}


class _Work:
    """The targets found so far, one JSON line a pair, behind a line that says what for; a context manager, one process at a time."""

    def __init__(self, path: Path, job: _Job) -> None:
        """Open or begin the file, cut back to whole chunks, of which `done` pairs are in it; raise `DataError` when it holds the work
        of another job, which is not thrown away."""
        self._file = path.open("a+b")
        try:
            lock(self._file.fileno())
            if not os.fstat(self._file.fileno()).st_nlink:  # another process has ended the work in the meantime
                raise BlockingIOError
        except BlockingIOError:
            self._file.close()
            raise DataError(f"{path}: another `nmt distill` works there; wait until it is done") from None
        self.done = 0
        self._file.seek(0)
        header = self._file.readline()
        if header == _header(job):
            self.done = self._cut(job.count)
        elif kept := sum(1 for _ in self._file):
            self._file.close()
            raise DataError(
                f"{path}: holds {kept:,} translations by another teacher, or of another corpus or other options: give those again, give "
                "another --output, or remove this file"
            )
        else:  # new, or cut off within its first line
            self._file.truncate(0)
            self._append(_header(job))

    def _cut(self, count: int) -> int:
        """Drop what a killed run left behind the last whole chunk; return the number of lines that stay."""
        lines = done = 0
        end = position = self._file.tell()
        for line in self._file:
            if not _is_target(line):
                break
            lines, position = lines + 1, position + len(line)
            if lines % _CHUNK == 0 or lines == count:
                done, end = lines, position
            if lines == count:
                break
        self._file.truncate(end)
        return done

    def write(self, targets: list[Target]) -> None:
        """Append the targets of a chunk, to the disk."""
        self._append("".join(json.dumps(target, separators=(",", ":")) + "\n" for target in targets).encode())
        self.done += len(targets)

    def read(self) -> Iterator[Target]:
        """All targets, in the order of the work."""
        self._file.seek(0)
        self._file.readline()
        for line in self._file:
            yield json.loads(line)

    def _append(self, data: bytes) -> None:
        self._file.write(data)
        self._file.flush()
        os.fsync(self._file.fileno())

    def __enter__(self) -> _Work:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def distill(teachers: Sequence[Path], corpus: Path, output: Path, options: DistillOptions) -> bool:
    """Make the prepared corpus `output` of the pairs of `corpus` and the translations of `teachers` (an ensemble where they are several).

    Returns False when it is there already. What is translated is kept in a file beside `output`: after any interruption the same call
    goes on, to the same bytes. Raises `ConfigError` or `DataError` for teachers, corpus or output that don't go together.
    """
    output = output.resolve()
    job = _job(teachers, corpus, output, options)
    path = output.with_name(f".{output.name}.distill.jsonl")
    try:
        if is_current(output, job.digest):
            _clear(path, job)
            return False
        output.parent.mkdir(parents=True, exist_ok=True)
        with _Work(path, job) as work:
            _translate(job, work, teachers, options)
            partial, old = (output.with_name(f".{output.name}.{suffix}") for suffix in ("distill", "old"))
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            _build(job, work, partial)
            swap_in(partial, output, old)
            path.unlink()
    except OSError as error:
        raise DataError(
            f"{output}: {error.strerror or error}; what is translated is kept: see to it, and run the same command again"
        ) from None
    return True


def _job(teachers: Sequence[Path], corpus: Path, output: Path, options: DistillOptions) -> _Job:
    """What is to be done, after a look at whether it can be."""
    given = PreparedCorpus.open(corpus)
    bundles = [Bundle.open(teacher) for teacher in teachers]
    check_alike(bundles)
    first = bundles[0].config
    if (first.source_language, first.target_language) != given.languages:
        raise ConfigError(
            f"{teachers[0]}: translates {first.source_language} to {first.target_language}, but {corpus} is "
            f"{' to '.join(given.languages)}: give a teacher of these languages"
        )
    if options.limit is not None and options.limit < 1:
        raise ConfigError(f"limit {options.limit}: at least one pair is needed")
    if output == corpus.resolve():
        raise ConfigError(f"{output}: is the corpus itself; give another folder as output")
    if output.exists() and not (output.is_dir() and (_is_distilled(output) or not any(output.iterdir()))):
        raise DataError(
            f"{output}: exists and is not a distilled corpus; it is left as it is (choose another --output)"
        )
    source, target = given.train()
    count = min(len(source), options.limit or len(source))
    changes = {"n_best": 1} | ({"beam_size": options.beam_size} if options.beam_size is not None else {})
    decode = nmt.config.parse(DecodeOptions, first.decode.model_dump() | changes, "search options")
    # A bundle's configuration holds the checksums of its other files.
    names = [{"name": bundle.config.name, "sha256": sha256(bundle.path / CONFIG)} for bundle in bundles]
    return _Job(given, source, target, count, decode, options.keep_original, names)


def _is_distilled(path: Path) -> bool:
    try:
        return DISTILLED in json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def _header(job: _Job) -> bytes:
    return json.dumps({"content_hash": job.digest, "window": _WINDOW}).encode() + b"\n"


def _clear(path: Path, job: _Job) -> None:
    """Remove the file of this work, which a run that was killed after its last step but this has left."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as stream:
        if stream.readline() == _header(job):
            path.unlink()


def _is_target(line: bytes) -> bool:
    """Whether a line of the work file is whole."""
    try:
        return line.endswith(b"\n") and isinstance(json.loads(line), list | str)
    except ValueError:
        return False


def _translate(job: _Job, work: _Work, teachers: Sequence[Path], options: DistillOptions) -> None:
    """Do what is left of the work."""
    if work.done:
        print(f"going on after {work.done:,} of {job.count:,} pairs", file=sys.stderr)
    if work.done == job.count:
        return
    translator = Translator.load(teachers[0], options.threads, options.device, teachers[1:])
    with progress("distill", "pairs", job.count, work.done) as bar:
        for pairs in itertools.islice(job.chunks(), work.done // _CHUNK, None):
            work.write(_targets(job, translator, pairs))
            bar.update(len(pairs))


def _targets(job: _Job, translator: Translator, pairs: NDArray[np.int64]) -> list[Target]:
    """What becomes of the targets of `pairs`. All goes through text, as the teacher may cut it into other subwords."""
    corpus = job.corpus
    sources = [job.source[pair].tolist() for pair in pairs]
    readable = [UNK not in source for source in sources]
    texts = [corpus.source_tokenizer.decode(source) for source in itertools.compress(sources, readable)]
    translations = translator.translate(texts, job.decode)
    ids = corpus.target_tokenizer.encode([normalize(item.text) for item in translations])
    limit = corpus.manifest["recipe"]["cleaning"]["max_tokens"]
    found = iter([_target(item, target, limit) for item, target in zip(translations, ids, strict=True)])
    return [next(found) if known else "source_unknown" for known in readable]


def _target(translation: Translation, ids: list[int], limit: int) -> Target:
    """The ids of a translation, or the reason why the student had better not see it."""
    if translation.truncated:
        return "truncated"
    if not ids:
        return "empty"
    if len(ids) > limit:
        return "tokens"
    return "target_unknown" if UNK in ids else ids


def _in_order(job: _Job, work: _Work) -> Iterator[list[tuple[int, Target]]]:
    """(pair, what becomes of its target) for each window, in the order of the corpus."""
    found = work.read()
    for window in job.windows():
        yield sorted(zip(window.tolist(), itertools.islice(found, len(window)), strict=True))


def _build(job: _Job, work: _Work, folder: Path) -> None:
    """Write the new corpus into `folder`."""
    source, target = job.source, job.target
    counts: Counter[str] = Counter()
    shown = set(np.linspace(0, job.count - 1, _SAMPLES, dtype=np.int64).tolist())
    samples: list[tuple[int, Target]] = []
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(ColumnWriter(folder, f"train.{side}")) for side in ("source", "target")]
        for window in _in_order(job, work):
            writers[0].write([source[pair].tolist() for pair, _ in window])
            writers[1].write([target[pair].tolist() if isinstance(found, str) else found for pair, found in window])
            counts.update(found if isinstance(found, str) else "translation" for _, found in window)
            counts["same"] += sum(found == target[pair].tolist() for pair, found in window)
            samples += [item for item in window if item[0] in shown]
        for start in range(0, job.count if job.keep_original else 0, _WINDOW):
            for writer, column in zip(writers, (source, target), strict=True):
                writer.write([column[pair].tolist() for pair in range(start, min(start + _WINDOW, job.count))])
    for name in _COPIED:
        if (job.corpus.path / name).is_file():
            shutil.copyfile(job.corpus.path / name, folder / name)
    manifest = _manifest(job, folder, counts)
    (folder / "report.md").write_text(_report(job, counts, samples), encoding="utf-8")
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _manifest(job: _Job, folder: Path, counts: Counter[str]) -> dict[str, Any]:
    """The corpus's manifest, with what is new: sources, counts, lengths, and where the targets are from."""
    before = job.corpus.manifest
    sources = list(job.sources())
    distilled = [item | {"label": f"{item['label']}, distilled"} for item in sources]
    stored = distilled + (sources if job.keep_original else [])
    return before | {
        "content_hash": job.digest,
        "sources": stored,
        **count_tokens(folder),
        "splits": before["splits"] | {"train": sum(item["pairs"] for item in stored)},
        "versions": before["versions"] | {"strata-nmt": nmt.__version__},
        DISTILLED: job.origin() | {"counts": dict(counts)},
    }


def _report(job: _Job, counts: Counter[str], samples: list[tuple[int, Target]]) -> str:
    """What became of the targets, as Markdown."""
    recipe, search = job.corpus.manifest["recipe"], job.decode
    teachers = " + ".join(f"`{teacher['name']}`" for teacher in job.teachers)
    lines = [
        f"# {recipe['name']}: {recipe['source_language']} to {recipe['target_language']}, distilled",
        "",
        f"The targets are translations by {teachers}, beam {search.beam_size}, length penalty {search.length_penalty:g}"
        + ("; every pair is there with its own target too." if job.keep_original else "."),
        f"Of the translations {counts['same']:,} are equal to the target that they replace.",
        "",
        "| target | pairs | share | why |",
        "|---|---:|---:|---|",
    ]
    for key, why in {"translation": "", **KEPT}.items():
        name = "translation" if key == "translation" else "original"
        lines.append(f"| {name} | {counts[key]:,} | {counts[key] / job.count:.2%} | {why} |")
    lines += ["", "## Samples", "", "Source / original target / translation, or why there is none:", ""]
    for pair, found in samples:
        source = job.corpus.source_tokenizer.decode(job.source[pair].tolist())
        target = job.corpus.target_tokenizer.decode(job.target[pair].tolist())
        said = found if isinstance(found, str) else repr(job.corpus.target_tokenizer.decode(found))
        lines.append(f"- {source!r} / {target!r} / {said}")
    return "\n".join(lines) + "\n"
