"""From a recipe to a prepared corpus: read, clean, learn subwords, write ids; all of it or nothing."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import heapq
import itertools
import json
import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece

import nmt
from nmt.corpus.cleaning import RULES, Cleaner, Report, broken_rule, loose_key
from nmt.corpus.recipe import SPLITS, Recipe, Source, Split
from nmt.corpus.sources import Pair, fingerprint, read_pairs
from nmt.corpus.store import FORMAT, MANIFEST, ColumnWriter, PreparedCorpus, write_pairs
from nmt.errors import DataError, NMTError
from nmt.progress import progress
from nmt.text.normalize import normalize
from nmt.text.tags import tag
from nmt.text.tokenizer import Tokenizer

_BATCH = 10_000  # pairs in flight: what bounds the memory
_QUANTILES = (0.5, 0.9, 0.99, 0.999, 1.0)


def content_hash(recipe: Recipe) -> str:
    """A digest of the recipe and of the content of its local sources: equal digests, equal corpora."""
    digest = hashlib.sha256(f"{FORMAT}\n{recipe.canonical()}\n".encode())
    for split in SPLITS:
        for source in recipe.sources(split):
            digest.update(fingerprint(source, _languages(recipe, source)).encode())
    return digest.hexdigest()


def prepare(recipe: Recipe, output: Path, force: bool = False) -> bool:
    """Make the prepared corpus `output`; return False when it is there already and nothing has changed.

    The corpus is built beside `output` and renamed at the end, so an interruption leaves the former state. Raises
    `DataError` for data that is missing, malformed or empty after cleaning.
    """
    output = output.resolve()  # so that a link to a folder elsewhere keeps pointing there
    partial, old = (output.with_name(f".{output.name}.{suffix}") for suffix in ("partial", "old"))
    try:
        if old.is_dir() and not output.exists():
            old.rename(output)  # a run was killed between the two renames of swap_in
        digest = content_hash(recipe)
        if not force and is_current(output, digest):
            return False
        if output.exists() and not (output.is_dir() and ((output / MANIFEST).is_file() or not any(output.iterdir()))):
            raise DataError(
                f"{output}: exists and is not a prepared corpus; it is left as it is (choose another --output)"
            )
        with _locked(partial):
            _build(recipe, partial, digest)
            swap_in(partial, output, old)
    except OSError as error:
        raise DataError(f"{output}: {error.strerror or error} while preparing; nothing was changed") from None
    return True


def is_current(output: Path, digest: str) -> bool:
    """Whether `output` is a whole corpus with this content hash."""
    try:
        corpus = PreparedCorpus.open(output)
        said = {split: count for split, count in corpus.manifest["splits"].items() if count}
        found = {split: len(corpus.pairs(split)) for split in said if split != "train"}
        found["train"] = len(corpus.train()[0])
    except NMTError:
        return False
    return bool(corpus.manifest["content_hash"] == digest) and found == said


@contextlib.contextmanager
def _locked(partial: Path) -> Iterator[None]:
    """An empty folder `partial` that no other process works in; it is removed when the work on it fails."""
    partial.mkdir(parents=True, exist_ok=True)
    handle = os.open(partial, os.O_RDONLY)
    try:
        lock(handle)
        # The lock is on the folder and not on its name: another process may have renamed it in the meantime.
        if not partial.exists() or os.fstat(handle).st_ino != partial.stat().st_ino:
            raise BlockingIOError
    except BlockingIOError:
        os.close(handle)
        raise DataError(f"{partial}: another `nmt prepare` works there; wait until it is done") from None
    try:
        for left in partial.iterdir():  # by a run that was killed
            left.unlink()
        yield
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    finally:
        os.close(handle)


def lock(handle: int) -> None:
    """Take the lock on an open folder; raise `BlockingIOError` when another process holds it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return  # some network file systems have no locks; corpora are prepared there all the same


def swap_in(partial: Path, output: Path, old: Path) -> None:
    """Put `partial` in the place of `output`, all of it on the disk before."""
    for path in partial.iterdir():
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
    shutil.rmtree(old, ignore_errors=True)
    if output.exists():
        output.rename(old)
    try:
        partial.rename(output)
    except OSError:
        if old.exists():
            old.rename(output)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _build(recipe: Recipe, folder: Path, digest: str) -> None:
    evaluation = {split: evaluation_pairs(recipe, split) for split in ("validation", "test")}
    if recipe.holdout:
        evaluation |= {split: pairs for split, pairs in _held_out(recipe).items() if pairs}
    cleaner = Cleaner(recipe.cleaning, itertools.chain.from_iterable(evaluation.values()))
    clean = folder / "clean.tsv"
    kept = _clean_training(recipe, cleaner, clean)
    tokenizers = _train_tokenizers(recipe, clean, sum(kept), folder)
    stored = _encode(recipe, clean, kept, tokenizers, folder, cleaner.report)
    clean.unlink()
    if not sum(stored):
        raise DataError(
            f"{recipe.name}: no training pair is left of {cleaner.report.read} read ({_why(cleaner.report)})"
        )
    for split, pairs in evaluation.items():
        if pairs:
            write_pairs(folder / f"{split}.jsonl", pairs)
    manifest = _manifest(recipe, digest, folder, cleaner.report, stored)
    manifest["splits"] = {"train": sum(stored)} | {split: len(pairs) for split, pairs in evaluation.items()}
    manifest["vocabulary"] = {"source": len(tokenizers[0]), "target": len(tokenizers[1])}
    (folder / "report.md").write_text(render_report(manifest), encoding="utf-8")
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _languages(recipe: Recipe, source: Source) -> tuple[str, str]:
    return recipe.source_language, source.target or recipe.target_language


