"""The decoding engine: one running batch for the sentences of all callers, in which they come and go at every step.

A recurrent decoder's state is a few vectors of fixed size, so a sentence that is finished leaves at once and another takes its place;
nobody waits for the longest sentence of a batch. Documents have running batches of their own, which are stepped when interactive sentences
leave them the time, and at least half of the time: who waits at a screen does not pay for the large batches of others. The command line,
evaluation and the service all go through here.
"""

from __future__ import annotations

import atexit
import contextlib
import math
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from enum import IntEnum

from nmt.errors import NMTError
from nmt.inference.backend import Backend
from nmt.inference.search import Cancelled, Candidate, RunningBatch, Sentence, search_alone
from nmt.inference.types import DecodeOptions

_CELLS = 4096  # sentences x source tokens that a running batch has room for, at most
_ENCODED = (
    2048  # source tokens, padding included, that are encoded between two steps: what the running ones have to wait for
)
_AGEING_S = 2.0  # a sentence of a document that has waited so much longer than an interactive one goes first
_LINGER_S = 5.0  # an idle worker waits so long before its thread ends; the next sentence starts another
_RATE_S = 10.0  # the time that rates are taken over


_PATIENCE_S = 10.0  # for a step, at the end

_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """End all threads before the interpreter ends, which would end them in the middle of a step."""
    for engine in list(_engines):
        engine.close()


class Priority(IntEnum):
    """Who goes first."""

    INTERACTIVE = 0
    DOCUMENT = 1


class DeadlinePassed(NMTError):
    """A sentence was not finished in time."""


Shape = tuple[int, int, bool]  # beam and width of a running batch, and whether it is within the shortlist
Place = tuple[Priority, Shape]  # what the sentences of a running batch have in common


@dataclass(eq=False, slots=True)
class _Job:
    """A sentence of a caller."""

    sentence: Sentence
    priority: Priority
    deadline: float | None
    since: float
    future: Future[list[Candidate]] = field(default_factory=Future)

    @property
    def place(self) -> Place:
        """The running batch that it goes to."""
        return self.priority, (self.sentence.options.beam_size, self.sentence.width, self.sentence.listed)

    @property
    def urgency(self) -> float:
        """The smaller, the sooner."""
        return self.since + _AGEING_S * self.priority

    def wanted(self) -> bool:
        """Whether the caller still waits; where the deadline has passed it is told so."""
        if self.deadline is not None and time.monotonic() > self.deadline:
            self.fail(DeadlinePassed("not translated in time"))
        return not self.future.done()

    def succeed(self, candidates: list[Candidate]) -> None:
        with contextlib.suppress(InvalidStateError):  # cancelled at this moment
            self.future.set_result(candidates)

    def fail(self, error: BaseException) -> None:
        with contextlib.suppress(InvalidStateError):
            self.future.set_exception(error)


@dataclass(frozen=True)
class Statistics:
    """What the engine does now, and has done since it was made."""

    workers: int
    running: int  # sentences in running batches
    rows: int  # of these, hypotheses included
    waiting: int  # sentences that have not begun
    waiting_tokens: int  # their source tokens
    oldest_s: float  # how long the oldest of them has waited
    steps: int
    sentences: int  # finished
    tokens: int  # target tokens of their best candidates
    tokens_per_second: float  # of late
    failed: int
    dropped: int  # given up by their callers, or too late


