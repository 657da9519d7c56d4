"""Runs the cells of a study: all are checked before the first starts; finished ones are skipped, interrupted ones go on."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import FrameType

import torch

from nmt.config import dump
from nmt.corpus.store import PreparedCorpus
from nmt.errors import ConfigError, NMTError
from nmt.model.seq2seq import Seq2Seq
from nmt.study.config import Cell, Study
from nmt.study.result import Outcome, clear_failure, read_outcome, read_result, write_failure
from nmt.training.batches import training_batches
from nmt.training.run_folder import resolve_device

_POLL = 0.1  # seconds between two looks at the processes
_STOPPED = 130  # exit status of a cell that saved and stopped


@dataclass(frozen=True)
class RunOptions:
    """How to run: cells at a time (None: `per_gpu` on each GPU, one without any), and whether checkpoints stay."""

    workers: int | None = None
    per_gpu: int = 1
    keep: bool = False


def corpus_hashes(cells: Sequence[Cell]) -> dict[str, str]:
    """The content hash of each cell's corpus by the cell's name; no entry where the corpus does not lie here."""
    hashes = {}
    for cell in cells:
        with contextlib.suppress(NMTError):
            hashes[cell.name] = str(PreparedCorpus.open(cell.config.corpus).manifest["content_hash"])
    return hashes


def check_cells(study: Study, cells: Sequence[Cell]) -> None:
    """Look at everything that could stop a cell, without training; raise `ConfigError` naming the first that is impossible."""
    corpora: dict[str, PreparedCorpus] = {}
    for cell in cells:
        config = cell.config
        try:
            key = str(config.corpus)
            corpus = corpora[key] = corpora.get(key) or PreparedCorpus.open(config.corpus)
            training_batches(corpus, config)
            for split in ("validation", "test"):
                if not corpus.pairs(split):
                    raise ConfigError(f"{config.corpus}: its {split} split is empty")
            if config.model.tie_embeddings == "all" and not corpus.joint:
                raise ConfigError("model.tie_embeddings: all needs a joint vocabulary (choose output)")
            with torch.device("meta"):
                Seq2Seq(config.model, len(corpus.source_tokenizer), len(corpus.target_tokenizer))
            resolve_device(config.train)
        except NMTError as error:
            raise ConfigError(f"study {study.name}, cell {cell.name}: {error}") from None


def read_outcomes(cells: Sequence[Cell]) -> list[Outcome]:
    """What is stored of every cell."""
    hashes = corpus_hashes(cells)
    return [read_outcome(cell, hashes.get(cell.name)) for cell in cells]


def selected(outcomes: Sequence[Outcome], select: Sequence[str]) -> list[Cell]:
    """The cells that are not finished and that `select` lets through: each item of it is a pattern of names, as in a shell, or a
    number, at most so many cells. Raises `ConfigError` when a pattern fits no cell."""
    patterns = [item for item in select if not item.isdecimal()]
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(outcome.cell.name, pattern) for outcome in outcomes):
            raise ConfigError(
                f"--cells {pattern}: no cell is called so; there are {', '.join(o.cell.name for o in outcomes)}"
            )
    waiting = [outcome.cell for outcome in outcomes if outcome.result is None]
    if patterns:
        waiting = [cell for cell in waiting if any(fnmatch.fnmatchcase(cell.name, pattern) for pattern in patterns)]
    return waiting[: min((int(item) for item in select if item.isdecimal()), default=len(waiting))]


def slots(options: RunOptions, device: str) -> list[str | None]:
    """The GPU (as in CUDA_VISIBLE_DEVICES) of each cell that runs at a time, None on the CPU; `device` is that of the base."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = 0 if device == "cpu" else torch.cuda.device_count()
    gpus: list[str | None] = list(visible.split(",")[:count] if visible else map(str, range(count)))
    workers = options.workers or max(1, len(gpus) * options.per_gpu)
    return [gpus[slot % len(gpus)] if gpus else None for slot in range(workers)]