def _pairs(recipe: Recipe, source: Source) -> Iterator[Pair]:
    """The pairs of a source, with the tag of their target language where the recipe has several."""
    begin = f"{tag(source.target)} " if source.target else ""
    for left, right in read_pairs(source, _languages(recipe, source)):
        yield begin + left if left else left, right


def evaluation_pairs(recipe: Recipe, split: str) -> list[Pair]:
    """The pairs of an evaluation split as published, but for pairs with an empty side, which can't be scored."""
    name: Split = "validation" if split == "validation" else "test"
    pairs: list[Pair] = []
    for source in recipe.sources(name):
        pairs += [pair for pair in _pairs(recipe, source) if all(map(normalize, pair))]
    if recipe.sources(name) and not pairs:
        raise DataError(f"{recipe.name}: the {split} split is empty; check its sources, or leave it out of the recipe")
    return pairs


def _held_out(recipe: Recipe) -> dict[str, list[Pair]]:
    """Evaluation splits drawn from the training sources: the pairs of smallest keyed hash, so independent of order.

    Two of them never share a sentence; the cleaning rule `evaluation` then drops what training shares with them.
    """
    assert recipe.holdout is not None
    wanted = recipe.holdout.validation + recipe.holdout.test
    heap = _smallest_hashes(recipe, 4 * wanted, str(recipe.holdout.seed).encode())  # more, as some share a sentence
    chosen: list[Pair] = []
    seen: set[bytes] = set()
    for _, pair in sorted(heap, reverse=True):
        keys = {loose_key(side) for side in pair}
        if not keys & seen:
            seen |= keys
            chosen.append(pair)
    if len(chosen) < wanted:
        raise DataError(
            f"{recipe.name}: {wanted} pairs are to be held out, but only {len(chosen)} that share no sentence were found "
            "(make `holdout` smaller)"
        )
    return {"validation": chosen[: recipe.holdout.validation], "test": chosen[recipe.holdout.validation : wanted]}


def _smallest_hashes(recipe: Recipe, count: int, key: bytes) -> list[tuple[int, Pair]]:
    """(negated hash, pair as stored) of the `count` distinct training pairs of smallest hash, as a heap."""
    heap: list[tuple[int, Pair]] = []
    ranks: set[int] = set()
    pairs = (pair for source in recipe.train for pair in _pairs(recipe, source))
    with progress("hold out", "pairs") as bar:
        for raw in pairs:
            bar.update()
            pair = normalize(raw[0]), normalize(raw[1])
            if broken_rule(pair, recipe.cleaning):
                continue
            joined = f"{pair[0]}\t{pair[1]}".encode("utf-8", "surrogatepass")
            rank = -int.from_bytes(hashlib.blake2b(joined, digest_size=8, key=key).digest(), "big")
            if rank in ranks or (len(heap) == count and rank < heap[0][0]):
                continue
            ranks.add(rank)
            if len(heap) < count:
                heapq.heappush(heap, (rank, raw))
            else:
                ranks.remove(heapq.heapreplace(heap, (rank, raw))[0])
    return heap


def _clean_training(recipe: Recipe, cleaner: Cleaner, path: Path) -> list[int]:
    """Write the clean pairs as `source TAB target` lines (neither side can hold either character); count by source."""
    kept = []
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        for source in recipe.train:
            count, before = 0, cleaner.report.read
            pairs = _pairs(recipe, source)
            with progress(f"clean {source.label}"[:40], "pairs") as bar:
                while batch := list(itertools.islice(pairs, _BATCH)):
                    clean = cleaner.clean([(normalize(left), normalize(right)) for left, right in batch])
                    stream.writelines(f"{left}\t{right}\n" for left, right in clean)
                    count += len(clean)
                    bar.update(len(batch))
            kept.append(count)
            if cleaner.report.read == before:
                raise DataError(f"{source.label}: holds no pair; check the file, or leave it out of the recipe")
    if not sum(kept):
        report = cleaner.report
        raise DataError(f"{recipe.name}: no training pair is left of {report.read} read ({_why(report)})")
    return kept


