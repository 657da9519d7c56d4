"""Scores by the length of the source: where long sentences do worse, an average hides it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sacrebleu.metrics.bleu import BLEU

from nmt.evaluation.buckets import by_length
from nmt.evaluation.results import EvaluationFile, Segment
from nmt.evaluation.words import is_spaced

_FEWEST = 10  # sentences of an interval
_RESAMPLES, _SEED = 300, 12345
_TOKENIZERS = ("13a", "intl", "zh", "char", "none")  # of sacreBLEU, those that need no download and no other package


@dataclass(frozen=True)
class Estimate:
    """A value and the ends of its 95 % interval, None where there are too few sentences for one."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Bucket:
    """Sentences whose sources have so many words as the label says: corpus BLEU, and the mean of the sentences' chrF2++, both 0 to 100."""

    label: str
    sentences: int
    bleu: Estimate | None
    chrf: Estimate


def scores_by_length(results: EvaluationFile) -> list[Bucket]:
    """The buckets of `nmt.evaluation.buckets.by_length` that have sentences, shortest first; sentences with an empty source are in none.

    BLEU is computed as the file's own was, None where that can't be told or done. Its interval is of 300 bootstrap resamples of the
    bucket (Koehn 2004), that of the mean 1.96 standard errors.
    """
    metric = _bleu(results)
    sources = [one.source for one in results.segments]
    made = []
    for label, numbers in by_length(sources, is_spaced(results.system.source_language)).items():
        segments = [results.segments[number] for number in numbers]
        bleu = _corpus_bleu(metric, segments) if metric else None
        made.append(Bucket(label, len(segments), bleu, _mean([one.chrf for one in segments])))
    return made


def bleu_signature(results: EvaluationFile) -> str:
    """The signature of the file's BLEU; empty where it has none."""
    return next((one.signature for one in results.scores if one.name == "BLEU"), "")


def _bleu(results: EvaluationFile) -> BLEU | None:
    """BLEU as the file's own was computed; None where that can't be told or done."""
    fields = dict(part.split(":", 1) for part in bleu_signature(results).split("|") if ":" in part)
    if fields.get("tok") not in _TOKENIZERS or fields.get("smooth") != "exp" or fields.get("eff", "no") != "no":
        return None
    # The effective order matters to scores of sentences alone, of which none is used here; sacreBLEU warns without it.
    return BLEU(lowercase=fields.get("case") == "lc", tokenize=fields["tok"], force=True, effective_order=True)


def _corpus_bleu(metric: BLEU, segments: Sequence[Segment]) -> Estimate | None:
    """BLEU of the sentences that have references, from the counts of each."""
    scored = [metric.sentence_score(one.hypothesis, list(one.references)) for one in segments if one.references]
    if not scored:
        return None
    counts = np.array([[*one.counts, *one.totals, one.sys_len, one.ref_len] for one in scored])
    value = _score(counts.sum(axis=0).tolist())
    if len(counts) < _FEWEST:
        return Estimate(value)
    drawn = np.random.default_rng(_SEED).integers(len(counts), size=(_RESAMPLES, len(counts)))
    resampled = np.stack([np.bincount(row, minlength=len(counts)) for row in drawn]) @ counts
    low, high = np.percentile([_score(row.tolist()) for row in resampled], (2.5, 97.5))
    return Estimate(value, float(low), float(high))


def _score(counts: Sequence[int]) -> float:
    order = (len(counts) - 2) // 2
    found = BLEU.compute_bleu(
        correct=list(counts[:order]),
        total=list(counts[order : 2 * order]),
        sys_len=counts[-2],
        ref_len=counts[-1],
        smooth_method="exp",
    )
    return float(found.score)


def _mean(values: Sequence[float]) -> Estimate:
    mean = sum(values) / len(values)
    if len(values) < _FEWEST:
        return Estimate(mean)
    error = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))
    return Estimate(mean, max(0.0, mean - 1.96 * error), min(100.0, mean + 1.96 * error))