class Engine:
    """Searches for sentences that come one by one, in as many running batches at a time as there are workers.

    Threads are started when there is work, and end after some seconds without. All methods may be called from any thread.
    """

    def __init__(self, backend: Backend, workers: int = 1) -> None:
        """Each of the `workers` is a thread with running batches of its own, of `backend.rows` rows together for each priority."""
        self._backend, self._workers = backend, workers
        self._changed = threading.Condition()
        self._waiting: dict[Place, deque[_Job]] = {}
        self._next_deadline = math.inf  # no sentence that waits has an earlier one
        self._alive: list[_Worker] = []
        self._closed = False
        self._counts = {"steps": 0, "sentences": 0, "tokens": 0, "failed": 0, "dropped": 0}
        self._recent: deque[tuple[float, int]] = deque()
        _engines.add(self)

    def submit(
        self,
        ids: Sequence[int],
        options: DecodeOptions,
        priority: Priority = Priority.INTERACTIVE,
        deadline: float | None = None,
        prefix: Sequence[int] = (),
    ) -> Future[list[Candidate]]:
        """The candidates for a sentence (ids with the end mark), best first, when they are found.

        Every candidate begins with the target ids `prefix`. Cancelling the future frees the sentence's place. It fails with
        `DeadlinePassed` at the step after `deadline` (of `time.monotonic`), begun or not, and with what goes wrong with this sentence
        alone.
        """
        return self.submit_all([Sentence(ids, options, prefix)], priority, deadline)[0]

    def submit_all(
        self,
        sentences: Sequence[Sentence],
        priority: Priority = Priority.INTERACTIVE,
        deadline: float | None = None,
    ) -> list[Future[list[Candidate]]]:
        """As `submit` for each sentence; those of like length next to each other, longest first, are searched for fastest."""
        now = time.monotonic()
        jobs = [_Job(sentence, priority, deadline, now) for sentence in sentences]
        with self._changed:
            if self._closed:
                raise RuntimeError("the engine is closed")
            if deadline is not None:
                self._next_deadline = min(self._next_deadline, deadline)
            for job in jobs:
                self._waiting.setdefault(job.place, deque()).append(job)
            unfinished = sum(map(len, self._waiting.values())) + sum(len(worker.jobs) for worker in self._alive)
            while len(self._alive) < min(self._workers, unfinished):
                self._alive.append(_Worker(self, self._backend))
                self._alive[-1].start()
            self._changed.notify_all()
        return [job.future for job in jobs]

    def statistics(self) -> Statistics:
        """The numbers now."""
        now = time.monotonic()
        with self._changed:
            jobs = [job for queue in self._waiting.values() for job in queue]
            while self._recent and self._recent[0][0] < now - _RATE_S:
                self._recent.popleft()
            since = now - self._recent[0][0] if self._recent else 0.0
            rate = sum(tokens for _, tokens in self._recent) / max(since, 1.0)
            return Statistics(
                workers=len(self._alive),
                running=sum(len(worker.jobs) for worker in self._alive),
                rows=sum(worker.rows() for worker in self._alive),
                waiting=len(jobs),
                waiting_tokens=sum(len(job.sentence.ids) for job in jobs),
                oldest_s=now - min((job.since for job in jobs), default=now),
                tokens_per_second=rate,
                **self._counts,
            )

    def close(self) -> None:
        """Stop after the present step: what is not finished is cancelled."""
        with self._changed:
            self._closed = True
            alive = list(self._alive)
            for queue in self._waiting.values():
                for job in queue:
                    job.future.cancel()
            self._waiting.clear()
            self._changed.notify_all()
        for worker in alive:
            worker.join(_PATIENCE_S)

    # --- what workers ask and tell ----------------------------------------------------------------------------------

    def next(self, worker: _Worker) -> list[_Job] | None:
        """Sentences of one place that should join now, none where those that run are enough; waits where nothing runs, and None says that
        the worker may end."""
        with self._changed:
            while not self._closed:
                self._drop_late()
                if jobs := self._admitted(worker):
                    return jobs
                if worker.batches:
                    return []
                if not self._changed.wait_for(lambda: self._waiting or self._closed, _LINGER_S):
                    break
            self._alive.remove(worker)
            return None

    def lost(self, worker: _Worker) -> None:
        """A worker has ended that should not; the next sentence starts another."""
        with self._changed:
            self._alive.remove(worker)

    def count(self, finished: Sequence[_Job] = (), failed: int = 0, dropped: int = 0, steps: int = 0) -> None:
        """Add to the statistics."""
        tokens = sum(len(job.sentence.finished[0].ids) for job in finished)
        added = {"steps": steps, "sentences": len(finished), "tokens": tokens, "failed": failed, "dropped": dropped}
        with self._changed:
            for name, value in added.items():
                self._counts[name] += value
            if finished:
                self._recent.append((time.monotonic(), tokens))

    def _drop_late(self) -> None:
        """Tell the callers of sentences whose deadline has passed, and take out of the queues what nobody waits for."""
        if time.monotonic() <= self._next_deadline:
            return
        self._next_deadline = math.inf
        for key, queue in list(self._waiting.items()):
            left = deque(job for job in queue if job.wanted())
            deadlines = [job.deadline for job in left if job.deadline is not None]
            self._next_deadline = min([self._next_deadline, *deadlines])
            self._counts["dropped"] += len(queue) - len(left)
            if left:
                self._waiting[key] = left
            else:
                del self._waiting[key]

    def _admitted(self, worker: _Worker) -> list[_Job]:
        """Take sentences of the most urgent place out of their queue: this worker's share, as far as there is room; but not by ones and
        twos while many wait, for encoding is faster together."""
        full = set() if worker.has_time_for_documents else {Priority.DOCUMENT}
        while places := [place for place in self._waiting if place[0] not in full]:
            place = min(places, key=lambda place: self._waiting[place][0].urgency)
            queue, (priority, (beam, width, _)) = self._waiting[place], place
            running = worker.rows(priority)
            room = max(1, min(self._backend.rows // beam, _CELLS // width))
            free = room - -(-running // beam)
            share = -(-len(queue) // self._workers)
            if running and (not self._backend.joins or free < min(share, max(1, room // 4))):
                full.add(priority)
                continue
            jobs = [queue.popleft() for _ in range(min(free, share, max(1, _ENCODED // width)))]
            if not queue:
                del self._waiting[place]
            wanted = [job for job in jobs if job.wanted()]
            self._counts["dropped"] += len(jobs) - len(wanted)
            if wanted:
                return wanted
        return []


class _Worker(threading.Thread):
    """A thread with its running batches, one for each place of those that are in it."""

    def __init__(self, engine: Engine, backend: Backend) -> None:
        super().__init__(name="nmt-engine", daemon=True)
        self._engine, self._backend = engine, backend
        self.batches: dict[Place, RunningBatch] = {}
        self.jobs: dict[int, _Job] = {}  # by the identity of their sentences
        self._owed = 0.0  # seconds that interactive sentences have had and documents have not

    def rows(self, priority: Priority | None = None) -> int:
        """Rows of all running batches, or of those of this priority."""
        return sum(
            len(batch.sentences) * beam
            for (its, (beam, _, _)), batch in list(self.batches.items())
            if priority in (None, its)
        )

    @property
    def has_time_for_documents(self) -> bool:
        """Whether no interactive sentence runs, or those that do have had their half of the time."""
        return self._owed >= 0 or not self.rows(Priority.INTERACTIVE)

    def run(self) -> None:
        """Join, step, deliver, until there is nothing to do."""
        try:
            self._work()
        except BaseException as error:  # a defect: nobody shall wait for ever
            for job in self.jobs.values():
                job.fail(error)
            self._engine.lost(self)
            raise
        for job in self.jobs.values():  # the engine has been closed
            job.future.cancel()

    def _work(self) -> None:
        while (jobs := self._engine.next(self)) is not None:
            for priority in Priority:
                joining = [job for job in jobs if job.priority is priority]
                due = priority is Priority.INTERACTIVE or self.has_time_for_documents
                if joining or (due and self.rows(priority)):
                    self._turn(priority, joining)

    def _turn(self, priority: Priority, joining: Sequence[_Job]) -> None:
        """A step of all running batches of this priority, which those join first."""
        began = time.monotonic()
        if joining:
            self._join(joining)
        for place, batch in [item for item in self.batches.items() if item[0][0] is priority]:
            self._let_go(batch, [each for each in batch.sentences if not self.jobs[id(each)].wanted()])
            if batch.sentences:
                self._step(place, batch)
            if not batch.sentences:
                self.batches.pop(place, None)
        took = time.monotonic() - began
        self._owed = self._owed + took if priority is Priority.INTERACTIVE else -took

    def _join(self, jobs: Sequence[_Job]) -> None:
        place = jobs[0].place
        self.jobs |= {id(job.sentence): job for job in jobs}
        try:
            batch = self.batches.setdefault(place, RunningBatch(self._backend, *place[1]))
            batch.join([job.sentence for job in jobs])
        except Exception:
            self._each_alone(place, [job.sentence for job in jobs])

    def _step(self, place: Place, batch: RunningBatch) -> None:
        try:
            done = batch.step()
        except Exception:
            self._each_alone(place, ())
            return
        jobs = [self.jobs.pop(id(sentence)) for sentence in done]
        for job in jobs:
            if job.sentence.error is not None:
                job.fail(job.sentence.error)
            else:
                job.succeed(job.sentence.finished)
        finished = [job for job in jobs if job.sentence.error is None]
        self._engine.count(finished, failed=len(jobs) - len(finished), steps=1)

    def _let_go(self, batch: RunningBatch, sentences: Sequence[Sentence]) -> None:
        if sentences:
            batch.leave(sentences)
            for sentence in sentences:
                del self.jobs[id(sentence)]
            self._engine.count(dropped=len(sentences))

    def _each_alone(self, place: Place, joining: Iterable[Sentence]) -> None:
        """After a failure of a batch: each of its sentences from the beginning and by itself, so that only the one to blame fails."""
        together = {id(each): each for each in (*self.batches.pop(place).sentences, *joining)}
        for sentence in together.values():
            job = self.jobs.pop(id(sentence))
            try:
                candidates = search_alone(self._backend, sentence, lambda job=job: not job.wanted())  # type: ignore[misc]
            except Cancelled:
                self._engine.count(dropped=1)
            except Exception as error:
                job.fail(error)
                self._engine.count(failed=1)
            else:
                job.sentence.finished = candidates
                job.succeed(candidates)
                self._engine.count([job])
