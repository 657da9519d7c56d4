"""The batcher: nothing is lost, mixed up, starved or left waiting, and one bad text harms only itself."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from nmt.errors import InputError
from nmt.inference.types import DecodeOptions, Hypothesis, Translation
from serving.batcher import Batcher
from serving.config import Batch
from serving.protocol import DeadlineExceeded, Overloaded, Unavailable

GREEDY, BEAM = DecodeOptions(beam_size=1), DecodeOptions(beam_size=5)


class Model:
    """A blocking translate that records its batches; `gate` holds it up, and texts can fail or be slow."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.batches: list[tuple[list[str], DecodeOptions]] = []
        self.seconds = seconds
        self.gate = threading.Event()
        self.gate.set()
        self.active = self.most_active = 0
        self.cancelled_seen = 0

    def __call__(
        self, texts: Sequence[str], options: DecodeOptions, cancelled: Callable[[], bool]
    ) -> list[Translation]:
        self.active += 1
        self.most_active = max(self.most_active, self.active)
        try:
            self.batches.append((list(texts), options))
            self.gate.wait(10)
            time.sleep(self.seconds)
            if "bad" in texts:
                raise InputError("bad text")
            if "spin" in texts:
                while not cancelled():
                    time.sleep(0.005)
                self.cancelled_seen += 1
                raise RuntimeError("cancelled")
            return [self.translation(text, options) for text in texts]
        finally:
            self.active -= 1

    @staticmethod
    def translation(text: str, options: DecodeOptions) -> Translation:
        return Translation(text, (Hypothesis(f"{text}/{options.beam_size}", -1.0),), 1, 1)


def run(scenario: Callable[[], Awaitable[Any]]) -> Any:
    """Run a scenario; one that hangs fails."""

    async def limited() -> Any:
        async with asyncio.timeout(20):
            return await scenario()

    return asyncio.run(limited())


def batcher(model: Callable[..., Any], capacity: int = 1000, deadline_s: float = 10.0, **batch: Any) -> Batcher:
    return Batcher(model, Batch(**{"texts": 8, "characters": 1000, "wait_ms": 1, **batch}), capacity, deadline_s)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.002)


def texts_of(translations: Sequence[Translation] | BaseException) -> list[str]:
    assert not isinstance(translations, BaseException), translations
    return [translation.text for translation in translations]


def test_one_request_keeps_its_order_over_several_batches() -> None:
    model = Model()

    async def scenario() -> None:
        subject = batcher(model)
        texts = [f"text {number}" for number in range(21)]
        assert texts_of(await subject.submit(texts, BEAM)) == [f"{text}/5" for text in texts]
        assert [len(batch) for batch, _ in model.batches] == [8, 8, 5]
        assert await subject.submit([], BEAM) == []
        await subject.close()

    run(scenario)


def test_texts_of_concurrent_requests_share_batches_and_gather_while_the_model_is_busy() -> None:
    model = Model()

    async def scenario() -> None:
        subject = batcher(model, texts=64, wait_ms=0)
        model.gate.clear()
        first = asyncio.create_task(subject.submit(["first"], BEAM))
        await until(lambda: len(model.batches) == 1)
        others = [asyncio.create_task(subject.submit([f"{number}"], BEAM)) for number in range(40)]
        await asyncio.sleep(0.05)  # any timer would have cut a batch by now
        model.gate.set()
        await asyncio.gather(first, *others)
        assert [len(batch) for batch, _ in model.batches] == [1, 40]
        assert subject.statistics().largest == 40
        await subject.close()

    run(scenario)


