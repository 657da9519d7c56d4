"""From an evaluation run to its file: every sentence, and some of them in full."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from nmt.errors import DataError
from nmt.evaluation.evaluate import Evaluation, TestSet
from nmt.evaluation.results import EvaluationFile, Measured, Segment, Shown, TestData
from nmt.evaluation.scores import Metrics, Score, sentence_chrf
from nmt.evaluation.systems import Opened
from nmt.inference.types import Translation
from nmt.machine import machine, versions

_CANDIDATES = 5  # of a sentence that is shown in full, at most
_WORST = 5 / 6  # share of those that are the worst
_PACKAGES = ("numpy", "onnxruntime", "sacrebleu", "sacremoses", "sentencepiece", "torch", "unbabel-comet")


def evaluation_file(
    opened: Opened,
    test: TestSet,
    found: Evaluation,
    translations: Sequence[Translation],
    metrics: Metrics,
    command: Sequence[str],
    shown: int,
) -> EvaluationFile:
    """All about an evaluation, whose `translations` were asked for with their links; `shown` sentences are translated again, with
    candidates and attention."""
    chrf = sentence_chrf(found.hypotheses, test.references, metrics)
    sources, references = test.checksums()
    data = TestData(
        name=test.name,
        sentences=len(test.sources),
        references=len(references),
        source_sha256=sources,
        reference_sha256=references,
    )
    return EvaluationFile(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        command=tuple(command),
        versions=versions(*_PACKAGES),
        machine=machine(),
        system=opened.about,
        data=data,
        search=found.search,
        options=opened.options,
        scores=tuple(map(_measured, found.scores)),
        exact_match=round(found.exact, 6),
        length_ratio=round(found.length_ratio, 6),
        seconds=round(found.seconds, 3),
        sentences_per_second=round(found.sentences_per_second, 2),
        segments=tuple(_segments(test, translations, chrf)),
        shown=tuple(_shown(opened, test.sources, chosen(chrf, test.sources, shown))),
    )


def recorded_test_set(results: EvaluationFile, where: str) -> TestSet:
    """The test set that an evaluation file holds; raise `DataError` naming it where it holds none, or another than it says."""
    segments = results.segments
    counts = {len(segment.references) for segment in segments}
    if len(counts) != 1 or 0 in counts:
        raise DataError(f"{where}: no sentences with references, there is nothing to compare")
    references = [list(its) for its in zip(*(segment.references for segment in segments), strict=True)]
    test = TestSet(results.data.name, [segment.source for segment in segments], references)
    if test.checksums() != (results.data.source_sha256, results.data.reference_sha256):
        raise DataError(f"{where}: its sentences don't have the checksums that it names: it was changed or is damaged")
    return test


def _measured(score: Score) -> Measured:
    between = score.interval
    if between is None:
        return Measured(name=score.name, score=score.score, signature=score.signature)
    return Measured(name=score.name, score=score.score, signature=between.signature, low=between.low, high=between.high)


def _segments(test: TestSet, translations: Sequence[Translation], chrf: Sequence[float]) -> list[Segment]:
    return [
        Segment(
            source=source,
            references=its,
            hypothesis=translation.text,
            chrf=points,
            score=round(translation.score, 4),
            truncated=translation.truncated,
            tokens=tuple((token.piece, round(token.log_p, 4)) for token in translation.hypotheses[0].tokens),
            links=translation.hypotheses[0].links,
        )
        for source, its, translation, points in zip(
            test.sources, zip(*test.references, strict=True), translations, chrf, strict=True
        )
    ]


def chosen(chrf: Sequence[float], sources: Sequence[str], count: int) -> list[int]:
    """The numbers of `count` sentences that are worth a look: the worst five of six, the others evenly spread over the length of the
    source."""
    worst = sorted(range(len(chrf)), key=lambda index: chrf[index])[: round(count * _WORST)]
    others = sorted(set(range(len(chrf))) - set(worst), key=lambda index: (len(sources[index]), index))
    wanted = min(count - len(worst), len(others))
    spread = [others[(2 * place + 1) * len(others) // (2 * wanted)] for place in range(wanted)]
    return sorted([*worst, *spread])


def _shown(opened: Opened, sources: Sequence[str], indices: Sequence[int]) -> list[Shown]:
    candidates = min(_CANDIDATES, opened.beam_size)
    found = opened.ask([sources[index] for index in indices], "attention", candidates)
    return [
        Shown(
            index=index,
            n_best=tuple((each.text, round(each.score, 4)) for each in translation.hypotheses),
            source_subwords=translation.source_subwords,
            target_subwords=tuple(token.piece for token in translation.hypotheses[0].tokens),
            attention=tuple(
                tuple(tuple(round(float(weight), 4) for weight in row) for row in part)
                for part in translation.hypotheses[0].attention
            ),
        )
        for index, translation in zip(indices, found, strict=True)
    ]
