"""What a training run has left behind, read back with checks: its log, and the files beside it."""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from nmt.config import load
from nmt.errors import ConfigError, NMTError
from nmt.study.verdict import CurvePoint
from nmt.training.config import RunConfig

Record = dict[str, Any]
Series = list[tuple[int, float]]  # (step, value)

# The names are those of nmt.training, which is not imported for them: it needs PyTorch, and reading a run does not.
LOG, CONFIG, REJECTED = "log.jsonl", "config.yaml", "rejected.jsonl"
CHOICES, ENVIRONMENT = "choices.json", "environment.json"


@dataclass(frozen=True)
class RunLog:
    """The records of a run in the order of their steps, each with `step` and `kind` (train, validation, health)."""

    records: tuple[Record, ...]

    def of(self, kind: str) -> list[Record]:
        """The records of one kind."""
        return [record for record in self.records if record.get("kind") == kind]

    def series(self, kind: str, key: str) -> Series:
        """The values of `key` over the steps; those that are missing or no finite numbers are left out."""
        return [(record["step"], value) for record in self.of(kind) if (value := _number(record.get(key))) is not None]

    def scores(self, name: str) -> Series:
        """A score (bleu, chrf) over the steps; none where the log lacks the signature that says how it was computed."""
        signed = {
            record["step"] for record in self.of("validation") if isinstance(record.get(f"{name}_signature"), str)
        }
        return [(step, value) for step, value in self.series("validation", name) if step in signed]

    def warnings(self) -> list[tuple[int, str]]:
        """What the health records warn of, each with its step."""
        given = ((record["step"], record.get("warnings")) for record in self.of("health"))
        return [(step, str(text)) for step, texts in given if isinstance(texts, list) for text in texts]

    @cached_property
    def last_step(self) -> int:
        """The last step that the log tells of."""
        return max((record["step"] for record in self.records), default=0)

    @cached_property
    def _epochs(self) -> Series:
        return self.series("train", "epoch")

    def epoch(self, step: int) -> float:
        """Passes over the training pairs by `step`, from the nearest record that says so; 0 where none does."""
        if not self._epochs:
            return 0.0
        near = min(self._epochs, key=lambda known: abs(known[0] - step))
        return near[1] * step / near[0] if near[0] else 0.0

    def curve(self) -> list[CurvePoint]:
        """The validations whose two losses are finite numbers, for a verdict."""
        train, bleu = dict(self.series("validation", "train_loss")), dict(self.scores("bleu"))
        return [
            CurvePoint(
                step=step,
                epoch=round(self.epoch(step), 3),
                validation_loss=loss,
                train_loss=train[step],
                bleu=bleu.get(step, 0.0),
            )
            for step, loss in self.series("validation", "loss")
            if step in train
        ]

    def median_rate(self) -> float | None:
        """Source and target tokens a second, the median of the log."""
        rates = [rate for _, rate in self.series("train", "tokens_per_second")]
        return statistics.median(rates) if rates else None


@dataclass(frozen=True)
class Run:
    """A run folder as it stands. `choices` is what `auto` came to, `written` the time of the log's last line; older runs have neither
    choices nor environment."""

    folder: Path
    config: RunConfig
    config_text: str
    log: RunLog
    rejected: tuple[Record, ...]
    choices: Record
    environment: Record
    written: datetime

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.folder.resolve().name

    def seconds(self) -> float | None:
        """How long the updates took, validations and pauses not counted; None where an older log does not tell."""
        found = [seconds for _, seconds in self.log.series("train", "seconds")]
        return sum(found) if found and len(found) == len(self.log.of("train")) else None

    def best(self) -> Record | None:
        """The validation that is the best one by the run's own metric."""
        name = self.config.validation.metric
        values = self.log.scores("bleu") if name == "bleu" else self.log.series("validation", "loss")
        if not values:
            return None
        step = max(values, key=lambda item: item[1] if name == "bleu" else -item[1])[0]
        return next(record for record in self.log.of("validation") if record["step"] == step)

    def state(self) -> str:
        """Whether the run has come to its end, in words."""
        if self.log.last_step >= self.config.train.max_steps:
            return "finished"
        best, patience = self.best(), self.config.validation.patience
        since = sum(best is not None and record["step"] > best["step"] for record in self.log.of("validation"))
        if patience is not None and since >= patience:
            return f"finished: no better for {since} validation{'s' if since != 1 else ''}"
        return f"not finished, last record {self.written:%Y-%m-%d %H:%M} UTC"


def read_run(folder: Path) -> Run:
    """What lies in a run folder; raise `NMTError` where it is none, its log is empty or a file is damaged."""
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "no such folder"
        raise NMTError(f"{folder}: {what}: give the folder of a training run, such as runs/NAME")
    path = folder / CONFIG
    if not path.is_file():
        raise NMTError(f"{folder}: holds no {CONFIG}, so it is no training run: give a folder that nmt train has made")
    try:
        config = load(RunConfig, path)
    except ConfigError as error:
        raise NMTError(f"{error}: put {CONFIG} back as nmt train --print-config shows it") from None
    log = read_log(folder)
    if not log.records:
        raise NMTError(
            f"{folder / LOG}: empty so far: wait for the first {config.train.log_every} updates (train.log_every)"
        )
    rejected = folder / REJECTED
    return Run(
        folder,
        config,
        path.read_text(encoding="utf-8"),
        log,
        tuple(_json_lines(rejected)) if rejected.exists() else (),
        _read_object(folder / CHOICES),
        _read_object(folder / ENVIRONMENT),
        datetime.fromtimestamp((folder / LOG).stat().st_mtime, UTC),
    )


def read_log(folder: Path) -> RunLog:
    """The log of the run in `folder`, without a last line cut short; raise `NMTError` where there is none or it is damaged."""
    return RunLog(tuple(sorted(_json_lines(folder / LOG), key=lambda record: int(record["step"]))))


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _json_lines(path: Path) -> list[Record]:
    """The objects of a file with one a line, each with a step."""
    lines = _text(path).split("\n")  # not `splitlines`: it would cut inside samples
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            item = json.loads(line) if line else None
        except (ValueError, RecursionError):
            if number < len(lines):  # the last may be cut short: the run may be going on
                raise NMTError(f"{path}, line {number}: not JSON: give the log of a training run") from None
            continue
        if item is None:
            continue
        if not isinstance(item, dict) or not isinstance(item.get("step"), int):
            raise NMTError(f"{path}, line {number}: not a record of a training run: mend or remove this line")
        found.append(item)
    return found


def _read_object(path: Path) -> Record:
    if not path.exists():
        return {}
    try:
        found = json.loads(_text(path))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise NMTError(f"{path}: not a JSON object: mend or remove this file")
    return found


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8", "replace")  # a crash may cut a line inside a character
    except OSError as error:
        raise NMTError(f"{path}: {error.strerror or error}: give the folder of a training run") from None
