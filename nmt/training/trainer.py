"""The training loop: batches in, checkpoints and a journal out; stopping and resuming change nothing of the result."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from nmt.corpus.store import PreparedCorpus
from nmt.errors import CheckpointError, ConfigError, TrainingError
from nmt.model.seq2seq import Seq2Seq
from nmt.training import fit, run_folder
from nmt.training.batches import Batch, training_batches
from nmt.training.checkpoint import Checkpoints, pack_optimizer, unpack_optimizer
from nmt.training.config import RunConfig
from nmt.training.guide import Guide
from nmt.training.health import HealthRecorder
from nmt.training.journal import Journal, Silence
from nmt.training.loader import Loader
from nmt.training.machine import keep_heap, memory_in_use
from nmt.training.objective import Objective
from nmt.training.optim import MovingAverage, learning_rate, make_optimizer
from nmt.training.update import Gradients, Meter, keep_rejected
from nmt.training.validation import Validator
from nmt.training.world import ALONE, World

_SKIPS = 5  # updates in a row that may be left out because their gradient is no number


class Interrupted(Exception):
    """Ctrl-C or SIGTERM; the checkpoint has been saved."""


@dataclass
class Progress:
    """Where a run stands; all of it goes into a checkpoint."""

    step: int = 0
    epoch: int = 0
    window: int = 0  # of the epoch
    position: int = 0  # in the window
    best: float | None = None
    since_best: int = 0
    halvings: int = 0  # of the learning rate, by the plateau schedule
    history: list[dict[str, float]] = field(default_factory=list)  # step, loss, BLEU of each validation


class Trainer:
    """One training run."""

    def __init__(
        self, config: RunConfig, resume: bool = True, model: Seq2Seq | None = None, world: World = ALONE
    ) -> None:
        """Open the corpus, build the model, and go back to the last checkpoint where the run folder holds one.

        Without `resume` the run folder is neither read nor made: for a trial. A `model` is trained in the place of the configured one.
        Every process of a `world` makes a trainer; the weights follow from the configuration, not from how many they are. What the
        configuration leaves to `auto` is settled here, once for a run.
        """
        self.world = world
        self.corpus = PreparedCorpus.open(config.corpus)
        self.checkpoints = Checkpoints(config.run, config.train.keep)
        begun = resume and bool(self.checkpoints.steps())
        settled = run_folder.settle(config, world, begun)
        self.device = self.world.device(settled.train.device)
        # oneDNN keeps 1,024 compiled kernels, one for each shape of a batch; a tenth is as fast and saves hundreds of megabytes.
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "100")
        if self.device.type == "cpu":
            keep_heap()
        if settled.train.threads:
            torch.set_num_threads(settled.train.threads)
        torch.manual_seed(config.seed)
        vocabulary = self.corpus.manifest["vocabulary"]
        if config.model.tie_embeddings == "all" and not self.corpus.joint:
            raise ConfigError("model.tie_embeddings: all needs tokenizer.joint: true in the recipe (or choose output)")
        model = model or Seq2Seq(config.model, vocabulary["source"], vocabulary["target"])
        self.model = model.to(self.device)
        self.health = HealthRecorder(self.model, config.train.health_every, config.optimizer.clip_norm)
        guide = Guide.learn(self.corpus).to(self.device) if config.optimizer.guided_alignment else None
        objective = Objective(self.model, config.optimizer, guide)
        self.config = fit.sized(settled, self.corpus, objective, self.device, world)
        self.batches = training_batches(self.corpus, self.config)
        self.validator = Validator(self.corpus, self.config, self.batches)
        self.optimizer = make_optimizer(self.model, config.optimizer)
        self.average = MovingAverage(self.model, config.optimizer.ema_decay)
        self.progress = Progress()
        self._stop = False
        if resume:
            self._resume(config)
        self.gradients = Gradients(
            self.config, self.world.wrap(objective, self.device), self.device, self.world, self.health
        )
        self._epochs = 0.0  # done, for the log

    @property
    def precision(self) -> str:
        """fp32 or bf16."""
        return self.config.train.precision

    # --- the loop ---------------------------------------------------------------------------------------------------

    def run(self) -> Progress:
        """Train to the end; raise `Interrupted` after saving when a signal asks for it, `TrainingError` when it can't go on."""
        settings, progress = self.config.train, self.progress
        self.world.wait()  # before the leader changes anything in the run folder, all have read it
        journal = (Journal if self.world.leads else Silence)(self.config.run, progress.step, settings.max_steps)
        self.model.train()
        try:
            place = (progress.epoch, progress.window, progress.position)
            with self._signals(), Loader(self.batches, place) as loader:
                meter = Meter()
                while progress.step < settings.max_steps and not self._exhausted():
                    self._update(loader, meter)
                    step = progress.step
                    self.health.report(step, journal)
                    if step % settings.log_every == 0 or step == settings.max_steps:
                        self._log(journal, meter)
                        meter = Meter()
                    last = step == settings.max_steps
                    validated = step % self.config.validation.every == 0 or last
                    if validated:
                        before = time.perf_counter()
                        self._validate(journal)
                        meter.since += time.perf_counter() - before  # the rate is that of training
                    stop = self.world.any(self._stop)
                    if step % settings.save_every == 0 or last or stop or (validated and self._improved()):
                        self._save(journal)
                    if stop:
                        raise Interrupted(f"stopped at step {step}, saved; the same command goes on from there")
                if self._exhausted():
                    if meter.total:
                        self._log(journal, meter)
                    journal.say(
                        f"no better for {self.config.validation.patience} validations: stopped at step {progress.step}"
                    )
                    self._save(journal)
        finally:
            journal.close()
        return progress

    def _update(self, loader: Loader, meter: Meter) -> None:
        """One optimiser update; batches whose gradient is no number are left out, a few times in a row."""
        progress = self.progress
        for skipped in range(1, _SKIPS + 2):
            batches = [self._next_batch(loader) for _ in range(self.config.train.accumulate)]
            norm = self.gradients.compute(batches, progress.step + 1, meter)
            if math.isfinite(norm):  # so it is in every process, or in none
                break
            self.optimizer.zero_grad(set_to_none=True)
            self._reject(batches, skipped)
        self.health.clipped(norm)
        progress.step += 1
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.average.update(progress.step)
        meter.norm = norm

    def _reject(self, batches: list[Batch], times: int) -> None:
        """Keep the sentences of an update that is left out for inspection; raise `TrainingError` when there are too many in a row."""
        step, path = self.progress.step + 1, ""
        if self.world.leads:
            path = f"the sentences are in {keep_rejected(self.config.run, self.corpus, batches, step)}"
        if times > _SKIPS:
            raise TrainingError(
                f"step {step}: the loss or its gradient is not finite, {times} times in a row; the last checkpoint is step "
                f"{(self.checkpoints.steps() or [0])[-1]}, {path}: lower optimizer.lr or clip_norm, or set train.precision: fp32"
            )
        if self.world.leads:
            print(f"step {step}: the gradient is not finite: left out, {path}", file=sys.stderr)

    def ask_to_stop(self) -> None:
        """Have `run` finish its step, save, and end with `Interrupted`; from any thread."""
        self._stop = True

    def try_batch(self, batch: Batch) -> int:
        """Take a batch forward and backward without updating anything; return its number of tokens."""
        self.gradients.attempt(batch)
        return batch.total

    def _next_batch(self, loader: Loader) -> Batch:
        loaded, progress = loader.next(), self.progress
        (progress.epoch, progress.window, progress.position), self._epochs = loaded.after, loaded.epochs
        return loaded.batch

    def _rate(self) -> float:
        return learning_rate(
            self.progress.step, self.config.optimizer, self.config.train.max_steps, self.progress.halvings
        )

    def _exhausted(self) -> bool:
        patience = self.config.validation.patience
        return patience is not None and self.progress.since_best >= patience

    def _improved(self) -> bool:
        return self.progress.since_best == 0

    def _log(self, journal: Journal, meter: Meter) -> None:
        loss, nll = self.world.sums(float(meter.loss), float(meter.nll))
        seconds = time.perf_counter() - meter.since
        rate = meter.total / seconds
        memory = memory_in_use(self.device) / 1e9
        values = {
            "epoch": round(self._epochs, 3),
            "loss": round(loss / max(1, meter.tokens), 4),
            "nll": round(nll / max(1, meter.tokens), 4),
            "lr": self._rate(),
            "gradient_norm": round(meter.norm, 4),
            "tokens_per_second": round(rate, 1),
            "memory_gb": round(memory, 3),
            "seconds": round(seconds, 3),
        }
        step = self.progress.step
        journal.write(step, "train", values)
        journal.advance(
            step, f"loss {values['loss']:.3f}, {rate:,.0f} tokens/s, {memory:.1f} GB, epoch {values['epoch']:.2f}"
        )

    def _validate(self, journal: Journal) -> None:
        progress = self.progress
        result = self.validator.run(self.average.model, self.gradients.autocast(), self.world)
        value = result.bleu.score if self.config.validation.metric == "bleu" else -result.loss
        better = progress.best is None or value > progress.best
        progress.best = value if better else progress.best
        progress.since_best = 0 if better else progress.since_best + 1
        if progress.since_best and progress.since_best % self.config.optimizer.plateau_patience == 0:
            progress.halvings += 1
        progress.history.append({"step": progress.step, "loss": result.loss, "bleu": result.bleu.score})
        journal.write(progress.step, "validation", result.record())
        if self.world.leads and result.samples:
            journal.show(progress.step, result.samples, self.validator.attention(self.average.model, result.samples[0]))
        journal.say(
            f"step {progress.step}: validation loss {result.loss:.4f} (training pairs {result.train_loss:.4f}), {result.bleu}, "
            f"chrF2 {result.chrf.score:.2f}{' *best*' if better else ''} [{result.seconds:.0f} s]"
        )

    # --- state ------------------------------------------------------------------------------------------------------

    def _save(self, journal: Journal) -> None:
        if not self.world.leads:
            return
        journal.flush()  # so that what is resumed from here has no gap before it
        tensors: dict[str, Tensor] = {f"model.{name}": p.detach() for name, p in self.model.named_parameters()}
        if self.average.decay:
            tensors |= {f"ema.{name}": p.detach() for name, p in self.average.model.named_parameters()}
        tensors |= pack_optimizer(self.model, self.optimizer)
        self.checkpoints.save(
            self.progress.step, tensors, {"progress": vars(self.progress), "corpus": self._corpus_hash()}
        )
        history = self.progress.history
        if history and history[-1]["step"] == self.progress.step and self._improved():
            self.checkpoints.mark_best(self.progress.step)
        self.checkpoints.prune()

    def _resume(self, asked: RunConfig) -> None:
        say: Callable[[str], None] = partial(print, file=sys.stderr) if self.world.leads else lambda line: None
        if latest := self.checkpoints.load_latest(self.device, say):
            step, tensors, state = latest
            if state.get("corpus") != self._corpus_hash():
                raise CheckpointError(
                    f"{self.config.corpus}: changed since {self.config.run} was begun: train into another run folder"
                )
            try:
                self._restore(tensors, state["progress"])
            except (KeyError, TypeError, RuntimeError) as error:
                raise CheckpointError(
                    f"{self.checkpoints.path(step)}: not a checkpoint of this model ({error}); remove this folder and run "
                    "again to go on from the one before"
                ) from None
            for change in run_folder.changes(asked):
                say(f"going on from step {step} with another value of {change}")
        if self.world.leads:
            run_folder.record(asked, self.config, self.world, self.progress.step >= asked.train.max_steps)

    def _restore(self, tensors: dict[str, Tensor], progress: dict[str, Any]) -> None:
        """Put model, average, optimiser and progress back to what `_save` stored; random numbers follow from seed and step."""
        self._load(self.model, "model.", tensors)
        if self.average.decay:
            self._load(self.average.model, "ema.", tensors)
        unpack_optimizer(self.model, self.optimizer, tensors)
        self.progress = Progress(**progress)

    def _load(self, model: Seq2Seq, prefix: str, tensors: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(tensors[prefix + name])

    def _corpus_hash(self) -> str:
        return str(self.corpus.manifest["content_hash"])

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Let Ctrl-C and SIGTERM finish the step; a second Ctrl-C ends at once. Signals arrive in the main thread alone."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number: int, frame: FrameType | None) -> None:
            if self._stop:
                os._exit(130)
            self.ask_to_stop()

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def rehearse(config: RunConfig) -> str:
    """Raise what is wrong with a run whatever process trains it; return the content hash of its corpus.

    The batch that `auto` comes to is left to the processes that train, each with a memory of its own.
    """
    auto = {"batch_tokens": 1 << 20} if config.train.batch_tokens == "auto" else {}
    trial = config.model_copy(update={"train": config.train.model_copy(update={"device": "cpu"} | auto)})
    return Trainer(trial, resume=False)._corpus_hash()
