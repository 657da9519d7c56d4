"""The configuration of a training run, one YAML file: corpus, run folder, model, optimisation, validation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from nmt.config import Section, expected
from nmt.errors import ConfigError
from nmt.model.config import ModelConfig


class OptimizerConfig(Section):
    """Adam with decoupled weight decay, and the schedule of its learning rate."""

    lr: float = Field(1e-3, gt=0, le=1.0, description="learning rate at its peak, after the warm-up")
    schedule: Literal["inverse_sqrt", "linear", "cosine", "step", "plateau", "constant"] = Field(
        "inverse_sqrt",
        description="decay after the warm-up: linear and cosine end at zero at max_steps; step halves four times in the last third "
        "(GNMT); plateau halves after every `plateau_patience` validations without a new best",
    )
    plateau_patience: int = Field(2, ge=1)
    warmup_steps: int = Field(400, ge=0)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.98, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0, lt=1)
    clip_norm: float = Field(1.0, gt=0, description="largest global norm of the gradient")
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    r_drop: float = Field(
        0.0,
        ge=0,
        le=20,
        description="weight of R-Drop (Liang 2021): two dropout masks must agree; twice the time; 0 = off",
    )
    guided_alignment: float = Field(
        0.0,
        ge=0,
        le=10,
        description="weight of teaching a head of attention which source subword each target subword comes from (Garg 2019); 0 = off",
    )
    ema_decay: float = Field(
        0.999, ge=0, lt=1, description="of the averaged weights that are validated and bundled; 0 = off"
    )


class TrainConfig(Section):
    """How long to train and on how much at a time."""

    max_steps: int = Field(10_000, ge=1, description="optimiser updates")
    batch_tokens: Annotated[
        Annotated[int, Field(ge=16)] | Literal["auto"], expected("a whole number, 16 at least, or auto")
    ] = Field(
        8192,
        description="source and target subwords of a batch, padding included; auto: the largest that fits into memory, found when the "
        "run is begun",
    )
    pairs: int | None = Field(None, ge=1, description="train on the first N pairs of the corpus only; all by default")
    subword_sampling: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="cut words into subwords at random: merges left out (BPE-dropout), 0.1 as published; 0 = off",
    )
    accumulate: int = Field(1, ge=1, description="batches whose gradients are summed for one update")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto: bf16 where the processor computes in it"
    )
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = Field(None, ge=1, description="CPU threads; all cores by default")
    log_every: int = Field(50, ge=1, description="steps between lines of the log")
    health_every: int | None = Field(
        500, ge=1, description="steps between records of gradients, updates and gates of every layer; null for none"
    )
    save_every: int = Field(500, ge=1, description="steps between checkpoints")
    keep: int = Field(3, ge=1, description="latest checkpoints that are kept, beside the best")

    @property
    def budget(self) -> int:
        """`batch_tokens` as a number; raise `ConfigError` while it is still to be found."""
        if self.batch_tokens == "auto":
            raise ConfigError("train.batch_tokens: auto is found by training; a number is needed here")
        return self.batch_tokens


class ValidationConfig(Section):
    """How a run is judged while it goes on."""

    every: int = Field(500, ge=1, description="steps between validations")
    sentences: int | None = Field(
        None, ge=1, description="of the validation split that are translated for BLEU; all by default"
    )
    beam_size: int = Field(1, ge=1, le=64)
    metric: Literal["bleu", "loss"] = Field(
        "bleu", description="decides which checkpoint is the best, and when to stop"
    )
    patience: int | None = Field(
        None, ge=1, description="validations without a new best before training stops; never by default"
    )


class RunConfig(Section):
    """A training run: what `nmt train CONFIG` reads."""

    corpus: Path = Field(description="a prepared corpus, made by `nmt prepare`")
    run: Path = Field(description="the run folder: log, checkpoints, resolved configuration")
    seed: int = Field(1, ge=0)
    model: ModelConfig = ModelConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig = TrainConfig()
    validation: ValidationConfig = ValidationConfig()

    @model_validator(mode="after")
    def _warmup_fits(self) -> RunConfig:
        if self.optimizer.schedule in ("linear", "cosine") and self.optimizer.warmup_steps >= self.train.max_steps:
            raise ValueError(
                f"optimizer.warmup_steps {self.optimizer.warmup_steps} leaves no step of train.max_steps "
                f"{self.train.max_steps} for the {self.optimizer.schedule} decay"
            )
        return self
