"""What a run folder keeps beside its checkpoints: what `auto` came to, what it ran on, what has changed since."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch

from nmt.cli import main
from nmt.config import dump, load
from nmt.errors import CheckpointError, ConfigError, TrainingError
from nmt.training import fit, run_folder
from nmt.training.batches import TrainingBatches, longest_pair
from nmt.training.config import RunConfig
from nmt.training.trainer import Trainer

AUTO = ("train.precision=auto", "train.device=auto", "train.threads=null")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.prepared(tmp_path_factory.mktemp("run_folder"))


@pytest.fixture(autouse=True)
def threads_stay() -> object:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def choices(run: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((run / "choices.json").read_text())
    return found


# --- what `auto` came to --------------------------------------------------------------------------------------------


def test_what_auto_came_to_is_kept_and_resuming_keeps_to_it(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(2)
    run = tiny.trained(corpus, tmp_path / "run", *AUTO, "train.max_steps=6")
    begun = choices(run)
    assert begun["threads"] == 2
    assert begun["batch_tokens"] == 512
    assert begun["precision"] in ("fp32", "bf16")
    assert load(RunConfig, run / "config.yaml").train.precision == "auto"  # what was asked for stays
    # On another machine, where all would come to something else:
    torch.set_num_threads(1)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: begun["precision"] != "bf16")
    trainer = Trainer(tiny.run_config(corpus, run, *AUTO))
    assert trainer.precision == begun["precision"]
    assert torch.get_num_threads() == 2
    trainer.run()
    assert choices(run) == begun
    other = Trainer(tiny.run_config(corpus, tmp_path / "other", *AUTO))
    assert other.precision != begun["precision"]


def test_another_precision_than_at_the_beginning_is_refused(corpus: Path, tmp_path: Path) -> None:
    run = tiny.trained(corpus, tmp_path / "run", "train.max_steps=2")
    with pytest.raises(CheckpointError, match=r"other values of train\.precision: put them back, .* --fresh"):
        Trainer(tiny.run_config(corpus, run, "train.precision=bf16"))


def test_a_run_of_a_version_without_choices_goes_on(corpus: Path, tmp_path: Path) -> None:
    run = tiny.trained(corpus, tmp_path / "run", "train.max_steps=2")
    (run / "choices.json").unlink()
    assert Trainer(tiny.run_config(corpus, run)).run().step == 12
    (run / "choices.json").unlink()
    with pytest.raises(CheckpointError, match=r"train\.precision"):
        Trainer(tiny.run_config(corpus, run, "train.precision=bf16"))


def test_what_has_changed_is_said(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tiny.trained(corpus, tmp_path / "run", "train.max_steps=2")
    capsys.readouterr()
    Trainer(tiny.run_config(corpus, run, "optimizer.lr=0.5", "train.max_steps=4"))
    assert capsys.readouterr().err.splitlines() == [
        "going on from step 2 with another value of optimizer.lr: 0.01 -> 0.5",
        "going on from step 2 with another value of train.max_steps: 2 -> 4",
    ]
    Trainer(tiny.run_config(corpus, run, "optimizer.lr=0.5", "train.max_steps=4"))
    assert capsys.readouterr().err == ""


def test_the_environment_of_the_last_work_is_kept(corpus: Path, tmp_path: Path) -> None:
    run = tiny.trained(corpus, tmp_path / "run", "train.max_steps=2")
    text = (run / "environment.json").read_text()
    found = json.loads(text)
    assert found["versions"]["torch"] == torch.__version__
    assert found["machine"]["cores"] >= 1
    assert found["command"].split()[0] == "nmt"
    tiny.trained(corpus, run, "train.max_steps=2")
    assert (run / "environment.json").read_text() == text  # there was nothing to do


def test_memory_is_in_the_log(corpus: Path, tmp_path: Path) -> None:
    tiny.trained(corpus, tmp_path / "run", "train.max_steps=1")
    records = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().split("\n") if line]
    assert 0.02 < next(item["memory_gb"] for item in records if item["kind"] == "train") < 16


# --- beginning anew -------------------------------------------------------------------------------------------------


def test_fresh_puts_the_run_aside(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(dump(tiny.run_config(corpus, tmp_path / "run", "train.max_steps=1")))
    command = ["train", str(path), "--set", "seed=2", "--fresh"]
    assert main(["train", str(path)]) == 0
    assert main(command[:-1]) == 2
    assert "seed" in capsys.readouterr().err
    for number in (1, 2):
        assert main(command) == 0
        aside = tmp_path / f"run.before-{number}"
        assert f"is now {aside}\n" in capsys.readouterr().err
        assert (aside / "log.jsonl").is_file()
    assert load(RunConfig, tmp_path / "run.before-1" / "config.yaml").seed == 1
    assert load(RunConfig, tmp_path / "run" / "config.yaml").seed == 2


def test_a_run_that_cannot_be_put_aside_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_folder.put_aside(tmp_path / "none") is None
    (tmp_path / "run").mkdir()

    def refuse(*arguments: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(TrainingError, match="run: can't be put aside"):
        run_folder.put_aside(tmp_path / "run")


# --- the largest batch ----------------------------------------------------------------------------------------------


def test_sizes_to_try_are_within_bounds() -> None:
    assert fit.candidates(50, 100_000_000, 1)[:3] == [65_536, 49_152, 32_768]
    assert fit.candidates(50, 100_000_000, 2)[0] == 131_072
    assert fit.candidates(50, 409_700, 1)[:2] == [4096, 3072]  # a hundred updates an epoch
    assert fit.candidates(50, 100_000_000, 1)[-1] == 64
    assert fit.candidates(300, 1000, 1) == [300]  # a small corpus with a long pair


def test_the_worst_batches_are_those_with_the_most_of_everything(corpus: Path) -> None:
    from nmt.corpus.store import PreparedCorpus

    batches = TrainingBatches(PreparedCorpus.open(corpus), 512, seed=1)
    everything = [batches.batch(0, position) for position in range(len(batches.plan(0)))]
    found = fit.worst(batches)
    assert max(len(batch.source) for batch in found) == max(len(batch.source) for batch in everything)
    assert max(batch.labels.numel() for batch in found) == max(batch.labels.numel() for batch in everything)


def test_auto_takes_the_largest_batch_that_fits_and_a_resumed_run_keeps_it(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fit, "_UPDATES", 4)
    plenty = Trainer(tiny.run_config(corpus, tmp_path / "plenty", "train.batch_tokens=auto"))
    manifest, longest = plenty.corpus.manifest, longest_pair(*plenty.corpus.train())
    tokens = sum(manifest["tokens"].values()) + 2 * manifest["splits"]["train"]
    assert plenty.batches.batch_tokens == fit.candidates(longest, tokens, 1)[0] > 512
    asked: list[int] = []

    def short(batches: list[object], *rest: object) -> bool:  # memory for a few hundred tokens
        asked.append(max(batch.source.numel() + batch.labels.numel() for batch in batches))  # type: ignore[attr-defined]
        return asked[-1] < 400

    monkeypatch.setattr(fit, "fits", short)
    run = tiny.trained(corpus, tmp_path / "run", "train.batch_tokens=auto", "train.max_steps=2")
    assert asked == sorted(asked, reverse=True)
    assert choices(run)["batch_tokens"] == 384
    assert "train.batch_tokens: auto is 384 here" in capsys.readouterr().err
    monkeypatch.setattr(fit, "fits", lambda *arguments: pytest.fail("a begun run is not sized again"))
    assert Trainer(tiny.run_config(corpus, run, "train.batch_tokens=auto")).batches.batch_tokens == 384
    with pytest.raises(CheckpointError, match=r"train\.batch_tokens"):
        Trainer(tiny.run_config(corpus, run, "train.batch_tokens=512"))
    assert Trainer(tiny.run_config(corpus, run, "train.batch_tokens=384")).progress.step == 2


def test_nothing_fits(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "fits", lambda *arguments: False)
    with pytest.raises(TrainingError, match=r"not even a batch of \d+ tokens fits into memory"):
        Trainer(tiny.run_config(corpus, tmp_path / "run", "train.batch_tokens=auto"))


def test_the_host_is_asked_how_much_memory_there_is(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(tiny.run_config(corpus, tmp_path / "run", "train.batch_tokens=4096"))
    weights, batches = 4 * sum(p.numel() for p in trainer.model.parameters()), fit.worst(trainer.batches)
    arguments = (trainer.gradients.attempt, weights, torch.device("cpu"))
    assert fit.fits(batches, *arguments)
    monkeypatch.setattr(fit, "free_memory", lambda: 2 * weights)
    monkeypatch.setattr(fit, "memory_peak", lambda reset=False: 0 if reset else 1_000_000)
    assert not fit.fits(batches, *arguments)
    assert all(parameter.grad is None for parameter in trainer.model.parameters())


def test_auto_is_refused_where_a_number_is_needed(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="auto is found by training"):
        _ = tiny.run_config(corpus, tmp_path / "run", "train.batch_tokens=auto").train.budget
    with pytest.raises(ConfigError, match="a whole number, 16 at least, or auto"):
        tiny.run_config(corpus, tmp_path / "run", "train.batch_tokens=large")


def test_freed_memory_is_kept_for_the_next_update() -> None:
    """In a process of its own, as it holds for all of it: a large tensor that is made again and again soon meets no new pages."""
    code = (
        "import resource, sys, torch; from nmt.training.machine import keep_heap, release_heap\n"
        "if sys.argv[1] == 'kept': keep_heap()\n"
        "def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "def work():\n    for _ in range(5): torch.ones(20_000_000)\n"
        "counts = [faults()]\n"
        "for _ in range(6): work(); counts.append(faults())\n"
        "release_heap(); print(min(b - a for a, b in zip(counts, counts[1:])))\n"
    )
    kept, given = (
        int(subprocess.run([sys.executable, "-c", code, how], capture_output=True, text=True, check=True).stdout)
        for how in ("kept", "given back")
    )
    if given > 10_000:  # the C library is one that gives memory back
        assert kept < given / 10
