"""`nmt report RUN`: the page on a training run holds what the run left, stands alone, and is made of unfinished runs too."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from nmt.cli import main
from nmt.study.line_chart import Chart, Line, chart
from nmt.study.run_log import read_log
from nmt.study.verdict import judge

HOSTILE = '</title></td><script src="http://e.example/x.js">alert("1")</script> & <img onerror=x> "חתול"'
SIGNATURES = {"bleu_signature": "nrefs:1|tok:13a|version:2.6.0", "chrf_signature": "nrefs:1|nc:6|version:2.6.0"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 12 updates with three validations and three health records."""
    folder = tmp_path_factory.mktemp("report")
    settings = ("validation.every=4", "train.health_every=6")
    return tiny.trained(tiny.prepared(folder), folder / "my-run", *settings)


class Reader(HTMLParser):
    """The elements and the text of a page; fails where tags don't match."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.words.append(data)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def report(folder: Path, output: Path) -> tuple[str, Reader]:
    """The page that the command writes on `folder`, checked to stand alone, as it is and as it is read."""
    assert main(["report", str(folder), "--output", str(output)]) == 0
    page = output.read_text(encoding="utf-8")
    ElementTree.fromstring(page)  # well-formed, even as XML
    reader = Reader(page)
    assert not {name for name, _ in reader.elements} & {"script", "link", "iframe", "object", "embed", "base", "form"}
    for _, attributes in reader.elements:
        assert not any(name.startswith("on") for name in attributes)
        assert not attributes.keys() & {"src", "srcset", "href", "xlink:href", "action", "background", "data"}
    assert not re.search(r"url\(|@import", page)
    return page, reader


def made(folder: Path, records: Sequence[dict[str, Any]], cut: str = "", **settings: Any) -> Path:
    """A run folder with these records in its log."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"corpus": "data/prepared/made-up", "run": "runs/made-up", "train": {"max_steps": 1000}} | settings
    (folder / "config.yaml").write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records) + cut
    (folder / "log.jsonl").write_text(text, encoding="utf-8")
    return folder


def training(step: int, **changes: Any) -> dict[str, Any]:
    figures = {
        "epoch": step / 100,
        "loss": 3.0,
        "nll": 2.5,
        "lr": 1e-3,
        "gradient_norm": 0.7,
        "tokens_per_second": 4096.0,
    }
    return {"step": step, "kind": "train"} | figures | changes


def validation(step: int, text: str = "ein Text", **changes: Any) -> dict[str, Any]:
    figures = {"loss": 2.0, "train_loss": 1.9, "bleu": 21.125, "chrf": 45.5, "seconds": 2.0}
    return (
        {"step": step, "kind": "validation"}
        | figures
        | SIGNATURES
        | {"samples": [["a text", "der Text", text]]}
        | changes
    )


# --- a finished run -----------------------------------------------------------------------------------------------------


