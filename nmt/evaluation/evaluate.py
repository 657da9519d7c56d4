"""An evaluation run: translate a test set by a bundle or a server, score it, time it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nmt.config import find_shipped, load
from nmt.corpus.prepare import evaluation_pairs
from nmt.corpus.recipe import Recipe
from nmt.corpus.store import MANIFEST, PreparedCorpus
from nmt.errors import DataError
from nmt.evaluation.scores import Moses, Score, exact_match, score, tok_lc
from nmt.progress import progress
from nmt.text.lines import read_lines

_CHUNK = 500  # sentences between two moves of the progress bar


@dataclass(frozen=True)
class TestSet:
    """Sources with one reference each, and a name to quote."""

    name: str
    pairs: list[tuple[str, str]]


@dataclass(frozen=True)
class Evaluation:
    """Scores with signatures, share of exact matches, and throughput in sentences a second."""

    data: str
    sentences: int
    search: str
    scores: tuple[Score, ...]
    exact: float
    seconds: float
    hypotheses: list[str]

    @property
    def sentences_per_second(self) -> float:
        """Throughput of translation alone."""
        return self.sentences / max(self.seconds, 1e-9)

    def records(self) -> list[dict[str, Any]]:
        """Each score with what it was measured on, as stored in a bundle's metrics."""
        about = {"data": self.data, "sentences": self.sentences, "search": self.search}
        return [item.to_json() | about for item in self.scores]

    def render(self) -> str:
        """The result as a few lines of text."""
        lines = [f"{self.data}: {self.sentences} sentences, {self.search}", *(f"  {item}" for item in self.scores)]
        lines.append(f"  exact match {self.exact:.1%}")
        lines.append(f"  {self.sentences_per_second:.1f} sentences/s ({self.seconds:.1f} s)")
        return "\n".join(lines)


def evaluate(
    translate: Callable[[Sequence[str]], list[str]],
    test: TestSet,
    search: str,
    lowercase: bool = False,
    moses: Moses | None = None,
) -> Evaluation:
    """Translate the sources of `test` and score the result; `search` describes how, for the record.

    BLEU tok-lc is added where `moses`, the rules of the target language, is given.
    """
    sources, references = [pair[0] for pair in test.pairs], [pair[1] for pair in test.pairs]
    hypotheses: list[str] = []
    order = sorted(
        range(len(sources)), key=lambda index: len(sources[index])
    )  # chunks of like length: no waiting for one
    started = time.perf_counter()
    with progress("translate", "sentences", len(sources)) as bar:
        for start in range(0, len(order), _CHUNK):
            hypotheses += translate([sources[index] for index in order[start : start + _CHUNK]])
            bar.update(min(_CHUNK, len(order) - start))
    seconds = time.perf_counter() - started
    restored = [""] * len(order)
    for position, index in enumerate(order):
        restored[index] = hypotheses[position]
    scores: tuple[Score, ...] = score(restored, references, lowercase)
    if moses is not None:
        scores += (tok_lc(restored, references, moses),)
    return Evaluation(test.name, len(sources), search, scores, exact_match(restored, references), seconds, restored)


def corpus_test_set(corpus: str, split: str) -> TestSet:
    """A split of a prepared corpus (a folder) or of a recipe (a file, or the name of a shipped one), as published."""
    path = Path(corpus)
    if (path / MANIFEST).is_file():
        prepared = PreparedCorpus.open(path)
        return TestSet(f"{prepared.manifest['recipe']['name']} {split}", prepared.pairs(split))
    if path.is_dir():
        raise DataError(f"{path}: not a prepared corpus (make it with `nmt prepare`)")
    recipe = load(Recipe, find_shipped(corpus, "recipes"))
    if split not in ("validation", "test"):
        raise DataError(f"{corpus}: evaluation is on split validation or test, not {split!r}")
    pairs = evaluation_pairs(recipe, split)
    if not pairs:
        raise DataError(f"{corpus}: the recipe names no {split} split; prepare it and give the prepared folder")
    return TestSet(f"{recipe.name} {split}", pairs)


def file_test_set(source: Path, reference: Path) -> TestSet:
    """Two parallel text files (.gz too), one sentence a line; raise `DataError` when their lengths differ."""
    sides = [list(read_lines(source)), list(read_lines(reference))]
    if len(sides[0]) != len(sides[1]):
        raise DataError(f"{source} has {len(sides[0])} lines but {reference} has {len(sides[1])}: they must agree")
    return TestSet(source.name, list(zip(*sides, strict=True)))
