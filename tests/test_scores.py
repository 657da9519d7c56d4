"""Scores: sacreBLEU's own, never without a signature."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sacrebleu
import tiny

from nmt.errors import DataError
from nmt.evaluation.scores import Score, exact_match, score

REFERENCES = [target for _, target in tiny.sentence_pairs(30, seed=2)]
HYPOTHESES = [" ".join([*text.split()[:-1], "Vogel."]) for text in REFERENCES]


def test_a_perfect_translation_scores_100() -> None:
    assert [item.score for item in score(REFERENCES, REFERENCES)] == [100.0, 100.0]


def test_the_numbers_are_sacrebleus() -> None:
    bleu, chrf = score(HYPOTHESES, REFERENCES)
    assert 0 < bleu.score < 100
    assert bleu.score == pytest.approx(sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES]).score, abs=1e-4)
    assert chrf.score == pytest.approx(sacrebleu.corpus_chrf(HYPOTHESES, [REFERENCES]).score, abs=1e-4)


def test_a_score_is_never_printed_without_its_signature() -> None:
    bleu, chrf = score(HYPOTHESES, REFERENCES)
    assert (bleu.name, chrf.name) == ("BLEU", "chrF2")
    assert "case:mixed" in bleu.signature
    assert "tok:13a" in bleu.signature
    assert f"version:{sacrebleu.__version__}" in chrf.signature
    for item in (bleu, chrf):
        assert item.signature in str(item)
        assert Score(**json.loads(json.dumps(item.to_json()))) == item


def test_case_counts_unless_said_otherwise_and_the_signature_tells() -> None:
    shouted = [text.upper() for text in REFERENCES]
    assert score(shouted, REFERENCES)[0].score < 20
    relaxed = score(shouted, REFERENCES, lowercase=True)
    assert [item.score for item in relaxed] == [100.0, 100.0]
    assert "case:lc" in relaxed[0].signature


def test_it_is_a_score_of_the_corpus_not_a_mean_of_sentences() -> None:
    bleu, _ = score(HYPOTHESES, REFERENCES)
    mean = sum(score([h], [r])[0].score for h, r in zip(HYPOTHESES, REFERENCES, strict=True)) / len(REFERENCES)
    assert bleu.score != pytest.approx(mean, abs=0.1)


def test_empty_translations_score_nothing_and_do_no_harm() -> None:
    assert score([""] * 30, REFERENCES)[0].score == 0.0


def test_unequal_counts_are_a_data_error() -> None:
    with pytest.raises(DataError, match="29 hypotheses but 30 references"):
        score(HYPOTHESES[1:], REFERENCES)


def test_nothing_to_score_is_a_data_error() -> None:
    with pytest.raises(DataError, match="nothing to score"):
        score([], [])


def test_exact_matches_are_counted_but_for_space_at_the_ends() -> None:
    assert exact_match(["a b ", "c", "D", ""], ["a b", "c", "d", ""]) == 0.75
    assert exact_match([], []) == 0.0


def test_a_score_reads_back_from_the_metrics_of_a_bundle(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps({"scores": [item.to_json() for item in score(HYPOTHESES, REFERENCES)]}))
    assert [item["name"] for item in json.loads(path.read_text())["scores"]] == ["BLEU", "chrF2"]
