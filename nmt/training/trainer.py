"""The training loop: batches in, checkpoints and a journal out; stopping and resuming change nothing of the result."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

import nmt.config
from nmt.corpus.store import PreparedCorpus
from nmt.errors import CheckpointError, ConfigError, TrainingError
from nmt.model.dropout import sentence_keys
from nmt.model.seq2seq import Seq2Seq
from nmt.training.batches import Batch, TrainingBatches
from nmt.training.checkpoint import Checkpoints, pack_optimizer, unpack_optimizer
from nmt.training.config import RunConfig, TrainConfig
from nmt.training.health import HealthRecorder
from nmt.training.journal import Journal, Silence
from nmt.training.objective import Objective
from nmt.training.optim import MovingAverage, learning_rate, make_optimizer
from nmt.training.validation import Validation, Validator
from nmt.training.world import ALONE, World

RESOLVED = "config.yaml"
_SKIPS = 5  # updates in a row that may be left out because their gradient is no number


class Interrupted(Exception):
    """Ctrl-C or SIGTERM; the checkpoint has been saved."""


@dataclass
class Progress:
    """Where a run stands; all of it goes into a checkpoint."""

    step: int = 0
    epoch: int = 0
    position: int = 0
    best: float | None = None
    since_best: int = 0
    halvings: int = 0  # of the learning rate, by the plateau schedule
    history: list[dict[str, float]] = field(default_factory=list)  # step, loss, BLEU of each validation


@dataclass
class _Meter:
    """Sums since the last line of the log."""

    loss: float = 0.0
    nll: float = 0.0
    tokens: int = 0
    total: int = 0
    norm: float = 0.0
    since: float = field(default_factory=time.perf_counter)


class Trainer:
    """One training run."""

    def __init__(
        self, config: RunConfig, resume: bool = True, model: Seq2Seq | None = None, world: World = ALONE
    ) -> None:
        """Open the corpus, build the model, and go back to the last checkpoint where the run folder holds one.

        Without `resume` the run folder is neither read nor made: for a trial. A `model` is trained in the place of the configured one.
        Every process of a `world` makes a trainer; the weights follow from the configuration, not from how many they are.
        """
        self.config, self.world = config, world
        self.corpus = PreparedCorpus.open(config.corpus)
        self.device, self.precision = resolve_device(config.train)
        self.device = self.world.device(self.device.type)
        # oneDNN keeps 1,024 compiled kernels, one for each shape of a batch; a tenth is as fast and saves hundreds of megabytes.
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "100")
        if config.train.threads:
            torch.set_num_threads(config.train.threads)
        torch.manual_seed(config.seed)
        vocabulary = self.corpus.manifest["vocabulary"]
        if config.model.tie_embeddings == "all" and not self.corpus.joint:
            raise ConfigError("model.tie_embeddings: all needs tokenizer.joint: true in the recipe (or choose output)")
        model = model or Seq2Seq(config.model, vocabulary["source"], vocabulary["target"])
        self.model = model.to(self.device)
        self.batches = TrainingBatches(
            self.corpus, config.train.batch_tokens, config.seed, config.train.pairs, config.train.subword_sampling
        )
        self.validator = Validator(self.corpus, config, self.batches)
        self.optimizer = make_optimizer(self.model, config.optimizer)
        self.average = MovingAverage(self.model, config.optimizer.ema_decay)
        self.checkpoints = Checkpoints(config.run, config.train.keep)
        self.health = HealthRecorder(self.model, config.train.health_every, config.optimizer.clip_norm)
        self.progress = Progress()
        self._stop = False
        if resume:
            self._resume()
        self.objective = self.world.wrap(Objective(self.model, config.optimizer), self.device)

    # --- the loop ---------------------------------------------------------------------------------------------------

    def run(self) -> Progress:
        """Train to the end; raise `Interrupted` after saving when a signal asks for it, `TrainingError` when it can't go on."""
        settings, progress = self.config.train, self.progress
        self.world.wait()  # before the leader changes anything in the run folder, all have read it
        journal = (Journal if self.world.leads else Silence)(self.config.run, progress.step, settings.max_steps)
        meter = _Meter()
        self.model.train()
        try:
            with self._signals():
                while progress.step < settings.max_steps and not self._exhausted():
                    self._update(meter)
                    step = progress.step
                    self.health.report(step, journal)
                    if step % settings.log_every == 0 or step == settings.max_steps:
                        self._log(journal, meter)
                        meter = _Meter()
                    last = step == settings.max_steps
                    validated = step % self.config.validation.every == 0 or last
                    if validated:
                        before = time.perf_counter()
                        self._validate(journal)
                        meter.since += time.perf_counter() - before  # the rate is that of training
                    stop = self.world.any(self._stop)
                    if step % settings.save_every == 0 or last or stop or (validated and self._improved()):
                        self._save()
                    if stop:
                        raise Interrupted(f"stopped at step {step}, saved; the same command goes on from there")
            if self._exhausted():
                if meter.total:
                    self._log(journal, meter)
                journal.say(
                    f"no better for {self.config.validation.patience} validations: stopped at step {progress.step}"
                )
                self._save()
        finally:
            journal.close()
        return progress

    def _update(self, meter: _Meter) -> None:
        """One optimiser update; batches whose gradient is no number are left out, a few times in a row."""
        for skipped in range(1, _SKIPS + 2):
            batches = [self._next_batch() for _ in range(self.config.train.accumulate)]
            norm = self._gradients(batches, meter)
            if math.isfinite(norm):  # so it is in every process, or in none
                break
            self.optimizer.zero_grad(set_to_none=True)
            self._reject(batches, skipped)
        self.health.clipped(norm)
        progress = self.progress
        progress.step += 1
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.average.update(progress.step)
        meter.norm = norm

    def _gradients(self, batches: list[Batch], meter: _Meter) -> float:
        """The gradients of an update, normalised by its number of target tokens and clipped; their norm before that."""
        tokens, loss_sum, nll_sum = sum(batch.tokens for batch in batches), 0.0, 0.0
        with self.health.watching(self.progress.step + 1):
            for number, batch in enumerate(batches):
                with self._summing(last=number == len(batches) - 1):
                    loss, nll = self._loss(batch, number)
                    torch.autograd.backward(loss * (self.world.size / tokens))  # the processes' gradients are averaged
                loss_sum, nll_sum = loss_sum + float(loss.detach()), nll_sum + float(nll)
        norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.optimizer.clip_norm))
        if math.isfinite(norm):
            meter.loss, meter.nll = meter.loss + loss_sum, meter.nll + nll_sum
            meter.tokens, meter.total = meter.tokens + tokens, meter.total + sum(batch.total for batch in batches)
        return norm

    def _reject(self, batches: list[Batch], times: int) -> None:
        """Keep the sentences of an update that is left out for inspection; raise `TrainingError` when there are too many in a row."""
        step, path = self.progress.step + 1, self.config.run / "rejected.jsonl"
        if self.world.leads:
            decode = self.corpus.source_tokenizer.decode, self.corpus.target_tokenizer.decode
            with path.open("a", encoding="utf-8") as file:
                for batch in batches:
                    for source, target in zip(batch.source.tolist(), batch.target.tolist(), strict=True):
                        pair = {"step": step, "source": decode[0](source), "target": decode[1](target)}
                        file.write(json.dumps(pair, ensure_ascii=False) + "\n")
        if times > _SKIPS:
            raise TrainingError(
                f"step {step}: the loss or its gradient is not finite, {times} times in a row; the last checkpoint is step "
                f"{(self.checkpoints.steps() or [0])[-1]}, the sentences are in {path}: lower optimizer.lr or clip_norm, or set "
                "train.precision: fp32"
            )
        if self.world.leads:
            print(f"step {step}: the gradient is not finite: left out, its sentences are in {path}", file=sys.stderr)

    def _summing(self, last: bool) -> contextlib.AbstractContextManager[None]:
        """Gradients are summed over the processes once an update, while those of its last batch are computed."""
        if isinstance(self.objective, DistributedDataParallel) and not last:
            return self.objective.no_sync()
        return contextlib.nullcontext()

    def _loss(self, batch: Batch, number: int = 0) -> tuple[Tensor, Tensor]:
        """Sums of the loss and of the negative log likelihood over this process's part of batch `number` of an update."""
        part = batch.share(self.world.rank, self.world.size).to(self.device)
        seed = np.random.default_rng((self.config.seed, self.progress.step, number)).integers(2**32)
        keys = sentence_keys(int(seed), part.numbers)
        with self._autocast():
            loss, nll = self.objective(part.source, part.source_lengths, part.target, part.labels, keys)
        return loss, nll

    def try_batch(self, batch: Batch) -> int:
        """Take a batch forward and backward without updating anything; return its number of tokens."""
        torch.autograd.backward(self._loss(batch)[0])
        self.optimizer.zero_grad(set_to_none=True)
        return batch.total

    def _next_batch(self) -> Batch:
        progress = self.progress
        if progress.position >= len(self.batches.plan(progress.epoch)):
            progress.epoch, progress.position = progress.epoch + 1, 0
        batch = self.batches.batch(progress.epoch, progress.position)
        progress.position += 1
        return batch

    def _rate(self) -> float:
        return learning_rate(
            self.progress.step, self.config.optimizer, self.config.train.max_steps, self.progress.halvings
        )

    def _exhausted(self) -> bool:
        patience = self.config.validation.patience
        return patience is not None and self.progress.since_best >= patience

    def _improved(self) -> bool:
        return self.progress.since_best == 0

    def _log(self, journal: Journal, meter: _Meter) -> None:
        seconds = time.perf_counter() - meter.since
        rate = meter.total / seconds
        progress = self.progress
        loss, nll = self.world.sums(meter.loss, meter.nll)
        values = {
            "epoch": round(progress.epoch + progress.position / len(self.batches.plan(progress.epoch)), 3),
            "loss": round(loss / max(1, meter.tokens), 4),
            "nll": round(nll / max(1, meter.tokens), 4),
            "lr": self._rate(),
            "gradient_norm": round(meter.norm, 4),
            "tokens_per_second": round(rate, 1),
        }
        journal.write(progress.step, "train", values)
        journal.advance(progress.step, f"loss {values['loss']:.3f}, {rate:,.0f} tokens/s, epoch {values['epoch']:.2f}")

    def _validate(self, journal: Journal) -> None:
        progress = self.progress
        result = self.validator.run(self.average.model, self._autocast(), self.world)
        value = result.bleu.score if self.config.validation.metric == "bleu" else -result.loss
        better = progress.best is None or value > progress.best
        progress.best = value if better else progress.best
        progress.since_best = 0 if better else progress.since_best + 1
        if progress.since_best and progress.since_best % self.config.optimizer.plateau_patience == 0:
            progress.halvings += 1
        progress.history.append({"step": progress.step, "loss": result.loss, "bleu": result.bleu.score})
        journal.write(progress.step, "validation", _record(result))
        journal.say(
            f"step {progress.step}: validation loss {result.loss:.4f} (training pairs {result.train_loss:.4f}), {result.bleu}, "
            f"chrF2 {result.chrf.score:.2f}{' *best*' if better else ''} [{result.seconds:.0f} s]"
        )

    # --- state ------------------------------------------------------------------------------------------------------

    def _save(self) -> None:
        if not self.world.leads:
            return
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

    def _resume(self) -> None:
        run = self.config.run
        if self.checkpoints.steps():
            self._check_unchanged()
        say: Callable[[str], None] = partial(print, file=sys.stderr) if self.world.leads else lambda line: None
        if latest := self.checkpoints.load_latest(self.device, say):
            step, tensors, state = latest
            if state.get("corpus") != self._corpus_hash():
                raise CheckpointError(
                    f"{self.config.corpus}: changed since {run} was begun: train into another run folder"
                )
            try:
                self._restore(tensors, state["progress"])
            except (KeyError, TypeError, RuntimeError) as error:
                raise CheckpointError(
                    f"{self.checkpoints.path(step)}: not a checkpoint of this model ({error}); remove this folder and run "
                    "again to go on from the one before"
                ) from None
        if not self.world.leads:
            return
        unfinished = run / f".{RESOLVED}"
        try:
            run.mkdir(parents=True, exist_ok=True)
            unfinished.write_text(nmt.config.dump(self.config), encoding="utf-8")
            unfinished.replace(run / RESOLVED)  # never half a file: resuming reads it
        except OSError as error:
            raise TrainingError(f"{run}: cannot be written to ({error.strerror or error}): see to the folder") from None

    def _restore(self, tensors: dict[str, Tensor], progress: dict[str, Any]) -> None:
        """Put model, average, optimiser and progress back to what `_save` stored; random numbers follow from seed and step."""
        self._load(self.model, "model.", tensors)
        if self.average.decay:
            self._load(self.average.model, "ema.", tensors)
        unpack_optimizer(self.model, self.optimizer, tensors)
        self.progress = Progress(**progress)

    def _check_unchanged(self) -> None:
        """What a checkpoint's tensors or the order of batches depend on must be what it was; the rest may change."""
        path = self.config.run / RESOLVED
        before = nmt.config.load(RunConfig, path)
        keys = [key for key in ("seed", "model") if getattr(before, key) != getattr(self.config, key)]
        keys += [
            f"train.{name}"
            for name in ("batch_tokens", "pairs", "subword_sampling")
            if getattr(before.train, name) != getattr(self.config.train, name)
        ]
        if bool(before.optimizer.ema_decay) != bool(self.config.optimizer.ema_decay):
            keys.append("optimizer.ema_decay")
        if before.validation.metric != self.config.validation.metric:  # the best so far is a value of the former
            keys.append("validation.metric")
        if keys:
            raise CheckpointError(
                f"{path}: this run was begun with other values of {', '.join(keys)}: put them back, or give another run folder "
                "(--set run=...)"
            )

    def _load(self, model: Seq2Seq, prefix: str, tensors: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(tensors[prefix + name])

    def _corpus_hash(self) -> str:
        return str(self.corpus.manifest["content_hash"])

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16")

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Let Ctrl-C and SIGTERM finish the step; a second Ctrl-C ends at once."""

        def stop(number: int, frame: FrameType | None) -> None:
            if self._stop:
                os._exit(130)
            self._stop = True

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def resolve_device(config: TrainConfig) -> tuple[torch.device, str]:
    """The device and the precision (fp32 or bf16) that the configuration asks for or that `auto` comes to here."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("train.device: cuda, but PyTorch sees no GPU here (set train.device: cpu or auto)")
    cuda = config.device == "cuda" or (config.device == "auto" and torch.cuda.is_available())
    device = torch.device("cuda" if cuda else "cpu")
    if config.precision != "auto":
        return device, config.precision
    fast = torch.cuda.is_bf16_supported() if cuda else bool(torch.cpu._is_avx512_bf16_supported())
    return device, "bf16" if fast else "fp32"


def _record(result: Validation) -> dict[str, Any]:
    return {
        "loss": round(result.loss, 5),
        "train_loss": round(result.train_loss, 5),
        "bleu": result.bleu.score,
        "bleu_signature": result.bleu.signature,
        "chrf": result.chrf.score,
        "chrf_signature": result.chrf.signature,
        "seconds": round(result.seconds, 1),
        "samples": [list(sample) for sample in result.samples],
    }
