"""Training: what an update does, what is logged, which checkpoints stay, when it ends."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch.nn import functional as F

from nmt.config import load
from nmt.corpus.store import PreparedCorpus
from nmt.errors import ConfigError, TrainingError
from nmt.evaluation.scores import Score
from nmt.text.tokenizer import PAD
from nmt.training.checkpoint import Checkpoints
from nmt.training.config import RunConfig
from nmt.training.optim import learning_rate
from nmt.training.trainer import Trainer
from nmt.training.validation import Validation


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.prepared(tmp_path_factory.mktemp("trainer"))


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
    assert tiny.records(tmp_path / "run")[0]["loss"] == pytest.approx(float(total.detach()) / tokens, abs=1e-3)


def test_a_long_gradient_is_cut_to_the_norm(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(tiny.run_config(corpus, tmp_path / "run", "optimizer.clip_norm=0.01", "train.max_steps=1"))
    seen: list[float] = []

    def step() -> None:
        seen.append(
            float(torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None]).norm())
        )

    monkeypatch.setattr(trainer.optimizer, "step", step)
    trainer.run()
    assert seen == pytest.approx([0.01], rel=1e-3)
    assert tiny.records(tmp_path / "run")[0]["gradient_norm"] > 0.02  # the log tells what it was


def test_the_log_says_what_was_done(corpus: Path, tmp_path: Path) -> None:
    run = tiny.trained(corpus, tmp_path / "run", "train.batch_tokens=1024", "train.accumulate=2")
    records, validations = tiny.records(run), tiny.records(run, "validation")
    config = load(RunConfig, run / "config.yaml")
    assert [record["step"] for record in records] == list(range(1, 13))
    assert [record["lr"] for record in records] == [learning_rate(step, config.optimizer, 12) for step in range(1, 13)]
    assert records[-1]["epoch"] > 2.0
    assert records[-1]["nll"] < records[0]["nll"] - 0.3
    assert [record["step"] for record in validations] == [6, 12]
    assert "tok:13a" in validations[0]["bleu_signature"]


def test_a_tiny_model_learns_its_tiny_language(corpus: Path, tmp_path: Path) -> None:
    model = ("model.embedding=32", "model.encoder.hidden=32", "model.decoder.hidden=32", "model.dropout.word=0")
    more = (
        "train.max_steps=150",
        "validation.every=150",
        "optimizer.lr=0.02",
        "train.log_every=50",
        "train.save_every=150",
    )
    trainer = Trainer(
        tiny.run_config(corpus, tmp_path / "run", *model, *more, "train.batch_tokens=1024", "validation.sentences=12")
    )
    progress = trainer.run()
    assert progress.history[-1]["bleu"] > 40.0
    assert progress.history[-1]["loss"] < 0.7


def test_bf16_trains_too(corpus: Path, tmp_path: Path) -> None:
    run = tiny.trained(corpus, tmp_path / "run", "train.precision=bf16", "train.max_steps=6", "model.dropout.word=0")
    exact = tiny.trained(corpus, tmp_path / "exact", "train.max_steps=6", "model.dropout.word=0")
    assert all(
        value.dtype == torch.float32
        for name, value in tiny.last_checkpoint(run)[0].items()
        if name.startswith("model.")
    )
    assert tiny.records(run)[-1]["nll"] == pytest.approx(tiny.records(exact)[-1]["nll"], rel=0.05)
    halves, wholes = tiny.last_checkpoint(run)[0], tiny.last_checkpoint(exact)[0]
    assert any(not torch.equal(halves[name], wholes[name]) for name in wholes if name.startswith("model."))


# --- validation, the best and the end -------------------------------------------------------------------------------


def judged(trainer: Trainer, values: list[float]) -> list[Any]:
    """Let validation find these losses, one after the other; return the models that it was given."""
    given: list[Any] = []
    losses = iter(values)

    def run(model: Any, autocast: Any, world: Any) -> Validation:
        given.append(model)
        value = next(losses)
        return Validation(value, value, Score("BLEU", 100 - value, "s"), Score("chrF2", 0.0, "s"), (), 0.0)

    trainer.validator.run = run  # type: ignore[method-assign]
    return given


@pytest.mark.parametrize("metric", ["loss", "bleu"])
def test_the_best_and_the_latest_checkpoints_are_kept(corpus: Path, tmp_path: Path, metric: str) -> None:
    policy = ("train.save_every=3", "train.keep=2", "validation.every=2", f"validation.metric={metric}")
    trainer = Trainer(tiny.run_config(corpus, tmp_path / "run", *policy))
    given = judged(
        trainer, [5.0, 3.0, 4.0, 3.5, 3.0, 3.2]
    )  # at steps 2, 4, 6, 8, 10, 12; as good as before is not better
    progress = trainer.run()
    assert trainer.checkpoints.best() == 4
    assert trainer.checkpoints.steps() == [4, 9, 12]
    assert progress.best == (-3.0 if metric == "loss" else 97.0)
    assert progress.since_best == 4
    assert given == [trainer.average.model] * 6


def test_training_stops_when_it_gets_no_better_and_a_resumed_run_knows(corpus: Path, tmp_path: Path) -> None:
    policy = ("train.max_steps=100", "validation.every=2", "validation.patience=3", "validation.metric=loss")
    config = tiny.run_config(corpus, tmp_path / "run", *policy, "train.log_every=7")
    trainer = Trainer(config)
    judged(trainer, [5.0, 3.0, 4.0, 3.5, 3.0, 1.0])
    assert trainer.run().step == 10  # the best was at 4
    assert trainer.checkpoints.best() == 4
    assert max(record["step"] for record in tiny.records(tmp_path / "run") if record["kind"] == "train") == 10
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
    autocast = trainer.gradients.autocast()
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
    validator = trainer.validator
    assert validator.loss(model, validator._batches, trainer.gradients.autocast()) == pytest.approx(
        total / tokens, rel=1e-4
    )


def test_the_loss_on_training_pairs_is_without_dropout_and_falls_below_that_on_others(
    corpus: Path, tmp_path: Path
) -> None:
    few = ("train.pairs=12", "train.max_steps=120", "validation.every=60", "optimizer.lr=0.03", "model.dropout.word=0")
    first, last = tiny.records(tiny.trained(corpus, tmp_path / "run", *few), "validation")
    assert last["train_loss"] < first["train_loss"]
    assert last["train_loss"] < last["loss"] - 0.2  # twelve pairs are soon known by heart
    assert last["train_loss"] < tiny.records(tmp_path / "run")[-1]["nll"] + 0.05  # the mean of the log is with dropout


def test_a_plateau_halves_the_rate_and_a_resumed_run_knows(corpus: Path, tmp_path: Path) -> None:
    policy = ("optimizer.schedule=plateau", "optimizer.plateau_patience=2", "validation.every=2", "train.save_every=2")
    first = Trainer(tiny.run_config(corpus, tmp_path / "run", *policy, "train.max_steps=8"))
    judged(first, [3.0, 4.0, 4.0, 4.0])  # at 2, 4, 6, 8: no better twice in a row at 6
    first.run()
    second = Trainer(tiny.run_config(corpus, tmp_path / "run", *policy, "train.max_steps=14"))
    judged(second, [4.0, 1.0, 2.0])  # again at 10
    second.run()
    rates = {record["step"]: record["lr"] for record in tiny.records(tmp_path / "run")}
    assert [rates[step] for step in (6, 7, 10, 11, 14)] == pytest.approx([0.01, 0.005, 0.005, 0.0025, 0.0025])


def test_r_drop_adds_the_disagreement_of_two_masks(corpus: Path, tmp_path: Path) -> None:
    dropout = [f"model.dropout.{name}=0" for name in ("embedding", "layer", "output", "word")]
    still = Trainer(tiny.run_config(corpus, tmp_path / "a", "optimizer.r_drop=5", *dropout))
    plain = Trainer(tiny.run_config(corpus, tmp_path / "b", *dropout))
    batch = plain.batches.batch(0, 0)
    for with_r_drop, without in zip(still.gradients.loss(batch, 1), plain.gradients.loss(batch, 1), strict=True):
        torch.testing.assert_close(with_r_drop, without)  # without dropout the two passes agree
    lively = Trainer(tiny.run_config(corpus, tmp_path / "c", "optimizer.r_drop=5"))
    loss, nll = lively.gradients.loss(batch, 1)
    assert loss > nll * 1.01
    tiny.trained(corpus, tmp_path / "d", "optimizer.r_drop=5")


# --- what goes wrong ------------------------------------------------------------------------------------------------


def test_a_loss_that_stays_no_number_ends_training_and_keeps_the_sentences(corpus: Path, tmp_path: Path) -> None:
    tiny.trained(corpus, tmp_path / "run", "train.max_steps=5")
    trainer = Trainer(tiny.run_config(corpus, tmp_path / "run"))
    trainer.model.output_bias.data[7] = float("nan")
    with pytest.raises(
        TrainingError,
        match=r"step 6: .* not finite, 6 times in a row; the last checkpoint is step 5, .* lower optimizer\.lr",
    ):
        trainer.run()
    assert Checkpoints(tmp_path / "run", keep=1).steps() == [5]
    assert all(value.isfinite().all() for value in tiny.last_checkpoint(tmp_path / "run")[0].values())


def test_an_update_without_a_finite_gradient_is_left_out(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = Trainer(tiny.run_config(corpus, tmp_path / "run"))
    batch, rejected = trainer.batches.batch(0, 2), []

    def spoil(gradient: Any) -> Any:
        if trainer.progress.position == 3 and trainer.progress.epoch == 0:
            rejected.append(trainer.progress.step)
            return gradient * float("nan")
        return gradient

    trainer.model.output_bias.register_hook(spoil)
    progress = trainer.run()
    assert rejected == [2]
    assert (progress.step, progress.epoch * len(trainer.batches.plan(0)) + progress.position) == (12, 13)
    assert "step 3: the gradient is not finite: left out" in capsys.readouterr().err
    lines = (tmp_path / "run" / "rejected.jsonl").read_text(encoding="utf-8").splitlines()
    pairs = [json.loads(line) for line in lines]
    assert [pair["source"] for pair in pairs] == [
        trainer.corpus.source_tokenizer.decode(ids) for ids in batch.source.tolist()
    ]
    assert all(pair["target"] and pair["step"] == 3 for pair in pairs)
    assert all(value.isfinite().all() for value in tiny.last_checkpoint(tmp_path / "run")[0].values())
    assert all(math.isfinite(record["nll"]) for record in tiny.records(tmp_path / "run"))


def test_a_gradient_that_is_not_finite_ends_training_before_it_does_harm(corpus: Path, tmp_path: Path) -> None:
    trainer = Trainer(tiny.run_config(corpus, tmp_path / "run"))
    before = trainer.model.output_bias.detach().clone()
    trainer.model.output_bias.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(TrainingError, match="step 1: the loss or its gradient is not finite, 6 times in a row"):
        trainer.run()
    assert torch.equal(trainer.model.output_bias, before)


def test_tied_embeddings_need_a_joint_vocabulary(tmp_path: Path) -> None:
    separate = tiny.prepared(tmp_path, joint=False)
    with pytest.raises(ConfigError, match=r"tie_embeddings: all needs tokenizer\.joint: true"):
        Trainer(tiny.run_config(separate, tmp_path / "run"))
    tiny.trained(separate, tmp_path / "run", "model.tie_embeddings=output", "train.max_steps=1")


def test_a_gpu_that_is_not_there_is_a_config_error(corpus: Path, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ConfigError, match="PyTorch sees no GPU here"):
        Trainer(tiny.run_config(corpus, tmp_path / "run", "train.device=cuda"))


def test_a_run_folder_that_cannot_be_made_is_the_users_to_know(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TrainingError, match="file/run: cannot be written to"):
        Trainer(tiny.run_config(corpus, tmp_path / "file" / "run"))


def test_a_trial_leaves_no_trace(corpus: Path, tmp_path: Path) -> None:
    Trainer(tiny.run_config(corpus, tmp_path / "run"), resume=False)
    assert not (tmp_path / "run").exists()
