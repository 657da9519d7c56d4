"""Whether the difference of two scores could be chance: paired bootstrap (Koehn 2004) and approximate randomisation (Riezler and Maxwell
2005), by sacreBLEU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sacrebleu.significance import PairedTest

from nmt.evaluation.scores import Metrics, References
from nmt.progress import progress

BOOTSTRAP, RANDOMISATION = "bs", "ar"  # as sacreBLEU's signatures have them


@dataclass(frozen=True)
class Outcome:
    """A system by one metric: its score, the half width of the interval that 95 % of bootstrap resamples lie in, and for each test the
    probability that a difference from the baseline as large as this one is chance. None: the baseline's, or not asked for."""

    score: float
    half_width: float | None
    p_bootstrap: float | None
    p_randomisation: float | None


@dataclass(frozen=True)
class Tested:
    """A metric: the signature of each test, of the score alone where there is none, and an outcome for each system, baseline first."""

    metric: str
    signatures: tuple[str, ...]
    outcomes: tuple[Outcome, ...]


def paired_tests(
    systems: Sequence[Sequence[str]], references: References, metrics: Metrics, resamples: int, trials: int
) -> list[Tested]:
    """BLEU, chrF2++ and TER of the hypotheses of each of `systems`, the first one being the baseline.

    `resamples` are those of the bootstrap, `trials` those of the randomisation; 0 leaves a test out. The figures are sacreBLEU's
    (`sacrebleu REF -i A B -m bleu chrf ter --chrf-word-order 2 --paired-bs`, or `--paired-ar`), but for the p-value of a system whose
    score is the baseline's own: 1, where sacreBLEU has the least that there is.
    """
    named = {"BLEU": metrics.bleu(references), "chrF2++": metrics.chrf(2, references), "TER": metrics.ter(references)}
    kinds = {kind: count for kind, count in ((BOOTSTRAP, resamples), (RANDOMISATION, trials)) if count}
    tested = []
    with progress("significance tests", "tests", len(named) * len(kinds)) as bar:
        for name, metric in named.items():
            found = {}
            for kind, count in kinds.items():
                found[kind] = _test(name, metric, systems, kind, count)
                bar.update()
            tested.append(_tested(name, metric, systems, found))
    return tested


def _test(name: str, metric: Any, systems: Sequence[Sequence[str]], kind: str, count: int) -> tuple[str, list[Any]]:
    """The signature of a test, and sacreBLEU's result for each system."""
    numbered = [(str(number), list(hypotheses)) for number, hypotheses in enumerate(systems)]
    signatures, results = PairedTest(numbered, {name: metric}, None, test_type=kind, n_samples=count)()
    return str(signatures[name]), list(results[name])


def _tested(
    name: str, metric: Any, systems: Sequence[Sequence[str]], found: dict[str, tuple[str, list[Any]]]
) -> Tested:
    scores = [float(metric.corpus_score(list(hypotheses), None).score) for hypotheses in systems]
    signatures = tuple(signature for signature, _ in found.values()) or (str(metric.get_signature()),)

    def p_value(kind: str, number: int) -> float | None:
        if kind not in found or not number:
            return None
        return 1.0 if scores[number] == scores[0] else float(found[kind][1][number].p_value)

    outcomes = []
    for number, score in enumerate(scores):
        width = float(found[BOOTSTRAP][1][number].ci) if BOOTSTRAP in found else None
        outcomes.append(Outcome(score, width, p_value(BOOTSTRAP, number), p_value(RANDOMISATION, number)))
    return Tested(name, signatures, tuple(outcomes))