@dataclass
class _Running:
    cell: Cell
    process: subprocess.Popen[bytes]
    gpu: str | None
    since: float = field(default_factory=time.monotonic)
    asked: int = 0  # signals passed on


class Runner:
    """Keeps as many cells running as there are slots, each in a process of its own."""

    def __init__(self, options: RunOptions, say: Callable[[str], None]) -> None:
        """`say` takes a line of progress."""
        self.options, self.say = options, say
        self.failed = 0
        self.stopped = 0  # signals received
        self._running: list[_Running] = []
        self._seconds: list[float] = []

    def run(self, cells: Sequence[Cell]) -> None:
        """Run `cells`; a failed one doesn't stop the others. A signal lets the running ones save and ends."""
        if not cells:
            return
        free = slots(self.options, cells[0].config.train.device)[: len(cells)]
        at_once, total, waiting = len(free), len(cells), list(cells)
        cells[0].config.run.parent.mkdir(parents=True, exist_ok=True)
        self.say(
            f"cells to run: {total}, {at_once} at a time; each writes its log to {cells[0].config.run.parent}/CELL.log"
        )
        with self._signals():
            while self._running or (waiting and not self.stopped):
                while waiting and free and not self.stopped:
                    self._running.append(self._start(waiting.pop(0), free.pop(0), at_once))
                time.sleep(_POLL)
                self._ask_to_stop()
                for done in [item for item in self._running if item.process.poll() is not None]:
                    self._running.remove(done)
                    free.append(done.gpu)
                    left = len(waiting) + len(self._running)
                    self.say(f"[{total - left}/{total}] {self._finish(done)}{self._left(left, at_once)}")

    def _start(self, cell: Cell, gpu: str | None, at_once: int) -> _Running:
        clear_failure(cell)
        path = cell.beside(".yaml")
        path.write_text(dump(cell.config), encoding="utf-8")
        environment = dict(os.environ) | ({"CUDA_VISIBLE_DEVICES": gpu} if gpu is not None else {})
        threads = max(1, _cores() // at_once)
        command = [sys.executable, "-m", "nmt.study.cell", str(path), f"--threads={threads}", f"--at-once={at_once}"]
        with cell.beside(".log").open("ab") as log:
            process = subprocess.Popen(
                [*command, *(["--keep"] if self.options.keep else [])],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches it through us alone: two signals would end it without saving
            )
        return _Running(cell, process, gpu)

    def _finish(self, done: _Running) -> str:
        """A line on a process that has ended."""
        name, status = done.cell.name, done.process.returncode
        if status == 0 and (result := read_result(done.cell)):
            self._seconds.append(time.monotonic() - done.since)
            return (
                f"{name}: test BLEU {result.test_bleu:.2f} ({result.test_signature}), {result.verdict.short}, "
                f"{self._seconds[-1] / 60:.1f} min"
            )
        if status == _STOPPED or (self.stopped and status < 0):
            return f"{name}: interrupted; the next run goes on with it"
        self.failed += 1
        message = _last_line(done.cell) if status else "ended without a result"
        if status < 0:
            message = f"ended by signal {-status} (out of memory?): {message}"
        write_failure(done.cell, message)
        return f"{name}: FAILED: {message}"

    def _left(self, cells: int, at_once: int) -> str:
        if not cells or not self._seconds or self.stopped:
            return ""
        minutes = sum(self._seconds) / len(self._seconds) * cells / at_once / 60
        return f"; about {minutes:.0f} min left"

    def _ask_to_stop(self) -> None:
        """Pass signals on, also to a cell that was just being started when they came."""
        for item in self._running:
            if self.stopped > item.asked:
                (item.process.terminate if self.stopped == 1 else item.process.kill)()
                item.asked = self.stopped

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Let Ctrl-C and SIGTERM ask the cells to save and stop; a second one ends them at once."""

        def stop(number: int, frame: FrameType | None) -> None:
            self.stopped += 1

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _last_line(cell: Cell) -> str:
    lines = cell.beside(".log").read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "no message")
