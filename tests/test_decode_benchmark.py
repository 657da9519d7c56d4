"""benchmarks/decode.py and decode_soak.py: they measure what they say, on a tiny corpus, with a peer that is a script."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import tiny
from conftest import ROOT

from nmt.corpus.store import PreparedCorpus
from nmt.training.lexicon import learn_lexicon, make_shortlist


@pytest.fixture
def decode(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    module = importlib.import_module("decode")
    monkeypatch.setattr(module, "HIDDEN", 16)
    return module


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return tiny.prepared(tmp_path)


def test_ours_says_exactly_as_much_as_is_asked_for(decode: ModuleType, corpus: Path) -> None:
    opened = PreparedCorpus.open(corpus)
    texts = [source for source, _ in opened.pairs("test")][:5]
    shortlist = make_shortlist(learn_lexicon(opened), len(opened.source_tokenizer))
    for int8, listed in ((True, False), (True, True), (False, False)):
        translator = decode.translator_of(opened, decode.backend_of(opened, int8, shortlist=shortlist), 2)
        for beam in decode.BEAMS:
            results = translator.translate(texts, decode.forced(beam, shortlist=listed))
            assert [result.target_tokens for result in results] == [decode.LENGTH] * 5


def test_a_run_without_peers_prints_a_table(
    decode: ModuleType,
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("in_flight", "start"):
        monkeypatch.setattr(decode, name, lambda *_: {"it": 1.0})
    file = tmp_path / "figures.json"
    options = ["--peers", "none", "--rounds", "1", "--sentences", "8", "--threads", "1", "--json", str(file)]
    assert decode.main([str(corpus), *options]) == 0
    printed = capsys.readouterr().out
    assert "| ours int8, beam 5 |" in printed
    figures = json.loads(file.read_text())
    assert figures["ratios"] == {}
    assert {"ours int8, beam 1", "ours fp32, beam 5"} <= figures["systems"].keys()
    assert all(value > 0 for values in figures["alone"].values() for value in values.values())


def test_a_peer_is_timed_without_its_start(decode: ModuleType, corpus: Path, tmp_path: Path) -> None:
    import argparse

    tool = tmp_path / "peers/opennmt/bin/onmt_translate"
    tool.parent.mkdir(parents=True)
    # A start of 0.3 s, and 10 ms a sentence.
    tool.write_text(
        f"#!{sys.executable}\nimport sys, time\n"
        "lines = open(sys.argv[sys.argv.index('-src') + 1]).readlines()\ntime.sleep(0.3 + 0.01 * len(lines))\n"
    )
    tool.chmod(0o755)
    source = tmp_path / "source"
    source.write_text("x\n" * 52, encoding="utf-8")
    options = argparse.Namespace(peers=tmp_path / "peers", threads=1)
    (tmp_path / "turn").mkdir()
    turn = decode.Turn(options, PreparedCorpus.open(corpus), tmp_path, tmp_path / "turn")
    rate = decode.opennmt_rate(turn, Path("checkpoint"), source, 1)(5)
    assert rate == pytest.approx(100, rel=0.35)


def test_ratios_are_of_the_same_round_and_beam(decode: ModuleType) -> None:
    rates = {
        "ours int8, beam 1": [100.0, 50.0],
        "ours int8, beam 5": [20.0, 40.0],
        "ours int8 within a shortlist, beam 1": [200.0, 100.0],
        "ours int8 within a shortlist, beam 5": [40.0, 80.0],
        "peer, beam 1": [50.0, 10.0],
        "peer, beam 5": [10.0, 10.0],
    }
    found = decode.ratios(rates)
    assert found["ours int8 / peer, beam 1"] == {"median": 3.5, "min": 2.0, "max": 5.0}
    assert found["ours int8 / peer, beam 5"]["median"] == 3.0
    assert found["ours int8 within a shortlist / peer, beam 5"]["median"] == 6.0


def test_a_corpus_that_is_none_is_one_line(
    decode: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert decode.main([str(tmp_path / "none"), "--peers", "none"]) == 2
    assert capsys.readouterr().err.startswith("decode.py: ")


@pytest.mark.alone
def test_the_soak_runs_and_finds_a_leak(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    soak = importlib.import_module("decode_soak")
    assert soak.main(["--minutes", "0.05", "--limit", "1e9"]) == 0
    assert "finished" in capsys.readouterr().out
    assert soak.slope([(0, 500), (1, 300), (2, 310), (3, 320)]) == pytest.approx(10)
    assert abs(soak.slope([(i, 300 + i % 2) for i in range(30)])) < 0.1
    monkeypatch.setattr(soak, "soak", lambda *_: [(float(i), 300.0 + 2 * i) for i in range(10)])
    assert soak.main(["--minutes", "0.05"]) == 1
