"""The quality table: what it would run, one tiny run of each kind to the end, and a table that says what is open."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
from conftest import ROOT

from nmt.corpus.store import PreparedCorpus

TINY = (
    "train={max_steps: 8, batch_tokens: 512, threads: 1, device: cpu, precision: fp32}",
    "optimizer={lr: 0.01, warmup_steps: 2}",
    "validation={every: 4, sentences: 2}",
    "model={embedding: 8, encoder: {hidden: 8}, decoder: {hidden: 8}, attention_heads: 2}",
)


@pytest.fixture(scope="module")
def quality() -> Any:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield importlib.import_module("quality")
    sys.path.remove(str(ROOT / "benchmarks"))


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny corpus under the names of those that the runs expect, without the general one."""
    folder = tmp_path_factory.mktemp("quality")
    made = tiny.prepared(folder / "made")
    for name in ("multi30k-en-de", "tatoeba-en-de"):
        (folder / name).symlink_to(made)
    return folder


@pytest.fixture
def main(quality: Any, corpora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the script with these arguments, on the tiny corpora and into a folder of the test."""

    def run(*arguments: str) -> int:
        places = ["--corpora", str(corpora), "--folder", str(tmp_path / "runs")]
        settings = [part for setting in TINY for part in ("--set", setting)]
        monkeypatch.setattr("sys.argv", ["quality.py", *places, *settings, *arguments])
        status: int = quality.main()
        return status

    return run


def test_a_dry_run_says_what_would_run_and_what_is_not_prepared(
    main: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main("--dry-run") == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines[:3]] == [f"multi30k-en-de-s{seed}" for seed in (1, 2, 3)]
    assert "8 updates of 512 subwords" in lines[0]
    assert [line.partition(":")[0] for line in lines if "NOT PREPARED" in line] == ["multi30k-en-fr-s1", "general-s1"]
    assert main("--dry-run", "--only", "multi30k-en-de-*") == 0
    assert not (tmp_path / "runs").exists()


def test_every_run_is_a_configuration_that_can_be(quality: Any, main: Any, capsys: pytest.CaptureFixture[str]) -> None:
    options = type("Options", (), {"corpora": Path("c"), "folder": Path("f"), "set": []})
    wirings = {name: quality.configure(options, name).model.wiring for name in quality.RUNS}
    assert wirings["multi30k-en-de-s2"] == wirings["tatoeba-deep-s1"] == wirings["general-s1"] == "deep"
    assert wirings["tatoeba-gnmt-s1"] == "gnmt"
    assert [quality.configure(options, f"multi30k-en-de-s{seed}").seed for seed in (1, 2, 3)] == [1, 2, 3]
    with pytest.raises(SystemExit):
        main("--only", "multi40k")
    assert "no run is called so; there are multi30k-en-de-s1" in capsys.readouterr().err


def test_a_run_is_trained_bundled_and_scored_in_a_process_of_its_own(
    main: Any, corpora: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main("--only", "tatoeba-gnmt-s1") == 0
    out = capsys.readouterr().out.splitlines()
    record = json.loads(out[0])
    assert json.loads((tmp_path / "runs" / "results.jsonl").read_text()) == record
    assert (record["run"], record["updates"], record["stopped early"]) == ("tatoeba-gnmt-s1", 8, False)
    assert record["parameters"] > 1000
    assert "tok:13a" in record["scores"]["tatoeba-en-de"]["BLEU"]["signature"]
    assert "steps:lower,normalize,tokenize" in record["scores"]["tatoeba-en-de"]["BLEU tok-lc"]["signature"]
    assert (tmp_path / "runs" / "tatoeba-gnmt-s1" / "bundle" / "model.safetensors").is_file()
    assert any(line.startswith("| tatoeba-gnmt | 0.0 M | 8 | tatoeba-en-de | ") and "1 of 1" in line for line in out)
    references = [target for _, target in PreparedCorpus.open(corpora / "tatoeba-en-de").pairs("test")]
    translations = tmp_path / "runs" / "tatoeba-gnmt-s1" / "tatoeba-en-de.txt"
    translations.write_text("".join(f"{text}\n" for text in references))
    assert main("--table", "--only", "tatoeba-*") == 0  # the stored translations count
    rows = capsys.readouterr().out.splitlines()
    assert "| tatoeba-gnmt | 0.0 M | 8 | tatoeba-en-de | 100.00 | 100.00 | 1 of 1 |" in rows
    assert "| tatoeba-deep |  |  | tatoeba-en-de | open | open | 0 of 1 |" in rows


def test_a_transformer_is_stopped_by_the_clock_and_scored_as_it_stands(
    quality: Any, main: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        quality.RUNS, "tatoeba-transformer-s1", quality.Run("tatoeba-en-de", (), quality.rival.Shape(1, inner=8))
    )
    work = ("--work", "tatoeba-transformer-s1", "--minutes", "0.01", "--set", "train.max_steps=100000")
    assert main(*work) == 0
    assert main("--table", "--only", "tatoeba-transformer-s1") == 0
    row = capsys.readouterr().out.splitlines()[2]
    assert row.startswith("| tatoeba-transformer | 0.0 M | ")
    assert "* | tatoeba-en-de | " in row


def test_the_spread_of_seeds_is_in_the_table(
    quality: Any, main: Any, corpora: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = PreparedCorpus.open(corpora / "multi30k-en-de").pairs("test")
    for seed, right in ((1, 12), (2, 0)):
        folder = tmp_path / "runs" / f"multi30k-en-de-s{seed}"
        folder.mkdir(parents=True)
        (folder / "summary.json").write_text(
            json.dumps({"parameters": 5_000_000, "updates": 8, "stopped early": seed == 2})
        )
        texts = [target if row < right else "nein" for row, (_, target) in enumerate(pairs)]
        (folder / "multi30k-en-de.txt").write_text("".join(f"{text}\n" for text in texts))
    assert main("--table", "--only", "multi30k-en-de-*") == 0
    row = capsys.readouterr().out.splitlines()[2]
    assert row == "| multi30k-en-de | 5.0 M | 8 8* | multi30k-en-de | 50.00 ± 70.71 | 50.00 ± 70.71 | 2 of 3 |"


def test_a_mixed_test_split_is_scored_by_domain(quality: Any, corpora: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = type("Options", (), {"corpora": corpora})
    monkeypatch.setitem(quality.DOMAINS, "tatoeba-en-de", {"books": 5, "web": 7})
    found = quality.test_sets(options, quality.Run("tatoeba-en-de", tests=("multi30k-en-de", "general-en-de")))
    pairs = PreparedCorpus.open(corpora / "tatoeba-en-de").pairs("test")
    assert found == {"books": pairs[:5], "web": pairs[5:], "multi30k-en-de": pairs}
