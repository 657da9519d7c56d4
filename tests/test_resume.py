"""Stopping, killing, a full disk, damage: a run that is resumed ends as if nothing had been, to the bit, or says why not."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiny
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nmt.config import dump
from nmt.errors import CheckpointError, TrainingError
from nmt.training.checkpoint import Checkpoints
from nmt.training.config import RunConfig
from nmt.training.trainer import Trainer

ROOT = Path(__file__).parent.parent
# Two batches an update, eleven an epoch: twelve updates end in the third epoch, so that its order is resumed too.
SHAPE = ("train.batch_tokens=1024", "train.accumulate=2")
CHILD = """
import sys
from pathlib import Path

from nmt.config import load
from nmt.training import checkpoint
from nmt.training.config import RunConfig
from nmt.training.trainer import Interrupted, Trainer


def wait():
    print("ready", flush=True)
    sys.stdin.readline()


def after(update, loader, meter):
    update(loader, meter)
    if trainer.progress.step == 7:
        wait()


def before(sync, path):
    if path.name == ".partial" and trainer.progress.step == 10:
        wait()
    sync(path)


trainer = Trainer(load(RunConfig, Path(sys.argv[1])))
update, sync = trainer._update, checkpoint._sync
if sys.argv[2] == "after an update":
    trainer._update = lambda loader, meter: after(update, loader, meter)
else:  # all files of a checkpoint are written, its folder is not yet named
    checkpoint._sync = lambda path: before(sync, path)
try:
    trainer.run()
except Interrupted as stopped:
    print(stopped, flush=True)
    sys.exit(130)
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.prepared(tmp_path_factory.mktemp("trainer"))


