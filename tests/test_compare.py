"""`nmt compare`: sacreBLEU's own significance, and where two systems differ."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
from evaluating import BUNDLE, FIRST, SECOND, SOURCES, noisy, sacrebleu, served_bundle, written
from sacrebleu.metrics import BLEU, CHRF, TER
from sacrebleu.significance import PairedTest

from nmt.cli import main
from nmt.corpus.store import PreparedCorpus
from nmt.evaluation import buckets
from nmt.evaluation.compare import Comparison, Output, compare
from nmt.evaluation.evaluate import corpus_test_set, file_test_set
from nmt.evaluation.results import read_results, write_results
from nmt.evaluation.scores import Metrics
from nmt.evaluation.significance import paired_tests
from nmt.inference.translator import Translator
from nmt.inference.types import DecodeOptions

A, B, C = noisy(1), noisy(2), noisy(3)


def mistake(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1, captured.err
    return captured.err


def compared(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    assert main(["compare", *map(str, arguments), "--json", "--trials", "100", "--resamples", "100"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.fixture
def data(tmp_path: Path) -> list[str]:
    """The arguments of the small test set."""
    return ["--src", written(tmp_path / "src", SOURCES), "--ref", written(tmp_path / "ref", FIRST)]


# --- significance ---------------------------------------------------------------------------------------------------


def test_p_values_are_those_of_sacrebleus_command(tmp_path: Path) -> None:
    names = [written(tmp_path / name, lines) for name, lines in (("ref", FIRST), ("a", A), ("b", B), ("c", C))]
    bleu, chrf, ter = paired_tests([A, B, C], [FIRST], Metrics(), 300, 500)
    command = [names[0], "-i", *names[1:], "--paired-bs-n", "300", "--paired-ar-n", "500", "-m"]
    by_bootstrap = sacrebleu(*command, "bleu", "--paired-bs")
    by_randomisation = sacrebleu(*command, "bleu", "chrf", "ter", "--chrf-word-order", "2", "--paired-ar")
    assert [bleu.metric, chrf.metric, ter.metric] == list(by_randomisation[0])[1:]
    for number in range(3):
        theirs, ours = by_bootstrap[number]["BLEU"], bleu.outcomes[number]
        assert (ours.score, ours.half_width) == pytest.approx((theirs["score"], theirs["ci"]))
        assert ours.p_bootstrap == theirs["p_value"]
        for tested in (bleu, chrf, ter):
            theirs = by_randomisation[number][tested.metric]
            assert tested.outcomes[number].p_randomisation == theirs["p_value"]
            assert tested.outcomes[number].score == pytest.approx(theirs["score"])


def test_all_metrics_are_as_sacrebleu_tests_them_together() -> None:
    found = paired_tests([A, B], [FIRST, SECOND], Metrics(lowercase=True), 200, 0)
    metrics = {"BLEU": BLEU(lowercase=True), "chrF": CHRF(lowercase=True, word_order=2), "TER": TER()}
    signatures, results = PairedTest([("A", A), ("B", B)], metrics, [FIRST, SECOND], "bs", 200)()
    for tested in found:
        theirs = results[tested.metric]
        assert tested.signatures == (str(signatures[tested.metric]),)
        assert "nrefs:2|bs:200|seed:12345" in tested.signatures[0]
        assert [outcome.p_bootstrap for outcome in tested.outcomes] == [each.p_value for each in theirs]
        assert [outcome.half_width for outcome in tested.outcomes] == [each.ci for each in theirs]
        assert all(outcome.p_randomisation is None for outcome in tested.outcomes)


def test_a_system_does_not_differ_from_itself() -> None:
    for tested in paired_tests([A, A], [FIRST], Metrics(), 50, 50):
        assert (tested.outcomes[1].p_bootstrap, tested.outcomes[1].p_randomisation) == (1.0, 1.0)


def test_tests_can_be_left_out() -> None:
    (bleu, *_) = paired_tests([A, B], [FIRST], Metrics(), 0, 0)
    assert bleu.signatures[0].startswith("nrefs:1|case:mixed")
    assert bleu.outcomes[1].half_width is bleu.outcomes[1].p_bootstrap is bleu.outcomes[1].p_randomisation is None


# --- groups ---------------------------------------------------------------------------------------------------------


def test_buckets_of_length() -> None:
    sources = [" ".join(["x"] * count) for count in (1, 5, 6, 10, 11, 16, 21, 30, 31, 90)]
    found = buckets.by_length(sources)
    assert found == {"1-5": [0, 1], "6-10": [2, 3], "11-15": [4], "16-20": [5], "21-30": [6, 7], "31+": [8, 9]}
    assert buckets.by_length(["猫が好きです"], spaced=False) == {"6-10": [0]}


def test_buckets_of_rare_words() -> None:
    seen = buckets.frequencies_in(["the cat", "the cat", "The dog."] + ["the"] * 20, "these lines")
    assert seen.counts["the"] == 23
    found = buckets.by_rarest(["The the!", "the cat", "the dog", "a dog", ""], seen)
    assert found == {"0": [3], "1-4": [1, 2], "20-99": [0]}


def test_words_of_the_training_text(tmp_path: Path) -> None:
    folder = tiny.prepared(tmp_path)
    test = corpus_test_set(str(folder), "test")
    found = buckets.training_frequencies(PreparedCorpus.open(folder), test.sources)
    lines = (tmp_path / "text" / "train.en").read_text(encoding="utf-8").splitlines()
    assert found.text == "300 training sentences of tiny"
    for word in {word.strip(".") for source in test.sources for word in source.split()}:
        assert found.counts[word] == sum(line.strip(".").split().count(word) for line in lines)


def test_what_is_to_be_copied() -> None:
    copied = [buckets.to_copy(*pair) for pair in zip(SOURCES, FIRST, strict=True)]
    assert copied[:6] == [["Tom", "Boston"], [], [], ["Berlin"], ["12"], []]
    found = buckets.by_copied(copied)
    assert found["with numbers"] == [4, 8]
    assert found["with names"] == [0, 3, 7]
    assert sum(map(len, found.values())) == len(SOURCES)
    assert buckets.by_copied([["Tom", "12"]]) == {"with numbers": [0], "with names": [0]}


# --- comparison -----------------------------------------------------------------------------------------------------


def made(tmp_path: Path, *outputs: list[str], shown: int = 5) -> Comparison:
    test = file_test_set(Path(written(tmp_path / "s", SOURCES)), [Path(written(tmp_path / "r", FIRST))])
    named = [Output(f"system {number}", "", lines) for number, lines in enumerate(outputs)]
    return compare(test, named, Metrics(), buckets.frequencies_in(SOURCES, "it"), 0, shown)


def test_sentences_won_and_lost(tmp_path: Path) -> None:
    worse = ["Nichts davon.", *FIRST[1:]]
    worse[1] = ""
    found = made(tmp_path, FIRST, worse, FIRST)
    assert [(v.name, v.wins, v.ties, v.losses) for v in found.verdicts] == [
        ("system 1", 0, 18, 2),
        ("system 2", 0, 20, 0),
    ]
    assert [(d.system, d.index) for d in found.differences] == [("system 1", 1), ("system 1", 0)]
    assert found.differences[0].points == -100.0
    assert found.differences[0].hypotheses == (FIRST[1], "", FIRST[1])
    (verdict,) = made(tmp_path, worse, FIRST).verdicts
    assert (verdict.wins, verdict.losses) == (2, 0)


def test_a_small_difference_is_a_tie(tmp_path: Path) -> None:
    long = " ".join(f"word{number}" for number in range(300))
    test = file_test_set(Path(written(tmp_path / "s", ["x"])), [Path(written(tmp_path / "r", [long]))])
    outputs = [Output("one", "", [long]), Output("other", "", [long[:-1]])]
    (verdict,) = compare(test, outputs, Metrics(), buckets.frequencies_in(["x"], "it"), 0, 0).verdicts
    assert (verdict.wins, verdict.ties, verdict.losses) == (0, 1, 0)


def test_bleu_of_groups_and_words_copied(tmp_path: Path) -> None:
    wrong = [line.replace("12", "13").replace("Boston", "Paris") for line in FIRST]
    found = made(tmp_path, FIRST, wrong)
    numbers, names = found.copied
    assert (numbers.kind, numbers.words, numbers.right) == ("numbers", 2, (2, 1))
    assert (names.words, names.right) == (5, (5, 4))
    by_length = found.groupings[0]
    assert sum(row.sentences for row in by_length.rows) == len(SOURCES)
    chosen = buckets.by_length(SOURCES)["1-5"]
    expected = BLEU().corpus_score([wrong[index] for index in chosen], [[FIRST[index] for index in chosen]]).score
    assert by_length.rows[0].bleu == pytest.approx((100.0, expected))
    neither = found.groupings[2].rows[-1]
    assert (neither.label, neither.bleu) == ("neither", pytest.approx((100.0, 100.0)))


# --- the command ----------------------------------------------------------------------------------------------------


def test_all_kinds_of_systems_side_by_side(tmp_path: Path, data: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    results, lines = tmp_path / "beam.json.gz", written(tmp_path / "lines.txt", A)
    assert main(["evaluate", BUNDLE, *data, "--results", str(results), "--show", "0", "--resamples", "0"]) == 0
    capsys.readouterr()
    found = compared(capsys, results, BUNDLE, lines, lines, "--beam-size", "1")
    assert found["systems"] == ["beam", "tatoeba-en-de", "lines.txt", "lines.txt (2)"]
    assert "beam 5" in found["about"][0]
    assert "beam 1" in found["about"][1]
    bleu = found["tests"][0]
    greedy = [
        item.text for item in Translator.load(Path(BUNDLE), threads=1).translate(SOURCES, DecodeOptions(beam_size=1))
    ]
    expected = [
        read_results(results).scores[0].score,
        *(BLEU().corpus_score(lines, [FIRST]).score for lines in (greedy, A, A)),
    ]
    assert [outcome["score"] for outcome in bleu["outcomes"]] == pytest.approx(expected, abs=1e-3)
    assert main(["compare", str(results), lines, "--trials", "50", "--resamples", "50", "--show", "1"]) == 0
    printed = capsys.readouterr().out
    for words in (
        "the baseline is beam",
        "nrefs:1|bs:50|seed:12345",
        "nrefs:1|ar:50|seed:12345",
        "wins  ties  losses",
        "BLEU by words of the source",
        "in the test set itself",
        "source  ",
        "reference  ",
    ):
        assert words in printed
    assert main(["compare", str(results), lines, "--trials", "0", "--resamples", "50", "--show", "0"]) == 0
    printed = capsys.readouterr().out
    assert "p bootstrap" in printed
    assert "p randomisation" not in printed
    for signature in bleu["signatures"]:
        assert "tok:13a" in signature


def test_a_server_beside_its_bundle(data: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with served_bundle() as url:
        found = compared(capsys, BUNDLE, url, *data)
    assert found["systems"] == [BUNDLE, url]  # both call themselves tatoeba-en-de
    assert found["about"][1] == f"server {url}, beam 5, length penalty 1"
    assert found["tests"][0]["outcomes"][1]["p_bootstrap"] == 1.0
    assert found["verdicts"][0]["ties"] == len(SOURCES)


def test_evaluations_of_other_sentences_are_not_compared(
    tmp_path: Path, data: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [tmp_path / f"{name}.json" for name in "abc"]
    arguments = ["--resamples", "0", "--show", "0", "--beam-size", "1"]
    assert main(["evaluate", BUNDLE, *data, "--results", str(paths[0]), *arguments]) == 0
    other = [*data[:3], written(tmp_path / "ref2", SECOND)]
    assert main(["evaluate", BUNDLE, *other, "--results", str(paths[1]), *arguments]) == 0
    fewer = ["--src", written(tmp_path / "src9", SOURCES[:9]), "--ref", written(tmp_path / "ref9", FIRST[:9])]
    assert main(["evaluate", BUNDLE, *fewer, "--results", str(paths[2]), *arguments]) == 0
    capsys.readouterr()
    assert "b.json: its references are not those of" in mistake(capsys, "compare", paths[0], paths[1])
    assert "c.json: its sources are not those of" in mistake(capsys, "compare", paths[0], paths[2])
    assert "not those of the test set that was given" in mistake(capsys, "compare", paths[0], paths[0], *fewer)
    results = read_results(paths[0])
    write_results(tmp_path / "damaged.json", results.model_copy(update={"segments": results.segments[1:]}))
    assert "damaged.json: its sentences" in mistake(capsys, "compare", paths[0], tmp_path / "damaged.json")


def test_mistakes(tmp_path: Path, data: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    a, short = written(tmp_path / "a", A), written(tmp_path / "short", A[:7])
    empty = written(tmp_path / "empty", [])
    assert "give two systems or more" in mistake(capsys, "compare", a, *data)
    assert "no evaluation file brings its test set" in mistake(capsys, "compare", a, a)
    line = mistake(capsys, "compare", a, short, *data)
    assert "20 lines" in line
    assert "short has 7" in line
    assert "empty has 0" in mistake(capsys, "compare", empty, a, *data)
    assert "nothing to translate" in mistake(capsys, "compare", a, a, "--src", empty, "--ref", empty)
    assert "neither a file, nor" in mistake(capsys, "compare", a, tmp_path / "none", *data)
    (tmp_path / "x.json").write_text("{}")
    assert "not an evaluation file" in mistake(capsys, "compare", a, tmp_path / "x.json", *data)
    assert "not a model bundle" in mistake(capsys, "compare", a, tmp_path, *data)
    assert "cannot be reached" in mistake(capsys, "compare", a, "http://127.0.0.1:9", *data)
    assert "--src FILE with --ref FILE" in mistake(capsys, "compare", a, a, *data[:2])
    with pytest.raises(SystemExit, match="2"):
        main(["compare"])
