"""`nmt evaluate`: sacreBLEU's own figures with intervals, and a file that the evaluation can be repeated from."""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from evaluating import BUNDLE, FIRST, SECOND, SOURCES, noisy, sacrebleu, served_bundle, written
from sacrebleu.metrics import BLEU

from nmt.cli import main
from nmt.errors import DataError
from nmt.evaluation import evaluate, recording
from nmt.evaluation.results import EvaluationFile, read_results
from nmt.evaluation.scores import Metrics, exact_match, length_ratio, score_all, sentence_chrf
from nmt.inference.bundle import Bundle
from nmt.inference.translator import Translator
from nmt.inference.types import DecodeOptions


def files(folder: Path) -> list[str]:
    """The arguments of the small test set."""
    return [
        *("--src", written(folder / "src", SOURCES)),
        *("--ref", written(folder / "ref", FIRST)),
        *("--ref", written(folder / "ref2", SECOND)),
    ]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> EvaluationFile:
    folder = tmp_path_factory.mktemp("results")
    path = folder / "results.json.gz"
    assert main(["evaluate", BUNDLE, *files(folder), "--results", str(path), "--show", "6", "--threads", "1"]) == 0
    return read_results(path)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served_bundle() as address:
        yield address


def mistake(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1, captured.err
    return captured.err


# --- scores ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metrics", "more"),
    [
        (Metrics(resamples=200), []),
        (Metrics(lowercase=True, tokenize="intl", resamples=200), ["-lc", "--chrf-lowercase", "-tok", "intl"]),
    ],
)
def test_scores_intervals_and_signatures_are_those_of_sacrebleus_command(
    metrics: Metrics, more: list[str], tmp_path: Path
) -> None:
    hypotheses = [text.upper() if number % 7 == 0 else text for number, text in enumerate(noisy(1))]
    paths = [written(tmp_path / name, lines) for name, lines in (("a", FIRST), ("b", SECOND), ("h", hypotheses))]
    command = [*paths[:2], "-i", paths[2], "-ci", "--confidence-n", "200", *more]
    printed = [
        *sacrebleu(*command, "-m", "bleu", "chrf", "ter"),
        sacrebleu(*command, "-m", "chrf", "--chrf-word-order", "2"),
    ]
    expected = {item["name"]: item for item in printed}
    found = score_all(hypotheses, [FIRST, SECOND], metrics)
    assert [item.name for item in found] == ["BLEU", "chrF2", "chrF2++", "TER"]
    for item in found:
        theirs, between = expected[item.name], item.interval
        assert between is not None
        assert item.score == pytest.approx(theirs["score"], abs=1e-3)
        assert (between.high - between.low) / 2 == pytest.approx(theirs["confidence_var"], abs=1e-3)
        assert between.low < item.score < between.high
        assert between.signature == theirs["signature"]
        assert between.signature.replace("|bs:200|seed:12345", "") == item.signature
        assert "nrefs:2" in item.signature


def test_a_sentence_is_held_against_its_best_reference() -> None:
    chrf = sentence_chrf(["Ich sah Tom.", "x"], [["nichts", "y"], ["Ich sah Tom.", "x y z"]], Metrics())
    assert chrf[0] == 100.0
    assert 0 < chrf[1] < 100
    assert exact_match(["a", "b ", "c"], ["a", "x", "x"], ["x", "b", "x"]) == pytest.approx(2 / 3)


def test_the_length_ratio_is_of_the_tokens_of_bleu() -> None:
    metric = BLEU()
    value = metric.corpus_score(noisy(2), [FIRST])
    assert length_ratio(noisy(2), FIRST, Metrics()) == pytest.approx(value.sys_len / value.ref_len)
    assert length_ratio(["a"], [""], Metrics()) == 0.0


