"""The comparison of training rates, with stand-ins for the peers: what they are given, what is read from their logs, the table."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import yaml
from conftest import ROOT

import nmt.config
from nmt.corpus.store import PreparedCorpus
from nmt.training.config import RunConfig
from nmt.training.trainer import Trainer

OPENNMT = "".join(  # as it prints them
    f"[2026-01-01 00:00:00,000 INFO] Step {step:2}/{6:5}; acc: 4.7; ppl: 5081.6; xent: 8.5; lr: 0.00025; sents:     500; "
    f"bsz: 3000/4000/250; {rate:3}/{rate:3} tok/s;     55 sec;\n"
    for step, rate in ((2, 10), (4, 800), (6, 1600))
)
JOEYNMT = "".join(
    f"2026-01-01 00:00:00,000 - INFO - joeynmt.training - Epoch   1, Step: {step:8}, Batch Loss:     7.531724, "
    f"Batch Acc: 0.000000, Tokens per Sec: {rate:8}, Lr: 0.001000\n"
    for step, rate in ((2, 10), (4, 100), (6, 1300))
)
TOOL = """#!{python}
import os, pathlib, sys, yaml
config = yaml.safe_load(open(sys.argv[-1]))
seen = {{"arguments": sys.argv[1:-1], "threads": os.environ["OMP_NUM_THREADS"], "config": config}}
pathlib.Path(__file__).with_suffix(".seen").write_text(yaml.safe_dump(seen))
print({log!r}, end="")
sys.exit({status})
"""
SMALL = ("--hidden", "8", "--batch-tokens", "128", "--threads", "1", "--updates", "6", "--peer-updates", "6")


@pytest.fixture(scope="module")
def benchmark() -> Any:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield importlib.import_module("training_speed")
    sys.path.remove(str(ROOT / "benchmarks"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.prepared(tmp_path_factory.mktemp("training_speed") / "corpus")


@pytest.fixture
def order(benchmark: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The turns of ours and of the bare loop, which are not trained: round by round at 300, 400, ... and at 400 tokens a second."""
    turns: list[str] = []

    def ours(turn: Any, precision: str) -> list[float]:
        rate = 300.0 + 100 * turns.count(f"ours {precision}")
        turns.append(f"ours {precision}")
        return [1.0, rate, rate]

    def bare(turn: Any, precision: str) -> list[float]:
        turns.append(f"bare {precision}")
        return [1.0, 400.0, 400.0]

    monkeypatch.setattr(benchmark, "ours", ours)
    monkeypatch.setattr(benchmark, "bare", bare)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    return turns


def tool(path: Path, log: str, status: int = 0) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(TOOL.format(python=sys.executable, log=log, status=status), encoding="utf-8")
    path.chmod(0o755)


def peers(folder: Path, opennmt: str = OPENNMT, joeynmt: str = JOEYNMT, status: int = 0) -> Path:
    tool(folder / "opennmt" / "bin" / "onmt_train", opennmt)
    tool(folder / "joeynmt" / "bin" / "python", joeynmt, status)
    return folder


def run(benchmark: Any, corpus: Path, *more: str) -> int:
    return int(benchmark.main([str(corpus), *SMALL, *more]))


def sizes(corpus: Path) -> tuple[int, int]:
    """Source and target tokens of the training pairs, with end marks."""
    source, target = PreparedCorpus.open(corpus).train()
    return int(source.lengths.sum()) + len(source), int(target.lengths.sum()) + len(target)


def test_ours_really_trains_and_the_peers_logs_are_read(
    benchmark: Any, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)  # so that ours is trained once
    folder, written = peers(tmp_path / "peers"), tmp_path / "speed.json"
    assert run(benchmark, corpus, "--peers", str(folder), "--rounds", "1", "--json", str(written)) == 0
    result = json.loads(written.read_text(encoding="utf-8"))
    rates = {name: values["median"] for name, values in result["systems"].items()}
    source, target = sizes(corpus)
    assert rates["OpenNMT-py 3.5.1"] == pytest.approx(1200 + 1200 * (1 + 250 / 4000))  # the median of 800 and 1,600
    assert rates["JoeyNMT 2.3.0"] == pytest.approx(700 * (1 + source / target))
    assert list(rates) == ["ours fp32", "bare loop fp32", "OpenNMT-py 3.5.1", "JoeyNMT 2.3.0"]
    assert min(rates.values()) > 0
    assert list(result["ratios"]) == ["ours fp32 / bare loop fp32", "ours fp32 / OpenNMT-py 3.5.1"]
    ratio = result["ratios"]["ours fp32 / OpenNMT-py 3.5.1"]
    assert ratio["median"] == pytest.approx(rates["ours fp32"] / rates["OpenNMT-py 3.5.1"])
    assert (result["threads"], result["rounds"]) == (1, 1)
    assert "torch" in result["versions"]


