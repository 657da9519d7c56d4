"""Preparing fails or is interrupted: one line that says why, the former corpus as it was, and no half one beside it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import tiny
from hub_stub import parquet
from preparing import files, prepare_small, recipe_of, tree

from nmt.cli import main
from nmt.config import dump
from nmt.corpus import prepare as prepare_module
from nmt.corpus.prepare import prepare
from nmt.corpus.recipe import Recipe
from nmt.corpus.store import PreparedCorpus
from nmt.errors import DataError, NMTError

Pair = tuple[str, str]


@pytest.fixture
def made(tmp_path: Path) -> tuple[Recipe, Path]:
    return prepare_small(tmp_path)


def _unequal(folder: Path) -> None:
    (folder / "train.de").write_text("eins\n", encoding="utf-8")


def _not_utf8(folder: Path) -> None:
    (folder / "train.de").write_bytes((folder / "train.de").read_bytes()[:-1] + b"\xff\n")


def _empty(folder: Path) -> None:
    for side in ("en", "de"):
        (folder / f"train.{side}").write_bytes(b"")


def _nothing_left(folder: Path) -> None:
    for side in ("en", "de"):
        (folder / f"train.{side}").write_text("\n\n\n", encoding="utf-8")


def _no_test(folder: Path) -> None:
    for side in ("en", "de"):
        (folder / f"test.{side}").write_bytes(b"\n")


def _missing(folder: Path) -> None:
    (folder / "train.en").unlink()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_unequal, "has 100 lines but"),
        (_not_utf8, "train.de, line 100: not valid UTF-8"),
        (_empty, "holds no pair"),
        (_nothing_left, "no training pair is left of 3 read (empty: 3)"),
        (_no_test, "the test split is empty"),
        (_missing, "train.en: no such file"),
    ],
)
def test_bad_input_is_one_line_and_leaves_the_former_corpus(made: tuple[Recipe, Path], spoil: Any, words: str) -> None:
    recipe, output = made
    before = tree(output)
    spoil(output.parent / "in")
    with pytest.raises(DataError) as caught:
        prepare(recipe, output)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert tree(output) == before
    assert {path.name for path in output.parent.iterdir()} == {"in", "out"}, "no half corpus beside it"


def test_a_missing_column_leaves_the_former_corpus(made: tuple[Recipe, Path]) -> None:
    recipe, output = made
    before = tree(output)
    path = output.parent / "in" / "x.parquet"
    path.write_bytes(parquet([{"english": "a", "german": "b"}]))
    bad = recipe_of([recipe.train[0].model_dump(mode="json"), {"parquet": str(path)}])
    with pytest.raises(DataError, match="no column 'translation', found english, german"):
        prepare(bad, output)
    assert tree(output) == before


def test_an_empty_source_among_others_is_an_error(made: tuple[Recipe, Path]) -> None:
    recipe, output = made
    empty = files(output.parent / "in", [], "empty")
    with pytest.raises(DataError, match=r"empty\.en .* holds no pair"):
        prepare(recipe_of([recipe.train[0].model_dump(mode="json"), empty]), output)


def test_too_small_a_vocabulary_is_an_error(made: tuple[Recipe, Path]) -> None:
    _, output = made
    before = tree(output)
    letters = files(output.parent / "in", [("".join(map(chr, range(0x4E00, 0x4E64))), "x" * 90)] * 9, "letters")
    with pytest.raises(DataError, match=r"tokenizer\.vocab_size"):
        prepare(recipe_of([letters], tokenizer={"vocab_size": 40}), output)
    assert tree(output) == before


def test_the_command_prints_one_line_and_ends_with_2(
    made: tuple[Recipe, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, output = made
    path = output.parent / "mine.yaml"
    path.write_text(dump(recipe), encoding="utf-8")
    assert main(["prepare", str(path), "--output", str(output)]) == 0
    assert "nothing has changed (train 100, validation 0, test 20 pairs)" in capsys.readouterr().out
    before = tree(output)
    for change, words in (
        (lambda: path.write_text(dump(recipe) + "cleanin: {}\n", encoding="utf-8"), "did you mean 'cleaning'?"),
        (lambda: path.write_text(dump(recipe).replace("bpe", "{}"), encoding="utf-8"), "tokenizer.type"),
        (lambda: (path.write_text(dump(recipe), encoding="utf-8"), _not_utf8(output.parent / "in")), "line 100"),
    ):
        change()
        assert main(["prepare", str(path), "--output", str(output)]) == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        assert shown.err.startswith("nmt prepare: ")
        assert shown.err.count("\n") == 1
        assert words in shown.err
    assert tree(output) == before


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_is_no_corpus_is_never_replaced(made: tuple[Recipe, Path], kind: str) -> None:
    recipe, output = made
    precious = output.parent / "precious"
    if kind == "folder":
        precious.mkdir()
        (precious / "thesis.txt").write_text("years of work", encoding="utf-8")
    else:
        precious.write_text("years of work", encoding="utf-8")
    before = tree(output.parent)
    with pytest.raises(DataError, match="exists and is not a prepared corpus; it is left as it is"):
        prepare(recipe, precious, force=True)
    assert tree(output.parent) == before


def test_an_output_that_is_a_link_stays_one(made: tuple[Recipe, Path]) -> None:
    recipe, output = made
    link = output.parent / "link"
    (output.parent / "elsewhere").mkdir()
    link.symlink_to(output.parent / "elsewhere")
    assert prepare(recipe, link)
    assert link.is_symlink()
    assert (output.parent / "elsewhere" / "manifest.json").is_file()


def test_a_full_disk_is_an_error_and_leaves_the_former_corpus(made: tuple[Recipe, Path]) -> None:
    recipe, output = made
    before = tree(output)
    code = (
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"  # then the write itself fails, as on a full disk
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))\n"
    )
    done = run_prepare(recipe, output, before=code, force=True)
    assert done.wait(60) == 2, read_errors(done)
    assert "file too large while preparing; nothing was changed" in read_errors(done).lower()
    assert tree(output) == before
    assert {path.name for path in output.parent.iterdir()} == {"in", "out"}


# --- interruptions --------------------------------------------------------------------------------------------------


def run_prepare(recipe: Recipe, output: Path, before: str = "", force: bool = False) -> subprocess.Popen[str]:
    """Start preparing in a process of its own; it ends with 2 for an error of the user's."""
    code = (
        f"{before}\nimport sys\nfrom pathlib import Path\nfrom nmt.corpus.prepare import prepare\n"
        "from nmt.corpus.recipe import Recipe\nfrom nmt.errors import NMTError\n"
        "try:\n    prepare(Recipe.model_validate_json(sys.argv[1]), Path(sys.argv[2]), force=sys.argv[3] == 'True')\n"
        "except NMTError as error:\n    sys.exit((print(error, file=sys.stderr), 2)[1])\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, recipe.model_dump_json(), str(output), str(force)],
        cwd=Path(__file__).parent.parent,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts background jobs with Ctrl-C ignored, and a process inherits that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def read_errors(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    if not process.stderr.closed:
        with process.stderr as stream:
            process.errors_read = stream.read()  # type: ignore[attr-defined]
    return str(process.errors_read)  # type: ignore[attr-defined]


@pytest.fixture
def long(made: tuple[Recipe, Path]) -> tuple[Recipe, Path]:
    """The corpus already made, and a recipe that takes its time to make another in its place."""
    _, output = made
    base = tiny.sentence_pairs(2000, seed=11)
    pairs = [(f"{source} {number}", f"{target} {number}") for number in range(12) for source, target in base]
    return recipe_of([files(output.parent / "in", pairs, "long")], cleaning={"max_tokens": 200}), output


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("when", ["clean.tsv", "train.source.ids"])
def test_an_interrupted_run_leaves_the_former_corpus_and_no_half_one(
    long: tuple[Recipe, Path], how: signal.Signals, when: str
) -> None:
    recipe, output = long
    before = tree(output)
    process = run_prepare(recipe, output)
    partial = output.parent / ".out.partial"
    deadline = time.monotonic() + 120
    while not ((partial / when).is_file() and (partial / when).stat().st_size) and time.monotonic() < deadline:
        assert process.poll() is None, read_errors(process)
        time.sleep(0.002)
    process.send_signal(how)
    assert process.wait(60) != 0
    read_errors(process)
    assert tree(output) == before
    with pytest.raises(NMTError):
        PreparedCorpus.open(partial)
    assert partial.exists() == (how == signal.SIGKILL), "what can be cleared away is"
    quick = recipe_of([recipe.train[0].model_dump(mode="json") | {"limit": 200}], cleaning={"max_tokens": 200})
    assert prepare(quick, output)
    assert len(PreparedCorpus.open(output).train()[0]) == 200
    assert {path.name for path in output.parent.iterdir()} == {"in", "out"}


def test_a_run_killed_while_it_puts_the_corpus_in_place_loses_nothing(made: tuple[Recipe, Path]) -> None:
    recipe, output = made
    before = tree(output)
    output.rename(output.parent / ".out.old")  # the first of the two renames, and no more
    (output.parent / ".out.partial").mkdir()
    (output.parent / ".out.partial" / "train.source.ids").write_bytes(b"left")
    assert not prepare(recipe, output)
    assert tree(output) == before


def test_a_failure_while_it_puts_the_corpus_in_place_loses_nothing(
    made: tuple[Recipe, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, output = made
    before = tree(output)
    rename = Path.rename

    def failing(path: Path, target: Path) -> Path:
        if path.name == ".out.partial":
            raise OSError(5, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(DataError, match=r"[Ii]nput/output error while preparing; nothing was changed"):
        prepare(recipe, output, force=True)
    assert tree(output) == before
    assert {path.name for path in output.parent.iterdir()} == {"in", "out"}


def test_two_runs_do_not_disturb_each_other(made: tuple[Recipe, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, output = made
    build = prepare_module._build
    errors: list[str] = []

    def building(*arguments: Any) -> None:
        monkeypatch.setattr(prepare_module, "_build", build)
        with pytest.raises(DataError) as caught:
            prepare(recipe, output, force=True)  # another run, while this one builds
        errors.append(str(caught.value))
        build(*arguments)

    monkeypatch.setattr(prepare_module, "_build", building)
    assert prepare(recipe, output, force=True)
    assert len(errors) == 1
    assert "another `nmt prepare` works there; wait until it is done" in errors[0]
    assert len(PreparedCorpus.open(output).train()[0]) == 100
