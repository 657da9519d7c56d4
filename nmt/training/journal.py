"""The record of a run: JSON lines, TensorBoard events, and the progress line in the terminal."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tqdm import tqdm


class Journal:
    """Writes `log.jsonl` and, where TensorBoard is installed, its events; resuming cuts the log back to the checkpoint."""

    def __init__(self, run: Path, step: int, max_steps: int) -> None:
        """`step` is the last update already done."""
        self._path = run / "log.jsonl"
        if self._path.exists():
            kept = [line for line in self._path.read_text(encoding="utf-8").splitlines() if _step(line) <= step]
            partial = self._path.with_name(".log.jsonl")
            partial.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
            os.replace(partial, self._path)
        self._log = self._path.open("a", encoding="utf-8")
        try:
            from torch.utils.tensorboard import SummaryWriter

            self._board: Any = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)  # type: ignore[no-untyped-call]
        except ImportError:
            self._board = None
        self.bar = tqdm(total=max_steps, initial=step, unit=" steps", desc="train", smoothing=0.05, mininterval=1.0)

    def write(self, step: int, kind: str, values: dict[str, Any]) -> None:
        """Record `values` of `kind` (train or validation) after update `step`."""
        self._log.write(json.dumps({"step": step, "kind": kind} | values, ensure_ascii=False) + "\n")
        self._log.flush()
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, int | float):
                    self._board.add_scalar(f"{kind}/{name}", value, step)

    def say(self, message: str) -> None:
        """Print a line above the progress line."""
        self.bar.write(message)

    def close(self) -> None:
        """Flush and close everything."""
        self._log.close()
        self.bar.close()
        if self._board is not None:
            self._board.close()


def _step(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")  # a line cut short by a crash goes
