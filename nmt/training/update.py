"""The gradient of one update: over all of its batches and all processes, in as many pieces as fit into memory."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from nmt.corpus.store import PreparedCorpus
from nmt.errors import TrainingError
from nmt.model.dropout import sentence_keys
from nmt.training.batches import Batch
from nmt.training.config import RunConfig
from nmt.training.health import HealthRecorder
from nmt.training.world import World

REJECTED = "rejected.jsonl"


@dataclass
class Meter:
    """Sums since the last line of the log; the losses are this process's own, and stay where they are computed until they are read."""

    loss: Tensor | float = 0.0
    nll: Tensor | float = 0.0
    tokens: int = 0
    total: int = 0
    norm: float = 0.0
    since: float = field(default_factory=time.perf_counter)


class Gradients:
    """Computes the gradients of an update, which several processes share."""

    def __init__(
        self, config: RunConfig, objective: nn.Module, device: torch.device, world: World, health: HealthRecorder
    ) -> None:
        """`objective` is an `Objective`, or DistributedDataParallel's wrapper of one; its parameters lie on `device`."""
        self._config, self._objective, self._device = config, objective, device
        self._world, self._health = world, health
        self._parameters = list(objective.parameters())

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The precision of the run."""
        return torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._config.train.precision == "bf16")

    def compute(self, batches: Sequence[Batch], step: int, meter: Meter) -> float:
        """Leave the gradients of update `step` (from 1), normalised by its number of target tokens and clipped; return their norm
        before that.

        Where one process runs out of memory, all begin again with every batch cut in two, until it fits; raise `TrainingError` when a
        single sentence does not.
        """
        pieces = 1
        while True:
            with self._health.watching(step):
                sums = self._sums(batches, step, pieces)
            if not self._world.any(sums is None):
                break
            if pieces >= max(len(batch.source) for batch in batches):
                raise TrainingError(f"step {step}: a single sentence does not fit into memory: make the model smaller")
            self._clear()
            pieces *= 2
            if self._world.leads:
                print(f"step {step}: out of memory: again in {pieces} pieces", file=sys.stderr)
        assert sums is not None
        norm = float(torch.nn.utils.clip_grad_norm_(self._parameters, self._config.optimizer.clip_norm))
        if math.isfinite(norm):
            meter.loss, meter.nll = meter.loss + sums[0], meter.nll + sums[1]
            meter.tokens += sum(batch.tokens for batch in batches)
            meter.total += sum(batch.total for batch in batches)
        return norm

    def loss(self, batch: Batch, step: int, number: int = 0) -> tuple[Tensor, Tensor]:
        """Sums of the loss and of the negative log likelihood over (a part of) batch `number` of update `step`."""
        part = batch.to(self._device)
        seed = np.random.default_rng((self._config.seed, step - 1, number)).integers(2**32)
        keys = sentence_keys(int(seed), part.numbers)
        with self.autocast():
            loss, nll = self._objective(part.source, part.source_lengths, part.target, part.labels, part.places, keys)
        return loss, nll

    def attempt(self, batch: Batch) -> None:
        """Take a batch forward and backward, as a trial: nothing is left of it."""
        try:
            torch.autograd.backward(self.loss(batch, 1)[0])
        finally:
            self._clear()

    def _sums(self, batches: Sequence[Batch], step: int, pieces: int) -> tuple[Tensor, Tensor] | None:
        """Sums of loss and negative log likelihood over this process's part, its gradients being left; None when memory ran out."""
        tokens = sum(batch.tokens for batch in batches)
        parts = [
            (number, share.share(piece, pieces))
            for number, batch in enumerate(batches)
            for share in (batch.share(self._world.rank, self._world.size),)
            for piece in range(pieces)
        ]
        losses: list[Tensor] = []
        nlls: list[Tensor] = []
        try:
            for number, part in parts[:-1]:
                with self._alone():
                    self._backward(part, step, number, tokens, losses, nlls)
            number, part = parts[-1]
            self._backward(part, step, number, tokens, losses, nlls)  # sums over the processes what is there by now
            return torch.stack(losses).sum(), torch.stack(nlls).sum()
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        self._give_up(batches[0].idle(), step)  # out here the error, which holds on to what was computed, is gone
        return None

    def _backward(
        self, part: Batch, step: int, number: int, tokens: int, losses: list[Tensor], nlls: list[Tensor]
    ) -> None:
        loss, nll = self.loss(part, step, number)
        torch.autograd.backward(loss * (self._world.size / tokens))  # the processes' gradients are averaged
        losses.append(loss.detach())
        nlls.append(nll)

    def _alone(self) -> contextlib.AbstractContextManager[None]:
        """Within it gradients stay in this process: they are summed once an update, while those of its last part are computed."""
        if isinstance(self._objective, DistributedDataParallel):
            return self._objective.no_sync()
        return contextlib.nullcontext()

    def _give_up(self, idle: Batch, step: int) -> None:
        """Take part in the sum that the other processes wait for, with nothing; what comes of it is thrown away."""
        self._clear()
        if not isinstance(self._objective, DistributedDataParallel):
            return
        try:
            torch.autograd.backward(self.loss(idle, step)[0])
        except RuntimeError:  # the sum was under way
            raise TrainingError(
                f"step {step}: process {self._world.rank} ran out of memory while gradients were being summed: lower "
                "train.batch_tokens, or set it to auto in a new run; the last checkpoint is intact"
            ) from None

    def _clear(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory, of the host or of a GPU, ran out."""
    words = ("out of memory", "not enough memory", "can't allocate memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(word in str(error).lower() for word in words)


def keep_rejected(run: Path, corpus: PreparedCorpus, batches: Sequence[Batch], step: int) -> Path:
    """Append the sentences of update `step`, which is left out, to the run's file of such; return that file."""
    path, decode = run / REJECTED, (corpus.source_tokenizer.decode, corpus.target_tokenizer.decode)
    with path.open("a", encoding="utf-8") as file:
        for batch in batches:
            for source, target in zip(batch.source.tolist(), batch.target.tolist(), strict=True):
                pair = {"step": step, "source": decode[0](source), "target": decode[1](target)}
                file.write(json.dumps(pair, ensure_ascii=False) + "\n")
    return path
