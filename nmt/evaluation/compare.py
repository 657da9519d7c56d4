"""Systems side by side on one test set: scores with significance, sentences won and lost, and where the differences are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nmt.errors import DataError
from nmt.evaluation.alignment import bare_words
from nmt.evaluation.buckets import Buckets, Frequencies, by_copied, by_length, by_rarest, is_number, to_copy
from nmt.evaluation.evaluate import TestSet
from nmt.evaluation.scores import Metrics, sentence_chrf
from nmt.evaluation.significance import Tested, paired_tests
from nmt.evaluation.words import is_spaced

TIE = 1.0  # points of sentence chrF2++ that a win is of, at least


@dataclass(frozen=True)
class Output:
    """A system: a short name, what it is in a few words, what it said for each source, and the language of the sources where that is
    known."""

    name: str
    about: str
    hypotheses: Sequence[str]
    language: str = ""


@dataclass(frozen=True)
class Verdicts:
    """Sentences on which a system is better than the baseline by `TIE` points of chrF2++ or more, worse, and neither."""

    name: str
    wins: int
    ties: int
    losses: int


@dataclass(frozen=True)
class Row:
    """A bucket of sentences, and the BLEU of each system on them."""

    label: str
    sentences: int
    bleu: tuple[float, ...]


@dataclass(frozen=True)
class Grouping:
    """The test set divided by something about its sentences."""

    by: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class CopiedWords:
    """Words that stand alike in source and reference, and how many of them are in each system's hypotheses."""

    kind: str
    words: int
    right: tuple[int, ...]


@dataclass(frozen=True)
class Difference:
    """A sentence on which a system and the baseline differ much: chrF2++ of the one minus that of the other, and all that was said."""

    system: str
    points: float
    index: int
    source: str
    references: tuple[str, ...]
    hypotheses: tuple[str, ...]
    chrf: tuple[float, ...]


@dataclass(frozen=True)
class Comparison:
    """All of it; systems are in the order that they were given in, the first one being the baseline."""

    data: str
    sentences: int
    source_sha256: str
    reference_sha256: tuple[str, ...]
    systems: tuple[str, ...]
    about: tuple[str, ...]
    tests: tuple[Tested, ...]
    verdicts: tuple[Verdicts, ...]
    groupings: tuple[Grouping, ...]
    copied: tuple[CopiedWords, ...]
    differences: tuple[Difference, ...]

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def compare(
    test: TestSet,
    outputs: Sequence[Output],
    metrics: Metrics,
    frequencies: Frequencies,
    trials: int,
    shown: int,
) -> Comparison:
    """Compare two systems or more; `metrics.resamples` and `trials` are those of the tests, `shown` the differences of each direction.

    Raises `DataError` for a system that has not one hypothesis for each source.
    """
    for output in outputs:
        if len(output.hypotheses) != len(test.sources):
            raise DataError(f"{output.name}: {len(output.hypotheses)} hypotheses for {len(test.sources)} sources")
    said = [output.hypotheses for output in outputs]
    chrf = [sentence_chrf(hypotheses, test.references, metrics) for hypotheses in said]
    copied = [to_copy(*pair) for pair in test.pairs]
    spaced = is_spaced(next((output.language for output in outputs if output.language), ""))
    groups = {
        f"{'words' if spaced else 'characters'} of the source": by_length(test.sources, spaced),
        f"how often the rarest word of the source is in {frequencies.text}": by_rarest(test.sources, frequencies),
        "words that stand alike in source and reference": by_copied(copied),
    }
    source, references = test.checksums()
    return Comparison(
        test.name,
        len(test.sources),
        source,
        references,
        tuple(output.name for output in outputs),
        tuple(output.about for output in outputs),
        tuple(paired_tests(said, test.references, metrics, metrics.resamples, trials)),
        tuple(_verdicts(output, chrf[0], its) for output, its in zip(outputs[1:], chrf[1:], strict=True)),
        tuple(Grouping(by, _rows(test, said, metrics, buckets)) for by, buckets in groups.items()),
        tuple(_copied(copied, said)),
        tuple(
            difference
            for number in range(1, len(outputs))
            for difference in _differences(test, outputs, chrf, number, shown)
        ),
    )


def _verdicts(output: Output, baseline: Sequence[float], chrf: Sequence[float]) -> Verdicts:
    points = [its - base for its, base in zip(chrf, baseline, strict=True)]
    wins, losses = sum(each >= TIE for each in points), sum(each <= -TIE for each in points)
    return Verdicts(output.name, wins, len(points) - wins - losses, losses)


def _rows(test: TestSet, said: Sequence[Sequence[str]], metrics: Metrics, buckets: Buckets) -> tuple[Row, ...]:
    rows = []
    for label, indices in buckets.items():
        metric = metrics.bleu([[lines[index] for index in indices] for lines in test.references])
        scores = (metric.corpus_score([lines[index] for index in indices], None).score for lines in said)
        rows.append(Row(label, len(indices), tuple(float(each) for each in scores)))
    return tuple(rows)


def _copied(copied: Sequence[Sequence[str]], said: Sequence[Sequence[str]]) -> list[CopiedWords]:
    found = []
    for kind, wanted in (("numbers", True), ("names", False)):
        its = [[word for word in each if is_number(word) == wanted] for each in copied]
        right = (sum(_present(each, line) for each, line in zip(its, lines, strict=True)) for lines in said)
        found.append(CopiedWords(kind, sum(map(len, its)), tuple(right)))
    return found


def _present(wanted: Sequence[str], line: str) -> int:
    said = bare_words(line)
    return sum(word in said for word in wanted)


def _differences(
    test: TestSet, outputs: Sequence[Output], chrf: Sequence[Sequence[float]], number: int, shown: int
) -> list[Difference]:
    """The sentences on which system `number` is the furthest above the baseline, and those on which it is the furthest below."""
    points = [its - base for its, base in zip(chrf[number], chrf[0], strict=True)]
    ranked = sorted(range(len(points)), key=lambda index: -points[index])
    above = [index for index in ranked[:shown] if points[index] > 0]
    below = [index for index in ranked[::-1][:shown] if points[index] < 0]
    return [
        Difference(
            outputs[number].name,
            round(points[index], 2),
            index,
            test.sources[index],
            tuple(lines[index] for lines in test.references),
            tuple(output.hypotheses[index] for output in outputs),
            tuple(its[index] for its in chrf),
        )
        for index in (*above, *below)
    ]
