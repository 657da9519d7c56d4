"""BLEU and chrF through sacreBLEU; a score never travels without its signature (Post 2018).

"BLEU" is of text as it is, cased, cut into words by sacreBLEU (13a). "BLEU tok-lc" is of lowercased text that Moses' rules have
normalised and cut, as the field publishes Multi30k. They differ in case and in what a word is: the two are never compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from nmt.errors import ConfigError, DataError


@dataclass(frozen=True)
class Score:
    """One corpus score: `BLEU`, `chrF2` or `BLEU tok-lc`, 0 to 100, and the signature that says how it was computed."""

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
    _check(hypotheses, references)
    scores = []
    for name, metric in (("BLEU", BLEU(lowercase=lowercase)), ("chrF2", CHRF(lowercase=lowercase))):
        value = metric.corpus_score(list(hypotheses), [list(references)])
        scores.append(Score(name, round(float(value.score), 4), str(metric.get_signature())))
    return scores[0], scores[1]


class Moses:
    """The steps of tok-lc on one text: lowercase, normalise the punctuation, cut into tokens, by the rules of a language.

    They are those of multi30k/dataset's `lc.norm.tok` files (lowercase.perl, normalize-punctuation.perl, tokenizer.perl): the German
    references of test2016 come to 12,103 tokens, the length that is published with the scores. With dashes cut too
    (`aggressive_dash_splits`) it would be 12,243. Escaping ("&apos;") changes no count and no score, so it is off.
    """

    def __init__(self, language: str) -> None:
        """`language` is that of the texts; one without rules of its own gets those of English. Raise `ConfigError` without sacremoses."""
        try:
            import sacremoses
        except ImportError:
            raise ConfigError("BLEU tok-lc needs sacremoses: pip install 'strata-nmt[train]'") from None
        self.language = language.partition("-")[0]
        self._normalizer = sacremoses.MosesPunctNormalizer(self.language)
        self._tokenizer = sacremoses.MosesTokenizer(self.language)

    def __call__(self, text: str) -> str:
        """The tokens of `text`, a space between two."""
        normal = self._normalizer.normalize(text.strip().lower())
        return str(self._tokenizer.tokenize(normal, return_str=True, escape=False))

    def __str__(self) -> str:
        return f"sacremoses:{version('sacremoses')}|lang:{self.language}|steps:lower,normalize,tokenize"


def tok_lc(hypotheses: Sequence[str], references: Sequence[str], moses: Moses) -> Score:
    """BLEU over the tokens of `moses` (sacreBLEU `--tokenize none --force`); raise `DataError` when the counts differ.

    For comparison with figures published as tokenised, lowercased BLEU, and never with the cased 13a score.
    """
    _check(hypotheses, references)
    metric = BLEU(tokenize="none", force=True)
    value = metric.corpus_score([moses(text) for text in hypotheses], [[moses(text) for text in references]])
    return Score("BLEU tok-lc", round(float(value.score), 4), f"{metric.get_signature()}|{moses}")


def _check(hypotheses: Sequence[str], references: Sequence[str]) -> None:
    if len(hypotheses) != len(references):
        raise DataError(f"{len(hypotheses)} hypotheses but {len(references)} references: one of each for each source")
    if not hypotheses:
        raise DataError("nothing to score: no sentences")


def exact_match(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Share of hypotheses (0 to 1) that equal their reference but for space at the ends."""
    same = sum(a.strip() == b.strip() for a, b in zip(hypotheses, references, strict=True))
    return same / max(1, len(references))