def test_the_page_lies_in_the_run_folder_and_holds_what_the_run_left(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(run)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed == ["my-run: step 12 of 12, finished", f"page: {run / 'report.html'}"]
    _, page = report(run, run / "report.html")
    best = max(tiny.records(run, "validation"), key=lambda record: record["bleu"])
    for words in (
        "Training run on corpus",
        f"12 of 12 epoch {tiny.records(run)[-1]['epoch']:.2f}; finished",
        f"best validation: BLEU {best['bleu']:.2f} step {best['step']}, beam 1, first 2 sentences; {best['bleu_signature']}",
        f"chrF2 {best['chrf']:.2f} step {best['step']}, beam 1, first 2 sentences; {best['chrf_signature']}",
        "tokens a second",
        str(judge(read_log(run).curve())).partition(": ")[2],
        "the 3 validations in numbers",
        "encoder layer 2",
        "warmup_steps: 4",
    ):
        assert words in page.text
    for source, reference, text in best["samples"]:
        assert {source, reference, text} - {""} <= set(page.words)
    for title in (
        "Loss",
        "Validation BLEU",
        "Validation chrF2",
        "Learning rate",
        "Gradient norm",
        "Throughput",
        "Memory",
    ):
        assert title in page.words
    charts = 7 + 2 * 4 + 2  # the run's, two stacks' and the other parts'
    assert page.count("figure") == charts


def test_each_score_has_its_signature_and_none_is_shown_without_one(tmp_path: Path) -> None:
    other = "nrefs:1|tok:zh|version:9"
    records = [
        training(100),
        validation(100, bleu=17.375),
        validation(200, bleu=18.625, bleu_signature=other),
        validation(300, bleu=99.875, bleu_signature=None),
    ]
    page, read = report(made(tmp_path / "run", records), tmp_path / "page.html")
    assert f"BLEU 18.62 step 200, beam 1, all sentences; {other}" in read.text
    assert page.count(SIGNATURES["bleu_signature"]) == 2  # below the chart and below the table
    assert "99.8" not in page


def test_the_verdict_needs_nothing_but_the_log(tmp_path: Path) -> None:
    losses = [(2.0, 1.9), (1.5, 1.2), (1.4, 0.9), (1.7, 0.5)]
    records = [training(400)]
    records += [validation(100 * number, loss=loss, train_loss=train) for number, (loss, train) in enumerate(losses, 1)]
    _, page = report(made(tmp_path / "run", records), tmp_path / "page.html")
    assert (
        "Over-fits from step 300 : gap 1.20 nats per token, validation loss lowest at step 300 (epoch 3.0)" in page.text
    )


def test_a_text_that_stays_the_same_is_shown_once(tmp_path: Path) -> None:
    texts = ["eins", "eins", "eins", "", "zwei", "eins"]
    records = [validation(10 * number, text) for number, text in enumerate(texts, 1)]
    _, page = report(made(tmp_path / "run", records), tmp_path / "page.html")
    shown = "source a text reference der Text step 10 to 30 eins step 40 (empty) step 50 zwei step 60 eins"
    assert shown in page.text


def test_time_is_that_of_the_updates(tmp_path: Path) -> None:
    records = [training(100, seconds=200.0), training(200, seconds=400.0), validation(200, seconds=90)]
    _, page = report(made(tmp_path / "run", records), tmp_path / "page.html")
    assert "10 min validations: 2 min more" in page.text
    _, page = report(made(tmp_path / "older", [training(100), validation(200)]), tmp_path / "page.html")
    assert "unknown" in page.text


def test_what_went_wrong_is_told(tmp_path: Path) -> None:
    warnings = [["gradients vanish: 3e-05 of"], ["gradients vanish: 8e-06 of"], [], ["gradients explode: 2"]]
    records = [{"step": n, "kind": "health", "warnings": given} for n, given in enumerate(warnings, 1)]
    folder = made(tmp_path / "run", records)
    pairs = [{"step": 7 + n % 2, "source": f"source {n}", "target": "ziel"} for n in range(30)]
    (folder / "rejected.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs) + '{"step": 9, "sou')
    _, page = report(folder, tmp_path / "page.html")
    assert "2 times, steps 1 to 2 gradients vanish: 8e-06 of step 4 gradients explode: 2" in page.text
    assert "The gradient was not finite at step 7, 8: 30 sentence pairs were left out." in page.text
    assert "source 0" in page.words
    assert "source 29" not in page.words


def test_the_environment_is_shown_however_it_is_nested(run: Path, tmp_path: Path) -> None:
    folder = made(tmp_path / "run", [training(1)])
    assert "Environment" not in report(folder, tmp_path / "page.html")[1].words
    environment = {"versions": {"torch": "2.13"}, "machine": {"GPUs": ["A", "B"], "cores": 2}, "note": None}
    (folder / "environment.json").write_text(json.dumps(environment))
    _, page = report(folder, tmp_path / "page.html")
    assert "Environment versions torch 2.13 machine GPUs A B cores 2 note" in page.text


# --- hostile text -------------------------------------------------------------------------------------------------------


def test_text_is_text_whatever_it_holds(tmp_path: Path) -> None:
    records = [
        training(1),
        validation(1, HOSTILE, samples=[[HOSTILE, HOSTILE + "!", HOSTILE + "?"], ["\ud800", "b", "c"]]),
        {"step": 1, "kind": "health", "<script>x</flow": 0.5, "warnings": [HOSTILE]},
    ]
    folder = tmp_path / "<script>alert(1)<"
    folder.mkdir()
    (folder / "rejected.jsonl").write_text(json.dumps({"step": 1, "source": HOSTILE, "target": HOSTILE}) + "\n")
    (folder / "environment.json").write_text(json.dumps({HOSTILE: {HOSTILE: [HOSTILE]}}))
    made(folder, records[:1], corpus=f"data/{HOSTILE}")
    (folder / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    _, page = report(folder, tmp_path / "page.html")
    assert page.words.count(HOSTILE) == 2 + 2 + 3  # a sentence and a warning, a pair that was left out, the environment
    assert {HOSTILE + "!", HOSTILE + "?"} <= set(page.words)
    assert "img" not in {name for name, _ in page.elements}


# --- unfinished runs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ([{"step": 1, "kind": "health", "layer_1/flow": 0.5, "warnings": []}], "1 of 1,000 epoch 0.00; not finished"),
        ([training(50)], "best validation none yet the first is at step 500"),
        ([training(50)], "No verdict yet: it takes three validations, and there are 0."),
        ([training(50), validation(50)], "BLEU 21.12 step 50"),
        (
            [
                validation(50),
                {"step": 60, "kind": "a kind of the future", "loss": "x"},
                {"step": 55, "kind": "health", "warnings": 5},
            ],
            "60 of 1,000",
        ),
        ([training(50, nll=float("nan"), gradient_norm=0.0, lr=0, tokens_per_second=None)], "50 of 1,000"),
        ([validation(50, loss=float("nan"), bleu=0.0, samples=None)], "BLEU 0.00 step 50"),
        ([validation(step, loss=float("inf"), train_loss=float("inf")) for step in (1, 2, 3)], "there are 0."),
    ],
)
def test_a_run_that_goes_on_has_a_page(tmp_path: Path, records: list[dict[str, Any]], words: str) -> None:
    folder = made(tmp_path / "run", records)
    with (folder / "log.jsonl").open("ab") as log:
        log.write('{"step": 70, "kind": "train", "text": "é'.encode()[:-1])  # cut short within a character
    page, read = report(folder, tmp_path / "page.html")
    assert words in read.text
    assert not re.search(r'="[^"]*\b(nan|inf)\b', page)


def test_early_stopping_is_an_end(tmp_path: Path) -> None:
    records = [validation(step, bleu=value) for step, value in ((10, 1.0), (20, 3.0), (30, 2.0), (40, 2.5))]
    settings = {"every": 10, "patience": 2}
    _, page = report(made(tmp_path / "run", records, validation=settings), tmp_path / "page.html")
    assert "finished: no better for 2 validations" in page.text
    folder = made(tmp_path / "run", records, validation=settings | {"patience": 3})
    assert "; not finished, last record 20" in report(folder, tmp_path / "page.html")[1].text
    records = [validation(10, loss=2.0), validation(20, loss=1.5), validation(30, loss=1.7)]
    folder = made(tmp_path / "run", records, validation={"metric": "loss", "patience": 1})
    _, page = report(folder, tmp_path / "page.html")
    assert "finished: no better for 1 validation" in page.text
    assert "validation of lowest loss: BLEU 21.12 step 20" in page.text


# --- charts -------------------------------------------------------------------------------------------------------------


def places(drawn: str) -> list[tuple[float, float]]:
    (points,) = re.findall(r'<polyline style="stroke:red" points="([^"]*)"', drawn)
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in points.split())]


