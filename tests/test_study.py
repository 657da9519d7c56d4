"""Studies: cells and what is impossible, the runner, verdicts, recommendations, reports."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import yaml

import nmt.config
from nmt.cli import main
from nmt.config import shipped
from nmt.errors import ConfigError
from nmt.study.cell import main as cell_main
from nmt.study.cell import run_cell, tokens_by_step, training_seconds
from nmt.study.config import AblationStudy, Cell, DepthStudy, cells, same_run
from nmt.study.report import write_report
from nmt.study.result import Machine, Outcome, Result, read_outcome, write_failure, write_result
from nmt.study.runner import RunOptions, check_cells, corpus_hashes, read_outcomes, selected, slots
from nmt.study.summary import Noise, Setting, recommend, settings
from nmt.study.verdict import CurvePoint, judge
from nmt.training.batches import TrainingBatches

SIGNATURE = "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.prepared(tmp_path_factory.mktemp("study"))


def study_data(folder: Path, corpus: Path, **axes: Any) -> dict[str, Any]:
    """A study of tiny models on the first 40 pairs of the tiny corpus and on all of it."""
    return {
        "name": "toy",
        "results": str(folder / "results"),
        "report": str(folder / "docs" / "depth.md"),
        "axes": {
            "corpora": [
                {"label": "few", "corpus": str(corpus), "pairs": 40},
                {"label": "all", "corpus": str(corpus)},
            ],
            **axes,
        },
        "base": {
            "model": {"embedding": 8, "encoder": {"hidden": 8}, "decoder": {"hidden": 8}, "attention_heads": 4},
            "optimizer": {"lr": 0.01, "warmup_steps": 4, "ema_decay": 0.9},
            "train": {
                "max_steps": 120,
                "batch_tokens": 512,
                "precision": "fp32",
                "device": "cpu",
                "log_every": 10,
                "save_every": 10,
            },
            "validation": {"every": 60, "sentences": 2},
        },
    }


def depth_study(folder: Path, corpus: Path, **axes: Any) -> DepthStudy:
    return nmt.config.parse(DepthStudy, study_data(folder, corpus, **({"layers": [1, 2]} | axes)), "toy.yaml")


def ablation_study(folder: Path, corpus: Path, variants: dict[str, dict[str, Any]]) -> AblationStudy:
    return nmt.config.parse(AblationStudy, study_data(folder, corpus) | {"variants": variants}, "toy.yaml")


# --- verdicts -------------------------------------------------------------------------------------------------------


def curve(validation: Sequence[float], train: Sequence[float]) -> list[CurvePoint]:
    """Curves with a point every 100 steps, which are half an epoch."""
    return [
        CurvePoint(step=100 * (i + 1), epoch=0.5 * (i + 1), validation_loss=v, train_loss=t, bleu=0.0)
        for i, (v, t) in enumerate(zip(validation, train, strict=True))
    ]


@pytest.mark.parametrize(
    ("validation", "train", "kind"),
    [
        ([3.0, 2.0, 1.8, 1.9, 2.1], [2.9, 1.8, 1.2, 0.7, 0.3], "over-fits"),
        ([3.0, 2.0, 1.8, 2.4, 3.1], [2.9, 1.9, 1.7, 2.3, 3.0], "diverges"),
        ([3.0, 2.5, 2.2, 2.0, 1.9], [2.9, 2.4, 2.1, 1.9, 1.8], "still improving"),
        ([3.0, 2.0, 1.8, 1.800, 1.795], [2.9, 1.9, 1.5, 1.4, 1.4], "converged"),
        ([3.0, 2.5, 2.5, 2.5, 2.49], [2.95, 2.45, 2.45, 2.46, 2.45], "under-fits"),
        ([3.0, 2.0, 1.8, 1.81, 1.815], [2.9, 1.8, 1.2, 0.9, 0.8], "converged"),  # a rise too small to tell
        ([3.0, 2.0], [2.9, 1.9], "too short"),
    ],
)
def test_a_verdict_follows_from_the_curves(validation: list[float], train: list[float], kind: str) -> None:
    assert judge(curve(validation, train)).kind == kind


def test_a_verdict_of_over_fitting_says_where_and_how_much_and_what_to_try() -> None:
    verdict = judge(curve([3.0, 2.0, 1.8, 1.9, 2.1], [2.9, 1.8, 1.2, 0.7, 0.3]))
    assert (verdict.lowest_step, verdict.lowest_epoch) == (300, 1.5)
    assert verdict.gap == pytest.approx(1.8)
    assert verdict.rise == pytest.approx(0.3)
    assert verdict.short == "over-fits from step 300"
    for words in ("gap 1.80 nats", "0.30 nats higher at the end", "more dropout", "more data", "stop at step 300"):
        assert words in str(verdict)


def test_a_wide_gap_is_said_even_where_validation_loss_holds() -> None:
    assert "more dropout" in judge(curve([3.0, 2.0, 1.8, 1.8], [2.0, 1.5, 1.0, 0.6])).advice
    assert "dropout" not in judge(curve([3.0, 2.0, 1.8, 1.8], [2.9, 1.8, 1.6, 1.5])).advice


# --- cells ----------------------------------------------------------------------------------------------------------


def test_a_grid_sets_both_sides_and_always_holds_the_single_layer(tmp_path: Path, corpus: Path) -> None:
    grid = cells(depth_study(tmp_path, corpus, layers=[3], dropout=[0.1, 0.4], width=[12], cell=["gru"], seed=[1, 2]))
    assert len(grid) == 2 * 2 * 2 * 2  # corpora, layers with the baseline, dropout, seeds
    last = grid[-1]
    assert last.name == "all-layers3-dropout0.4-width12-cellgru-seed2"
    model = last.config.model
    for stack in (model.encoder, model.decoder):
        assert (stack.layers, stack.hidden, stack.cell) == (3, 12, "gru")
    assert (model.dropout.embedding, model.dropout.layer, model.dropout.output) == (0.4, 0.4, 0.4)
    assert (last.config.seed, last.config.train.pairs, grid[0].config.train.pairs) == (2, None, 40)
    assert {cell.point["layers"] for cell in grid} == {1, 3}
    assert len({cell.config.run for cell in grid}) == len(grid)


def test_an_ablation_applies_each_variant_alone(tmp_path: Path, corpus: Path) -> None:
    study = ablation_study(
        tmp_path, corpus, {"words": {"model.dropout.word": 0.3}, "one-head": {"model.attention_heads": 1}}
    )
    grid = {cell.name: cell.config for cell in cells(study)}
    assert list(grid)[:3] == ["few-base", "few-words", "few-one-head"]
    assert (grid["all-words"].model.dropout.word, grid["all-words"].model.attention_heads) == (0.3, 4)
    assert (grid["all-one-head"].model.dropout.word, grid["all-one-head"].model.attention_heads) == (0.0, 1)
    assert same_run(grid["all-base"], grid["all-words"].model_copy(update={"model": grid["all-base"].model}))


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        ({"layers": [1, 1]}, "layers lists 1 twice"),
        ({"layers": []}, "axes.layers"),
        ({"layer": [2]}, "did you mean 'layers'"),
        ({"corpora": []}, "axes.corpora"),
        ({"corpora": [{"label": "../up", "corpus": "c"}]}, "axes.corpora.0.label"),
    ],
)
def test_a_malformed_study_is_one_error(tmp_path: Path, corpus: Path, axes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        depth_study(tmp_path, corpus, **axes)


@pytest.mark.parametrize(
    ("variants", "words"),
    [
        ({"longer": {"train.max_steps": 9}}, "train.max_steps is the token budget"),
        (
            {"longer": {"train": {"max_steps": 9}}},
            "changes train.max_steps, train.batch_tokens, train.accumulate, one for all",
        ),
        ({"base": {"seed": 2}}, "means the base itself"),
        ({"nothing": {}}, "changes nothing"),
        ({"elsewhere": {"corpus": "x"}}, "given by axes.corpora"),
    ],
)
def test_a_variant_that_compares_nothing_is_refused(
    tmp_path: Path, corpus: Path, variants: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        cells(ablation_study(tmp_path, corpus, variants))


def test_an_unknown_key_of_a_variant_names_its_cell(tmp_path: Path, corpus: Path) -> None:
    with pytest.raises(ConfigError, match=r"cell few-words: unknown key 'model.dropout.wrod' \(did you mean 'word'"):
        cells(ablation_study(tmp_path, corpus, {"words": {"model.dropout.wrod": 0.3}}))


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        ({"width": [8, 10]}, ["cell few-layers1-width10", "attention_heads 4 does not divide", "10"]),
        ({"width": [0]}, ["cell few-layers1-width0", "hidden is 0"]),
        ({"layers": [1, 0]}, ["cell few-layers0", "layers"]),
        ({"dropout": [1.0]}, ["cell few-layers1-dropout1.0", "less than 1"]),
        ({"corpora": [{"label": "gone", "corpus": "no/such"}]}, ["cell gone-layers1", "no/such", "nmt prepare"]),
        ({"corpora": [{"label": "many", "corpus": None, "pairs": 301}]}, ["cell many-layers1", "301", "300 pairs"]),
    ],
)
def test_an_impossible_cell_is_named_before_any_training(
    tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str], axes: dict[str, Any], words: list[str]
) -> None:
    data = study_data(tmp_path, corpus, **({"layers": [1, 2]} | axes))
    for choice in data["axes"]["corpora"]:
        choice["corpus"] = choice["corpus"] or str(corpus)
    path = tmp_path / "toy.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    assert main(["study", "depth", str(path)]) == 2
    message = capsys.readouterr().err
    assert message.startswith("nmt study: ")
    assert message.count("\n") == 1
    for word in words:
        assert word in message
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("path", sorted(shipped("studies").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_study_makes_cells(path: Path) -> None:
    data = nmt.config.read_yaml(path)
    study: DepthStudy | AblationStudy
    study = nmt.config.load(AblationStudy, path) if "variants" in data else nmt.config.load(DepthStudy, path)
    assert study.name == path.stem
    assert len(cells(study)) >= 12
    for choice in study.axes.corpora:
        assert (shipped("recipes") / f"{choice.corpus.name}.yaml").is_file()


# --- one cell -------------------------------------------------------------------------------------------------------


def test_a_cell_ends_in_a_result_and_frees_the_disk(tmp_path: Path, corpus: Path) -> None:
    study = depth_study(tmp_path, corpus)
    config = tiny.run_config(corpus, tmp_path / "toy", "train.max_steps=9", "validation.every=3", "train.pairs=50")
    result = run_cell(config, at_once=3)
    assert [point.step for point in result.curve] == [3, 6, 9]
    assert (result.pairs, result.steps, result.test_sentences, result.machine.at_once) == (50, 9, 12, 3)
    assert "tok:13a" in result.test_signature
    assert "tok:13a" in result.validation_signature
    assert result.decode_speed.keys() == {"1", "5"}
    assert result.search.startswith("beam 5")
    best = next(point for point in result.curve if point.step == result.best_step)
    assert (result.validation_bleu, result.validation_loss) == (best.bleu, best.validation_loss)
    assert not (config.run / "checkpoints").exists()
    assert not (config.run / "bundle").exists()
    assert (config.run / "log.jsonl").is_file()
    assert read_outcome(Cell("toy", {}, config), result.corpus_hash).result == result
    assert read_outcome(Cell("toy", {}, config), "another corpus").result is None
    other = tiny.run_config(corpus, tmp_path / "toy", "train.max_steps=9", "validation.every=3", "train.pairs=49")
    assert read_outcome(Cell("toy", {}, other), result.corpus_hash).result is None
    assert corpus_hashes(cells(study))["few-layers1"] == result.corpus_hash
    check_cells(study, cells(study))


def test_a_cell_whose_configuration_changed_begins_anew(tmp_path: Path, corpus: Path) -> None:
    tiny.trained(corpus, tmp_path / "toy", "optimizer.lr=0.02")
    result = run_cell(tiny.run_config(corpus, tmp_path / "toy"), keep=True)
    rates = {record["step"]: record["lr"] for record in tiny.records(tmp_path / "toy")}
    assert result.steps == 12
    assert rates[4] == pytest.approx(0.01)  # the peak after the warm-up, of the new configuration
    assert (tmp_path / "toy" / "bundle" / "model.safetensors").is_file()


def test_a_cell_whose_corpus_was_prepared_anew_begins_anew(
    tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.trained(corpus, tmp_path / "toy")
    for path in (tmp_path / "toy" / "checkpoints").glob("*/state.json"):
        stored = json.loads(path.read_text(encoding="utf-8"))
        assert stored.pop("corpus")
        del stored["checksum"]
        path.write_text(json.dumps(stored | {"corpus": "another"}), encoding="utf-8")
    assert run_cell(tiny.run_config(corpus, tmp_path / "toy")).steps == 12
    assert "the corpus has changed since; beginning anew" in capsys.readouterr().out


def test_results_are_read_where_the_corpus_does_not_lie(tmp_path: Path, corpus: Path) -> None:
    here = shutil.copytree(corpus, tmp_path / "corpus")
    config = tiny.run_config(here, tmp_path / "toy")
    result = run_cell(config)
    shutil.rmtree(here)
    assert [outcome.result for outcome in read_outcomes([Cell("toy", {}, config)])] == [result]


def test_tokens_are_those_of_the_batches_that_were_trained_on(tmp_path: Path, corpus: Path) -> None:
    from nmt.corpus.store import PreparedCorpus

    batches = TrainingBatches(PreparedCorpus.open(corpus), 512, seed=3, pairs=80)
    places = [(epoch, position) for epoch in range(3) for position in range(len(batches.plan(epoch)))]
    expected = [batches.batch(*place).total for place in places]
    assert tokens_by_step(batches, 1, len(expected)) == expected
    pairs = tokens_by_step(batches, 2, len(expected) // 2)
    assert pairs == [sum(expected[i : i + 2]) for i in range(0, len(expected) - 1, 2)]


def test_training_time_comes_from_the_rates_of_the_log() -> None:
    log = [{"step": 2, "tokens_per_second": 10.0}, {"step": 3, "tokens_per_second": 5.0}]
    assert training_seconds(log, [30, 50, 20]) == pytest.approx(8.0 + 4.0)


def test_a_cell_that_runs_elsewhere_is_left_alone(
    tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "toy.yaml"
    path.write_text(nmt.config.dump(tiny.run_config(corpus, tmp_path / "toy")), encoding="utf-8")
    with path.open() as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert cell_main([str(path)]) == 2
    assert "being run by another process" in capsys.readouterr().err
    assert not (tmp_path / "toy").exists()


# --- the runner -----------------------------------------------------------------------------------------------------


def interrupt_after(checkpoint: Path) -> threading.Thread:
    """Send this process a Ctrl-C as soon as `checkpoint` is there."""

    def wait() -> None:
        while not checkpoint.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def test_a_study_survives_failure_and_interruption_and_repeats_nothing(
    tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    path, results, report = tmp_path / "toy.yaml", tmp_path / "results", tmp_path / "docs" / "depth.md"
    path.write_text(yaml.safe_dump(study_data(tmp_path, corpus, layers=[1, 2])), encoding="utf-8")
    command = ["study", "depth", str(path), "--workers", "1", "--cells", "few-*"]

    results.mkdir()
    first, second = cells(nmt.config.load(DepthStudy, path))[:2]
    first.beside(".yaml").write_text(nmt.config.dump(first.config), encoding="utf-8")
    assert cell_main([str(first.beside(".yaml")), "--threads", "1"]) == 0
    finished = first.beside(".json").stat().st_mtime_ns

    second.config.run.write_text("in the way of the run folder")
    assert main(command) == 1
    assert "few-layers2: cannot be written to" in capsys.readouterr().err
    text = report.read_text(encoding="utf-8")
    assert "1 of 4 cells are finished, 1 failed, 2 are open" in text
    assert "- `few-layers2`: failed: " in text
    assert "- `all-layers1`: open" in text

    second.config.run.unlink()
    watcher = interrupt_after(second.config.run / "checkpoints" / "00000010")
    assert main(command) == 130
    watcher.join(timeout=5)
    assert "few-layers2: interrupted; the next run goes on with it" in capsys.readouterr().err
    assert "- `few-layers2`: open" in report.read_text(encoding="utf-8")

    assert main(command) == 0
    result = Result.model_validate(json.loads(second.beside(".json").read_text(encoding="utf-8")))
    assert f"[1/1] few-layers2: test BLEU {result.test_bleu:.2f} ({SIGNATURE})" in capsys.readouterr().err
    assert first.beside(".json").stat().st_mtime_ns == finished
    log = second.beside(".log").read_text(encoding="utf-8")
    assert log.count("step 10/120:") == 1  # it went on, it did not begin again
    assert log.count("step 120/120:") == 1
    assert [record["step"] for record in tiny.records(second.config.run)] == list(range(10, 121, 10))
    assert "2 of 4 cells are finished, 2 are open" in report.read_text(encoding="utf-8")
    for name in ("bleu", "time", "curves"):
        figure = report.with_name(f"depth-{name}.png")
        assert figure.read_bytes().startswith(b"\x89PNG")
        assert f"]({figure.name})" in report.read_text(encoding="utf-8")


def test_cells_are_chosen_by_name_and_number(tmp_path: Path, corpus: Path) -> None:
    grid = cells(depth_study(tmp_path, corpus, dropout=[0.0, 0.5]))
    outcomes = [Outcome(grid[0], result=made(grid[0], 20.0)), *(Outcome(cell) for cell in grid[1:])]
    names = [cell.name for cell in selected(outcomes, ["*dropout0.0"])]
    assert names == ["few-layers2-dropout0.0", "all-layers1-dropout0.0", "all-layers2-dropout0.0"]
    assert [cell.name for cell in selected(outcomes, ["*dropout0.0", "1"])] == names[:1]
    assert len(selected(outcomes, [])) == len(grid) - 1
    with pytest.raises(ConfigError, match=r"--cells medium: no cell is called so; there are few-layers1-dropout0\.0"):
        selected(outcomes, ["medium"])


def test_gpus_are_shared_out_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert slots(RunOptions(), "auto") == ["0", "1"]
    assert slots(RunOptions(per_gpu=2), "auto") == ["0", "1", "0", "1"]
    assert slots(RunOptions(workers=3), "cuda") == ["0", "1", "0"]
    assert slots(RunOptions(workers=2), "cpu") == [None, None]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert slots(RunOptions(), "auto") == ["5", "7"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert slots(RunOptions(), "auto") == [None]


# --- recommendations and reports --------------------------------------------------------------------------------------


def made(cell: Cell, bleu: float, minutes: float = 5.0, validation: float | None = None) -> Result:
    """A finished result of `cell`, invented but for its BLEU and time."""
    points = curve([3.0, 2.0, 1.8, 1.9, 2.1], [2.9, 1.8, 1.2, 0.7, 0.3])
    return Result(
        cell=cell.name,
        config=cell.config.model_dump(mode="json"),
        corpus_hash="hash",
        pairs=cell.config.train.pairs or 29_000,
        parameters=4_500_000,
        steps=500,
        epochs=2.5,
        tokens=1_900_000,
        seconds=60 * minutes,
        tokens_per_second=8123.4,
        curve=tuple(points),
        best_step=300,
        validation_bleu=bleu if validation is None else validation,
        validation_signature=SIGNATURE,
        validation_sentences=1014,
        validation_loss=1.8,
        test_bleu=bleu,
        test_signature=SIGNATURE,
        test_sentences=1000,
        search="beam 5, length penalty 1",
        decode_speed={"1": 120.4, "5": 61.2},
        decode_sentences=200,
        verdict=judge(points),
        versions={"torch": "2.13.0"},
        machine=Machine(processor="A processor", device="cpu", precision="fp32", cores=2, threads=1, at_once=1),
    )


def grid_of(study: DepthStudy, scores: dict[str, tuple[float, float]]) -> list[Setting]:
    """The settings of the corpus "all", with (test BLEU, minutes) of the cells named in `scores` and the others open."""
    grid = [cell for cell in cells(study) if cell.point["corpus"] == "all"]
    unknown = scores.keys() - {cell.name for cell in grid}
    assert not unknown
    return settings([Outcome(cell, made(cell, *scores[cell.name]) if cell.name in scores else None) for cell in grid])


def test_more_depth_is_recommended_only_where_it_stands_out(tmp_path: Path, corpus: Path) -> None:
    study = depth_study(tmp_path, corpus, layers=[2, 4], dropout=[0.2, 0.5])
    found = grid_of(
        study,
        {
            "all-layers1-dropout0.2": (27.0, 4.0),
            "all-layers1-dropout0.5": (28.0, 4.0),
            "all-layers2-dropout0.2": (28.8, 5.0),
            "all-layers2-dropout0.5": (30.1, 5.0),
            "all-layers4-dropout0.2": (29.0, 8.5),
            "all-layers4-dropout0.5": (30.2, 8.5),
        },
    )
    lines = recommend(found, Noise(found))
    assert lines[0] == "With 29,000 pairs: **2 layers, dropout 0.5** (test BLEU 30.10, 5.0 minutes of training)."
    assert "4 layers, dropout 0.5: 1.7x the training time, +0.1 BLEU (within noise)." in lines
    assert "1 layer, dropout 0.5: 0.8x the training time, -2.1 BLEU." in lines
    assert "2 layers, dropout 0.2: 1.0x the training time, -1.3 BLEU." in lines
    assert not any("not finished" in line for line in lines)


def test_open_cells_and_an_open_baseline_are_said(tmp_path: Path, corpus: Path) -> None:
    study = depth_study(tmp_path, corpus, layers=[1, 2, 4])
    found = grid_of(study, {"all-layers2": (30.0, 5.0), "all-layers4": (32.0, 9.0)})
    lines = recommend(found, Noise(found))
    assert "**4 layers**" in lines[0]
    assert any("whether depth pays can't be said yet" in line for line in lines)
    assert any("1 of 3 cells here are not finished" in line for line in lines)
    nothing = grid_of(study, {})
    assert recommend(nothing, Noise(nothing)) == ["No cell is finished: nothing to recommend yet."]


def test_the_choice_is_made_on_validation_not_on_test(tmp_path: Path, corpus: Path) -> None:
    grid = [
        cell for cell in cells(depth_study(tmp_path, corpus, dropout=[0.2, 0.5])) if cell.name.startswith("all-layers1")
    ]
    found = settings(
        [Outcome(grid[0], made(grid[0], 31.0, validation=28.0)), Outcome(grid[1], made(grid[1], 30.0, validation=29.5))]
    )
    assert "**dropout 0.5**" in recommend(found, Noise(found))[0]


def test_seeds_give_a_mean_and_a_spread_that_sets_the_noise(tmp_path: Path, corpus: Path) -> None:
    grid = [cell for cell in cells(depth_study(tmp_path, corpus, seed=[1, 2, 3])) if cell.point["corpus"] == "all"]
    scores = [29.0, 29.2, 29.4, 30.0, 30.2, 30.4]
    found = settings([Outcome(cell, made(cell, bleu)) for cell, bleu in zip(grid, scores, strict=True)])
    single, double = found
    assert single.test_bleu == pytest.approx(29.2)
    assert single.spread == pytest.approx(0.2)
    noise = Noise(found)
    assert noise.limit(single, double) == pytest.approx(2 * 0.2 * (2 / 3) ** 0.5)
    assert noise.remark(single, double) == ""
    assert "pooled deviation of the seeds, 0.20" in str(noise)
    one_seed = Noise(settings([Outcome(grid[0], made(grid[0], 29.0)), Outcome(grid[3], made(grid[3], 29.9))]))
    assert one_seed.remark(single, Setting(double.point, double.outcomes[:1])) == " (within noise)"
    assert "under about 1.0 BLEU on 1,000 sentences isn't established" in str(one_seed)


def test_a_depth_report_shows_every_cell_with_its_signature(tmp_path: Path, corpus: Path) -> None:
    study = depth_study(tmp_path, corpus, layers=[1, 2], dropout=[0.2])
    grid = cells(study)
    outcomes = [
        Outcome(grid[0], made(grid[0], 20.0)),
        Outcome(grid[1], made(grid[1], 22.5, minutes=8.0)),
        Outcome(grid[2], failure="CUDA error: out | of memory"),
        Outcome(grid[3]),
    ]
    write_report(study, outcomes, "nmt study depth toy")
    text = study.report.read_text(encoding="utf-8")
    assert (
        "| few | 40 | 1 | 1 | 4.50 M | 1.90 M | 5.0 | 8,123 | 120, 61 | 20.00 | 20.00 | baseline | over-fits from step 300 |"
        in text
    )
    assert "| 22.50 | 22.50 | +2.50 | over-fits from step 300 |" in text
    assert "All cells: dropout 0.2." in text
    assert "- `all-layers1-dropout0.2`: failed: CUDA error" in text
    assert "- `all-layers2-dropout0.2`: open" in text
    assert f"Test BLEU: beam 5, length penalty 1, 1,000 sentences, `{SIGNATURE}`" in text
    assert "```sh\nnmt study depth toy\n```" in text
    assert "A processor, 2 cores, 1 thread a cell, fp32, 1 cell at a time" in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    for row, head in ((row, tables[0]) for row in tables[:6]):
        assert row.count("|") == head.count("|")


def test_an_ablation_report_compares_each_variant_with_the_base(tmp_path: Path, corpus: Path) -> None:
    study = ablation_study(
        tmp_path, corpus, {"words": {"model.dropout.word": 0.3}, "one-head": {"model.attention_heads": 1}}
    )
    grid = {cell.name: cell for cell in cells(study)}
    results = {
        "few-base": made(grid["few-base"], 20.0),
        "few-words": made(grid["few-words"], 22.0, minutes=6.0),
        "few-one-head": made(grid["few-one-head"], 20.4),
    }
    write_report(study, [Outcome(cell, results.get(name)) for name, cell in grid.items()], "nmt study ablation toy")
    text = study.report.read_text(encoding="utf-8")
    assert "3 of 6 cells are finished, 3 are open" in text
    words = "| words | `model.dropout.word: 0.3` | 1 | 22.00 | 22.00 | +2.00 | 1.800 | +0.000 | 6.0 | 1.20x | over-fits from step 300 |"
    assert words in text
    assert "| +0.40 (within noise) |" in text
    assert "## all, all pairs" in text
    assert SIGNATURE in text


def test_a_damaged_result_counts_as_open_and_a_failure_is_remembered(tmp_path: Path, corpus: Path) -> None:
    cell = cells(depth_study(tmp_path, corpus))[0]
    cell.config.run.parent.mkdir(parents=True)
    write_result(cell, made(cell, 20.0))
    assert read_outcome(cell, "hash").result is not None
    cell.beside(".json").write_text(cell.beside(".json").read_text()[:100])
    assert read_outcome(cell, "hash") == Outcome(cell)
    write_failure(cell, "no room")
    assert read_outcome(cell, "hash").failure == "no room"
