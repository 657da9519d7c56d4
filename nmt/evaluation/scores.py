"""BLEU, chrF, chrF++ and TER through sacreBLEU; a score never travels without its signature (Post 2018).

"BLEU" is of text as it is, cased, cut into words by sacreBLEU (13a unless another tokenizer is asked for). "BLEU tok-lc" is of lowercased
text that Moses' rules have normalised and cut, as the field publishes Multi30k. They differ in case and in what a word is: the two are
never compared. Sets of references are lists of lines, each as long as the hypotheses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.metrics.ter import TER

from nmt.errors import ConfigError, DataError

SEED = 12345  # sacreBLEU's own
References = Sequence[Sequence[str]]


@dataclass(frozen=True)
class Interval:
    """Where 95 % of the scores of bootstrap resamples lie (Koehn 2004), and the signature of the score with it."""

    low: float
    high: float
    signature: str


@dataclass(frozen=True)
class Score:
    """One corpus score, 0 to 100, and the signature that says how it was computed. TER is of edits: the lower the better, and it may be
    above 100."""

    name: str
    score: float
    signature: str
    interval: Interval | None = None

    def __str__(self) -> str:
        return f"{self.name} {self.score:.2f} ({self.signature})"

    def to_json(self) -> dict[str, Any]:
        """As a JSON object, without the interval."""
        return {"name": self.name, "score": self.score, "signature": self.signature}


@dataclass(frozen=True)
class Metrics:
    """How text is scored: what sacreBLEU is told, and of how many bootstrap resamples the intervals are, 0 for none."""

    lowercase: bool = False
    tokenize: str = "13a"
    resamples: int = 0

    def bleu(self, references: References | None = None) -> Any:
        """sacreBLEU's BLEU, which remembers `references`; raise `ConfigError` for a tokenizer that is unknown or lacks a package."""
        if self.tokenize not in BLEU.TOKENIZERS:
            raise ConfigError(f"--tokenize {self.tokenize}: sacreBLEU's tokenizers are {', '.join(BLEU.TOKENIZERS)}")
        try:
            return BLEU(self.lowercase, tokenize=self.tokenize, references=references)
        except (RuntimeError, ImportError):
            language = self.tokenize.partition("-")[0]
            raise ConfigError(
                f"--tokenize {self.tokenize} needs a package that is missing: pip install 'sacrebleu[{language}]'"
            ) from None
        except OSError as error:  # those of SentencePiece are fetched when they are first used
            raise ConfigError(f"--tokenize {self.tokenize}: sacreBLEU could not fetch its model ({error})") from None

    def chrf(self, words: int, references: References | None = None) -> Any:
        """sacreBLEU's chrF2 with n-grams of characters, and of up to `words` words: 2 for chrF2++."""
        return CHRF(lowercase=self.lowercase, word_order=words, references=references)

    def ter(self, references: References | None = None) -> Any:
        """sacreBLEU's TER, which by its definition knows no case."""
        return TER(references=references)


def score_all(
    hypotheses: Sequence[str], references: References, metrics: Metrics, moses: Moses | None = None
) -> tuple[Score, ...]:
    """BLEU, chrF2, chrF2++ and TER, and BLEU tok-lc where `moses` is given; raise `DataError` when the counts differ."""
    for each in references:
        _check(hypotheses, each)
    named = {"BLEU": metrics.bleu(), "chrF2": metrics.chrf(0), "chrF2++": metrics.chrf(2), "TER": metrics.ter()}
    scores = [_measured(name, metric, hypotheses, references, metrics.resamples) for name, metric in named.items()]
    if moses is not None:
        scores.append(_tok_lc(hypotheses, references, moses, metrics.resamples))
    return tuple(scores)


def score(hypotheses: Sequence[str], references: Sequence[str], lowercase: bool = False) -> tuple[Score, Score]:
    """BLEU (13a, cased unless `lowercase`) and chrF2 against one set of references, as training validates; raise `DataError` when the
    counts differ."""
    _check(hypotheses, references)
    metrics = Metrics(lowercase)
    return (
        _measured("BLEU", metrics.bleu(), hypotheses, [references]),
        _measured("chrF2", metrics.chrf(0), hypotheses, [references]),
    )


def _measured(
    name: str, metric: Any, hypotheses: Sequence[str], references: References, resamples: int = 0, more: str = ""
) -> Score:
    """The score; `more` ends its signature."""
    statistics = metric._extract_corpus_statistics(hypotheses, references)
    value, plain = metric._aggregate_and_compute(statistics).score, f"{metric.get_signature()}{more}"
    interval = None
    if resamples:
        # As sacreBLEU's `--confidence` does it, which holds all resamples in memory at once and tells half the width alone.
        draws = np.random.default_rng(SEED).choice(len(statistics), (resamples, len(statistics)), replace=True)
        table = np.array(statistics, dtype=np.float32)
        drawn = sorted(metric._compute_score_from_stats(table[rows].sum(0)).score for rows in draws)
        metric.n_bootstrap, metric.seed = resamples, str(SEED)
        cut, signature = resamples // 40, f"{metric.get_signature()}{more}"
        low, high = (round(float(drawn[place]), 4) for place in (cut, resamples - cut - 1))
        interval = Interval(low, high, signature)
    return Score(name, round(float(value), 4), plain, interval)


def sentence_chrf(hypotheses: Sequence[str], references: References, metrics: Metrics) -> list[float]:
    """chrF2++ of each sentence against all its references, the best of them, 0 to 100."""
    metric = metrics.chrf(2)
    together = zip(hypotheses, zip(*references, strict=True), strict=True)
    return [round(float(metric.sentence_score(text, its).score), 2) for text, its in together]


def length_ratio(hypotheses: Sequence[str], references: Sequence[str], metrics: Metrics) -> float:
    """Words of the hypotheses over words of the references, by the tokens of BLEU; 0.0 where the references have none."""
    tokenizer = metrics.bleu().tokenizer
    ours, theirs = (sum(len(tokenizer(line.rstrip()).split()) for line in lines) for lines in (hypotheses, references))
    return float(ours / theirs) if theirs else 0.0


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
    return _tok_lc(hypotheses, [references], moses, 0)


def _tok_lc(hypotheses: Sequence[str], references: References, moses: Moses, resamples: int) -> Score:
    cut, *cut_references = ([moses(text) for text in texts] for texts in (hypotheses, *references))
    metric = BLEU(tokenize="none", force=True)
    return _measured("BLEU tok-lc", metric, cut, cut_references, resamples, f"|{moses}")


def _check(hypotheses: Sequence[str], references: Sequence[str]) -> None:
    if len(hypotheses) != len(references):
        raise DataError(f"{len(hypotheses)} hypotheses but {len(references)} references: one of each for each source")
    if not hypotheses:
        raise DataError("nothing to score: no sentences")


def exact_match(hypotheses: Sequence[str], *references: Sequence[str]) -> float:
    """Share of hypotheses (0 to 1) that equal one of their references but for space at the ends."""
    together = zip(hypotheses, *references, strict=True)
    same = sum(text.strip() in (each.strip() for each in its) for text, *its in together)
    return same / max(1, len(hypotheses))
