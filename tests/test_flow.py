"""`nmt study flow`: the health of a run's layers as a table and a figure, and the stacks whose gradients vanish."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
import torch

from nmt.cli import main
from nmt.model.config import StackConfig
from nmt.study import vanishing
from nmt.study.flow import read


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four updates, all of them recorded."""
    folder = tmp_path_factory.mktemp("flow")
    return tiny.trained(tiny.prepared(folder), folder / "run", "train.max_steps=4", "train.health_every=1")


def picture(path: Path) -> tuple[int, int]:
    """Width and height of a PNG."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def test_a_run_is_shown_as_a_table_and_a_figure(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "flow", str(run)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "step 4"
    assert [line[:15].strip() for line in lines[2:-1]] == [
        *("encoder layer 1", "encoder layer 2", "decoder layer 1", "decoder layer 2"),
        *("embedding", "attention", "output", "other"),
    ]
    assert len(lines[2].split()) == 3 + 5
    assert len(lines[6].split()) == 1 + 2  # no outputs or gates there
    assert lines[-1] == f"figure: {run / 'flow.png'}"
    width, height = picture(run / "flow.png")
    assert width > 1000
    assert height > 800


def test_series_hold_every_record(run: Path) -> None:
    found = read(run)
    records = tiny.records(run, "health")
    assert [item["step"] for item in records] == [1, 2, 3, 4]
    assert found.parts["decoder layer 2"]["flow"] == [(item["step"], item["decoder_layer_2/flow"]) for item in records]
    assert found.warnings == []


def test_the_last_records_warnings_are_printed_and_a_line_cut_short_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [
        {"step": 1, "kind": "health", "layer_1/gradient_rms": 0.5, "layer_1/flow": 0.1, "warnings": ["gone"]},
        {"step": 2, "kind": "train", "loss": 1.0},
        {"step": 3, "kind": "health", "layer_1/gradient_rms": 0.25, "warnings": ["gradients explode"]},
    ]
    text = "".join(json.dumps(record) + "\n" for record in records) + '{"step": 4, "ki'
    (tmp_path / "log.jsonl").write_text(text, encoding="utf-8")
    assert main(["study", "flow", str(tmp_path), "--output", str(tmp_path / "figures")]) == 0
    printed = capsys.readouterr().out
    assert "warning: gradients explode" in printed
    assert "gone" not in printed
    assert printed.startswith("step 3\n")
    picture(tmp_path / "figures" / "flow.png")


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (None, "log.jsonl: No such file or directory: give the folder of a training run"),
        ('{"step": 1, "kind": "train"}\n', "log.jsonl: no health lines: train with train.health_every"),
        ("", "log.jsonl: no health lines"),
        ("step 1\nstep 2\n", "log.jsonl, line 1: not JSON: give the log of a training run"),
    ],
)
def test_a_folder_without_health_lines_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], log: str | None, words: str
) -> None:
    if log is not None:
        (tmp_path / "log.jsonl").write_text(log, encoding="utf-8")
    assert main(["study", "flow", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


@pytest.mark.parametrize("arguments", [[], ["RUN", "--demo"]])
def test_a_run_or_the_demonstration_is_asked_for(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "flow", *arguments]) == 2
    assert "give a run folder or --demo, one of the two" in capsys.readouterr().err


def test_the_demonstration_shows_each_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = tuple(
        vanishing.Case(case.title, case.config.model_copy(update={"layers": 3, "hidden": 4}), case.init)
        for case in vanishing.cases()
    )
    monkeypatch.setattr(vanishing, "cases", lambda: small)
    monkeypatch.setattr(vanishing, "UPDATES", 2)
    assert main(["study", "flow", "--demo", "--output", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    for case in small:
        assert f"{case.title}: recalls " in printed
    assert printed.count("stack layer 3") >= 4
    picture(tmp_path / "gradients.png")


def test_a_stack_that_remembers_learns_to_recall_and_the_map_shows_its_gradient_at_the_first_step() -> None:
    case = vanishing.Case("", StackConfig(layers=2, hidden=16, cell="lstm"))
    state = torch.get_rng_state()
    found = vanishing.try_case(case, updates=150, steps=6)
    assert torch.equal(torch.get_rng_state(), state)
    assert found.accuracy > 0.9
    assert found.gradients.shape == (3, 6)
    assert found.gradients[2, :5].max() == 0  # the loss is on the top layer's last step
    assert found.gradients[0].argmax() == 0
    assert found.warnings == []
