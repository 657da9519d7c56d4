"""BLEU and chrF through sacreBLEU; a score never travels without its signature (Post 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from nmt.errors import DataError


@dataclass(frozen=True)
class Score:
    """One corpus score: `BLEU` or `chrF2`, 0 to 100, and the sacreBLEU signature that says how it was computed."""

    name: str
    score: float
    signature: str

    def __str__(self) -> str:
        return f"{self.name} {self.score:.2f} ({self.signature})"

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def score(hypotheses: Sequence[str], references: Sequence[str], lowercase: bool = False) -> tuple[Score, Score]:
    """BLEU (13a, cased unless `lowercase`) and chrF2 of detokenised text; raise `DataError` when the counts differ."""
    if len(hypotheses) != len(references):
        raise DataError(f"{len(hypotheses)} hypotheses but {len(references)} references: one of each for each source")
    if not hypotheses:
        raise DataError("nothing to score: no sentences")
    scores = []
    for name, metric in (("BLEU", BLEU(lowercase=lowercase)), ("chrF2", CHRF(lowercase=lowercase))):
        value = metric.corpus_score(list(hypotheses), [list(references)])
        scores.append(Score(name, round(float(value.score), 4), str(metric.get_signature())))
    return scores[0], scores[1]


def exact_match(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Share of hypotheses (0 to 1) that equal their reference but for space at the ends."""
    same = sum(a.strip() == b.strip() for a, b in zip(hypotheses, references, strict=True))
    return same / max(1, len(references))