def test_five_hundred_random_requests_each_get_their_own_answers() -> None:
    model = Model(seconds=0.001)
    chance = random.Random(7)

    async def scenario() -> None:
        subject = batcher(model, capacity=100_000, characters=200)

        async def request(number: int) -> None:
            await asyncio.sleep(chance.random() * 0.3)
            options = chance.choice([GREEDY, BEAM])
            count = chance.choice([1, 1, 1, 2, 5, 17])
            texts = [f"{number}.{item} " + "x" * chance.randrange(60) for item in range(count)]
            answer = await subject.submit(texts, options)
            assert texts_of(answer) == [f"{text}/{options.beam_size}" for text in texts]

        await asyncio.gather(*map(request, range(500)))
        await subject.close()

    run(scenario)
    assert model.most_active == 1
    assert any(len(texts) > 1 for texts, _ in model.batches)
    for texts, _ in model.batches:
        assert len(texts) <= 8
        assert len(texts) == 1 or sum(map(len, texts)) <= 200


def test_a_batch_has_equal_options_and_a_text_above_the_budget_runs_alone() -> None:
    model = Model()

    async def scenario() -> None:
        subject = batcher(model, characters=50)
        model.gate.clear()
        tasks = [asyncio.create_task(subject.submit(["first"], BEAM))]
        await until(lambda: len(model.batches) == 1)
        long = "long " * 50
        for text, options in (("a", GREEDY), ("b", BEAM), (long, GREEDY), ("c", GREEDY), ("d", BEAM)):
            tasks.append(asyncio.create_task(subject.submit([text], options)))
            await asyncio.sleep(0)
        model.gate.set()
        await asyncio.gather(*tasks)
        assert model.batches[1:] == [(["a", "c"], GREEDY), (["b", "d"], BEAM), ([long], GREEDY)]
        await subject.close()

    run(scenario)


def test_rare_options_and_long_texts_are_not_starved_by_a_stream_of_others() -> None:
    model = Model(seconds=0.002)

    async def scenario() -> None:
        subject = batcher(model, texts=4, characters=40)
        stop = False

        async def stream() -> None:
            while not stop:
                await subject.submit(["short"], BEAM)

        streams = [asyncio.create_task(stream()) for _ in range(20)]
        await asyncio.sleep(0.05)
        for text, options in (("rare", GREEDY), ("x" * 500, BEAM)):
            before = len(model.batches)
            await subject.submit([text], options)
            assert len(model.batches) - before <= 8  # 20 texts wait before it, 4 to a batch
        stop = True
        await asyncio.gather(*streams)
        await subject.close()

    run(scenario)


def test_a_failing_text_fails_its_own_request_only() -> None:
    model = Model()

    async def scenario() -> None:
        subject = batcher(model)
        model.gate.clear()
        tasks = [asyncio.create_task(subject.submit(["first"], BEAM))]
        await until(lambda: len(model.batches) == 1)
        requests = [["one"], ["two", "bad"], ["three"], ["four", "five"]]
        tasks += [asyncio.create_task(subject.submit(texts, BEAM)) for texts in requests]
        await asyncio.sleep(0)
        model.gate.set()
        first, one, two, three, four = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(two, InputError)
        assert [texts_of(answer) for answer in (first, one, three, four)] == [
            ["first/5"],
            ["one/5"],
            ["three/5"],
            ["four/5", "five/5"],
        ]
        assert subject.healthy()
        await subject.close()

    run(scenario)


@pytest.mark.parametrize("broken", [lambda *_: [], lambda *_: (_ for _ in ()).throw(StopIteration), lambda *_: exit(3)])
def test_a_translator_that_misbehaves_is_an_error_and_not_a_hang(broken: Callable[..., Any]) -> None:
    async def scenario() -> None:
        subject = batcher(broken)
        with pytest.raises(RuntimeError):
            await subject.submit(["text"], BEAM)
        assert subject.healthy()
        await subject.close()

    run(scenario)


def test_a_full_queue_refuses_at_once_and_recovers() -> None:
    model = Model()

    async def scenario() -> None:
        subject = batcher(model, capacity=10)
        model.gate.clear()
        running = asyncio.create_task(subject.submit(["running"], BEAM))
        await until(lambda: len(model.batches) == 1)
        waiting = asyncio.create_task(subject.submit([str(number) for number in range(8)], BEAM))
        await asyncio.sleep(0)
        started = time.monotonic()
        with pytest.raises(Overloaded) as refusal:
            await subject.submit(["a", "b", "c"], BEAM)
        assert time.monotonic() - started < 0.05
        assert 1 <= refusal.value.retry_after <= 30
        fits = asyncio.create_task(subject.submit(["a", "b"], BEAM))
        await asyncio.sleep(0)
        model.gate.set()
        await asyncio.gather(running, waiting, fits)
        assert subject.statistics().refused == 1
        await subject.submit(["a", "b", "c"], BEAM)
        await subject.close()

    run(scenario)


