"""Scores: sacreBLEU's own, never without a signature."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import sacrebleu
import sacremoses
import tiny
from pyarrow import parquet

from nmt.cli import main
from nmt.errors import ConfigError, DataError
from nmt.evaluation import evaluate as evaluation
from nmt.evaluation.scores import Moses, Score, exact_match, score, tok_lc
from nmt.training.bundling import BundleOptions, make_bundle

REFERENCES = [target for _, target in tiny.sentence_pairs(30, seed=2)]
SCORES = ["BLEU", "chrF2", "chrF2++", "TER"]
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


# --- tok-lc ---------------------------------------------------------------------------------------------------------


def test_moses_steps_lower_normalise_and_cut() -> None:
    assert (
        Moses("de")("Er sagte: „Komm’ mit!“ (z.B. um 9 Uhr) …") == 'er sagte : " komm \' mit ! " ( z.b. um 9 uhr ) ...'
    )
    assert Moses("fr")("L’homme «ici»") == 'l\' homme " ici "'  # French keeps the apostrophe on the left
    assert Moses("de-AT")("Dr. A & B") == Moses("de")("Dr. A & B") == "dr. a & b"


def test_tok_lc_is_bleu_over_those_tokens() -> None:
    moses = Moses("de")
    found = tok_lc(HYPOTHESES, REFERENCES, moses)
    cut = [[moses(text) for text in texts] for texts in (HYPOTHESES, REFERENCES)]
    expected = sacrebleu.corpus_bleu(cut[0], [cut[1]], tokenize="none", force=True)
    assert 0 < found.score < 100
    assert found.score == pytest.approx(expected.score, abs=1e-4)


def test_tok_lc_forgives_case_and_forms_of_quotes_alone() -> None:
    moses = Moses("de")
    reference = ["Sie rief: „Hör auf!“ und ging – wie immer – in das Haus."]
    assert tok_lc(['SIE RIEF: "hör auf!" und ging - wie immer - in das Haus.'], reference, moses).score == 100.0
    assert tok_lc(['Sie rief: "Hör auf!" und ging - wie nie - in das Haus.'], reference, moses).score < 90.0


def test_tok_lc_says_how_it_was_computed() -> None:
    found = tok_lc(HYPOTHESES, REFERENCES, Moses("de"))
    assert found.name == "BLEU tok-lc"
    for part in (
        "tok:none",
        f"version:{sacrebleu.__version__}",
        f"sacremoses:{sacremoses.__version__}",
        "lang:de",
        "steps:lower,normalize,tokenize",
    ):
        assert part in found.signature.split("|")


def test_tok_lc_counts_the_words_of_the_published_multi30k_reference(corpora: Path) -> None:
    table = parquet.read_table(corpora / "multi30k" / "test-00000-of-00001.parquet", columns=["de"])
    moses = Moses("de")
    assert sum(len(moses(text).split(" ")) for text in table.column("de").to_pylist()) == 12_103


def test_an_evaluation_has_tok_lc_beside_13a_where_it_is_asked_for() -> None:
    test = evaluation.TestSet.of_pairs("tiny test", list(zip(REFERENCES, REFERENCES, strict=True)))

    def shout(texts: object) -> list[str]:
        return [text.upper() for text in texts]  # type: ignore[attr-defined]

    assert [item["name"] for item in evaluation.evaluate(shout, test, "none").records()] == SCORES
    found = evaluation.evaluate(shout, test, "none", moses=Moses("de"))
    assert [item["name"] for item in found.records()] == [*SCORES, "BLEU tok-lc"]
    assert found.scores[0].score < 20
    assert found.scores[4].score == 100.0
    assert "sacremoses" in found.render()


def test_tok_lc_without_sacremoses_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sacremoses", None)
    with pytest.raises(ConfigError, match=r"needs sacremoses: pip install 'strata-nmt\[train\]'"):
        Moses("de")


def test_tok_lc_of_unequal_counts_is_a_data_error() -> None:
    with pytest.raises(DataError, match="29 hypotheses but 30 references"):
        tok_lc(HYPOTHESES[1:], REFERENCES, Moses("de"))


def test_the_command_adds_and_records_tok_lc(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus, bundle = tiny.prepared(tmp_path), tmp_path / "bundle"
    make_bundle(tiny.trained(corpus, tmp_path / "run", "train.max_steps=2"), bundle, BundleOptions())
    assert main(["evaluate", str(bundle), "--corpus", str(corpus), "--tok-lc", "--record", "--beam-size", "1"]) == 0
    assert "BLEU tok-lc" in capsys.readouterr().out
    recorded = {item["name"]: item for item in json.loads((bundle / "metrics.json").read_text())["scores"]}
    assert recorded.keys() == {*SCORES, "BLEU tok-lc"}
    assert "lang:de" in recorded["BLEU tok-lc"]["signature"]
    assert "steps:lower,normalize,tokenize" in (bundle / "README.md").read_text()