def test_peers_get_our_pairs_and_our_shape(
    benchmark: Any, corpus: Path, tmp_path: Path, order: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, lines = peers(tmp_path / "peers"), {}

    def keep(turn: Any) -> list[float]:
        lines.update({path.name: path.read_text(encoding="utf-8").split("\n")[:-1] for path in turn.data.iterdir()})
        return [1.0]

    monkeypatch.setitem(benchmark.PEERS, "looks on", ("joeynmt", keep))
    assert run(benchmark, corpus, "--peers", str(folder), "--rounds", "1") == 0
    prepared = PreparedCorpus.open(corpus)
    column, tokenizer = prepared.train()[0], prepared.source_tokenizer
    assert lines["train.source"][7].split(" ") == tokenizer.pieces(column[7].tolist())
    assert lines["source.pieces"] == tokenizer.pieces(range(4, len(tokenizer)))
    opennmt, joeynmt = (
        yaml.safe_load(path.with_suffix(".seen").read_text(encoding="utf-8"))
        for path in (folder / "opennmt" / "bin" / "onmt_train", folder / "joeynmt" / "bin" / "python")
    )
    assert joeynmt["arguments"] == ["-m", "joeynmt", "train", "--skip-test"]
    assert opennmt["threads"] == joeynmt["threads"] == "1"
    config, training = opennmt["config"], joeynmt["config"]["training"]
    assert (config["train_steps"], config["batch_size"], config["hidden_size"], config["layers"]) == (6, 128, 8, 2)
    assert config["valid_steps"] > 6
    assert (training["updates"], training["batch_size"]) == (6, 128)
    assert training["validation_freq"] > 6
    model = joeynmt["config"]["model"]
    assert (model["encoder"]["hidden_size"], model["decoder"]["hidden_size"]) == (4, 8)  # twice 4: both directions


def test_systems_take_turns_and_ratios_are_of_a_round(
    benchmark: Any, corpus: Path, order: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(benchmark, corpus, "--peers", "none", "--rounds", "3") == 0
    there, back = ["ours auto", "ours fp32", "bare bf16"], ["bare bf16", "ours fp32", "ours auto"]
    assert order == [*there, *back, *there]
    printed = capsys.readouterr().out
    assert "| ours bf16 | 400 | 300 to 500 |" in printed
    assert "| ours bf16 / bare loop bf16 | 1.00 | 0.75 to 1.25 | 0.95 |" in printed
    assert "left out" not in printed
    assert "threads: 1\n" in printed


def test_a_peer_that_is_missing_is_a_line_and_the_rest_is_measured(
    benchmark: Any, corpus: Path, tmp_path: Path, order: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    tool(tmp_path / "opennmt" / "bin" / "onmt_train", OPENNMT)
    assert run(benchmark, corpus, "--peers", str(tmp_path), "--rounds", "1") == 0
    printed = capsys.readouterr().out
    line = f"JoeyNMT 2.3.0 is left out: {tmp_path / 'joeynmt'} is missing: install it with benchmarks/peers.sh"
    assert line in printed.split("\n")
    assert "| ours bf16 / OpenNMT-py 3.5.1 | 0.12 |" in printed
    assert "| 2.4, stretch 3 |" in printed


@pytest.mark.parametrize(
    ("joeynmt", "status", "words"),
    [("no memory left", 1, "python failed with status 1: no memory left"), ("nothing", 0, "its log tells no rate")],
)
def test_a_peer_that_fails_is_one_line(
    benchmark: Any,
    corpus: Path,
    tmp_path: Path,
    order: list[str],
    joeynmt: str,
    status: int,
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(benchmark.tempfile, "mkdtemp", lambda prefix: str(made(tmp_path / "kept")))
    folder = peers(tmp_path / "peers", joeynmt=joeynmt, status=status)
    assert run(benchmark, corpus, "--peers", str(folder), "--rounds", "1") == 2
    message = capsys.readouterr().err
    assert message.startswith("training_speed.py: ")
    assert words in message
    assert message.count("\n") == 1
    logs = list((tmp_path / "kept").glob("*/output.log"))  # that the line names
    assert [log.read_text(encoding="utf-8") for log in logs if str(log.parent) in message] == [joeynmt]


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_the_bare_loop_takes_the_trainers_batches(
    benchmark: Any, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = benchmark.parse([str(corpus), *SMALL, "--updates", "60"])
    turn = benchmark.Turn(options, PreparedCorpus.open(corpus), tmp_path, tmp_path)
    path = Path(turn.write(benchmark.run_settings(turn, "bf16")))
    config = nmt.config.load(RunConfig, path)
    batches, trainer = benchmark.first_batches(config), Trainer(config, resume=False)
    assert len(batches) == 60
    for position in (0, 1, 20):
        assert torch.equal(batches[position].source, trainer.batches.batch(0, position).source)
    epoch = sum(1 for _ in distinct(batches, sum(sizes(corpus))))
    assert torch.equal(batches[epoch].labels, trainer.batches.batch(1, 0).labels)
    benchmark.bare_loop(path)
    rates = re.findall(r"^([\d.]+) tokens/s$", capsys.readouterr().out, re.MULTILINE)
    assert len(rates) == 30


def distinct(batches: Sequence[Any], tokens: int) -> Sequence[Any]:
    """The first batches that hold so many tokens together: those of an epoch."""
    end = next(i for i in range(len(batches)) if sum(batch.total for batch in batches[:i]) == tokens)
    return batches[:end]


@pytest.mark.parametrize(("option", "value"), [("--updates", "5"), ("--peer-updates", "0"), ("--rounds", "0")])
def test_too_little_to_measure_is_refused(benchmark: Any, corpus: Path, option: str, value: str) -> None:
    with pytest.raises(SystemExit):
        run(benchmark, corpus, option, value)
