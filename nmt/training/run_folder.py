"""What a run folder says of its run beside log and checkpoints: what was asked for, what `auto` came to, what it ran on.

RUN/config.yaml        the configuration, every default written out
RUN/choices.json       what `auto` came to when the run was begun; resuming keeps to it
RUN/environment.json   versions, machine, processes, command of the last start
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import torch

import nmt.config
from nmt.config import Section
from nmt.errors import CheckpointError, ConfigError, TrainingError
from nmt.training.config import RunConfig, TrainConfig
from nmt.training.machine import machine, versions
from nmt.training.world import World

RESOLVED, CHOICES, ENVIRONMENT = "config.yaml", "choices.json", "environment.json"
# What a checkpoint's tensors, the order of batches or the best so far depend on. `precision` and `batch_tokens` are compared as they
# came to be; the device may change, as may how many processes there are.
_FIXED = ("seed", "model", "train.pairs", "train.subword_sampling", "validation.metric")


class Choices(Section):
    """What a run was begun with where its configuration says `auto` or nothing."""

    device: Literal["cpu", "cuda"]
    precision: Literal["fp32", "bf16"]
    threads: int
    processes: int
    batch_tokens: int


def settle(config: RunConfig, world: World, resume: bool) -> RunConfig:
    """The configuration with device, precision and threads as they are to be, and the batch size where a run that was begun tells it.

    `resume` says that there are checkpoints to go on from. Raises `ConfigError` for a device that is not here, `CheckpointError` naming
    what a run can't change.
    """
    before = _begun(config.run) if resume else None
    train = config.train
    device, precision = resolve_device(train if before is None else _kept(train, before))
    threads = train.threads or torch.get_num_threads() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) or 1
    batch_tokens: int | Literal["auto"] = train.batch_tokens
    if before is not None:
        if train.threads is None and before.processes == world.size:
            threads = before.threads
        if batch_tokens == "auto":
            batch_tokens = before.batch_tokens
    choices = {"device": device.type, "precision": precision, "threads": threads, "batch_tokens": batch_tokens}
    settled = config.model_copy(update={"train": train.model_copy(update=choices)})
    if resume:
        _check_unchanged(config, settled, before)
    return settled


def _kept(train: TrainConfig, before: Choices) -> TrainConfig:
    """Where the configuration leaves device or precision open, those of the run's beginning."""
    kept = {name: getattr(before, name) for name in ("device", "precision") if getattr(train, name) == "auto"}
    return train.model_copy(update=kept)


def _begun(run: Path) -> Choices | None:
    """What the run was begun with; None when it was not, or by a version that did not say."""
    try:
        return Choices.model_validate_json((run / CHOICES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _check_unchanged(config: RunConfig, settled: RunConfig, choices: Choices | None) -> None:
    path = config.run / RESOLVED
    before = nmt.config.load(RunConfig, path)
    keys = [key for key in _FIXED if _get(before, key) != _get(config, key)]
    then = before.train if choices is None else choices
    if then.batch_tokens != settled.train.batch_tokens:
        keys.append("train.batch_tokens")
    if then.precision not in ("auto", settled.train.precision):
        keys.append("train.precision")
    if bool(before.optimizer.ema_decay) != bool(config.optimizer.ema_decay):
        keys.append("optimizer.ema_decay")
    if keys:
        raise CheckpointError(
            f"{path}: this run was begun with other values of {', '.join(keys)}: put them back, give another run folder "
            "(--set run=...), or begin anew with --fresh, which puts this one aside"
        )


def changes(config: RunConfig) -> list[str]:
    """What the configuration says otherwise than that of the run's last start, as `key: before -> now`."""
    try:
        before = _flat(nmt.config.load(RunConfig, config.run / RESOLVED).model_dump(mode="json"))
    except ConfigError:
        return []
    now = _flat(config.model_dump(mode="json"))
    keys = (key for key in now if key not in ("run", "corpus") and now[key] != before.get(key))
    return [f"{key}: {before.get(key)} -> {now[key]}" for key in keys]


def record(asked: RunConfig, settled: RunConfig, world: World, finished: bool) -> None:
    """Write the three files, each whole or not at all; where nothing is left to do the environment stays that of the last work.

    Raises `TrainingError` where the folder can't be written to.
    """
    train = settled.train
    choices = Choices(
        device=train.device if train.device != "auto" else "cpu",
        precision=train.precision if train.precision != "auto" else "fp32",
        threads=train.threads or 1,
        processes=world.size,
        batch_tokens=train.budget,
    )
    here: dict[str, Any] = {
        "versions": versions(),
        "machine": machine(),
        "processes": world.size,
        "command": shlex.join(["nmt", *sys.argv[1:]]),
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
    }
    files = {
        RESOLVED: nmt.config.dump(asked),
        CHOICES: choices.model_dump_json(indent=1) + "\n",
        **({} if finished else {ENVIRONMENT: json.dumps(here, indent=1) + "\n"}),
    }
    try:
        asked.run.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            unfinished = asked.run / f".{name}"
            unfinished.write_text(text, encoding="utf-8")
            unfinished.replace(asked.run / name)  # never half a file: resuming reads it
    except OSError as error:
        raise TrainingError(
            f"{asked.run}: cannot be written to ({error.strerror or error}): see to the folder"
        ) from None


def put_aside(run: Path) -> Path | None:
    """Rename a run folder, so that its place is free; return the new name, None when there was nothing."""
    if not run.exists():
        return None
    number = 1
    while (aside := run.with_name(f"{run.name}.before-{number}")).exists():
        number += 1
    try:
        run.rename(aside)
    except OSError as error:
        raise TrainingError(f"{run}: can't be put aside ({error.strerror or error})") from None
    return aside


def resolve_device(config: TrainConfig) -> tuple[torch.device, Literal["fp32", "bf16"]]:
    """The device and the precision that the configuration asks for or that `auto` comes to here."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("train.device: cuda, but PyTorch sees no GPU here (set train.device: cpu or auto)")
    cuda = config.device == "cuda" or (config.device == "auto" and torch.cuda.is_available())
    device = torch.device("cuda" if cuda else "cpu")
    if config.precision != "auto":
        return device, config.precision
    fast = torch.cuda.is_bf16_supported() if cuda else bool(torch.cpu._is_avx512_bf16_supported())
    return device, "bf16" if fast else "fp32"


def _get(config: RunConfig, key: str) -> Any:
    found: Any = config
    for part in key.split("."):
        found = getattr(found, part)
    return found


def _flat(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
