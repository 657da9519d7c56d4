"""The engine: sentences of many callers in one running batch, none of whom notices the others."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from typing import Any

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt.inference import engine as module
from nmt.inference.backend import Ints, Scores
from nmt.inference.engine import DeadlinePassed, Engine, Priority
from nmt.inference.onnx_backend import OnnxBackend
from nmt.inference.search import Candidate, Sentence, beam_search
from nmt.inference.types import DecodeOptions
from nmt.text.tokenizer import EOS

V = 24


def options(beam: int = 2, extra: int = 5) -> DecodeOptions:
    return DecodeOptions(beam_size=beam, max_length_ratio=1.0, max_length_extra=extra)


def onnx_backend(seed: int = 0) -> OnnxBackend:
    model = tiny.model(vocabulary=V, seed=seed, sharpness=2.0)
    model.output_bias[EOS] += 2.0
    return tiny.onnx_backend(model, int8=bool(seed % 2))


def sentences(count: int, seed: int = 0, longest: int = 9) -> list[list[int]]:
    rng = random.Random(seed)
    return [[*(rng.randrange(EOS + 1, V) for _ in range(rng.randint(0, longest))), EOS] for _ in range(count)]


class CountingBackend:
    """A stand-in whose translation of a sentence is as many 5s as its first id says; it keeps what it was asked for."""

    vocabulary, joins, shows, shortlist, rows = 400, True, False, False, 8

    def __init__(self, before_step: Callable[[CountingRows], None] = lambda rows: None) -> None:
        self.encoded: list[list[list[int]]] = []
        self.steps: list[list[int]] = []  # of each step, which sentences took part, by their first ids
        self.before_step = before_step

    def encode(self, sentences: Sequence[Sequence[int]]) -> Any:
        """The first ids."""
        self.encoded.append([list(ids) for ids in sentences])
        if any(399 in ids for ids in sentences):
            raise ValueError("can't be encoded")
        return [ids[0] for ids in sentences]

    def running(self, beam: int, width: int, shortlist: bool = False) -> CountingRows:
        """No sentences yet."""
        return CountingRows(self, beam)


class CountingRows:
    """How many words each row has still to say."""

    def __init__(self, backend: CountingBackend, beam: int) -> None:
        self.backend, self.beam = backend, beam
        self.firsts: Ints = np.zeros(0, np.int64)
        self.left: Ints = np.zeros(0, np.int64)

    def insert(self, encoded: Any) -> None:
        """They join."""
        new = np.repeat(np.array(encoded), self.beam)
        self.firsts, self.left = np.concatenate((self.firsts, new)), np.concatenate((self.left, new))

    def step(self, tokens: Ints, top: int, whole: bool = False, attention: bool = False) -> Scores:
        """One word less."""
        self.backend.before_step(self)
        self.backend.steps.append(self.firsts[:: self.beam].tolist())
        assert len(tokens) == len(self.left)
        log_p = np.full((len(self.left), CountingBackend.vocabulary), -20.0, np.float32)
        log_p[np.arange(len(log_p)), np.where(self.left > 0, 5, EOS)] = -0.1
        self.left = self.left - 1
        ids = np.argsort(-log_p, axis=1, kind="stable")[:, :top]
        return Scores(np.take_along_axis(log_p, ids, axis=1), ids)

    def select(self, rows: Ints, sentences: Ints | None = None) -> None:
        """Those stay."""
        self.firsts, self.left = self.firsts[rows], self.left[rows]


LONG = options(beam=1, extra=400)


def many(sentences: Sequence[Sequence[int]]) -> list[Sentence]:
    return [Sentence(ids, LONG) for ids in sentences]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


class Gate:
    """Lets steps pass one at a time, when told."""

    def __init__(self) -> None:
        self.passes = threading.Semaphore(0)

    def __call__(self, rows: CountingRows) -> None:
        assert self.passes.acquire(timeout=20)

    def open(self, steps: int = 10_000) -> None:
        self.passes.release(steps)


@pytest.fixture
def gated() -> Iterator[tuple[CountingBackend, Gate, Engine]]:
    gate = Gate()
    backend = CountingBackend(gate)
    engine = Engine(backend)
    yield backend, gate, engine
    gate.open()
    engine.close()


# --- what a sentence's result does not depend on ----------------------------------------------------------------------


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), workers=st.integers(1, 3), data=st.data())
def test_a_result_does_not_depend_on_company_order_or_arrival(seed: int, workers: int, data: st.DataObject) -> None:
    backend = onnx_backend(seed % 6)
    batch = sentences(9, seed)
    wanted = [options(data.draw(st.integers(1, 3)), data.draw(st.integers(0, 6))) for _ in batch]
    engine = Engine(backend, workers)
    futures: list[Future[list[Candidate]]] = []
    for ids, its in zip(batch, wanted, strict=True):
        futures.append(engine.submit(ids, its, data.draw(st.sampled_from(Priority))))
        if data.draw(st.booleans()):
            time.sleep(0.002)
    given_up = data.draw(st.sampled_from(range(9)))
    futures[given_up].cancel()
    for number, (ids, its, future) in enumerate(zip(batch, wanted, futures, strict=True)):
        if number != given_up:
            assert future.result(timeout=30) == beam_search(backend, [ids], its)[0]  # to the bit
    engine.close()


def test_a_sentence_joins_a_running_batch_and_leaves_before_it_is_over(gated: Any) -> None:
    backend, gate, engine = gated
    long = engine.submit([30, EOS], LONG)
    gate.open(5)
    wait_until(lambda: len(backend.steps) == 5)
    short = engine.submit([3, EOS], LONG)
    gate.open(6)
    assert [c.ids for c in short.result(timeout=20)] == [[5] * 3]
    assert not long.done()
    gate.open()
    assert [c.ids for c in long.result(timeout=20)] == [[5] * 30]
    assert [3] not in backend.steps  # the short one never had a batch of its own
    assert sum(3 in step for step in backend.steps) == 4
    assert len(backend.steps) == 31


def test_where_none_can_join_a_batch_is_finished_before_the_next(gated: Any) -> None:
    backend, gate, engine = gated
    backend.joins = False
    first = engine.submit([9, EOS], LONG)
    gate.open(3)
    wait_until(lambda: len(backend.steps) == 3)
    second = engine.submit([2, EOS], LONG)
    gate.open()
    assert [len(each.result(timeout=20)[0].ids) for each in (first, second)] == [9, 2]
    assert backend.steps == [[9]] * 10 + [[2]] * 3


def test_sentences_of_other_beams_and_lengths_run_beside(gated: Any) -> None:
    _backend, gate, engine = gated
    gate.open()
    futures = [
        engine.submit([n, *[7] * length, EOS], options(beam, 30))
        for n, beam, length in ((9, 1, 0), (8, 3, 0), (7, 1, 40))
    ]
    assert [len(f.result(timeout=20)[0].ids) for f in futures] == [9, 8, 7]


def test_no_more_rows_than_are_good(gated: Any) -> None:
    backend, gate, engine = gated
    gate.open()
    for future in engine.submit_all(many([[4, EOS]] * 30)):
        future.result(timeout=20)
    assert max(map(len, backend.steps)) == CountingBackend.rows
    assert max(map(len, backend.encoded)) <= CountingBackend.rows


def test_the_source_tokens_encoded_at_once_are_bounded(gated: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ENCODED", 64)
    backend, gate, engine = gated
    gate.open()
    for future in engine.submit_all(many([[4, *[7] * 20, EOS]] * 9)):
        future.result(timeout=20)
    assert max(map(len, backend.encoded)) == 2  # of 32 tokens' width each


# --- who goes first ---------------------------------------------------------------------------------------------------


def test_an_interactive_sentence_goes_before_a_document_that_waits(gated: Any) -> None:
    backend, gate, engine = gated
    document = engine.submit_all(many([[n, EOS] for n in range(20, 60)]), Priority.DOCUMENT)
    wait_until(lambda: engine.statistics().running > 0)
    interactive = engine.submit([2, EOS], LONG)
    gate.open()
    for future in (interactive, *document):
        future.result(timeout=30)
    order = [ids[0] for call in backend.encoded for ids in call]
    assert order.index(2) < 12


def test_a_document_is_not_starved_by_interactive_sentences(gated: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_AGEING_S", 0.05)
    backend, gate, engine = gated
    engine.submit_all(many([[50, EOS]] * 8))  # all places are taken
    wait_until(lambda: engine.statistics().running == 8)
    document = engine.submit([40, *[7] * 30, EOS], LONG, Priority.DOCUMENT)  # of another shape, too
    time.sleep(0.1)
    later = engine.submit_all(many([[30, EOS]] * 40))
    gate.open()
    for future in (document, *later):
        future.result(timeout=30)
    order = [ids[0] for call in backend.encoded for ids in call]
    assert order.index(40) == 8


def slower_together(rows: CountingRows) -> None:
    time.sleep(0.002 * len(rows.firsts))


def test_an_interactive_sentence_does_not_wait_for_the_steps_of_documents() -> None:
    backend = CountingBackend(slower_together)
    engine = Engine(backend)
    document = engine.submit_all(many([[200, EOS]] * 30), Priority.DOCUMENT)
    wait_until(lambda: len(backend.steps) > 5)  # with all places of documents taken
    interactive = engine.submit([24, EOS], LONG)
    assert len(interactive.result(timeout=30)[0].ids) == 24
    mine = [at for at, step in enumerate(backend.steps) if step == [24]]
    between = mine[-1] - mine[0] + 1 - len(mine)
    assert len(mine) == 25
    assert 1 <= between <= 8  # a step of eight takes as long as eight of one
    assert not any(future.done() for future in document)
    engine.close()


def test_documents_have_half_of_the_time_however_many_interactive_sentences_there_are() -> None:
    backend = CountingBackend(slower_together)
    engine = Engine(backend)
    interactive = engine.submit_all(many([[300, EOS]] * 30))
    wait_until(lambda: len(backend.steps) > 5)
    document = engine.submit([40, EOS], LONG, Priority.DOCUMENT)
    assert len(document.result(timeout=30)[0].ids) == 40
    assert not any(future.done() for future in interactive)
    engine.close()


# --- ends -------------------------------------------------------------------------------------------------------------


def test_cancelling_frees_the_place(gated: Any) -> None:
    backend, gate, engine = gated
    futures = engine.submit_all(many([[300, EOS]] * 8))
    wait_until(lambda: engine.statistics().running == 8)
    waiting = engine.submit([2, EOS], LONG)
    gate.open(3)
    wait_until(lambda: len(backend.steps) == 3)
    assert not waiting.done()
    for future in futures[:4]:
        assert future.cancel()
    gate.open(20)
    assert waiting.result(timeout=20)[0].ids == [5, 5]
    assert engine.statistics().dropped == 4


def test_a_waiting_sentence_that_is_cancelled_never_runs(gated: Any) -> None:
    backend, gate, engine = gated
    engine.submit_all(many([[6, EOS]] * 8))
    wait_until(lambda: engine.statistics().running == 8)
    engine.submit([99, EOS], LONG).cancel()
    gate.open()
    engine.submit([3, EOS], LONG).result(timeout=20)
    assert all(99 not in step for step in backend.steps)


def test_a_deadline_ends_a_sentence_that_runs_and_one_that_waits(gated: Any) -> None:
    _backend, gate, engine = gated
    now = time.monotonic()
    running = engine.submit_all(many([[300, EOS]] * 8), deadline=now + 0.2)
    waiting = engine.submit([4, EOS], LONG, deadline=now + 0.1)
    wait_until(lambda: time.monotonic() > now + 0.3)
    gate.open()
    for future in (*running, waiting):
        with pytest.raises(DeadlinePassed, match="not translated in time"):
            future.result(timeout=20)
    assert engine.submit([4, EOS], LONG).result(timeout=20)[0].ids == [5] * 4


def test_a_deadline_of_a_sentence_that_waits_is_noticed_at_the_next_step(gated: Any) -> None:
    _backend, gate, engine = gated
    running = engine.submit_all(many([[300, EOS]] * 8))  # all places, for long
    wait_until(lambda: engine.statistics().running == 8)
    late = engine.submit([4, EOS], LONG, deadline=time.monotonic() + 0.05)
    patient = engine.submit([5, EOS], LONG, deadline=time.monotonic() + 60)
    time.sleep(0.1)
    assert not late.done()
    gate.open(2)
    with pytest.raises(DeadlinePassed):
        late.result(timeout=20)
    assert engine.statistics().waiting == 1  # it is not counted among those that wait
    assert engine.statistics().dropped == 1
    gate.open()
    assert patient.result(timeout=20)[0].ids == [5] * 5
    assert all(future.result(timeout=20) for future in running)


@pytest.mark.parametrize("place", ["encode", "step"])
def test_a_sentence_that_fails_does_not_fail_its_neighbours(place: str) -> None:
    def strike(rows: CountingRows) -> None:
        if 13 in rows.firsts:
            raise ValueError("can't be decoded")

    engine = Engine(CountingBackend(strike if place == "step" else lambda rows: None))
    bad = [13, EOS] if place == "step" else [13, 399, EOS]
    futures = engine.submit_all(many([[4, EOS], bad, [6, EOS], [7, EOS]]))
    assert [len(futures[i].result(timeout=20)[0].ids) for i in (0, 2, 3)] == [4, 6, 7]
    with pytest.raises(ValueError, match="can't be"):
        futures[1].result(timeout=20)
    statistics = engine.statistics()
    assert (statistics.sentences, statistics.failed) == (3, 1)
    assert engine.submit([2, EOS], LONG).result(timeout=20)[0].ids == [5, 5]
    engine.close()


def test_a_defect_of_the_engine_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(CountingBackend())
    monkeypatch.setattr(threading, "excepthook", lambda arguments: None)  # which would print it
    monkeypatch.setattr(module._Worker, "_step", lambda self, shape, batch: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        engine.submit([4, EOS], LONG).result(timeout=20)
    monkeypatch.undo()
    assert engine.submit([4, EOS], LONG).result(timeout=20)[0].ids == [5] * 4
    engine.close()


def test_closing_cancels_what_is_not_finished(gated: Any) -> None:
    _, gate, engine = gated
    futures = engine.submit_all(many([[300, EOS]] * 12))
    wait_until(lambda: engine.statistics().running == 8)
    closing = threading.Thread(target=engine.close)
    closing.start()
    time.sleep(0.05)
    gate.open()
    closing.join(20)
    for future in futures:
        with pytest.raises(CancelledError):
            future.result(timeout=20)
    with pytest.raises(RuntimeError, match="closed"):
        engine.submit([4, EOS], LONG)
    wait_until(lambda: engine.statistics().workers == 0)


def test_an_idle_engine_uses_no_cpu_and_its_threads_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LINGER_S", 0.3)
    engine = Engine(CountingBackend(), workers=2)
    for future in engine.submit_all(many([[4, EOS]] * 20)):
        future.result(timeout=20)
    before = time.process_time()
    time.sleep(0.2)
    assert time.process_time() - before < 0.05
    wait_until(lambda: engine.statistics().workers == 0)
    assert engine.submit([4, EOS], LONG).result(timeout=20)[0].ids == [5] * 4
    engine.close()


# --- statistics -------------------------------------------------------------------------------------------------------


def test_statistics_tell_what_runs_and_what_waits(gated: Any) -> None:
    _, gate, engine = gated
    futures = engine.submit_all(many([[9, 7, EOS]] * 8 + [[9, 7, 7, EOS]] * 5))
    wait_until(lambda: engine.statistics().running == 8)
    time.sleep(0.02)
    now = engine.statistics()
    assert (now.workers, now.rows, now.waiting, now.waiting_tokens, now.steps) == (1, 8, 5, 20, 0)
    assert now.oldest_s > 0.01
    gate.open()
    for future in futures:
        future.result(timeout=20)
    wait_until(lambda: engine.statistics().running == 0)
    after = engine.statistics()
    assert (after.waiting, after.sentences, after.tokens, after.failed, after.dropped) == (0, 13, 13 * 9, 0, 0)
    assert after.tokens_per_second > 0
    assert after.oldest_s == 0


def test_several_workers_share_what_there_is() -> None:
    backend = CountingBackend(lambda rows: time.sleep(0.001))
    engine = Engine(backend, workers=2)
    futures = engine.submit_all(many([[n, EOS] for n in range(20, 36)]))
    assert [len(f.result(timeout=20)[0].ids) for f in futures] == list(range(20, 36))
    assert engine.statistics().workers == 2
    engine.close()
