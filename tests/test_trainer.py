"""Training: the same seed gives the same weights to the bit, and stopping, killing and resuming change nothing of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch.nn import functional as F

from nmt.config import dump, load
from nmt.corpus.store import PreparedCorpus
from nmt.errors import CheckpointError, ConfigError, NMTError, TrainingError
from nmt.evaluation.scores import Score
from nmt.text.tokenizer import PAD
from nmt.training.checkpoint import Checkpoints
from nmt.training.config import RunConfig
from nmt.training.optim import learning_rate
from nmt.training.trainer import Trainer
from nmt.training.validation import Validation

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


def after(update, meter):
    update(meter)
    if trainer.progress.step == 7:
        wait()


def before(sync, path):
    if path.name == ".partial" and trainer.progress.step == 10:
        wait()
    sync(path)


trainer = Trainer(load(RunConfig, Path(sys.argv[1])))
update, sync = trainer._update, checkpoint._sync
if sys.argv[2] == "after an update":
    trainer._update = lambda meter: after(update, meter)
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
    return trained(corpus, tmp_path_factory.mktemp("uninterrupted") / "run", *SHAPE)


def trained(corpus: Path, run: Path, *overrides: str) -> Path:
    Trainer(tiny.run_config(corpus, run, *overrides)).run()
    return run


def final(run: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    checkpoints = Checkpoints(run, keep=1)
    return checkpoints.load(checkpoints.steps()[-1])


def log(run: Path, kind: str = "train") -> list[dict[str, Any]]:
    """The records of one kind, without what a clock has measured."""
    records = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").split("\n") if line]
    timed = ("tokens_per_second", "seconds")
    return [{key: value for key, value in r.items() if key not in timed} for r in records if r["kind"] == kind]


def assert_same(run: Path, other: Path) -> None:
    """The last checkpoints are equal to the bit: weights, averages, optimiser, random numbers, progress; the logs agree."""
    (tensors, state), (others, expected) = final(run), final(other)
    assert state == expected
    assert tensors.keys() == others.keys()
    for name, value in tensors.items():
        assert torch.equal(value, others[name]), name
    assert log(run) == log(other)
    assert log(run, "validation") == log(other, "validation")
    assert Checkpoints(run, keep=1).best() == Checkpoints(other, keep=1).best()


def child(config: RunConfig, folder: Path, where: str) -> subprocess.Popen[str]:
    """A training process that has come to the place `where` and waits there for a line."""
    path = folder / "child.yaml"
    path.write_text(dump(config), encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path), where],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


# --- the same again -------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_weights_to_the_bit(corpus: Path, uninterrupted: Path, tmp_path: Path) -> None:
    assert_same(trained(corpus, tmp_path / "again", *SHAPE), uninterrupted)


def test_another_seed_gives_other_weights(corpus: Path, uninterrupted: Path, tmp_path: Path) -> None:
    other = final(trained(corpus, tmp_path / "other", *SHAPE, "seed=2", "train.max_steps=1"))[0]
    assert not torch.equal(other["model.output"], final(uninterrupted)[0]["model.output"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_stopped_by_a_signal_and_resumed_equals_uninterrupted(
    corpus: Path, uninterrupted: Path, tmp_path: Path, number: signal.Signals
) -> None:
    config = tiny.run_config(corpus, tmp_path / "run", *SHAPE)
    process = child(config, tmp_path, "after an update")
    process.send_signal(number)
    output, _ = process.communicate("\n", timeout=120)
    assert process.returncode == 130
    assert "stopped at step 7, saved; the same command goes on from there" in output
    assert Checkpoints(config.run, keep=1).steps()[-1] == 7
    Trainer(config).run()
    assert_same(config.run, uninterrupted)


@pytest.mark.parametrize(("where", "last"), [("after an update", 6), ("while saving", 6)])
def test_killed_and_resumed_equals_uninterrupted(
    corpus: Path, uninterrupted: Path, tmp_path: Path, where: str, last: int
) -> None:
    config = tiny.run_config(corpus, tmp_path / "run", *SHAPE)
    process = child(config, tmp_path, where)
    process.kill()
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    assert Checkpoints(config.run, keep=1).steps()[-1] == last
    Trainer(config).run()
    assert_same(config.run, uninterrupted)


def test_a_second_signal_ends_at_once(corpus: Path, tmp_path: Path) -> None:
    process = child(tiny.run_config(corpus, tmp_path / "run"), tmp_path, "after an update")
    process.send_signal(signal.SIGINT)
    # The first must have been taken before the second is sent: two of a kind that are pending are one.
    while int(Path(f"/proc/{process.pid}/status").read_text().split("ShdPnd:\t")[1].split()[0], 16) & 1 << signal.SIGINT - 1:
        pass
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode == 130
    assert Checkpoints(tmp_path / "run", keep=1).steps() == [5, 6]


def test_a_resumed_run_may_be_made_longer(corpus: Path, uninterrupted: Path, tmp_path: Path) -> None:
    run = trained(corpus, tmp_path / "run", *SHAPE, "train.max_steps=6")
    assert_same(trained(corpus, run, *SHAPE), uninterrupted)


def test_a_finished_run_stays_as_it_is(corpus: Path, uninterrupted: Path) -> None:
    before = {path: path.read_bytes() for path in uninterrupted.rglob("*") if path.is_file() and "tensorboard" not in path.parts}
    trained(corpus, uninterrupted, *SHAPE)
    assert all(path.read_bytes() == content for path, content in before.items())


# --- what a step does -----------------------------------------------------------------------------------------------


def test_an_update_takes_the_mean_gradient_over_all_tokens_of_its_batches(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ("model.dropout={embedding: 0, layer: 0, output: 0, word: 0}", "optimizer.clip_norm=1e9")
    trainer = Trainer(tiny.run_config(corpus, tmp_path / "run", "train.accumulate=3", "train.max_steps=1", *settings))
    model, total, tokens = trainer.model, torch.zeros(()), 0
    for position in range(3):
        batch = trainer.batches.batch(0, position)
        logits = model.logits(model(batch.source, batch.source_lengths, batch.target))
        loss = F.cross_entropy(
            logits.flatten(0, 1), batch.labels.flatten(), ignore_index=PAD, label_smoothing=0.1, reduction="sum"
        )
        total, tokens = total + loss, tokens + int((batch.labels != PAD).sum())
    expected = torch.autograd.grad(total / tokens, list(model.parameters()))
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(trainer.optimizer, "step", lambda: seen.extend(p.grad.clone() for p in model.parameters()))  # type: ignore[union-attr]
    trainer.run()
    for mine, theirs in zip(seen, expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-4)
    assert log(tmp_path / "run")[0]["loss"] == pytest.approx(float(total.detach()) / tokens, abs=1e-3)


def test_a_long_gradient_is_cut_to_the_norm(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(tiny.run_config(corpus, tmp_path / "run", "optimizer.clip_norm=0.01", "train.max_steps=1"))
    seen: list[float] = []

    def step() -> None:
        seen.append(float(torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None]).norm()))

    monkeypatch.setattr(trainer.optimizer, "step", step)
    trainer.run()
    assert seen == pytest.approx([0.01], rel=1e-3)
    assert log(tmp_path / "run")[0]["gradient_norm"] > 0.02  # the log tells what it was


def test_the_log_says_what_was_done(uninterrupted: Path) -> None:
    records = log(uninterrupted)
    config = load(RunConfig, uninterrupted / "config.yaml")
    assert [record["step"] for record in records] == list(range(1, 13))
    assert [record["lr"] for record in records] == [learning_rate(step, config.optimizer, 12) for step in range(1, 13)]
    assert records[-1]["epoch"] > 2.0
    assert records[-1]["nll"] < records[0]["nll"] - 0.3
    assert [record["step"] for record in log(uninterrupted, "validation")] == [6, 12]
    assert "tok:13a" in log(uninterrupted, "validation")[0]["bleu_signature"]


def test_a_tiny_model_learns_its_tiny_language(corpus: Path, tmp_path: Path) -> None:
    model = ("model.embedding=32", "model.encoder.hidden=32", "model.decoder.hidden=32", "model.dropout.word=0")
    more = ("train.max_steps=150", "validation.every=150", "optimizer.lr=0.02", "train.log_every=50", "train.save_every=150")
    trainer = Trainer(tiny.run_config(corpus, tmp_path / "run", *model, *more, "train.batch_tokens=1024", "validation.sentences=12"))
    progress = trainer.run()
    assert progress.history[-1]["bleu"] > 40.0
    assert progress.history[-1]["loss"] < 0.7


def test_bf16_trains_too(corpus: Path, tmp_path: Path) -> None:
    run = trained(corpus, tmp_path / "run", "train.precision=bf16", "train.max_steps=6", "model.dropout.word=0")
    exact = trained(corpus, tmp_path / "exact", "train.max_steps=6", "model.dropout.word=0")
    assert all(value.dtype == torch.float32 for name, value in final(run)[0].items() if name.startswith("model."))
    assert log(run)[-1]["nll"] == pytest.approx(log(exact)[-1]["nll"], rel=0.05)
    assert log(run)[-1]["nll"] != log(exact)[-1]["nll"]


# --- validation, the best and the end -------------------------------------------------------------------------------


def judged(trainer: Trainer, values: list[float]) -> list[Any]:
    """Let validation find these losses, one after the other; return the models that it was given."""
    given: list[Any] = []
    losses = iter(values)

    def run(model: Any, autocast: Any) -> Validation:
        given.append(model)
        value = next(losses)
        return Validation(value, Score("BLEU", 100 - value, "s"), Score("chrF2", 0.0, "s"), (), 0.0)

    trainer.validator.run = run  # type: ignore[method-assign]
    return given


@pytest.mark.parametrize("metric", ["loss", "bleu"])
def test_the_best_and_the_latest_checkpoints_are_kept(corpus: Path, tmp_path: Path, metric: str) -> None:
    policy = ("train.save_every=3", "train.keep=2", "validation.every=2", f"validation.metric={metric}")
    trainer = Trainer(tiny.run_config(corpus, tmp_path / "run", *policy))
    given = judged(trainer, [5.0, 3.0, 4.0, 3.5, 3.0, 3.2])  # at steps 2, 4, 6, 8, 10, 12; as good as before is not better
    progress = trainer.run()
    assert trainer.checkpoints.best() == 4
    assert trainer.checkpoints.steps() == [4, 9, 12]
    assert progress.best == (-3.0 if metric == "loss" else 97.0)
    assert progress.since_best == 4
    assert given == [trainer.average.model] * 6


def test_training_stops_when_it_gets_no_better_and_a_resumed_run_knows(corpus: Path, tmp_path: Path) -> None:
    policy = ("train.max_steps=100", "validation.every=2", "validation.patience=3", "validation.metric=loss")
    config = tiny.run_config(corpus, tmp_path / "run", *policy)
    trainer = Trainer(config)
    judged(trainer, [5.0, 3.0, 4.0, 3.5, 3.0, 1.0])
    assert trainer.run().step == 10  # the best was at 4
    assert trainer.checkpoints.best() == 4
    again = Trainer(config)
    assert again.progress.since_best == 3
    assert again.run().step == 10


def test_patience_counts_on_after_a_resume(corpus: Path, tmp_path: Path) -> None:
    policy = ("validation.every=2", "validation.patience=3", "validation.metric=loss")
    first = Trainer(tiny.run_config(corpus, tmp_path / "run", *policy, "train.max_steps=6"))
    judged(first, [3.0, 4.0, 4.0])
    first.run()
    second = Trainer(tiny.run_config(corpus, tmp_path / "run", *policy, "train.max_steps=100"))
    judged(second, [4.0, 1.0])
    assert second.run().step == 8


def test_validation_is_on_the_averaged_weights_and_leaves_training_on(corpus: Path, tmp_path: Path) -> None:
    trainer = Trainer(tiny.run_config(corpus, tmp_path / "run", "train.max_steps=6"))
    progress = trainer.run()
    assert trainer.model.training
    autocast = trainer._autocast()
    averaged = trainer.validator.run(trainer.average.model, autocast).loss
    assert averaged == pytest.approx(progress.history[-1]["loss"], abs=1e-6)
    assert trainer.validator.run(trainer.model, autocast).loss != pytest.approx(averaged, abs=1e-6)


def test_the_validation_loss_is_the_mean_over_all_target_tokens(corpus: Path, tmp_path: Path) -> None:
    trainer = Trainer(tiny.run_config(corpus, tmp_path / "run"))
    model, prepared = trainer.model.eval(), PreparedCorpus.open(corpus)
    total, tokens = 0.0, 0
    for source, target in prepared.pairs("validation"):
        (src,), (tgt,) = prepared.source_tokenizer.encode([source]), prepared.target_tokenizer.encode([target])
        vectors = model(torch.tensor([[*src, 3]]), torch.tensor([len(src) + 1]), torch.tensor([[2, *tgt]]))
        total += float(F.cross_entropy(model.logits(vectors)[0], torch.tensor([*tgt, 3]), reduction="sum").detach())
        tokens += len(tgt) + 1
    assert trainer.validator.loss(model, trainer._autocast()) == pytest.approx(total / tokens, rel=1e-4)


# --- what goes wrong ------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_ends_training_and_names_the_step(corpus: Path, tmp_path: Path) -> None:
    trained(corpus, tmp_path / "run", "train.max_steps=5")
    trainer = Trainer(tiny.run_config(corpus, tmp_path / "run"))
    trainer.model.output_bias.data[7] = float("nan")
    with pytest.raises(TrainingError, match=r"step 6: the loss is not finite; the last checkpoint is step 5: lower optimizer\.lr"):
        trainer.run()
    assert Checkpoints(tmp_path / "run", keep=1).steps() == [5]
    assert all(value.isfinite().all() for value in final(tmp_path / "run")[0].values())


def test_a_full_disk_ends_training_and_the_same_command_goes_on(corpus: Path, uninterrupted: Path, tmp_path: Path) -> None:
    run = trained(corpus, tmp_path / "run", *SHAPE, "train.max_steps=6")
    size = (Checkpoints(run, keep=1).path(6) / "tensors.safetensors").stat().st_size
    assert size > 20_000
    config = tiny.run_config(corpus, run, *SHAPE)
    with tiny.full_disk(size - 1000), pytest.raises(TrainingError, match="00000010: the checkpoint could not be written"):
        Trainer(config).run()
    assert Checkpoints(run, keep=1).steps() == [5, 6]
    assert_same(trained(corpus, run, *SHAPE), uninterrupted)


def damaged_file(run: Path) -> None:
    path = Checkpoints(run, keep=1).path(6) / "tensors.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def damaged_state(run: Path) -> None:
    path = Checkpoints(run, keep=1).path(6) / "state.json"
    path.write_text(json.dumps({"corpus": json.loads(path.read_text())["corpus"], "progress": {"stepp": 6}}))


@pytest.mark.parametrize("damage", [damaged_file, damaged_state])
def test_a_damaged_checkpoint_is_named_and_without_it_the_one_before_is_used(
    corpus: Path, uninterrupted: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    run = trained(corpus, tmp_path / "run", *SHAPE, "train.max_steps=6")
    damage(run)
    with pytest.raises(CheckpointError, match=r"00000006: .*remove this folder and run again"):
        Trainer(tiny.run_config(corpus, run, *SHAPE))
    for path in Checkpoints(run, keep=1).path(6).iterdir():
        path.unlink()
    Checkpoints(run, keep=1).path(6).rmdir()
    assert_same(trained(corpus, run, *SHAPE), uninterrupted)


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("model.embedding=8", "model"),
        ("seed=2", "seed"),
        ("train.batch_tokens=600", r"train\.batch_tokens"),
        ("optimizer.ema_decay=0", r"optimizer\.ema_decay"),
    ],
)
def test_what_a_run_cannot_change_is_named(
    corpus: Path, uninterrupted: Path, override: str, key: str
) -> None:
    before = (uninterrupted / "config.yaml").read_bytes()
    with pytest.raises(CheckpointError, match=f"begun with other values of {key}: put them back"):
        Trainer(tiny.run_config(corpus, uninterrupted, *SHAPE, override))
    assert (uninterrupted / "config.yaml").read_bytes() == before


def test_a_corpus_that_has_changed_is_named(corpus: Path, uninterrupted: Path, tmp_path: Path) -> None:
    other = tiny.prepared(tmp_path / "other", joint=True)
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps(manifest | {"content_hash": "another"}))
    with pytest.raises(CheckpointError, match="changed since .* was begun"):
        Trainer(tiny.run_config(other, uninterrupted, *SHAPE))


def test_tied_embeddings_need_a_joint_vocabulary(tmp_path: Path) -> None:
    separate = tiny.prepared(tmp_path, joint=False)
    with pytest.raises(ConfigError, match=r"tie_embeddings: all needs tokenizer\.joint: true"):
        Trainer(tiny.run_config(separate, tmp_path / "run"))
    trained(separate, tmp_path / "run", "model.tie_embeddings=output", "train.max_steps=1")


def test_a_gpu_that_is_not_there_is_a_config_error(corpus: Path, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ConfigError, match="PyTorch sees no GPU here"):
        Trainer(tiny.run_config(corpus, tmp_path / "run", "train.device=cuda"))


def test_a_run_folder_that_cannot_be_made_is_the_users_to_know(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(NMTError, match="file"):
        Trainer(tiny.run_config(corpus, tmp_path / "file" / "run"))


def test_a_trial_leaves_no_trace(corpus: Path, tmp_path: Path) -> None:
    Trainer(tiny.run_config(corpus, tmp_path / "run"), resume=False)
    assert not (tmp_path / "run").exists()
