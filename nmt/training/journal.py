"""The record of a run: JSON lines, TensorBoard events, and the progress line in the terminal."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from nmt.errors import TrainingError
from nmt.progress import progress

_PIXELS = 12  # a side of a cell in the picture of the attention


class Journal:
    """Writes `log.jsonl` and, where TensorBoard is installed, its events; resuming cuts the log back to the checkpoint."""

    def __init__(self, run: Path, step: int, max_steps: int) -> None:
        """`step` is the last update already done."""
        self._path = run / "log.jsonl"
        if self._path.exists():
            lines = self._path.read_text(encoding="utf-8").split("\n")  # not `splitlines`: it would cut inside samples
            kept = [line for line in lines if _step(line) <= step]
            partial = self._path.with_name(".log.jsonl")
            partial.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
            os.replace(partial, self._path)
        self._log = self._path.open("a", encoding="utf-8")
        try:
            from torch.utils.tensorboard import SummaryWriter

            self._board: Any = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)
        except ImportError:
            self._board = None
        self.bar = progress("train", "steps", max_steps, step)
        self._begun, self._started = step, time.perf_counter()

    def write(self, step: int, kind: str, values: dict[str, Any]) -> None:
        """Record `values` of `kind` (train, validation or health) after update `step`; a full disk is a `TrainingError`."""
        try:
            self._log.write(json.dumps({"step": step, "kind": kind} | values, ensure_ascii=False) + "\n")
            self._log.flush()
            if self._board is not None:
                for name, value in values.items():
                    if isinstance(value, int | float):
                        self._board.add_scalar(f"{kind}/{name}", value, step)
        except OSError as error:
            raise self._full(error) from None

    def show(self, step: int, samples: Sequence[Sequence[str]], attention: Tensor | None) -> None:
        """Put samples (source, reference, translation), and the attention (T, S) of the first, on the board."""
        if self._board is None:
            return
        for number, texts in enumerate(samples, start=1):
            named = zip(("source", "reference", "translation"), texts, strict=True)
            self._board.add_text(f"samples/{number}", "\n\n".join(f"{name}: {text}" for name, text in named), step)
        if attention is not None:
            grey = np.uint8(255) - (255 * attention.clamp(0, 1).numpy()).astype(np.uint8)
            self._board.add_image("attention/sample 1", grey.repeat(_PIXELS, 0).repeat(_PIXELS, 1)[None], step)

    def flush(self) -> None:
        """Bring everything written so far to the disk; a full one is a `TrainingError`."""
        try:
            self._log.flush()
            os.fsync(self._log.fileno())
            if self._board is not None:
                self._board.flush()
        except OSError as error:
            raise self._full(error) from None

    def advance(self, step: int, message: str) -> None:
        """Move the progress line to `step`; without a terminal, print a line with the time left instead."""
        if not self.bar.disable:
            self.bar.set_postfix_str(message)
            self.bar.update(step - self.bar.n)
            return
        total = self.bar.total or step
        left = (time.perf_counter() - self._started) / max(1, step - self._begun) * (total - step)
        self.say(f"step {step}/{total}: {message}, {left / 60:.0f} min left")

    def say(self, message: str) -> None:
        """Print a line above the progress line."""
        self.bar.write(message, file=sys.stderr)

    def _full(self, error: OSError) -> TrainingError:
        return TrainingError(
            f"{self._path}: could not be written ({error.strerror or error}); the checkpoints are intact: free some space "
            "and run the same command again"
        )

    def close(self) -> None:
        """Close everything; what could not be written by now has been reported by `write`."""
        self.bar.close()
        with contextlib.suppress(OSError):
            self._log.close()
        with contextlib.suppress(OSError):
            if self._board is not None:
                self._board.close()


class Silence(Journal):
    """The journal of a process that does not lead: it writes and says nothing."""

    def __init__(self, run: Path, step: int, max_steps: int) -> None:
        pass

    def write(self, step: int, kind: str, values: dict[str, Any]) -> None:
        """Nothing."""

    def show(self, step: int, samples: Sequence[Sequence[str]], attention: Tensor | None) -> None:
        """Nothing."""

    def flush(self) -> None:
        """Nothing."""

    def advance(self, step: int, message: str) -> None:
        """Nothing."""

    def say(self, message: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def _step(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")  # a line cut short by a crash goes