def test_a_long_line_is_thinned_without_losing_a_peak() -> None:
    points = [(step, 1.0 + (step % 7) / 100) for step in range(10_000)]
    points[6_543] = (6_543, 50.0)
    drawn = places(chart(Chart("", "", [Line("a", points, "red")], 10_000)))
    assert len(drawn) <= 300
    assert [x for x, _ in drawn] == sorted(x for x, _ in drawn)
    assert min(y for _, y in drawn) < 30  # upwards is less


def test_nothing_to_draw_is_no_chart() -> None:
    assert chart(Chart("", "", [Line("a", [], "red"), Line("b", [(1, 0.0)], "red")], 9, log=True)) == ""
    assert chart(Chart("", "", [Line("a", [], "red"), Line("limit", [(1, 2.0)], "red", dashed=True)], 9)) == ""


@given(
    values=st.lists(st.floats(-1e12, 1e12), min_size=1, max_size=12),
    log=st.booleans(),
    focus=st.booleans(),
)
def test_any_values_fit_into_the_picture(values: list[float], log: bool, focus: bool) -> None:
    drawn = chart(Chart("<t>", "", [Line("&", list(enumerate(values)), "red")], len(values), log=log, focus=focus))
    kept = [value for value in values if value > 1e-60 or not log]
    if not kept:
        assert drawn == ""
        return
    ElementTree.fromstring(drawn)
    found = places(drawn)
    assert len(found) == len(kept)
    assert all(0 <= x <= 440 for x, _ in found)
    assert focus or all(0 <= y <= 236 for _, y in found)
    assert 1 <= len(re.findall(r'class="grid"', drawn)) <= 14


