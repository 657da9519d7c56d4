"""The result of a cell: one JSON file, written whole or not at all, read back with checks."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

from nmt.config import Section, parse
from nmt.errors import ConfigError
from nmt.study.config import Cell, read_config, same_run
from nmt.study.verdict import CurvePoint, Verdict

_RESULT, _FAILURE = ".json", ".failed"


class Machine(Section):
    """Where a cell ran; `at_once` is the number of cells that shared the machine with it, itself included."""

    processor: str
    device: str
    precision: str
    cores: int
    threads: int
    at_once: int


class Result(Section):
    """Everything that a report needs of a finished cell."""

    cell: str
    config: dict[str, Any]
    corpus_hash: str
    pairs: int  # training pairs
    parameters: int
    steps: int
    epochs: float
    tokens: int  # source and target, padding not counted, over the whole training
    seconds: float  # of training, validations not counted
    tokens_per_second: float  # median of the log
    curve: tuple[CurvePoint, ...]
    best_step: int  # of the checkpoint that was measured on the test split
    validation_bleu: float  # of that checkpoint, with the search of the validation section
    validation_signature: str
    validation_sentences: int
    validation_loss: float
    test_bleu: float
    test_signature: str
    test_sentences: int
    search: str
    decode_speed: dict[str, float]  # sentences a second, by beam size
    decode_sentences: int
    verdict: Verdict
    versions: dict[str, str]
    machine: Machine


@dataclass(frozen=True)
class Outcome:
    """What is known of a cell: its result, or the last line of its failure, or (neither) nothing yet: it is open."""

    cell: Cell
    result: Result | None = None
    failure: str | None = None


def write_result(cell: Cell, result: Result) -> None:
    """Store the result of a finished cell."""
    _write(cell, _RESULT, result.model_dump_json(indent=1) + "\n")


def write_failure(cell: Cell, message: str) -> None:
    """Note why a cell failed; it is tried again by the next run."""
    _write(cell, _FAILURE, message + "\n")


def clear_failure(cell: Cell) -> None:
    """Forget the failure of a cell that is about to be tried again."""
    cell.beside(_FAILURE).unlink(missing_ok=True)


def _write(cell: Cell, suffix: str, text: str) -> None:
    partial = cell.beside(f"{suffix}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, cell.beside(suffix))


def read_result(cell: Cell) -> Result | None:
    """The result that lies in the cell's place, whatever study it came from; None where there is none or it is damaged."""
    path = cell.beside(_RESULT)
    try:
        return parse(Result, json.loads(path.read_text(encoding="utf-8")), str(path))
    except (OSError, ValueError, ConfigError):
        return None


def read_outcome(cell: Cell, corpus_hash: str | None) -> Outcome:
    """What is stored of a cell. A result of another configuration or another state of the corpus is not one of this cell; without
    a hash, where the corpus does not lie here, any state will do."""
    result = read_result(cell)
    if result is not None and corpus_hash in (None, result.corpus_hash):
        stored = read_config(result.config)
        if stored is not None and same_run(stored, cell.config):
            return Outcome(cell, result)
    try:
        return Outcome(cell, failure=cell.beside(_FAILURE).read_text(encoding="utf-8").strip())
    except OSError:
        return Outcome(cell)
