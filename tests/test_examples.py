"""The examples run from end to end, at a reduced size: they learn, print a table that adds up, and draw."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from nmt.corpus.reviews import reviews

image = pytest.importorskip("matplotlib.image")

EXAMPLES = Path(__file__).parent.parent / "examples"
Main = Callable[[Sequence[str]], int]


def load(name: str) -> Main:
    """The `main` of an example."""
    spec = importlib.util.spec_from_file_location(f"examples_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    main: Main = module.main
    return main


def numbers(line: str) -> list[float]:
    return [float(number) for number in re.findall(r"(?<!\S)\d+(?:\.\d+)?(?!\S)", line)]


def assert_drawn(path: Path) -> None:
    """A picture of a useful size, with ink of many colours on a white ground."""
    pixels = image.imread(path)
    assert pixels.shape[0] > 400
    assert pixels.shape[1] > 700
    assert 0.01 < (pixels[..., :3] < 0.9).any(-1).mean() < 0.99
    assert len({tuple(pixel) for pixel in pixels[::4, ::4].reshape(-1, pixels.shape[2]).tolist()}) > 20


def test_the_sentiment_classifier_learns_to_judge_reviews_that_it_has_not_seen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new" / "folder"
    options = ["--reviews", "8000", "--steps", "250", "--runs", "1", "--seed", "3", "--output", str(output)]
    assert load("sentiment")(options) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [numbers(line) for line in lines[1:4]]
    assert [row[:2] for row in rows] == [[2, 32], [1, 32], [1, 50]]
    for layers, width, parameters, training, held_out, seconds in rows:
        units = 4 * width * (32 + width + 2) + (layers - 1) * 4 * width * (2 * width + 2)  # of an LSTM
        words = {word for review in reviews(8000, 3)[800:] for word in review.words}
        assert parameters == 32 * (len(words) + 1) + units + width + 1
        assert 65 < held_out <= 100, lines
        assert held_out - 5 < training <= 100, lines
        assert 0 < seconds < 120
    assert abs(rows[0][2] - rows[2][2]) < 0.01 * rows[0][2]  # of the same size, as its name says
    gains = [float(found) for line in lines[5:] for found in re.findall(r": ([+-]\d+\.\d) points", line)]
    assert gains == pytest.approx([rows[0][4] - rows[1][4], rows[0][4] - rows[2][4]], abs=0.11)
    assert all("one run cannot settle" in line for line in lines[5:])
    assert_drawn(output / "accuracy.png")
    assert_drawn(output / "grid.png")


def test_the_spirals_come_apart_with_width_and_with_depth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert load("spirals")(["--steps", "250", "--runs", "1", "--seed", "2", "--output", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [numbers(line) for line in lines[1:9]]
    assert [tuple(row[:2]) for row in rows] == [(1, 2), (1, 4), (1, 8), (1, 16), (1, 32), (2, 8), (3, 8), (4, 8)]
    for layers, width, parameters, training, test, worst, best, seconds in rows:
        units = width * (2 + width + 2) + (layers - 1) * width * (2 * width + 2)  # of a simple cell
        assert parameters == units + width + 1
        assert 45 < training <= 100, lines
        assert 45 < worst == test == best <= 100, lines
        assert 0 < seconds < 60
    test = {tuple(row[:2]): row[4] for row in rows}
    assert max(test[1, 16], test[1, 32]) > 70, lines
    assert max(test[3, 8], test[4, 8]) > 70, lines
    assert test[1, 2] < 65, lines
    assert [line.split(":")[0] for line in lines[10:12]] == ["Width", "Depth"]
    assert_drawn(tmp_path / "spirals.png")


@pytest.mark.parametrize("name", ["sentiment", "spirals"])
def test_an_example_refuses_before_any_work_what_cannot_be_done(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    main = load(name)
    for wrong, said in ((["--steps", "0"], "at least"), (["--output", str(tmp_path / "file" / "in")], "--output")):
        with pytest.raises(SystemExit) as stopped:
            main(["--output", str(tmp_path), *wrong])
        assert stopped.value.code == 2
        printed = capsys.readouterr()
        assert said in printed.err.splitlines()[-1]
        assert printed.out == ""