# --- mistakes -----------------------------------------------------------------------------------------------------------


def mistake(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["report", *map(str, arguments)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_folder_that_is_no_run_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"{tmp_path / 'none'}: no such folder or file: give the folder of a training run" in mistake(
        capsys, tmp_path / "none"
    )
    (tmp_path / "file").write_text("")
    assert "file: not an evaluation file" in mistake(capsys, tmp_path / "file")
    assert f"{tmp_path}: holds no config.yaml, so it is no training run" in mistake(capsys, tmp_path)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("config.yaml", "corpus: [", "config.yaml, line 1: not valid YAML"),
        ("config.yaml", "corpus: a\n", "config.yaml: missing key 'run': put config.yaml back"),
        ("log.jsonl", None, "log.jsonl: No such file or directory: give the folder of a training run"),
        ("log.jsonl", "", "log.jsonl: empty so far: wait for the first 50 updates (train.log_every)"),
        ("log.jsonl", '{"step": 1, "ki', "log.jsonl: empty so far"),
        ("log.jsonl", "step 1\nstep 2\n", "log.jsonl, line 1: not JSON"),
        ("log.jsonl", "\n5\n", "log.jsonl, line 2: not a record of a training run"),
        ("log.jsonl", '{"kind": "train"}\n', "log.jsonl, line 1: not a record of a training run"),
        ("environment.json", "[1]", "environment.json: not a JSON object: mend or remove this file"),
        ("environment.json", "{", "environment.json: not a JSON object: mend or remove this file"),
        ("rejected.jsonl", "{}\n", "rejected.jsonl, line 1: not a record of a training run"),
    ],
)
def test_a_damaged_file_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: str | None, words: str
) -> None:
    folder = made(tmp_path / "run", [training(1)])
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(content)
    assert f"{folder}/{words}" in mistake(capsys, folder)


def test_a_page_that_cant_be_written_leaves_the_old_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = made(tmp_path / "run", [training(1)])
    (tmp_path / "file").write_text("")
    line = mistake(capsys, folder, "--output", tmp_path / "file" / "page.html")
    assert "page.html: the page could not be written" in line
    assert "choose another place with --output" in line
    page = tmp_path / "page.html"
    report(folder, page)
    before = page.read_text(encoding="utf-8")
    with tiny.full_disk(1000):
        assert "page.html: the page could not be written" in mistake(capsys, folder, "--output", page)
    assert page.read_text(encoding="utf-8") == before
