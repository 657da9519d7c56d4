"""benchmarks/serve_opennmt.py: how OpenNMT-py's server is asked and read, and what is said of a load; no server is started."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest
from conftest import ROOT


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("serve_opennmt")


def test_both_servers_are_asked_and_read_in_their_own_way(benchmark: ModuleType) -> None:
    loadgen = importlib.import_module("loadgen")
    body, _ = loadgen.DIALECTS["opennmt"]
    assert body(["▁a b", "c"]) == [{"src": "▁a b", "id": 100}, {"src": "c", "id": 100}]
    said = [{"src": "▁a b", "tgt": "▁x y z", "n_best": 1, "pred_score": -1.0}, {"src": "c", "tgt": "x", "n_best": 1}]
    failed = {"error": "Error: no", "status": "error"}  # which it sends with 200
    for answer, outcome in (
        ([said], "200"),
        ([said[:1]], "200 without 2 translations"),
        ([], "200 with a bad body: IndexError"),
        (failed, "200 with a bad body: KeyError"),
        ({"translation": ["x", "y"]}, "200 with a bad body: KeyError"),
    ):
        response = loadgen.Response(200, {}, json.dumps(answer).encode())
        assert loadgen.judged(response, 2, "opennmt") == outcome
    assert benchmark.its_lengths([said]) == [3, 1]
    with pytest.raises(LookupError):
        benchmark.its_lengths(failed)
    assert benchmark.our_lengths({"translation": ["x"], "details": [{"target_tokens": 15}]}) == [15]


def test_its_server_is_told_to_say_exactly_so_much(benchmark: ModuleType, tmp_path: Path) -> None:
    [model] = benchmark.configuration(Path("/run/model_step_2.pt"))["models"]
    assert (model["id"], model["model"]) == (100, "model_step_2.pt"), "the id that requests name"
    assert model["opt"]["min_length"] == model["opt"]["max_length"] == 15
    assert model["opt"]["beam_size"] == benchmark.forced(benchmark.BEAM).beam_size == 5
    system = benchmark.peer(Path("/run/m.pt"), ["a b"], 2, Path("peers/opennmt"), tmp_path)
    assert system.command(8123)[1:5] == ["--ip", "127.0.0.1", "--port", "8123"]


def test_figures_leave_out_the_beginning(benchmark: ModuleType) -> None:
    report, one = benchmark.Report, importlib.import_module("loadgen").Answer
    answers = [one(0, 0, 0.5, 1, "200"), one(0.5, 0.5, 3.0, 1, "200"), one(2, 2, 6, 1, "200")]
    answers += [one(3, 3, 8, 1, "200"), one(6, 6, 12, 1, "200")]  # the last came too late to be counted
    found = benchmark.found(report(10.0, 12.0, 0.1, answers))
    assert found.rate == pytest.approx(3 / 9)
    assert found.p50 == pytest.approx(5000), "of those that found a queue"
    with pytest.raises(benchmark.StartFailed, match="503"):
        benchmark.found(report(10.0, 12.0, 0.1, [*answers, one(6, 6, 7, 0, "503")]))
    with pytest.raises(benchmark.StartFailed, match="more --seconds"):
        benchmark.found(report(10.0, 12.0, 0.1, answers[-1:]))


def test_ratios_are_of_the_same_round(benchmark: ModuleType) -> None:
    rounds = {benchmark.OURS: [(90, 600), (300, 200)], benchmark.PEER: [(10, 6000), (20, 3000)]}
    text = benchmark.table({name: [benchmark.Found(*each) for each in its] for name, its in rounds.items()})
    assert "| ours | 195 | 90.0 to 300 | 400 | 200 to 600 |" in text
    assert "| ours / OpenNMT-py 3.5.1 | 12.0 | 9.0 to 15.0 | 10, met |" in text
