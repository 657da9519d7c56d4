"""A batch job: every text of its inputs once into the engine, an answer to each on disk, and outputs made of them."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from nmt.batch.answers import LENGTH_LIMIT, Answer, Begin, Pending, decode, failed, translate_window, try_begin
from nmt.batch.inputs import Text, identity
from nmt.batch.languages import Watched
from nmt.batch.work import Work, key_of
from nmt.errors import InputError, NMTError
from nmt.progress import progress
from nmt.text.lines import packing

WINDOW = 2000  # texts that are translated together, at most
_CHARACTERS = 400_000  # of them
_AHEAD = 2  # windows in hand at a time: the engine never waits for one to be written

Runner = Callable[[Iterator[list[str]], int], Iterator[list[str]]]
"""Takes windows of texts, and how many there are, and gives the lines of answers (`nmt.batch.answers`) of each, in order."""


@dataclass(frozen=True)
class Task:
    """One input and where its output goes."""

    input: Watched
    output: Path
    identity: list[object] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "identity", identity(self.input.name))

    @property
    def side(self) -> Path:
        """The file that says what has not been translated, and why."""
        return self.output.with_name(f"{self.output.name}.failed.jsonl")


@dataclass(frozen=True)
class Outcome:
    """What a job has come to: records, how many of them were answered before this run, had an answer already, or lack a translation; and
    translations that the length limit ended."""

    records: int
    resumed: int
    repeated: int
    failed: int
    truncated: int


def local(begin: Begin, links: bool, full: bool) -> Runner:
    """A runner that has `begin` translate, some windows at a time."""

    def run(windows: Iterator[list[str]], count: int) -> Iterator[list[str]]:
        begun: deque[tuple[list[str], Pending | None]] = deque()
        more = True
        try:
            while more or begun:
                texts = next(windows, None) if more else None
                more = texts is not None
                if texts is not None:
                    begun.append((texts, try_begin(begin, texts) if texts else None))
                if len(begun) == _AHEAD or (begun and not more):
                    yield translate_window(begin, *begun[0], links, full)
                    begun.popleft()
        finally:
            for _, left in begun:
                if left is not None:
                    left.cancel()

    return run


def run(
    tasks: Sequence[Task],
    folder: Path,
    job: dict[str, Any],
    runner: Runner,
    force: bool = False,
    window: int = WINDOW,
) -> Outcome:
    """Do the job, or what is left of it, in the work folder `folder`, which is removed in the end; `job` is what makes it the same job. So
    many texts are translated together, at most.

    Raises `InputError` for outputs that are there already (without `force`), and `NMTError` where the disk is full: then as after a crash
    the same call goes on.
    """
    resumes = (folder / "job.json").exists() and not force
    for task in tasks:
        if task.output.is_dir():
            raise InputError(f"{task.output}: is a folder")
        if task.output.exists() and not (force or resumes):
            raise InputError(f"{task.output}: is there already; add --force to write over it")
    try:
        work = Work(folder, job, force)
        try:
            outcome = _Job(tasks, work, window).run(runner)
        except BaseException:
            work.leave()
            raise
        work.remove()
        return outcome
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        said = "the disk is full" if full else (error.strerror or str(error)).lower()
        where = error.filename or folder
        raise NMTError(f"{where}: {said}; mend that and give the same command again: what is done stays done") from None


class _Job:
    """One run: the census, then window after window, and outputs as soon as all of their texts have an answer."""

    def __init__(self, tasks: Sequence[Task], work: Work, window: int) -> None:
        self._tasks, self._work, self._window = tasks, work, window
        self._counts: list[int] = []  # records of each input
        self._planned: deque[_Plan] = deque()
        self._in_hand: set[bytes] = set()
        self._written = self._at = 0  # outputs that are finished, and the byte of the answers where the next one begins
        self._repeated = self._failed = self._truncated = 0

    def run(self, runner: Runner) -> Outcome:
        """All that is left to be done."""
        done = self._work.count
        windows, total = self._census(done)
        if done > total:
            raise InputError(f"{self._work.folder}: has more answers than there are texts; add --force to begin anew")
        self._work.remember(total)
        with progress("translate", "records", total, done) as bar:
            self._write_outputs()
            for lines in runner(self._windows(done), windows):
                bar.update(self._record(self._planned.popleft(), lines))
                self._write_outputs()
        return Outcome(total, done, self._repeated, self._failed, self._truncated)

    def _census(self, done: int) -> tuple[int, int]:
        """Read all inputs once, so that what is wrong with one is said before anything is translated: how many windows are to come, and how
        many records there are."""

        def counted() -> Iterator[Text]:
            for task in self._tasks:
                count = 0
                for count, text in enumerate(task.input.texts(), 1):  # noqa: B007
                    yield text
                    bar.update()
                self._counts.append(count)

        with progress("read", "records") as bar:
            windows = sum(1 for _ in _cut(itertools.islice(counted(), done, None), self._window))
        for warning in filter(None, (task.input.warning() for task in self._tasks)):
            print(warning, file=sys.stderr)
        return windows, sum(self._counts)

    def _windows(self, done: int) -> Iterator[list[str]]:
        """The texts of each window that nothing is known of; what becomes of the others is planned."""
        texts = itertools.chain.from_iterable(task.input.texts() for task in self._tasks)
        for window in _cut(itertools.islice(texts, done, None), self._window):
            plan, new = _Plan([], {}), {}
            for text, reason in window:
                if text is None:
                    plan.records.append(failed(reason))
                    continue
                key = key_of(text)
                plan.records.append(key)
                if key not in new and key not in self._in_hand and self._work.known(key) is None:
                    new[key] = text
            plan.new.update(dict.fromkeys(new, ""))
            self._in_hand |= new.keys()
            self._planned.append(plan)
            yield list(new.values())

    def _record(self, plan: _Plan, lines: Sequence[str]) -> int:
        """Write the answers of a window; how many."""
        plan.new.update(zip(list(plan.new), lines, strict=True))
        self._in_hand -= plan.new.keys()
        answers: list[str] = []
        keys: list[bytes | None] = []
        unsaid = set(plan.new)
        for record in plan.records:
            if isinstance(record, str):
                answers.append(record)
                keys.append(None)
                continue
            line = plan.new.get(record) or self._work.known(record)
            assert line is not None, "an answer that was written is known"
            answers.append(line)
            keys.append(record if record in unsaid else None)
            self._repeated += record not in unsaid
            unsaid.discard(record)
        self._work.append(answers, keys)
        return len(answers)

    def _write_outputs(self) -> None:
        """Those whose texts all have an answer."""
        while self._written < len(self._tasks) and self._work.count >= sum(self._counts[: self._written + 1]):
            task, count = self._tasks[self._written], self._counts[self._written]
            if self._written < self._work.written():  # before this run
                for _ in self._answers(count):
                    pass
            else:
                self._write(task, count)
                self._work.finish_one()
            self._written += 1

    def _write(self, task: Task, count: int) -> None:
        if identity(task.input.name) != task.identity:
            raise InputError(f"{task.input.name}: has changed while it was translated; add --force to begin anew")
        partial, side = _partial(task.output), _partial(task.side)
        with contextlib.closing(packing(partial)) as stream, side.open("w", encoding="utf-8") as told:
            task.input.write(self._answers(count, task.input.name, told), stream)
        partial.replace(task.output)
        if side.stat().st_size:
            side.replace(task.side)
        else:
            side.unlink()
            task.side.unlink(missing_ok=True)

    def _answers(self, count: int, name: str = "", told: TextIO | None = None) -> Iterator[Answer]:
        """The next answers; those that lack something are counted, and told."""
        for number, (line, end) in enumerate(itertools.islice(self._work.read(self._at), count), 1):
            answer, self._at = decode(line), end
            self._failed += answer.text is None
            self._truncated += answer.truncated
            reason = answer.reason or (LENGTH_LIMIT if answer.truncated else "")
            if reason and told is not None:
                said = {"input": name, "record": number, "translated": answer.text is not None, "reason": reason}
                told.write(json.dumps(said, ensure_ascii=False) + "\n")
            yield answer


class _Plan(NamedTuple):
    """What becomes of the records of a window: the line of an answer, or the key of a text; and the keys of the texts that are translated
    with it, with their answers."""

    records: list[str | bytes]
    new: dict[bytes, str]


def _cut(texts: Iterator[Text], size: int) -> Iterator[list[Text]]:
    """Windows of so many texts at most, and so many characters together, or little more."""
    window: list[Text] = []
    characters = 0
    for text in texts:
        window.append(text)
        characters += len(text.text or "")
        if len(window) == size or characters > _CHARACTERS:
            yield window
            window, characters = [], 0
    if window:
        yield window


def _partial(path: Path) -> Path:
    """Where a file grows until it is whole; with the same ending, by which it is packed."""
    return path.with_name(f".partial.{path.name}")