@pytest.fixture(scope="module")
def uninterrupted(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of twelve updates in one go."""
    return tiny.trained(corpus, tmp_path_factory.mktemp("uninterrupted") / "run", *SHAPE)


def assert_same(run: Path, other: Path) -> None:
    """The last checkpoints are equal to the bit: weights, averages, optimiser, random numbers, progress; the logs agree."""
    (tensors, state), (others, expected) = tiny.last_checkpoint(run), tiny.last_checkpoint(other)
    assert state == expected
    assert tensors.keys() == others.keys()
    for name, value in tensors.items():
        assert torch.equal(value, others[name]), name
    assert tiny.records(run) == tiny.records(other)
    assert tiny.records(run, "validation") == tiny.records(other, "validation")
    assert Checkpoints(run, keep=1).best() == Checkpoints(other, keep=1).best()


@contextlib.contextmanager
def child(config: RunConfig, folder: Path, where: str) -> Iterator[subprocess.Popen[str]]:
    """A training process that has come to the place `where` and waits there for a line."""
    path = folder / "child.yaml"
    path.write_text(dump(config), encoding="utf-8")
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path), where],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


# --- the same again -------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_weights_to_the_bit(corpus: Path, uninterrupted: Path, tmp_path: Path) -> None:
    assert_same(tiny.trained(corpus, tmp_path / "again", *SHAPE), uninterrupted)


def test_another_seed_gives_other_weights_and_another_order(corpus: Path, tmp_path: Path) -> None:
    one, same, other = (
        Trainer(tiny.run_config(corpus, tmp_path / "run", f"seed={seed}"), resume=False) for seed in (1, 1, 2)
    )
    assert torch.equal(one.model.output, same.model.output)
    assert not torch.equal(one.model.output, other.model.output)
    assert one.batches.plan(0)[0].tolist() == same.batches.plan(0)[0].tolist() != other.batches.plan(0)[0].tolist()


def test_stopped_by_a_signal_and_resumed_equals_uninterrupted(
    corpus: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    config = tiny.run_config(corpus, tmp_path / "run", *SHAPE)
    with child(config, tmp_path, "after an update") as process:
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate("\n", timeout=120)
    assert process.returncode == 130
    assert "stopped at step 7, saved; the same command goes on from there" in output
    assert Checkpoints(config.run, keep=1).steps()[-1] == 7
    Trainer(config).run()
    assert_same(config.run, uninterrupted)


@pytest.mark.parametrize("where", ["after an update", "while saving"])
def test_killed_and_resumed_equals_uninterrupted(corpus: Path, uninterrupted: Path, tmp_path: Path, where: str) -> None:
    config = tiny.run_config(corpus, tmp_path / "run", *SHAPE)
    with child(config, tmp_path, where) as process:
        process.kill()
        process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    assert Checkpoints(config.run, keep=1).steps() == [5, 6]
    assert (config.run / "checkpoints" / ".partial").exists() == (where == "while saving")
    Trainer(config).run()
    assert_same(config.run, uninterrupted)


def test_killed_at_any_moment_and_run_again_equals_uninterrupted(
    corpus: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    """The command itself, killed (-9) again and again after a time drawn at random, until it gets through; then log, TensorBoard and
    weights are those of one run."""
    config = tiny.run_config(corpus, tmp_path / "run", *SHAPE, "train.save_every=1")
    path = tmp_path / "run.yaml"
    path.write_text(dump(config), encoding="utf-8")
    code = "import sys, time; from nmt.cli import main; from nmt.training.trainer import Trainer; u = Trainer._update\n"
    code += "Trainer._update = lambda *a: (time.sleep(0.1), u(*a))\nsys.exit(main(['train', sys.argv[1]]))"
    rng, killed = random.Random(20), 0
    while True:
        with subprocess.Popen(
            [sys.executable, "-c", code, str(path)], cwd=ROOT, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr is not None
            for line in process.stderr:  # the clock runs from the first update on
                if line.startswith("step "):
                    break
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=rng.uniform(0.0, 0.5) if killed < 3 else 120)
            process.kill()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
        killed += 1
    assert killed >= 2
    (tensors, state), (others, expected) = tiny.last_checkpoint(config.run), tiny.last_checkpoint(uninterrupted)
    assert state == expected
    assert all(torch.equal(value, others[name]) for name, value in tensors.items())
    assert tiny.records(config.run) == tiny.records(uninterrupted)
    assert board(config.run) == board(uninterrupted)
    assert [step for step, _ in board(config.run)] == list(range(1, 13))


def board(run: Path) -> list[tuple[int, float]]:
    """What TensorBoard shows of the training loss."""
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars("train/nll")]


def test_tensorboard_has_samples_and_attention_too(uninterrupted: Path) -> None:
    events = EventAccumulator(str(uninterrupted / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Images("attention/sample 1")] == [6, 12]
    assert [event.step for event in events.Tensors("samples/1/text_summary")] == [6, 12]
    text = events.Tensors("samples/1/text_summary")[-1].tensor_proto.string_val[0].decode()
    assert text.startswith("source: ")
    assert "translation: " in text
    assert {"train/lr", "validation/bleu", "health/encoder_layer_1/gradient_norm"} <= set(events.Tags()["scalars"])


def test_a_second_signal_ends_at_once(corpus: Path, tmp_path: Path) -> None:
    with child(tiny.run_config(corpus, tmp_path / "run"), tmp_path, "after an update") as process:
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)
    assert process.returncode == 130
    assert Checkpoints(tmp_path / "run", keep=1).steps() == [5, 6]


def test_a_resumed_run_may_be_made_longer(corpus: Path, uninterrupted: Path, tmp_path: Path) -> None:
    run = tiny.trained(corpus, tmp_path / "run", *SHAPE, "train.max_steps=6")
    assert_same(tiny.trained(corpus, run, *SHAPE), uninterrupted)


def test_a_finished_run_stays_as_it_is(corpus: Path, uninterrupted: Path) -> None:
    before = {
        path: path.read_bytes()
        for path in uninterrupted.rglob("*")
        if path.is_file() and "tensorboard" not in path.parts
    }
    tiny.trained(corpus, uninterrupted, *SHAPE)
    assert all(path.read_bytes() == content for path, content in before.items())


# --- what goes wrong ------------------------------------------------------------------------------------------------


def test_a_full_disk_ends_training_and_the_same_command_goes_on(
    corpus: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    run = tiny.trained(corpus, tmp_path / "run", *SHAPE, "train.max_steps=6")
    size = (Checkpoints(run, keep=1).path(6) / "tensors.safetensors").stat().st_size
    assert size > 20_000
    config = tiny.run_config(corpus, run, *SHAPE)
    with (
        tiny.full_disk(size - 1000),
        pytest.raises(TrainingError, match="00000010: the checkpoint could not be written"),
    ):
        Trainer(config).run()
    assert Checkpoints(run, keep=1).steps() == [5, 6]
    assert_same(tiny.trained(corpus, run, *SHAPE), uninterrupted)


def cut_short(run: Path) -> None:
    path = Checkpoints(run, keep=1).path(6) / "tensors.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def changed_in_one_bit(run: Path) -> None:
    path = Checkpoints(run, keep=1).path(6) / "tensors.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # still a number
    path.write_bytes(content)


def another_state(run: Path) -> None:
    path = Checkpoints(run, keep=1).path(6) / "state.json"
    path.write_text(path.read_text().replace('"step": 6', '"step": 7'))


@pytest.mark.parametrize("damage", [cut_short, changed_in_one_bit, another_state])
def test_from_a_damaged_checkpoint_training_falls_back_to_the_one_before(
    corpus: Path,
    uninterrupted: Path,
    tmp_path: Path,
    damage: Callable[[Path], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tiny.trained(corpus, tmp_path / "run", *SHAPE, "train.max_steps=6")
    damage(run)
    trainer = Trainer(tiny.run_config(corpus, run, *SHAPE))
    assert trainer.progress.step == 5
    said = capsys.readouterr().err
    assert "00000006: damaged" in said
    assert "; going on from the one before\n" in said
    trainer.run()
    assert_same(run, uninterrupted)


def test_without_a_whole_checkpoint_the_damaged_one_is_named(corpus: Path, tmp_path: Path) -> None:
    run = tiny.trained(corpus, tmp_path / "run", *SHAPE, "train.max_steps=6", "train.keep=1")
    shutil.rmtree(Checkpoints(run, keep=1).path(5), ignore_errors=True)
    cut_short(run)
    with pytest.raises(CheckpointError, match=r"00000006: damaged .*remove this folder"):
        Trainer(tiny.run_config(corpus, run, *SHAPE))


def test_a_checkpoint_of_something_else_is_named(corpus: Path, tmp_path: Path) -> None:
    run = tiny.trained(corpus, tmp_path / "run", *SHAPE, "train.max_steps=6")
    path = Checkpoints(run, keep=1).path(6) / "state.json"
    path.write_text(json.dumps({"corpus": json.loads(path.read_text())["corpus"], "progress": {"stepp": 6}}))
    with pytest.raises(CheckpointError, match=r"00000006: not a checkpoint of this model"):
        Trainer(tiny.run_config(corpus, run, *SHAPE))


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("model.embedding=8", "model"),
        ("seed=2", "seed"),
        ("train.batch_tokens=600", r"train\.batch_tokens"),
        ("optimizer.ema_decay=0", r"optimizer\.ema_decay"),
        ("validation.metric=loss", r"validation\.metric"),
    ],
)
def test_what_a_run_cannot_change_is_named(corpus: Path, uninterrupted: Path, override: str, key: str) -> None:
    before = (uninterrupted / "config.yaml").read_bytes()
    with pytest.raises(CheckpointError, match=f"begun with other values of {key}: put them back"):
        Trainer(tiny.run_config(corpus, uninterrupted, *SHAPE, override))
    assert (uninterrupted / "config.yaml").read_bytes() == before


def test_a_corpus_that_has_changed_is_named(corpus: Path, uninterrupted: Path, tmp_path: Path) -> None:
    other = tiny.prepared(tmp_path / "other", joint=True)
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps(manifest | {"content_hash": "another"}))
    with pytest.raises(CheckpointError, match=r"changed since .* was begun"):
        Trainer(tiny.run_config(other, uninterrupted, *SHAPE))
