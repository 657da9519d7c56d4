"""The comparison with OpenNMT-py, with a stand-in for its two commands: what it is given, and what is made of its output."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml
from conftest import ROOT

from nmt.corpus.store import PreparedCorpus
from nmt.text.normalize import normalize

LOG = "[2026-01-01 00:00:00,000 INFO]  * number of parameters: 535408\n" + "".join(
    f"[2026-01-01 00:00:00,000 INFO] Step {step}/   40; acc: 0.2; ppl: 600.0; xent: 6.4; lr: 0.01; sents:    {pairs}; "
    f"bsz: 3854/3820/261; {rate}/{rate} tok/s;     88 sec;\n"
    for step, pairs, rate in ((20, 5213, 870), (40, 5000, 900))
)
TRAIN = """import pathlib, sys, yaml
folder = pathlib.Path(yaml.safe_load(open(sys.argv[sys.argv.index("--config") + 1]))["save_model"]).parent
(folder / "arguments").write_text(" ".join(sys.argv[1:]))
print({log!r})
for step in (9, 40):
    (folder / f"model_step_{{step}}.pt").touch()
"""
TRANSLATE = """import pathlib, sys
value = lambda name: sys.argv[sys.argv.index(name) + 1]
assert value("-model").endswith("model_step_40.pt")
source = pathlib.Path(value("-src"))
lines = source.with_suffix(".target").read_text(encoding="utf-8").split("\\n")[:-1]
pathlib.Path(value("-output")).write_text("".join(line + "\\n" for line in lines[{drop}:]), encoding="utf-8")
"""


@pytest.fixture(scope="module")
def benchmark() -> Any:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield importlib.import_module("opennmt")
    sys.path.remove(str(ROOT / "benchmarks"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.prepared(tmp_path_factory.mktemp("opennmt") / "corpus")


def peer(folder: Path, train: str = TRAIN.format(log=LOG), drop: int = 0) -> Path:
    (folder / "bin").mkdir(parents=True)
    for name, code in (("onmt_train", train), ("onmt_translate", TRANSLATE.format(drop=drop))):
        tool = folder / "bin" / name
        tool.write_text(f"#!{sys.executable}\n{code}", encoding="utf-8")
        tool.chmod(0o755)
    return folder


def run(benchmark: Any, corpus: Path, folder: Path, peer: Path, *more: str) -> int:
    return int(benchmark.main([str(corpus), "--run", str(folder), "--peer", str(peer), *more]))


def test_a_perfect_peer_gets_a_perfect_score(
    benchmark: Any, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(benchmark, corpus, tmp_path / "run", peer(tmp_path / "peer"), "--steps", "40") == 0
    printed = json.loads(capsys.readouterr().out)
    assert [item["name"] for item in printed["scores"]] == ["BLEU", "chrF2", "chrF2++", "TER", "BLEU tok-lc"]
    assert [item["score"] for item in printed["scores"]] == pytest.approx([100.0, 100.0, 100.0, 0.0, 100.0])
    assert (printed["parameters"], printed["updates"], printed["pairs trained on"]) == (535408, 40, 10213)
    assert printed["tokens a second"] == 1770
    assert "--train_from" not in (tmp_path / "run" / "arguments").read_text()
    assert run(benchmark, corpus, tmp_path / "run", tmp_path / "peer", "--steps", "40") == 0
    assert "--train_from" in (tmp_path / "run" / "arguments").read_text()


def test_it_gets_our_sentences_in_our_subwords(benchmark: Any, corpus: Path, tmp_path: Path) -> None:
    assert run(benchmark, corpus, tmp_path, peer(tmp_path / "peer"), "--epochs", "3", "--batch-tokens", "50") == 0
    prepared = PreparedCorpus.open(corpus)
    columns = prepared.train()
    for side, column, tokenizer in zip(
        ("source", "target"), columns, (prepared.source_tokenizer, prepared.target_tokenizer), strict=True
    ):
        lines = (tmp_path / f"train.{side}").read_text(encoding="utf-8").split("\n")[:-1]
        assert len(lines) == len(column)
        assert lines[7].split(" ") == tokenizer.pieces(column[7].tolist())
        texts = [normalize(pair[side == "target"]) for pair in prepared.pairs("test")]
        joined = (tmp_path / f"test.{side}").read_text(encoding="utf-8").replace(" ", "").replace("\u2581", " ")
        assert [line.strip() for line in joined.split("\n")[:-1]] == texts
        vocabulary = (tmp_path / f"{side}.vocab").read_text(encoding="utf-8").split("\n")[:-1]
        assert len(vocabulary) == len(tokenizer) - 4
    settings = yaml.safe_load((tmp_path / "config.yaml").read_text(encoding="utf-8"))
    longer = max(int(column.lengths.sum()) for column in columns) + len(columns[0])
    assert settings["train_steps"] == round(3 * longer / 50)


@pytest.mark.parametrize(
    ("train", "drop", "words"),
    [
        ("import sys; sys.exit('no memory left')", 0, "onmt_train failed with status 1: no memory left"),
        ("", 0, "no checkpoint to score"),
        (TRAIN.format(log=LOG), 1, "lines for"),
        (TRAIN.format(log="nothing"), 0, "tells no updates"),
    ],
)
def test_a_peer_that_fails_is_one_line(
    benchmark: Any,
    corpus: Path,
    tmp_path: Path,
    train: str,
    drop: int,
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(benchmark, corpus, tmp_path / "run", peer(tmp_path / "peer", train, drop), "--steps", "40") == 2
    message = capsys.readouterr().err
    assert message.startswith("opennmt.py: ")
    assert words in message
    assert message.count("\n") == 1


def test_a_missing_peer_says_how_to_get_it(
    benchmark: Any, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(benchmark, corpus, tmp_path / "run", tmp_path / "nowhere", "--steps", "40") == 2
    assert "install it with benchmarks/peers.sh" in capsys.readouterr().err
