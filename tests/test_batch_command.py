"""`nmt translate` for files: the bundled model by the command, standard input as it comes, and what it refuses."""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet
import pytest
from conftest import ROOT

from nmt.cli import main

BUNDLE = str(ROOT / "data/pretrained/tatoeba-en-de")
TEXTS = ["I am tired.", "Where is the station?", "", "I am tired.", "See https://example.org for {name}.", "Yes"]
FAST = ("--beam-size", "1")


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What standard input gives."""
    command = [sys.executable, "-m", "nmt", "translate", BUNDLE, *FAST]
    lines = "".join(f"{text}\n" for text in TEXTS)
    result = subprocess.run(command, input=lines, capture_output=True, text=True, check=True, cwd=ROOT)
    found = result.stdout.splitlines()
    assert found[:3] == ["Ich bin müde.", "Wo ist der Bahnhof?", ""]
    assert len(found) == len(TEXTS)
    return found


def test_every_kind_has_the_same_translations(
    said: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.txt").write_text("".join(f"{text}\n" for text in TEXTS))
    (tmp_path / "in.tsv").write_text("n\ttext\n" + "".join(f"{n}\t{text}\n" for n, text in enumerate(TEXTS)))
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    table = pyarrow.table({"text": TEXTS})
    pyarrow.parquet.write_table(table, tmp_path / "in.parquet")
    (tmp_path / "out").mkdir()
    for kind, more in (("txt", ()), ("tsv", ("--column", "text")), ("jsonl", ("--field", "text"))):
        output = str(tmp_path / f"out.{kind}.gz")
        assert (
            main(["translate", BUNDLE, *FAST, "--input", str(tmp_path / f"in.{kind}"), "--output", output, *more]) == 0
        )
    command = ["translate", BUNDLE, *FAST, "--input", str(tmp_path / "in.parquet"), "--column", "text"]
    assert main([*command, "--output", str(tmp_path / "out")]) == 0
    assert "6 records; 1 had come before and were not translated again" in capsys.readouterr().out
    read = {
        kind: gzip.decompress((tmp_path / f"out.{kind}.gz").read_bytes()).decode() for kind in ("txt", "tsv", "jsonl")
    }
    assert read["txt"].splitlines() == said
    assert [line.split("\t")[2] for line in read["tsv"].splitlines()[1:]] == said
    assert [json.loads(line)["translation"] for line in read["jsonl"].splitlines()] == said
    assert pyarrow.parquet.read_table(tmp_path / "out" / "in.parquet")["translation"].to_pylist() == said


def test_json_has_candidates_and_links(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("I am tired.\n")
    more = ["--json", "--n-best", "2", "--alignment", "--output", str(tmp_path / "out.jsonl")]
    assert main(["translate", BUNDLE, str(tmp_path / "in.txt"), *more]) == 0
    shown = json.loads((tmp_path / "out.jsonl").read_text())
    assert shown["translation"] == "Ich bin müde."
    assert len(shown["alternatives"]) == 1
    assert [2, 2] in shown["alignment"]


def test_the_exit_status_says_that_something_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.txt").write_bytes(b"I am tired.\n\xff\xfe?\n")
    output = tmp_path / "out.txt"
    assert main(["translate", BUNDLE, *FAST, "--input", str(tmp_path / "in.txt"), "--output", str(output)]) == 3
    assert output.read_bytes() == "Ich bin müde.\n".encode() + b"\xff\xfe?\n"
    assert (
        f"1 records were passed on as they are, 0 ended by the length limit: {output}.failed.jsonl"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--column", "x"], "--column goes with --output PATH"),
        (["--force"], "--force goes with --output PATH"),
        (["--output", "out"], "give an --input"),
        (["--output", "out", "--text", "a"], "--text is printed: leave out --output"),
        (["in.txt", "--output", "out", "--n-best", "2"], "--n-best and --alignment are for --json"),
        (["in.txt", "--output", "out.csv"], "in.txt is written as lines, which the name does not say"),
        (["in.txt", "--output", "in.txt"], "is the input itself"),
        (["in.txt", "other.txt", "--output", "out"], "several inputs need a folder that is there"),
        (["in.txt", "sub/in.txt", "--output", "folder"], "two inputs would be written there"),
        (["none.txt", "--output", "out"], "none.txt: no such file"),
        (["in.txt", "--output", "out", "--delimiter", "ab"], "one character was expected"),
        (["in.txt", "--output", "out", "--workers", "2"], "--workers goes with --ray"),
        (["hf://datasets/a/b", "--output", "o.csv", "--column", "x"], "is written as parquet"),
    ],
)
def test_what_is_refused(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("sub", "folder"):
        (tmp_path / folder).mkdir()
    for name in ("in.txt", "other.txt", "sub/in.txt"):
        (tmp_path / name).write_text("a\n")
    before = sorted(tmp_path.rglob("*"))
    assert main(["translate", BUNDLE, *arguments]) == 2
    assert words in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_line_that_comes_alone_is_answered_at_once() -> None:
    """A program that asks and waits for the answer is not left waiting for a window to be full."""
    command = [sys.executable, "-m", "nmt", "translate", BUNDLE, *FAST]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for text, expected in (("I am tired.", "Ich bin müde."), ("Where is the station?", "Wo ist der Bahnhof?")):
            process.stdin.write(f"{text}\n")
            process.stdin.flush()
            begun = time.monotonic()
            assert process.stdout.readline() == f"{expected}\n"
            waited = time.monotonic() - begun
        assert waited < 5  # the second time nothing had to be loaded
        process.stdin.close()
        assert process.wait(60) == 0


def test_what_is_wrong_in_the_middle_of_standard_input_comes_after_what_was_before() -> None:
    command = [sys.executable, "-m", "nmt", "translate", BUNDLE, *FAST]
    result = subprocess.run(command, input=b"I am tired.\n\xff\nYes\n", capture_output=True, check=False, cwd=ROOT)
    assert result.returncode == 2
    assert result.stdout.decode() == "Ich bin müde.\n"
    assert b"standard input, line 2: not valid UTF-8" in result.stderr


def test_killed_at_random_moments_the_output_is_that_of_one_run(tmp_path: Path) -> None:
    generator = random.Random(11)
    words = ["house", "garden", "train", "book", "friend", "letter", "song", "window"]
    lines = [f"I have {n} {generator.choice(words)}s and a {generator.choice(words)}." for n in range(300)]
    (tmp_path / "in.txt").write_text("".join(f"{line}\n" for line in lines))
    command = [sys.executable, "-m", "nmt", "translate", BUNDLE, *FAST, "--window", "20"]
    command += ["--input", str(tmp_path / "in.txt"), "--output"]
    subprocess.run([*command, str(tmp_path / "once.txt")], check=True, cwd=ROOT, capture_output=True)
    answers = tmp_path / "out.txt.work" / "answers.jsonl"
    for _ in range(2):
        done = answers.stat().st_size if answers.exists() else 0
        with subprocess.Popen([*command, str(tmp_path / "out.txt")], cwd=ROOT, stdout=subprocess.DEVNULL) as process:
            while not answers.exists() or answers.stat().st_size == done:
                assert process.poll() is None
                time.sleep(0.01)
            time.sleep(generator.uniform(0, 0.1))
            process.kill()
    assert answers.stat().st_size > done
    last = subprocess.run([*command, str(tmp_path / "out.txt")], cwd=ROOT, capture_output=True, text=True, check=True)
    assert " of them before" in last.stdout
    assert (tmp_path / "out.txt").read_bytes() == (tmp_path / "once.txt").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["in.txt", "once.txt", "out.txt"]
