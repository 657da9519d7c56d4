"""Checkpoints: tensors as safetensors, the rest as JSON, written whole or not at all, never pickled.

RUN/checkpoints/00001000/state.json            step, epoch, position, best, history; a checksum of both files
                         tensors.safetensors    model.*, ema.*, optimizer.<parameter>.<moment>
RUN/checkpoints/best                            the name of the best one
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nmt.errors import CheckpointError, TrainingError

_FOLDER = "checkpoints"
_CHECKSUM = "checksum"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no room: on the disk, in the quota, in the file-size limit


class Checkpoints:
    """The checkpoints of one run folder."""

    def __init__(self, run: Path, keep: int) -> None:
        """`keep` is how many of the latest stay, beside the best."""
        self.folder, self.keep = run / _FOLDER, keep

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(int(path.name) for path in self.folder.iterdir() if path.name.isdecimal() and path.is_dir())

    def best(self) -> int | None:
        """The step of the best checkpoint, if one has been marked."""
        try:
            return int((self.folder / "best").read_text())
        except (OSError, ValueError):
            return None

    def path(self, step: int) -> Path:
        """The folder of a checkpoint."""
        return self.folder / f"{step:08d}"

    def save(self, step: int, tensors: Mapping[str, Tensor], state: dict[str, Any]) -> None:
        """Write the checkpoint of `step`, atomically; a full disk is a `TrainingError` and leaves the earlier ones."""
        partial = self.folder / ".partial"
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            save_file({name: t.contiguous() for name, t in tensors.items()}, partial / "tensors.safetensors")
            checksum = _checksum(partial / "tensors.safetensors", state)
            (partial / "state.json").write_text(json.dumps(state | {_CHECKSUM: checksum}), encoding="utf-8")
            for path in (*partial.iterdir(), partial):
                _sync(path)
            shutil.rmtree(self.path(step), ignore_errors=True)
            partial.rename(self.path(step))
            _sync(self.folder)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            full = getattr(error, "errno", None) in _FULL or any(f"os error {code}" in str(error) for code in _FULL)
            remedy = "free some space and run the same command again" if full else "see to the folder and run again"
            raise TrainingError(
                f"{self.path(step)}: the checkpoint could not be written ({error}); earlier checkpoints are intact: {remedy}"
            ) from None

    def mark_best(self, step: int) -> None:
        """Name `step`, already saved, the best; a full disk is a `TrainingError`."""
        partial = self.folder / ".best"
        try:
            partial.write_text(f"{step}\n")
            os.replace(partial, self.folder / "best")
        except OSError as error:
            raise TrainingError(
                f"{self.folder / 'best'}: could not be written ({error.strerror or error}); the checkpoints are intact"
            ) from None

    def prune(self) -> None:
        """Remove all but the latest `keep` and the best."""
        for step in self.steps()[: -self.keep]:
            if step != self.best():
                shutil.rmtree(self.path(step), ignore_errors=True)

    def load(self, step: int, device: torch.device | str = "cpu") -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and state of the checkpoint of `step`; raise `CheckpointError` when it is missing or damaged."""
        path = self.path(step)
        try:
            state = json.loads((path / "state.json").read_text(encoding="utf-8"))
            if not isinstance(state, dict):
                raise ValueError("state.json does not hold an object")
            checksum = state.pop(_CHECKSUM, None)
            if checksum is not None and checksum != _checksum(path / "tensors.safetensors", state):
                raise ValueError("its checksum is another")
            return load_file(path / "tensors.safetensors", device=str(device)), state
        except FileNotFoundError as error:
            raise CheckpointError(
                f"{error.filename or path}: missing; is {self.folder.parent} a training run?"
            ) from None
        except (SafetensorError, ValueError, OSError) as error:
            raise CheckpointError(
                f"{path}: damaged ({error}); remove this folder and run again to go on from the one before"
            ) from None

    def load_latest(
        self, device: torch.device | str, say: Callable[[str], None]
    ) -> tuple[int, dict[str, Tensor], dict[str, Any]] | None:
        """Step, tensors and state of the latest checkpoint that is whole, None without any; `say` is told of those that are not.

        Raises `CheckpointError` when none is whole.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                return step, *self.load(step, device)
            except CheckpointError as error:
                if step == steps[0]:
                    raise
                say(str(error).partition("; remove")[0] + "; going on from the one before")
        return None


def _checksum(tensors: Path, state: dict[str, Any]) -> str:
    """Of the tensors' file and of the state."""
    with tensors.open("rb") as file:
        digest = hashlib.file_digest(file, "blake2b")
    digest.update(json.dumps(state, sort_keys=True).encode())
    return digest.hexdigest()[:32]


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def pack_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as tensors named after the parameters."""
    return {
        f"optimizer.{name}.{key}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def unpack_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `pack_optimizer` made."""
    for name, parameter in model.named_parameters():
        prefix = f"optimizer.{name}."
        state = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        if state:
            optimizer.state[parameter] = state


def averaged_weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a checkpoint that are meant to be used: its moving average where it has one."""
    prefix = "ema." if any(name.startswith("ema.") for name in tensors) else "model."
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
