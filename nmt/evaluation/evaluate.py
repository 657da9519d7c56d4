"""An evaluation run: translate a test set by a bundle or a server, score it, time it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from nmt.config import find_shipped, load
from nmt.corpus.prepare import evaluation_pairs
from nmt.corpus.recipe import Recipe
from nmt.corpus.store import MANIFEST, PreparedCorpus
from nmt.errors import DataError
from nmt.evaluation.scores import Metrics, Moses, Score, exact_match, length_ratio, score_all
from nmt.progress import progress
from nmt.text.lines import read_lines

_CHUNK = 500  # sentences between two moves of the progress bar
_T = TypeVar("_T")


@dataclass(frozen=True)
class TestSet:
    """Sources with one or more sets of references, each with one reference for each source, and a name to quote."""

    name: str
    sources: list[str]
    references: list[list[str]]

    @classmethod
    def of_pairs(cls, name: str, pairs: Sequence[tuple[str, str]]) -> TestSet:
        """One of (source, reference)."""
        return cls(name, [source for source, _ in pairs], [[reference for _, reference in pairs]])

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """(source, first reference) of each sentence."""
        return list(zip(self.sources, self.references[0], strict=True))

    def checksums(self) -> tuple[str, tuple[str, ...]]:
        """sha256 of the sources, and of each set of references: of the lines, each ended by a line feed, as UTF-8."""
        return lines_sha256(self.sources), tuple(map(lines_sha256, self.references))


def lines_sha256(lines: Sequence[str]) -> str:
    """sha256 of lines, each ended by a line feed, as UTF-8."""
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class Evaluation:
    """Scores with signatures, share of exact matches, words of the hypotheses over words of the (first) references, and the seconds that
    translating took."""

    data: str
    sentences: int
    search: str
    scores: tuple[Score, ...]
    exact: float
    length_ratio: float
    seconds: float
    hypotheses: list[str]

    @property
    def sentences_per_second(self) -> float:
        """Throughput of translation alone."""
        return self.sentences / max(self.seconds, 1e-9)

    def with_score(self, score: Score) -> Evaluation:
        """The same with one score more."""
        return replace(self, scores=(*self.scores, score))

    def records(self) -> list[dict[str, Any]]:
        """Each score with what it was measured on, as stored in a bundle's metrics."""
        about = {"data": self.data, "sentences": self.sentences, "search": self.search}
        return [item.to_json() | about for item in self.scores]

    def render(self) -> str:
        """The result as a table of text."""
        width = max(len(item.name) for item in self.scores)
        lines = [f"{self.data}: {self.sentences} sentences, {self.search}"]
        for item in self.scores:
            digits = 4 if item.name == "COMET" else 2  # as it is published
            between = item.interval
            shown = f"{between.low:.{digits}f} to {between.high:.{digits}f}" if between else ""
            signature = between.signature if between else item.signature
            value = f"{item.score:.{digits}f}"
            lines.append(f"  {item.name:{width}}  {value:>6}  {shown:14}  {signature}")
        if any(item.interval for item in self.scores):
            lines.append("  (95 % of bootstrap resamples lie between the two figures; TER: the lower the better)")
        lines.append(f"  exact match {self.exact:.1%}, length ratio {self.length_ratio:.3f}")
        lines.append(f"  {self.sentences_per_second:.1f} sentences/s ({self.seconds:.1f} s)")
        return "\n".join(lines)


def timed(translate: Callable[[Sequence[str]], list[_T]], sources: Sequence[str]) -> tuple[list[_T], float]:
    """What `translate` gives for each of `sources`, in order, and the seconds that it took."""
    found: list[_T] = []
    order = sorted(range(len(sources)), key=lambda index: len(sources[index]))
    started = time.perf_counter()
    with progress("translate", "sentences", len(sources)) as bar:
        for start in range(0, len(order), _CHUNK):  # chunks of like length: no waiting for one
            found += translate([sources[index] for index in order[start : start + _CHUNK]])
            bar.update(min(_CHUNK, len(order) - start))
    seconds = time.perf_counter() - started
    by_index = dict(zip(order, found, strict=True))
    return [by_index[index] for index in range(len(order))], seconds


def judge(
    test: TestSet,
    hypotheses: list[str],
    seconds: float,
    search: str,
    metrics: Metrics,
    moses: Moses | None = None,
) -> Evaluation:
    """Score translations of the sources of `test`; `search` describes how they were found, for the record.

    BLEU tok-lc is added where `moses`, the rules of the target language, is given. Raises `DataError` when there are none.
    """
    scores = score_all(hypotheses, test.references, metrics, moses)
    exact = exact_match(hypotheses, *test.references)
    ratio = length_ratio(hypotheses, test.references[0], metrics)
    return Evaluation(test.name, len(test.sources), search, scores, exact, ratio, seconds, hypotheses)


def evaluate(
    translate: Callable[[Sequence[str]], list[str]], test: TestSet, search: str, moses: Moses | None = None
) -> Evaluation:
    """Translate the sources of `test` and `judge` the result, without intervals."""
    hypotheses, seconds = timed(translate, test.sources)
    return judge(test, hypotheses, seconds, search, Metrics(), moses)


def corpus_test_set(corpus: str, split: str) -> TestSet:
    """A split of a prepared corpus (a folder) or of a recipe (a file, or the name of a shipped one), as published."""
    path = Path(corpus)
    if (path / MANIFEST).is_file():
        prepared = PreparedCorpus.open(path)
        return TestSet.of_pairs(f"{prepared.manifest['recipe']['name']} {split}", prepared.pairs(split))
    if path.is_dir():
        raise DataError(f"{path}: not a prepared corpus (make it with `nmt prepare`)")
    recipe = load(Recipe, find_shipped(corpus, "recipes"))
    if split not in ("validation", "test"):
        raise DataError(f"{corpus}: evaluation is on split validation or test, not {split!r}")
    pairs = evaluation_pairs(recipe, split)
    if not pairs:
        raise DataError(f"{corpus}: the recipe names no {split} split; prepare it and give the prepared folder")
    return TestSet.of_pairs(f"{recipe.name} {split}", pairs)


def file_test_set(source: Path, references: Sequence[Path]) -> TestSet:
    """Parallel text files (.gz too), one sentence a line; raise `DataError` when their lengths differ, or they are empty."""
    sources = list(read_lines(source))
    if not sources:
        raise DataError(f"{source}: empty, there is nothing to translate")
    return TestSet(source.name, sources, [parallel_lines(path, source, len(sources)) for path in references])


def parallel_lines(path: Path, to: Path | str, count: int) -> list[str]:
    """The lines of a file, which has as many as `to` has; raise `DataError` otherwise."""
    lines = list(read_lines(path))
    if len(lines) != count:
        raise DataError(f"{to} has {count} lines but {path} has {len(lines)}: they must agree")
    return lines
