"""The optimiser, the schedule of its learning rate, and the moving average of the weights."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from nmt.model.seq2seq import Seq2Seq
from nmt.training.config import OptimizerConfig


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019) on the weight matrices, none on biases and norms."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2), eps=1e-9, fused=True)


def learning_rate(step: int, config: OptimizerConfig, max_steps: int, halvings: int = 0) -> float:
    """The rate of update `step` (from 1): linear warm-up to `lr`, then the schedule's decay.

    `halvings` is how often the plateau schedule has struck. "step" is that of GNMT (NVIDIA's v2): after two thirds of the run the
    rate is halved four times at equal intervals.
    """
    warmup = config.warmup_steps
    if step <= warmup:
        return config.lr * (step / warmup)
    if config.schedule == "constant":
        return config.lr
    if config.schedule == "plateau":
        return config.lr * 0.5**halvings
    if config.schedule == "step":
        return config.lr * 0.5 ** max(0, math.ceil((step / max_steps - 2 / 3) * 12))
    if config.schedule == "inverse_sqrt":
        return config.lr * math.sqrt(max(1, warmup) / step)
    left = max(0.0, (max_steps - step) / max(1, max_steps - warmup))
    return config.lr * (left if config.schedule == "linear" else 0.5 * (1 - math.cos(math.pi * left)))


class MovingAverage:
    """An exponential moving average of a model's weights; decay rises with the step so that early weights are forgotten."""

    def __init__(self, model: Seq2Seq, decay: float) -> None:
        """With `decay` 0 the average is the live model itself."""
        self.decay = decay
        self.model = copy.deepcopy(model).requires_grad_(False) if decay else model
        self._average: list[Tensor] = list(self.model.parameters())
        self._live = model

    def update(self, step: int) -> None:
        """Take in the weights after update `step` (from 1)."""
        if self.decay:
            decay = min(self.decay, step / (step + 10.0))
            torch._foreach_lerp_(self._average, [p.detach() for p in self._live.parameters()], 1.0 - decay)
