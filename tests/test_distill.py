"""Distillation: a corpus of a teacher's translations, the same however often the work was stopped."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
from conftest import ROOT
from preparing import tree

import nmt.config
from nmt.cli import main
from nmt.corpus.prepare import prepare
from nmt.corpus.recipe import Recipe
from nmt.corpus.store import PreparedCorpus
from nmt.errors import BundleError, ConfigError, DataError
from nmt.inference.translator import Translator
from nmt.inference.types import Hypothesis, Translation
from nmt.text.tokenizer import UNK
from nmt.training import distill as module
from nmt.training.batches import TrainingBatches
from nmt.training.bundling import BundleOptions, make_bundle
from nmt.training.distill import DistillOptions, distill

QUICK = DistillOptions(beam_size=2, threads=1)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sources, of 60 pairs and of 10 that are seen three times in an epoch."""
    folder = tmp_path_factory.mktemp("corpus")
    pairs = tiny.sentence_pairs(94, seed=7)
    data = {
        "name": "tiny",
        "source_language": "en",
        "target_language": "de",
        "train": [
            tiny.write_files(folder, "first", pairs[:60]),
            tiny.write_files(folder, "second", pairs[60:70]) | {"weight": 3.0},
        ],
        "validation": [tiny.write_files(folder, "validation", pairs[70:82])],
        "test": [tiny.write_files(folder, "test", pairs[82:])],
        "tokenizer": {"vocab_size": 90},
        "cleaning": {"max_tokens": 60},
    }
    prepare(nmt.config.parse(Recipe, data, "recipe"), folder / "prepared")
    return folder / "prepared"


def teacher_of(corpus: Path, folder: Path, *overrides: str) -> Path:
    """A bundle trained long enough to say something else for most sentences."""
    larger = ("model.embedding=16", "model.encoder.hidden=40", "model.decoder.hidden=40", "model.dropout.word=0")
    steps = (
        "train.max_steps=150",
        "validation.every=150",
        "train.save_every=75",
        "train.log_every=150",
        "optimizer.lr=0.02",
        "optimizer.ema_decay=0",
    )
    tiny.trained(corpus, folder / "run", *larger, *steps, *overrides)
    make_bundle(folder / "run", folder / "teacher", BundleOptions(weights="fp32"))
    return folder / "teacher"