def _why(report: Report) -> str:
    return ", ".join(f"{rule}: {count}" for rule, count in report.dropped.items() if count) or "the sources are empty"


def _train_tokenizers(recipe: Recipe, clean: Path, count: int, folder: Path) -> tuple[Tokenizer, Tokenizer]:
    config, tags = recipe.tokenizer, [tag(language) for language in recipe.target_languages]
    sides = 2 if config.joint else 1
    every = max(1, -(-count * sides // config.sample))
    with progress("learn subwords", "models", 1 if config.joint else 2) as bar:
        if config.joint:
            both = (side for pair in itertools.islice(_clean_pairs(clean), 0, None, every) for side in pair)
            tokenizer = Tokenizer.train(both, config, tags)
            (folder / "tokenizer.model").write_bytes(tokenizer.model)
            bar.update()
            return tokenizer, tokenizer
        separate = []
        for side, name in enumerate(("source", "target")):
            sentences = (pair[side] for pair in itertools.islice(_clean_pairs(clean), 0, None, every))
            separate.append(Tokenizer.train(sentences, config, [] if side else tags))
            (folder / f"{name}.model").write_bytes(separate[-1].model)
            bar.update()
        return separate[0], separate[1]


def _clean_pairs(path: Path) -> Iterator[Pair]:
    with path.open(encoding="utf-8", newline="\n") as lines:
        for line in lines:
            left, _, right = line.rstrip("\n").partition("\t")
            yield left, right


def _encode(
    recipe: Recipe,
    clean: Path,
    kept: list[int],
    tokenizers: tuple[Tokenizer, Tokenizer],
    folder: Path,
    report: Report,
) -> list[int]:
    """Write the ids of the clean pairs; return how many are stored of each source."""
    limit = recipe.cleaning.max_tokens
    stored = []
    pairs = _clean_pairs(clean)
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(ColumnWriter(folder, f"train.{side}")) for side in ("source", "target")]
        bar = stack.enter_context(progress("encode", "pairs", sum(kept)))
        for count in kept:
            total = 0
            part = itertools.islice(pairs, count)
            while batch := list(itertools.islice(part, _BATCH)):
                ids = [tokenizers[side].encode([pair[side] for pair in batch]) for side in (0, 1)]
                fits = [0 < len(a) <= limit and 0 < len(b) <= limit for a, b in zip(*ids, strict=True)]
                for side in (0, 1):
                    writers[side].write([sentence for sentence, fit in zip(ids[side], fits, strict=True) if fit])
                for pair, fit in zip(batch, fits, strict=True):
                    if not fit:
                        report.drop("tokens", pair)
                total += sum(fits)
                bar.update(len(batch))
            stored.append(total)
    return stored


def count_tokens(folder: Path) -> dict[str, Any]:
    """The entries `tokens` and `lengths` of the manifest: what the stored training sides in `folder` hold."""
    lengths = {side: np.load(folder / f"train.{side}.lengths.npy") for side in ("source", "target")}
    return {
        "tokens": {side: int(values.sum(dtype=np.int64)) for side, values in lengths.items()},
        "lengths": {
            side: {str(q): int(np.quantile(values, q, method="higher")) for q in _QUANTILES}
            for side, values in lengths.items()
        },
    }


def _manifest(recipe: Recipe, digest: str, folder: Path, report: Report, stored: list[int]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "content_hash": digest,
        "recipe": recipe.model_dump(mode="json"),
        "sources": [
            {"label": source.label, "weight": source.weight, "pairs": count}
            for source, count in zip(recipe.train, stored, strict=True)
        ],
        **count_tokens(folder),
        "cleaning": {"read": report.read, "kept": report.kept, "dropped": report.dropped, "samples": report.samples},
        "versions": {
            "strata-nmt": nmt.__version__,
            "sentencepiece": sentencepiece.__version__,
            "python": platform.python_version(),
        },
    }


def render_report(manifest: dict[str, Any]) -> str:
    """The cleaning report as Markdown: what was read, what each rule dropped, samples of it."""
    cleaning, recipe = manifest["cleaning"], manifest["recipe"]
    lines = [
        f"# {recipe['name']}: {recipe['source_language']} to {recipe['target_language']}",
        "",
        f"Read {cleaning['read']:,} pairs, kept {cleaning['kept']:,} for training "
        f"({manifest['tokens']['source']:,} source and {manifest['tokens']['target']:,} target subwords).",
        "",
        "| rule | dropped | share | why |",
        "|---|---:|---:|---|",
    ]
    for rule, why in RULES.items():
        count = cleaning["dropped"][rule]
        lines.append(f"| {rule} | {count:,} | {count / max(1, cleaning['read']):.2%} | {why} |")
    for rule, samples in cleaning["samples"].items():
        if samples:
            lines += ["", f"## Dropped by `{rule}`, samples", ""]
            lines += [f"- {source!r} / {target!r}" for source, target in samples]
    return "\n".join(lines) + "\n"
