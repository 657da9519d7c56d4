"""The `nmt` command: what each command prints, and that every mistake is one line, exit 2, and no harm done."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
import tiny
from conftest import ROOT

from nmt.cli import main
from nmt.config import dump
from nmt.training.bundling import BundleOptions, make_bundle
from nmt.training.trainer import Trainer


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.prepared(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def run(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "run"
    Trainer(tiny.run_config(corpus, folder)).run()
    return folder


@pytest.fixture(scope="module")
def bundle(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "tiny-en-de"
    make_bundle(run, folder, BundleOptions(weights="int8"))
    return folder


def out(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


def mistake(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a command that must fail: exit 2 and one line; return the line."""
    assert main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1, captured.err
    assert "Traceback" not in captured.err
    return captured.err


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert "nmt 0." in out(capsys)


# --- translate ------------------------------------------------------------------------------------------------------


def test_one_line_out_for_one_line_in(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_bytes("the cat.\n\n  \nthe dog.\u2028still the dog.\r\nno line feed".encode())
    with gzip.open(tmp_path / "b.txt.gz", "wt") as stream:
        stream.write("the bird.\n")
    assert main(["translate", str(bundle), str(tmp_path / "a.txt"), str(tmp_path / "b.txt.gz")]) == 0
    lines = out(capsys).split("\n")
    assert len(lines) == 6 + 1
    assert lines[-1] == ""
    assert lines[1] == lines[2] == ""
    assert lines[0]


def test_standard_input(bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    source = io.TextIOWrapper(io.BytesIO(b"the cat.\nthe dog.\n"))
    monkeypatch.setattr("sys.stdin", source)
    assert main(["translate", str(bundle)]) == 0
    from_stdin = out(capsys)
    assert main(["translate", str(bundle), "--text", "the cat.", "--text", "the dog."]) == 0
    assert out(capsys) == from_stdin


def test_json_has_scores(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["translate", str(bundle), "--text", "the cat sees the dog.", "--json", "--n-best", "3"]) == 0
    result = json.loads(out(capsys))
    assert result["source"] == "the cat sees the dog."
    assert result["score"] <= 0.0
    assert len(result["alternatives"]) == 2
    assert result["alternatives"][0]["score"] <= result["score"]
    assert isinstance(result["truncated"], bool)


def test_n_best_lines_are_numbered_by_input_line(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["translate", str(bundle), "--text", "the cat.", "--text", "the dog.", "--n-best", "2"]) == 0
    fields = [line.split(" ||| ") for line in out(capsys).splitlines()]
    assert [field[0] for field in fields] == ["0", "0", "1", "1"]
    assert float(fields[0][2]) >= float(fields[1][2])


def test_window_does_not_change_the_output(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "in.txt"
    path.write_text("".join(f"{source}\n" for source, _ in tiny.sentence_pairs(20, seed=3)))
    main(["translate", str(bundle), str(path)])
    whole = out(capsys)
    main(["translate", str(bundle), str(path), "--window", "1"])
    assert out(capsys) == whole


def test_mistakes_of_translate(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "none.txt"
    assert "no such file" in mistake(capsys, "translate", bundle, missing)
    (tmp_path / "bad.txt").write_bytes(b"good line\nbad \xff line\n")
    assert "bad.txt, line 2: not valid UTF-8" in mistake(capsys, "translate", bundle, tmp_path / "bad.txt")
    (tmp_path / "bad.txt.gz").write_bytes(gzip.compress(b"x" * 5000)[:-9])
    assert "damaged" in mistake(capsys, "translate", bundle, tmp_path / "bad.txt.gz")
    assert "raise beam_size" in mistake(capsys, "translate", bundle, "--text", "a", "--n-best", "9")
    assert "beam_size" in mistake(capsys, "translate", bundle, "--text", "a", "--beam-size", "0")
    assert "not both" in mistake(capsys, "translate", bundle, missing, "--text", "a")
    assert "no such bundle" in mistake(capsys, "translate", tmp_path / "nothing", "--text", "a")
    assert "not a model bundle" in mistake(capsys, "translate", tmp_path, "--text", "a")


# --- damaged bundles ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "harm", "says"),
    [
        ("model.safetensors", lambda path: path.write_bytes(path.read_bytes()[:-7]), "damaged or cut short"),
        ("model.safetensors", lambda path: path.write_bytes(path.read_bytes().replace(b"\x01", b"\x02", 1)), "damaged"),
        ("model.safetensors", Path.unlink, "missing"),
        ("tokenizer.model", Path.unlink, "missing"),
        ("tokenizer.model", lambda path: path.write_bytes(b"no tokenizer"), "damaged"),
        ("config.yaml", lambda path: path.write_text("format: 1\nname: x\n"), "missing key"),
        ("config.yaml", lambda path: path.write_text(path.read_text().replace("format: 2", "format: 9")), "format 9"),
        ("config.yaml", lambda path: path.write_text("]["), "not valid YAML"),
        ("metrics.json", lambda path: path.write_text("{"), "not valid JSON"),
    ],
)
def test_a_bad_bundle_is_named(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, harm, says: str
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(bundle, broken)
    harm(broken / name)
    line = mistake(capsys, "translate", broken, "--text", "the cat.")
    assert name in line
    assert says in line


# --- bundle, info, evaluate -----------------------------------------------------------------------------------------


def test_info_says_what_the_model_is(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(bundle)]) == 0
    text = out(capsys)
    assert "en to de" in text
    assert "int8" in text
    assert main(["info", str(bundle), "--json"]) == 0
    assert json.loads(out(capsys))["source_language"] == "en"


def test_bundles_of_every_storage_translate(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for storage in ("fp32", "fp16", "int8"):
        output = tmp_path / storage
        assert main(["bundle", str(run), "--output", str(output), "--weights", storage, "--average", "2"]) == 0
        assert main(["translate", str(output), "--text", "the cat."]) == 0
        assert len(json.loads((output / "metrics.json").read_text())["training"]["steps"]) == 2
    sizes = [(tmp_path / storage / "model.safetensors").stat().st_size for storage in ("fp32", "fp16", "int8")]
    assert sizes[0] > sizes[1]


def test_mistakes_of_bundle(run: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "not a training run" in mistake(capsys, "bundle", tmp_path)
    assert "no checkpoint" in mistake(capsys, "bundle", _emptied(run, tmp_path / "empty"))
    assert "99 checkpoints" in mistake(capsys, "bundle", run, "--output", tmp_path / "x", "--average", "99")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    assert "not a bundle" in mistake(capsys, "bundle", run, "--output", tmp_path / "mine")
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"
    assert not (tmp_path / "x").exists()


def _emptied(run: Path, copy: Path) -> Path:
    copy.mkdir()
    shutil.copy(run / "config.yaml", copy)
    return copy


def test_evaluate_prints_signatures_and_records(
    bundle: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy, hypotheses = tmp_path / "copy", tmp_path / "hypotheses.txt"
    shutil.copytree(bundle, copy)
    arguments = ["evaluate", str(copy), "--corpus", str(corpus), "--record", "--output", str(hypotheses)]
    assert main(arguments) == 0
    text = out(capsys)
    assert "BLEU" in text
    assert "chrF2" in text
    assert "tok:13a" in text
    assert "sentences/s" in text
    assert len(hypotheses.read_text().splitlines()) == 12
    assert "tok:13a" in (copy / "README.md").read_text()
    assert main(["info", str(copy)]) == 0
    assert "tiny test: BLEU" in out(capsys)
    assert main(arguments) == 0  # again: the scores are replaced, not added
    assert [item["name"] for item in json.loads((copy / "metrics.json").read_text())["scores"]] == [
        *("BLEU", "chrF2", "chrF2++", "TER")
    ]


def test_evaluate_of_files_equals_evaluate_of_the_corpus(
    bundle: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [json.loads(line) for line in (corpus / "test.jsonl").read_text().splitlines()]
    for side in ("source", "target"):
        (tmp_path / side).write_text("".join(f"{row[side]}\n" for row in rows))
    assert main(["evaluate", str(bundle), "--corpus", str(corpus), "--json"]) == 0
    by_corpus = json.loads(out(capsys))
    files = ["--source", str(tmp_path / "source"), "--reference", str(tmp_path / "target")]
    assert main(["evaluate", str(bundle), *files, "--json"]) == 0
    by_files = json.loads(out(capsys))
    assert [item["score"] for item in by_files["scores"]] == [item["score"] for item in by_corpus["scores"]]


def test_mistakes_of_evaluate(bundle: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "bundle or --server" in mistake(capsys, "evaluate", "--corpus", corpus)
    assert "--src FILE with --ref FILE" in mistake(capsys, "evaluate", bundle, "--source", tmp_path)
    assert "tatoeba-en-de" in mistake(capsys, "evaluate", bundle, "--corpus", "tatoeba-en-dd")
    assert "not a prepared corpus" in mistake(capsys, "evaluate", bundle, "--corpus", tmp_path)
    for name, count in (("two", 2), ("three", 3)):
        (tmp_path / name).write_text("a\n" * count)
    line = mistake(capsys, "evaluate", bundle, "--source", tmp_path / "two", "--reference", tmp_path / "three")
    assert "2 lines" in line
    assert "3" in line
    nobody = "http://127.0.0.1:9"
    assert "cannot be reached" in mistake(capsys, "evaluate", "--server", nobody, "--corpus", corpus)
    assert "http://HOST" in mistake(capsys, "evaluate", "--server", "localhost", "--corpus", corpus)


# --- prepare, check, train ------------------------------------------------------------------------------------------


def test_check_reports_without_writing(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = _config(corpus, tmp_path)
    assert main(["check", str(config)]) == 0
    text = out(capsys)
    for topic in ("alignment", "vocabulary", "longest batch", "disk", "speed", "epoch"):
        assert topic in text
    assert "WARNING" not in text
    assert not (tmp_path / "run").exists()


def test_check_sees_sides_that_are_shifted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = tiny.sentence_pairs(300, seed=5)
    shifted = [(a[0], b[1]) for a, b in pairwise(pairs)]
    recipe = {
        "name": "shifted",
        "source_language": "en",
        "target_language": "de",
        "train": [tiny.write_files(tmp_path / "text", "train", shifted)],
        "validation": [tiny.write_files(tmp_path / "text", "validation", pairs[:10])],
        "tokenizer": {"vocab_size": 90},
        "cleaning": {"drop_evaluation": False},
    }
    (tmp_path / "shifted.yaml").write_text(json.dumps(recipe))
    assert main(["prepare", str(tmp_path / "shifted.yaml"), "--output", str(tmp_path / "corpus")]) == 0
    out(capsys)
    assert main(["check", str(_config(tmp_path / "corpus", tmp_path))]) == 0
    assert "WARNING alignment" in out(capsys)


def _config(corpus: Path, folder: Path) -> Path:
    path = folder / "config.yaml"
    path.write_text(dump(tiny.run_config(corpus, folder / "run")))
    return path


def test_print_config_shows_defaults_and_overrides(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "numbers-en-de", "--print-config", "--set", "optimizer.lr=3e-4"]) == 0
    text = out(capsys)
    assert "lr: 0.0003" in text
    assert "clip_norm" in text  # not in the file: a default


def test_mistakes_of_configurations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean 'train'" in mistake(capsys, "train", "numbers-en-de", "--set", "trian.max_steps=3")
    assert "train.max_step" in mistake(capsys, "train", "numbers-en-de", "--set", "train.max_step=3")
    assert "greater than" in mistake(capsys, "train", "numbers-en-de", "--set", "train.max_steps=0")
    assert "key=value" in mistake(capsys, "train", "numbers-en-de", "--set", "max_steps")
    assert "numbers-en-de" in mistake(capsys, "train", "numbers-en-dd")
    assert "no such file" in mistake(capsys, "train", tmp_path / "none.yaml")
    (tmp_path / "twice.yaml").write_text("corpus: a\nrun: b\ncorpus: c\n")
    assert "appears twice" in mistake(capsys, "train", tmp_path / "twice.yaml")
    nowhere = f"corpus={tmp_path}/nowhere"
    assert "nmt prepare" in mistake(capsys, "train", "numbers-en-de", "--set", nowhere, "--set", f"run={tmp_path}/r")


def test_train_then_the_same_command_has_nothing_left_to_do(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(_config(corpus, tmp_path))
    assert main(["train", config]) == 0
    assert "12 updates" in out(capsys)
    before = sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "run" / "checkpoints").rglob("*"))
    assert main(["train", config]) == 0
    assert sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "run" / "checkpoints").rglob("*")) == before


def test_ctrl_c_saves_a_checkpoint_and_exits_130(corpus: Path, tmp_path: Path) -> None:
    config = tiny.run_config(corpus, tmp_path / "run", "train.max_steps=100000", "train.save_every=100000")
    (tmp_path / "config.yaml").write_text(dump(config))
    command = [sys.executable, "-m", "nmt", "train", str(tmp_path / "config.yaml")]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    log, deadline = tmp_path / "run" / "log.jsonl", time.monotonic() + 60
    while not (log.exists() and log.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "saved; the same command goes on from there" in errors
    assert "Traceback" not in errors
    assert len(list((tmp_path / "run" / "checkpoints").glob("0*/state.json"))) >= 1


def test_a_command_without_pytorch_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"  # as if it were not installed
        "from nmt.cli import main; sys.exit(main(sys.argv[1:]))\n"
    )
    bundle = str(ROOT / "data/pretrained/tatoeba-en-de")
    for command, status, said in (
        (["train", "multi30k-en-de"], 2, "nmt train: this needs torch: pip install 'strata-nmt[train]'"),
        (["translate", bundle, "--text", "Hi.", "--ensemble", bundle], 2, "nmt translate: this needs torch"),
        (["translate", bundle, "--text", "Good morning!"], 0, ""),
        (["info", bundle], 0, ""),
    ):
        result = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, cwd=ROOT)
        assert result.returncode == status, result.stderr
        assert result.stderr.startswith(said)
        assert result.stderr.count("\n") == bool(status)