@pytest.fixture(scope="module")
def teacher(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return teacher_of(corpus, tmp_path_factory.mktemp("teacher"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher of the same languages that cuts them into other subwords, and each in its own way."""
    folder = tmp_path_factory.mktemp("other")
    return teacher_of(tiny.prepared(folder, joint=False), folder, "model.tie_embeddings=output", "train.max_steps=90")


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces so small that a corpus of 70 pairs has many: two windows of four chunks, and a last one that is not full."""
    monkeypatch.setattr(module, "_CHUNK", 8)
    monkeypatch.setattr(module, "_WINDOW", 32)


def texts(corpus: Path) -> list[tuple[str, str]]:
    """The training pairs of a prepared corpus as text."""
    opened = PreparedCorpus.open(corpus)
    source, target = opened.train()
    return [
        (opened.source_tokenizer.decode(source[i].tolist()), opened.target_tokenizer.decode(target[i].tolist()))
        for i in range(len(source))
    ]


def expected(teachers: list[Path], corpus: Path) -> list[tuple[str, str]]:
    """The pairs with what the teachers say, asked directly; with their own target where that has no end or is too long."""
    translator, tokenizer = (
        Translator.load(teachers[0], 1, ensemble=teachers[1:]),
        PreparedCorpus.open(corpus).target_tokenizer,
    )
    decode = translator.defaults.model_copy(update={"beam_size": QUICK.beam_size})
    pairs = texts(corpus)
    said = translator.translate([source for source, _ in pairs], decode)
    lost = [item.truncated or len(tokenizer.encode([item.text])[0]) > 60 for item in said]
    assert sum(lost) < 10
    return [(s, t if gone else item.text) for (s, t), item, gone in zip(pairs, said, lost, strict=True)]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {name: content for name, (content, _) in tree(folder).items()}


def counts(folder: Path) -> dict[str, int]:
    return dict(PreparedCorpus.open(folder).manifest["distilled"]["counts"])


# --- the corpus that comes out --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(corpus: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The distilled corpus, made in one go."""
    output = tmp_path_factory.mktemp("whole") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_CHUNK", 8)
        patch.setattr(module, "_WINDOW", 32)
        assert distill([teacher], corpus, output, QUICK)
    return output


def test_the_targets_are_the_teachers_translations_in_the_order_of_the_corpus(
    corpus: Path, teacher: Path, whole: Path
) -> None:
    before, after = texts(corpus), texts(whole)
    assert after == expected([teacher], corpus)
    assert len({target for _, target in after}) > 30, "the teacher says too little for this test to see an order"
    found = counts(whole)
    assert found["translation"] > 60
    same = sum(a == b for a, b in zip(before, after, strict=True))
    assert found["same"] + (70 - found["translation"]) == same


def test_all_but_the_targets_is_as_it_was(corpus: Path, whole: Path) -> None:
    given, made = PreparedCorpus.open(corpus), PreparedCorpus.open(whole)
    for name in ("tokenizer.model", "validation.jsonl", "test.jsonl", "train.source.ids", "train.source.lengths.npy"):
        assert (whole / name).read_bytes() == (corpus / name).read_bytes()
    assert contents(corpus).keys() == contents(whole).keys()
    assert made.weights() == given.weights() == [(60, 1.0), (10, 3.0)]
    assert [item["label"] for item in made.manifest["sources"]] == [
        f"{item['label']}, distilled" for item in given.manifest["sources"]
    ]
    assert made.manifest.keys() - given.manifest.keys() == {"distilled"}
    assert made.manifest["content_hash"] != given.manifest["content_hash"]
    assert made.manifest["splits"] == {"train": 70, "validation": 12, "test": 12}
    target = made.train()[1]
    assert made.manifest["tokens"]["target"] == target.lengths.sum()
    assert made.manifest["lengths"]["target"]["1.0"] == target.lengths.max()


def test_a_student_trains_on_it(whole: Path, tmp_path: Path) -> None:
    run = tiny.trained(whole, tmp_path / "run", "train.max_steps=6", "validation.every=6")
    losses = [item["nll"] for item in tiny.records(run)]
    assert losses[-1] < losses[0]
    make_bundle(run, tmp_path / "student", BundleOptions())
    data = json.loads((tmp_path / "student" / "metrics.json").read_text())["data"]
    assert data["content_hash"] == PreparedCorpus.open(whole).manifest["content_hash"]


def test_the_originals_are_kept_beside_the_translations(
    corpus: Path, teacher: Path, whole: Path, tmp_path: Path
) -> None:
    assert distill([teacher], corpus, tmp_path / "out", DistillOptions(beam_size=2, keep_original=True, threads=1))
    assert texts(tmp_path / "out") == texts(whole) + texts(corpus)
    made = PreparedCorpus.open(tmp_path / "out")
    assert made.weights() == [(60, 1.0), (10, 3.0)] * 2
    seen = [pair for batch in TrainingBatches(made, 512, seed=1).plan(0) for pair in batch.tolist()]
    assert sorted(seen) == sorted([*range(60), *range(70, 130), *[*range(60, 70), *range(130, 140)] * 3])


@pytest.mark.parametrize(
    ("limit", "weights"), [(30, [(30, 1.0)]), (67, [(60, 1.0), (7, 3.0)]), (999, [(60, 1.0), (10, 3.0)])]
)
def test_a_limit_takes_the_first_pairs(
    corpus: Path, teacher: Path, whole: Path, tmp_path: Path, limit: int, weights: list[tuple[int, float]]
) -> None:
    options = DistillOptions(beam_size=2, keep_original=True, limit=limit, threads=1)
    assert distill([teacher], corpus, tmp_path / "out", options)
    assert texts(tmp_path / "out") == texts(whole)[:limit] + texts(corpus)[:limit]
    assert PreparedCorpus.open(tmp_path / "out").weights() == weights * 2


def test_a_teacher_with_another_tokenizer_is_asked_in_text(corpus: Path, other: Path, tmp_path: Path) -> None:
    assert distill([other], corpus, tmp_path / "out", QUICK)
    pairs = expected([other], corpus)
    assert texts(tmp_path / "out") == pairs
    made = PreparedCorpus.open(tmp_path / "out")
    target = made.train()[1]
    assert [target[i].tolist() for i in range(70)] == made.target_tokenizer.encode([text for _, text in pairs])


def test_an_ensemble_teaches(corpus: Path, teacher: Path, whole: Path, tmp_path: Path) -> None:
    second = tmp_path / "second"
    make_bundle(teacher.parent / "run", second, BundleOptions(weights="fp32", average=2))
    assert distill([teacher, second], corpus, tmp_path / "out", QUICK)
    assert texts(tmp_path / "out") == expected([teacher, second], corpus)
    assert texts(tmp_path / "out") != texts(whole)
    assert len(PreparedCorpus.open(tmp_path / "out").manifest["distilled"]["teachers"]) == 2


class Stub:
    """A teacher that says what `answers` has for a source, or that source backwards."""

    def __init__(self, answers: dict[str, tuple[str, bool]]) -> None:
        self.answers, self.asked = answers, list[str]()

    def translate(self, sources: list[str], options: object) -> list[Translation]:
        """A translation for each text."""
        self.asked += sources
        said = [self.answers.get(source, (source[::-1], False)) for source in sources]
        return [
            Translation(source, (Hypothesis(text, 0.0),), 1, 1, truncated=truncated)
            for source, (text, truncated) in zip(sources, said, strict=True)
        ]


def test_what_a_student_had_better_not_see_stays_as_it_was(
    corpus: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(corpus, tmp_path / "corpus"))
    column = PreparedCorpus.open(copy).train()[0]
    start = int(column.lengths[:7].sum())
    ids = bytearray((copy / "train.source.ids").read_bytes())
    ids[2 * start : 2 * start + 2] = UNK.to_bytes(2, "little")  # the first subword of pair 7 is one that nobody knows
    (copy / "train.source.ids").write_bytes(ids)
    before = texts(copy)
    answers = {
        before[20][0]: ("das ist noch nicht", True),
        before[30][0]: ("", False),
        before[40][0]: ("das " * 70, False),
        before[50][0]: ("das ist € 5", False),
    }
    stub = Stub(answers)
    monkeypatch.setattr(module.Translator, "load", lambda *_: stub)
    assert main(["distill", str(teacher), "--corpus", str(copy), "--output", str(tmp_path / "out")]) == 0
    after = texts(tmp_path / "out")
    kept = [7, 20, 30, 40, 50]
    assert [after[i] for i in kept] == [before[i] for i in kept]
    assert all(after[i] == (before[i][0], before[i][0][::-1]) for i in range(70) if i not in kept)
    assert len(stub.asked) == 69
    assert counts(tmp_path / "out") == {
        "translation": 65, "same": 0, "source_unknown": 1, "truncated": 1, "empty": 1, "tokens": 1, "target_unknown": 1,
    }  # fmt: skip
    report = capsys.readouterr().out
    assert "| translation | 65 | 92.86% |" in report
    assert report.count("| original | 1 | 1.43% |") == 5
    assert repr(after[0][1]) in report, "a sample"


# --- stopped and resumed --------------------------------------------------------------------------------------------


class Stopped(BaseException):
    """What ends a run in the middle, as a signal would."""


def interrupted(output: Path, teacher: Path, corpus: Path, chunks: int) -> Path:
    """Run until `chunks` chunks are written and the next one is being translated; return the file of the work."""
    left = iter(range(chunks))
    find = module._targets

    def stop(*arguments: Any) -> Any:
        if next(left, None) is None:
            raise Stopped
        return find(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_targets", stop)
        with pytest.raises(Stopped):
            distill([teacher], corpus, output, QUICK)
    return output.with_name(f".{output.name}.distill.jsonl")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many texts teachers are asked for, call by call; a test may clear it."""
    calls: list[int] = []
    translate = Translator.translate

    def counting(self: Translator, texts: list[str], *rest: Any) -> list[Translation]:
        calls.append(len(texts))
        return translate(self, texts, *rest)

    monkeypatch.setattr(Translator, "translate", counting)
    return calls


@pytest.mark.parametrize("chunks", [0, 1, 4, 8])
def test_a_stopped_run_goes_on_where_it_was(
    corpus: Path, teacher: Path, whole: Path, tmp_path: Path, asked: list[int], chunks: int,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    output = tmp_path / "out"
    interrupted(output, teacher, corpus, chunks)
    assert not output.exists()
    assert sum(asked) == 8 * chunks
    assert distill([teacher], corpus, output, QUICK)
    assert sum(asked) == 70, "nothing is translated twice"
    assert contents(output) == contents(whole)
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    assert (f"going on after {8 * chunks} of 70 pairs" in capsys.readouterr().err) == bool(chunks)


def _cut_in_a_line(data: bytes) -> bytes:
    return data[:-3]


def _cut_before_a_line_end(data: bytes) -> bytes:
    return data[:-1]


def _zeros(data: bytes) -> bytes:
    """What a file system may leave after a power cut."""
    return data + bytes(4096)


def _whole_lines_of_half_a_chunk(data: bytes) -> bytes:
    return data + b"".join(data.splitlines(keepends=True)[1:4])


def _cut_in_the_first_line(data: bytes) -> bytes:
    return data[:9]


@pytest.mark.parametrize(
    ("harm", "kept"),
    [
        (_cut_in_a_line, 32),
        (_cut_before_a_line_end, 32),
        (_zeros, 40),
        (_whole_lines_of_half_a_chunk, 40),
        (_cut_in_the_first_line, 0),
    ],
)
def test_a_torn_end_of_the_work_is_cut_off(
    corpus: Path, teacher: Path, whole: Path, tmp_path: Path, asked: list[int],
    harm: Callable[[bytes], bytes], kept: int,
) -> None:  # fmt: skip
    work = interrupted(tmp_path / "out", teacher, corpus, 5)
    work.write_bytes(harm(work.read_bytes()))
    asked.clear()
    assert distill([teacher], corpus, tmp_path / "out", QUICK)
    assert sum(asked) == 70 - kept
    assert contents(tmp_path / "out") == contents(whole)


@pytest.mark.parametrize("when", ["_build", "swap_in"])
def test_a_run_stopped_after_its_last_translation_does_not_translate_again(
    corpus: Path, teacher: Path, whole: Path, tmp_path: Path, asked: list[int], when: str
) -> None:
    def stop(*arguments: Any) -> None:
        step(*arguments)
        raise Stopped

    step = getattr(module, when)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, when, stop)
        with pytest.raises(Stopped):
            distill([teacher], corpus, tmp_path / "out", QUICK)
    in_place = when == "swap_in"
    assert (tmp_path / "out").exists() == in_place
    assert distill([teacher], corpus, tmp_path / "out", QUICK) != in_place
    assert sum(asked) == 70
    assert contents(tmp_path / "out") == contents(whole)
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


CHILD = """
import sys

from nmt.cli import main
from nmt.training import distill as module

module._CHUNK, module._WINDOW = 8, 32
find, left = module._targets, iter(range(5))


def targets(*arguments):
    if next(left, None) is None:
        print("ready", flush=True)
        sys.stdin.readline()
    return find(*arguments)


module._targets = targets
sys.exit(main(sys.argv[1:]))
"""


def test_a_killed_process_loses_nothing(
    corpus: Path, teacher: Path, whole: Path, tmp_path: Path, asked: list[int]
) -> None:
    output = tmp_path / "out"
    command = ["distill", str(teacher), "--corpus", str(corpus), "--output", str(output), "--beam-size", "2"]
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, *command, "--threads", "1"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.kill()
    process.communicate(timeout=60)
    assert not output.exists()
    assert distill([teacher], corpus, output, QUICK)
    assert sum(asked) == 70 - 40
    assert contents(output) == contents(whole)


def test_ctrl_c_says_that_the_same_command_goes_on(
    corpus: Path, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["distill", str(teacher), "--corpus", str(corpus), "--output", str(tmp_path / "out"), "--limit", "20"]
    find, left = module._targets, iter(range(2))

    def stop(*arguments: Any) -> Any:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return find(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(module, "_targets", stop)
        assert main(command) == 130
    assert capsys.readouterr().err == "nmt distill: interrupted; the same command goes on from there\n"
    assert main(command) == 0
    assert capsys.readouterr().err == "going on after 16 of 20 pairs\n"


def test_a_full_disk_is_an_error_and_what_is_translated_stays(
    corpus: Path, teacher: Path, whole: Path, tmp_path: Path
) -> None:
    with tiny.full_disk(1500), pytest.raises(DataError, match="what is translated is kept: see to it") as caught:
        distill([teacher], corpus, tmp_path / "out", QUICK)
    assert "\n" not in str(caught.value)
    assert distill([teacher], corpus, tmp_path / "out", QUICK)
    assert contents(tmp_path / "out") == contents(whole)


@pytest.mark.parametrize("change", ["teacher", "beam", "corpus", "keep", "limit"])
def test_work_for_something_else_is_neither_mixed_in_nor_lost(
    corpus: Path, teacher: Path, other: Path, tmp_path: Path, change: str
) -> None:
    output = tmp_path / "out"
    work = interrupted(output, teacher, corpus, 3)
    jobs: dict[str, tuple[list[Path], Path, DistillOptions]] = {
        "teacher": ([other], corpus, QUICK),
        "beam": ([teacher], corpus, DistillOptions(beam_size=1, threads=1)),
        "corpus": ([teacher], other.parent / "corpus", DistillOptions(beam_size=1, limit=40, threads=1)),
        "keep": ([teacher], corpus, DistillOptions(beam_size=2, keep_original=True, threads=1)),
        "limit": ([teacher], corpus, DistillOptions(beam_size=2, limit=50, threads=1)),
    }
    teachers, given, options = jobs[change]
    before = work.read_bytes()
    with pytest.raises(
        DataError, match="holds 24 translations by another teacher, or of another corpus or other options"
    ):
        distill(teachers, given, output, options)
    assert work.read_bytes() == before
    work.unlink()
    assert distill(teachers, given, output, options)
    assert distill(teachers, given, tmp_path / "fresh", options)
    assert contents(output) == contents(tmp_path / "fresh")


def test_two_runs_do_not_disturb_each_other(
    corpus: Path, teacher: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, find = tmp_path / "out", module._targets
    errors: list[str] = []

    def finding(*arguments: Any) -> Any:
        monkeypatch.setattr(module, "_targets", find)
        with pytest.raises(DataError) as caught:
            distill([teacher], corpus, output, QUICK)  # another run, while this one translates
        errors.append(str(caught.value))
        return find(*arguments)

    monkeypatch.setattr(module, "_targets", finding)
    assert distill([teacher], corpus, output, QUICK)
    assert len(errors) == 1
    assert "another `nmt distill` works there; wait until it is done" in errors[0]
    assert contents(output) == contents(whole)


# --- again, and what is refused -------------------------------------------------------------------------------------


def test_the_same_again_changes_nothing_and_another_teacher_replaces_it(
    corpus: Path, teacher: Path, other: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["distill", str(teacher), "--corpus", str(corpus), "--output", str(tmp_path / "out"), "--limit", "40"]
    assert main(command) == 0
    assert "/out: made" in capsys.readouterr().out
    before = tree(tmp_path / "out")
    assert main(command) == 0
    assert "/out: nothing has changed" in capsys.readouterr().out
    assert tree(tmp_path / "out") == before
    assert main(["distill", str(other), *command[2:]]) == 0
    assert texts(tmp_path / "out") != texts_of(before, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"out", "before"}


def texts_of(files: dict[str, tuple[bytes, int]], folder: Path) -> list[tuple[str, str]]:
    """The pairs of a corpus that `tree` has read."""
    (folder / "before").mkdir()
    for name, (content, _) in files.items():
        (folder / "before" / name).write_bytes(content)
    return texts(folder / "before")


def test_a_former_corpus_stays_until_the_new_one_is_whole(
    corpus: Path, teacher: Path, other: Path, tmp_path: Path
) -> None:
    assert distill([other], corpus, tmp_path / "out", QUICK)
    before = tree(tmp_path / "out")
    interrupted(tmp_path / "out", teacher, corpus, 4)
    assert tree(tmp_path / "out") == before


def test_a_distilled_corpus_may_be_distilled_again(teacher: Path, other: Path, whole: Path, tmp_path: Path) -> None:
    assert distill([other], whole, tmp_path / "out", DistillOptions(beam_size=1, limit=20, threads=1))
    assert [source for source, _ in texts(tmp_path / "out")] == [source for source, _ in texts(whole)][:20]


def test_what_does_not_go_together_is_refused(
    corpus: Path, teacher: Path, other: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def mistake(*arguments: object) -> str:
        assert main(["distill", *map(str, arguments)]) == 2
        captured = capsys.readouterr()
        assert captured.err.count("\n") == 1, captured.err
        assert not (tmp_path / "out").exists()
        assert not list(tmp_path.glob(".out*"))
        return captured.err

    to = ("--output", tmp_path / "out")
    assert "not a prepared corpus" in mistake(teacher, "--corpus", tmp_path, *to)
    assert "no such bundle" in mistake(tmp_path / "nothing", "--corpus", corpus, *to)
    assert "not the tokenizer of" in mistake(teacher, "--ensemble", other, "--corpus", corpus, *to)
    assert "is the corpus itself" in mistake(teacher, "--corpus", corpus, "--output", corpus)
    assert "beam_size" in mistake(teacher, "--corpus", corpus, "--beam-size", 0, *to)
    assert "at least one pair" in mistake(teacher, "--corpus", corpus, "--limit", 0, *to)
    french = Path(shutil.copytree(teacher, tmp_path / "french"))
    config = french / "config.yaml"
    config.write_text(config.read_text().replace("target_language: de", "target_language: fr"))
    line = mistake(french, "--corpus", corpus, *to)
    assert f"{french}: translates en to fr, but {corpus} is en to de" in line
    with pytest.raises(BundleError, match="share both languages"):
        distill([teacher, french], corpus, tmp_path / "out", QUICK)
    with pytest.raises(ConfigError, match="at least one pair"):
        distill([teacher], corpus, tmp_path / "out", DistillOptions(limit=-1))


@pytest.mark.parametrize("kind", ["folder", "file", "prepared corpus"])
def test_what_is_no_distilled_corpus_is_never_replaced(corpus: Path, teacher: Path, tmp_path: Path, kind: str) -> None:
    precious = tmp_path / "precious"
    if kind == "file":
        precious.write_text("years of work", encoding="utf-8")
    elif kind == "folder":
        precious.mkdir()
        (precious / "thesis.txt").write_text("years of work", encoding="utf-8")
    else:
        shutil.copytree(corpus, precious)
    before = tree(tmp_path)
    with pytest.raises(DataError, match="exists and is not a distilled corpus; it is left as it is"):
        distill([teacher], corpus, precious, QUICK)
    assert tree(tmp_path) == before


def test_a_damaged_teacher_is_named_before_former_work_is_lost(corpus: Path, teacher: Path, tmp_path: Path) -> None:
    work = interrupted(tmp_path / "out", teacher, corpus, 3)
    before = work.read_bytes()
    damaged = Path(shutil.copytree(teacher, tmp_path / "damaged"))
    (damaged / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(BundleError, match=r"damaged/model\.safetensors: damaged or cut short"):
        distill([damaged], corpus, tmp_path / "out", QUICK)
    assert work.read_bytes() == before