def test_tokenizers_that_are_not_there(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sacrebleu.tokenizers.tokenizer_ja_mecab.MeCab", None, raising=False)
    assert "sacreBLEU's tokenizers are" in mistake(capsys, "evaluate", BUNDLE, "--corpus", "x", "--tokenize", "13b")
    line = mistake(capsys, "compare", "a", "b", "--tokenize", "ja-mecab")
    assert "pip install 'sacrebleu[ja]'" in line


# --- the file -------------------------------------------------------------------------------------------------------


def test_the_scores_of_the_file_follow_from_its_sentences(results: EvaluationFile) -> None:
    said = [segment.hypothesis for segment in results.segments]
    references = [[segment.references[number] for segment in results.segments] for number in range(2)]
    for item, again in zip(results.scores, score_all(said, references, Metrics(resamples=1000)), strict=True):
        assert again.interval is not None
        assert (item.score, item.low, item.high) == (again.score, again.interval.low, again.interval.high)
        assert item.signature == again.interval.signature
        assert "nrefs:2|bs:1000|seed:12345" in item.signature
    assert [segment.chrf for segment in results.segments] == sentence_chrf(said, references, Metrics())
    assert results.exact_match == pytest.approx(exact_match(said, *references), abs=1e-6)
    test = recording.recorded_test_set(results, "here")
    assert (test.sources, test.references) == (SOURCES, [FIRST, SECOND])
    assert results.system.digest == Bundle.open(Path(BUNDLE)).info.digest
    assert results.options["beam_size"] == 5
    assert results.versions["sacrebleu"]
    assert results.machine["cores"] >= 1


def test_the_command_in_the_file_repeats_the_evaluation(results: EvaluationFile, tmp_path: Path) -> None:
    command = list(results.command)
    assert command[:2] == ["nmt", "evaluate"]
    place = command.index("--results") + 1
    command[place] = str(tmp_path / "again.json")
    assert main(command[1:]) == 0
    again = read_results(tmp_path / "again.json")
    assert (again.scores, again.segments, again.shown) == (results.scores, results.segments, results.shown)


def test_texts_are_the_same_with_links_and_without(results: EvaluationFile) -> None:
    translator = Translator.load(Path(BUNDLE), threads=1)
    plain = [item.text for item in translator.translate(SOURCES)]
    assert [segment.hypothesis for segment in results.segments] == plain
    (tom,) = translator.translate(SOURCES[:1], DecodeOptions(alignment=True))
    assert results.segments[0].links == tom.hypotheses[0].links != ()
    assert [piece for piece, _ in results.segments[0].tokens] == [token.piece for token in tom.hypotheses[0].tokens]
    assert results.segments[0].score == pytest.approx(tom.score, abs=1e-3)


def test_what_is_shown_fits_together(results: EvaluationFile) -> None:
    assert len(results.shown) == 6
    worst = sorted(results.segments, key=lambda segment: segment.chrf)[:5]
    assert {segment.source for segment in worst} <= {SOURCES[shown.index] for shown in results.shown}
    for shown in results.shown:
        segment = results.segments[shown.index]
        assert shown.n_best[0] == (segment.hypothesis, segment.score)
        assert len(shown.n_best) == 5
        assert shown.n_best[0][1] >= shown.n_best[-1][1]
        assert shown.target_subwords == tuple(piece for piece, _ in segment.tokens)
        assert sum(map(len, shown.attention)) == len(shown.target_subwords)
        assert sum(len(part[0]) for part in shown.attention) == len(shown.source_subwords)
        assert shown.source_subwords[-1] == "</s>"
        for row in (row for part in shown.attention for row in part):
            assert sum(row) == pytest.approx(1.0, abs=0.01)


def test_what_is_chosen_to_be_shown() -> None:
    chrf = [float(number) for number in range(100)]
    sources = ["x" * number for number in range(100)]
    found = recording.chosen(chrf, sources, 12)
    assert found[:10] == list(range(10))
    assert [10 < index < 55 for index in found[10:]] == [True, False]
    assert recording.chosen(chrf, sources, 0) == []
    assert recording.chosen(chrf[:3], sources[:3], 60) == [0, 1, 2]


def test_a_server_gives_the_same_file(
    results: EvaluationFile, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "served.json"
    assert main(["evaluate", "--server", url, *files(tmp_path), "--results", str(path), "--show", "6"]) == 0
    assert "beam 5, length penalty 1" in capsys.readouterr().out
    served = read_results(path)
    assert served.scores == results.scores
    assert (served.system.kind, served.system.where, served.system.digest) == ("server", url, results.system.digest)
    for one, other in zip(served.segments, results.segments, strict=True):
        assert (one.hypothesis, one.links, one.truncated) == (other.hypothesis, other.links, other.truncated)
        assert [piece for piece, _ in one.tokens] == [piece for piece, _ in other.tokens]
    for mine, its in zip(served.shown, results.shown, strict=True):
        assert (mine.index, mine.source_subwords, mine.target_subwords) == (
            *(its.index, its.source_subwords, its.target_subwords),
        )
        assert [text for text, _ in mine.n_best] == [text for text, _ in its.n_best]
        assert [[len(row) for row in part] for part in mine.attention] == [
            [len(row) for row in part] for part in its.attention
        ]
    assert main(["evaluate", "--server", url, *files(tmp_path), "--target", "de", "--tok-lc", "--json"]) == 0
    assert [item["name"] for item in json.loads(capsys.readouterr().out)["scores"]][-1] == "BLEU tok-lc"
    assert "no model translates into 'fr'" in mistake(
        capsys, "evaluate", "--server", url, *files(tmp_path), "--target", "fr"
    )


def test_a_file_that_was_changed_is_not_compared(results: EvaluationFile) -> None:
    changed = results.model_copy(update={"segments": results.segments[1:]})
    with pytest.raises(DataError, match="here: its sentences don't have the checksums"):
        recording.recorded_test_set(changed, "here")
    with pytest.raises(DataError, match="here: no sentences"):
        recording.recorded_test_set(results.model_copy(update={"segments": ()}), "here")


# --- the command ----------------------------------------------------------------------------------------------------


def test_what_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packed = tmp_path / "src.gz"
    packed.write_bytes(gzip.compress("".join(f"{line}\n" for line in SOURCES).encode()))
    arguments = ["evaluate", BUNDLE, "--source", str(packed), "--reference", written(tmp_path / "ref", FIRST)]
    assert main([*arguments, "--output", str(tmp_path / "out"), "--beam-size", "1"]) == 0
    printed = capsys.readouterr().out
    said = (tmp_path / "out").read_text(encoding="utf-8").splitlines()
    for item in score_all(said, [FIRST], Metrics(resamples=1000)):
        assert item.interval is not None
        (line,) = (line for line in printed.splitlines() if line.split()[:1] == [item.name])
        assert f"{item.score:.2f}" in line
        assert f"{item.interval.low:.2f} to {item.interval.high:.2f}" in line
        assert line.endswith(item.interval.signature)
    for words in ("exact match", "length ratio", "sentences/s", "src.gz: 20 sentences, beam 1, length penalty 1"):
        assert words in printed
    assert main([*arguments, "--beam-size", "1", "--json", "--resamples", "0"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [item["name"] for item in found["scores"]] == ["BLEU", "chrF2", "chrF2++", "TER"]
    assert "bs:" not in found["scores"][0]["signature"]
    assert 0.5 < found["length_ratio"] < 1.5


class StubComet(types.ModuleType):
    """The part of unbabel-comet that is used: its score is the share of translations that equal the reference."""

    def download_model(self, name: str) -> str:
        raise KeyError(f"Model {name!r} not supported by COMET.")

    def load_from_checkpoint(self, path: str) -> Any:
        assert Path(path).read_bytes() == b"weights"
        return types.SimpleNamespace(predict=self.predict)

    def predict(self, data: list[dict[str, str]], batch_size: int, gpus: int) -> Any:
        assert data[0]["src"] == SOURCES[0]
        same = [item["mt"] == item["ref"] for item in data]
        return types.SimpleNamespace(system_score=sum(same) / len(same), scores=same)


def test_comet_is_asked_where_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", BUNDLE, *files(tmp_path), "--beam-size", "1"]
    monkeypatch.setitem(sys.modules, "comet", None)
    assert "pip install unbabel-comet" in mistake(capsys, *arguments, "--comet")
    monkeypatch.setitem(sys.modules, "comet", StubComet("comet"))
    assert "Unbabel/wmt22-comet-da" in mistake(capsys, *arguments, "--comet")
    assert "neither a checkpoint file" in mistake(capsys, *arguments, "--comet", tmp_path / "none.ckpt")
    checkpoint = tmp_path / "model.ckpt"
    checkpoint.write_bytes(b"weights")
    results = tmp_path / "results.json"
    assert main([*arguments, "--comet", str(checkpoint), "--results", str(results), "--show", "0"]) == 0
    comet = read_results(results).scores[-1]
    said = [segment.hypothesis for segment in read_results(results).segments]
    assert (comet.name, comet.score) == ("COMET", pytest.approx(exact_match(said, FIRST)))
    assert comet.signature.startswith("nrefs:1|model:model.ckpt|sha256:")
    assert f"{comet.score:.4f}" in capsys.readouterr().out


def test_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, reference = files(tmp_path)[1], files(tmp_path)[3]
    both = ["--src", source, "--ref", reference]
    assert "--src FILE with --ref" in mistake(capsys, "evaluate", BUNDLE)
    assert "--src FILE with --ref" in mistake(capsys, "evaluate", BUNDLE, "--src", source)
    assert "--src FILE with --ref" in mistake(capsys, "evaluate", BUNDLE, *both, "--corpus", "numbers-en-de")
    assert "no such file" in mistake(capsys, "evaluate", BUNDLE, *both, "--ref", tmp_path / "none")
    short = written(tmp_path / "short", FIRST[1:])
    line = mistake(capsys, "evaluate", BUNDLE, *both, "--ref", short)
    assert "20 lines" in line
    assert "19" in line
    empty = written(tmp_path / "empty", [])
    assert "nothing to translate" in mistake(capsys, "evaluate", BUNDLE, "--src", empty, "--ref", empty)
    assert ".json or .json.gz" in mistake(capsys, "evaluate", BUNDLE, *both, "--results", tmp_path / "x.txt")
    assert "could not be written" in mistake(capsys, "evaluate", BUNDLE, *both, "--output", tmp_path)
    with pytest.raises(SystemExit):
        main(["evaluate", BUNDLE, *both, "--resamples", "-1"])


def test_checksums_are_those_of_the_files(tmp_path: Path) -> None:
    source, reference = (Path(name) for name in (files(tmp_path)[1], files(tmp_path)[3]))
    test = evaluate.file_test_set(source, [reference])
    assert test.checksums() == (
        hashlib.sha256(source.read_bytes()).hexdigest(),
        (hashlib.sha256(reference.read_bytes()).hexdigest(),),
    )
    assert evaluate.TestSet.of_pairs("x", test.pairs).checksums() == test.checksums()
