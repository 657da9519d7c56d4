"""Whether the model knows when it is right: its probabilities against what proved right."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nmt.evaluation.results import EvaluationFile, Segment
from nmt.evaluation.words import best_kept, is_spaced, kept, words
from nmt.inference.alignment import word_numbers
from nmt.text.tokenizer import SPACE

BINS = 10
_END = "</s>"

Unit = tuple[list[str], float]  # the words of a unit (or characters), and its natural log probability


@dataclass(frozen=True)
class Bin:
    """Words whose probability lies from `low` to `high`: how many, how many of them are right, and the mean of the probability."""

    low: float
    high: float
    words: int
    right: int
    confidence: float

    @property
    def share(self) -> float:
        """Of the words, those that are right."""
        return self.right / max(1, self.words)


@dataclass(frozen=True)
class Calibration:
    """The bins that have words, lowest first; `left_out` words were put in after the search, and have no probability."""

    bins: tuple[Bin, ...]
    left_out: int

    @property
    def words(self) -> int:
        """All that were counted."""
        return sum(one.words for one in self.bins)

    @property
    def accuracy(self) -> float:
        """Share of the words that are right."""
        return sum(one.right for one in self.bins) / max(1, self.words)

    @property
    def confidence(self) -> float:
        """Mean probability of the words."""
        return sum(one.confidence * one.words for one in self.bins) / max(1, self.words)

    @property
    def error(self) -> float:
        """Expected calibration error (Guo et al. 2017): mean distance of probability and share right, by the words of the bins."""
        return sum(abs(one.share - one.confidence) * one.words for one in self.bins) / max(1, self.words)


def calibrate(results: EvaluationFile) -> Calibration | None:
    """The words of the hypotheses by the probability that the model gave them, the product of their subwords'; None without any.

    A word is right when an alignment of fewest edits with the closest reference keeps it, as in Wang et al. 2020, "On the Inference
    Calibration of Neural Machine Translation". Where words are written without spaces a subword stands for a word, and is right when
    all its characters are kept.
    """
    spaced = is_spaced(results.system.target_language)
    found = np.zeros((BINS, 3))  # words, right ones, sum of probabilities
    left_out = 0
    for segment in results.segments:
        if not segment.references:
            continue
        units = list(units_of(segment.tokens, spaced))
        own, right = _judged(segment, units, spaced)
        place = 0
        for atoms, log_p in units:
            span = slice(place, place + len(atoms))
            place += len(atoms)
            if all(own[span]):
                probability = min(1.0, math.exp(min(0.0, log_p)))
                found[min(BINS - 1, int(probability * BINS))] += (1, all(right[span]), probability)
            else:
                left_out += 1
    bins = tuple(
        Bin(number / BINS, (number + 1) / BINS, int(count), int(right), total / count)
        for number, (count, right, total) in enumerate(found.tolist())
        if count
    )
    return Calibration(bins, left_out) if bins else None


def units_of(tokens: Sequence[tuple[str, float]], spaced: bool) -> Iterator[Unit]:
    """The words that subwords make, ends of sentences left out; each subword by itself where words are written without spaces."""
    parts: list[list[tuple[str, float]]] = [[]]
    for piece, log_p in tokens:
        if piece == _END:
            parts.append([])
        else:
            parts[-1].append((piece, log_p))
    for part in parts:
        numbers = word_numbers([piece for piece, _ in part]) if spaced else list(range(len(part)))
        texts: dict[int, str] = {}
        logs: dict[int, float] = {}
        for number, (piece, log_p) in zip(numbers, part, strict=True):
            texts[number] = texts.get(number, "") + piece.replace(SPACE, " ")
            logs[number] = logs.get(number, 0.0) + log_p
        yield from ((atoms, logs[number]) for number, text in texts.items() if (atoms := words(text, spaced)))


def _judged(segment: Segment, units: Sequence[Unit], spaced: bool) -> tuple[list[bool], list[bool]]:
    """For each word of the units whether it is in the hypothesis as it is, and whether it is right."""
    said = [atom for atoms, _ in units for atom in atoms]
    hypothesis = words(segment.hypothesis, spaced)
    own = [True] * len(said) if said == hypothesis else kept(said, hypothesis)
    return own, best_kept(said, [words(reference, spaced) for reference in segment.references])


def scored(results: EvaluationFile) -> list[tuple[float, float]]:
    """Score of the model and chrF2++ of each sentence that has both, and a hypothesis."""
    return [(one.score, one.chrf) for one in results.segments if one.score is not None and one.hypothesis]


def rank_correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Spearman's rank correlation, -1 to 1; None where one side has a single value, or none."""
    sides = [_ranks(np.array(side, dtype=float)) for side in zip(*pairs, strict=True)]
    if not sides or any(np.ptp(side) == 0 for side in sides):
        return None
    return float(np.corrcoef(sides[0], sides[1])[0, 1])


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Places in ascending order, those of equals their mean."""
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[where], dtype=float)