def test_a_caller_that_goes_away_is_dropped_before_it_runs_and_frees_its_place() -> None:
    model = Model()

    async def scenario() -> None:
        subject = batcher(model, capacity=4)
        model.gate.clear()
        running = asyncio.create_task(subject.submit(["running"], BEAM))
        await until(lambda: len(model.batches) == 1)
        gone = asyncio.create_task(subject.submit(["gone"] * 4, BEAM))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        stays = asyncio.create_task(subject.submit(["stays"] * 4, BEAM))
        await asyncio.sleep(0)
        model.gate.set()
        await asyncio.gather(running, stays)
        assert [texts for texts, _ in model.batches] == [["running"], ["stays"] * 4]
        assert subject.statistics().dropped == 4
        await subject.close()

    run(scenario)


def test_the_model_is_told_when_all_callers_of_a_running_batch_are_gone() -> None:
    model = Model()

    async def scenario() -> None:
        subject = batcher(model)
        gone = asyncio.create_task(subject.submit(["spin"], BEAM))
        await until(lambda: len(model.batches) == 1)
        gone.cancel()
        assert texts_of(await subject.submit(["next"], BEAM)) == ["next/5"]
        assert model.cancelled_seen == 1
        await subject.close()

    run(scenario)


def test_a_request_ends_at_its_deadline_and_the_next_one_works() -> None:
    model = Model()

    async def scenario() -> None:
        subject = batcher(model)
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            await subject.submit(["spin"], BEAM, timeout_s=0.1)
        assert time.monotonic() - started < 0.5
        assert texts_of(await subject.submit(["next"], BEAM)) == ["next/5"]
        own = batcher(model, deadline_s=0.1)
        with pytest.raises(DeadlineExceeded):
            await own.submit(["spin"], BEAM, timeout_s=100)
        await subject.close()
        await own.close()

    run(scenario)


def test_a_storm_of_abandoned_requests_leaves_nothing_behind() -> None:
    model = Model(seconds=0.001)

    async def scenario() -> None:
        subject = batcher(model)
        tasks = [asyncio.create_task(subject.submit([f"{number}"] * 2, BEAM)) for number in range(300)]
        await asyncio.sleep(0.01)
        for number, task in enumerate(tasks):
            if number % 5:
                task.cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        for number, answer in enumerate(answers):
            if number % 5 == 0:
                assert texts_of(answer) == [f"{number}/5"] * 2
        assert subject.statistics().waiting == 0
        await subject.close()

    run(scenario)


def test_close_answers_all_who_wait_and_health_says_so() -> None:
    model = Model()

    async def scenario() -> None:
        subject = batcher(model)
        model.gate.clear()
        tasks = [asyncio.create_task(subject.submit([text], BEAM)) for text in ("running", "waiting")]
        await until(lambda: len(model.batches) == 1)
        assert subject.healthy()
        await subject.close()
        model.gate.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(answer, Unavailable) for answer in answers)
        assert not subject.healthy()
        with pytest.raises(Unavailable):
            await subject.submit(["late"], BEAM)

    run(scenario)


def test_a_batch_that_never_ends_makes_the_batcher_unhealthy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.batcher._GRACE_S", 0.05)
    model = Model()

    async def scenario() -> None:
        subject = batcher(model, deadline_s=0.05)
        model.gate.clear()
        with pytest.raises(DeadlineExceeded):
            await subject.submit(["stuck"], BEAM)
        assert subject.healthy()
        await until(lambda: not subject.healthy())
        model.gate.set()
        await until(subject.healthy)
        await subject.close()

    run(scenario)
