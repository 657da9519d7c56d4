"""Admission: at once or not at all, nothing lost or mixed up or left waiting, and one bad text harms only its own request."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from typing import Any, cast

import pytest

from nmt.errors import InputError
from nmt.inference.cache import Cache
from nmt.inference.engine import Engine, Priority, Statistics
from nmt.inference.translator import Pending
from nmt.inference.types import DecodeOptions, Hypothesis, Translation
from serving.admission import Admission
from serving.protocol import DeadlineExceeded, Overloaded, Unavailable

GREEDY, BEAM = DecodeOptions(beam_size=1), DecodeOptions(beam_size=5)

pytestmark = pytest.mark.alone


class Model:
    """A translator whose engine is a thread that does one text after the other; `gate` holds it up, `bad` and `broken` fail."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.done: list[str] = []
        self.priorities: list[Priority] = []
        self.waiting: list[tuple[str, DecodeOptions, Future[Any]]] = []
        self.running = 0
        self._arrived = threading.Condition()
        threading.Thread(target=self._work, daemon=True).start()

    cache = Cache(0)

    @property
    def engine(self) -> Engine:
        return cast(Engine, self)

    def statistics(self) -> Statistics:
        return Statistics(1, self.running, 0, len(self.waiting), 0, 0.0, len(self.done), 0, 0, 0.0, 0, 0)

    def begin(
        self, texts: Sequence[str], options: DecodeOptions | None, priority: Priority, *_: object
    ) -> Pending[Translation]:
        assert options is not None
        if "no text" in texts:
            raise InputError("not a text")
        self.priorities.append(priority)
        jobs = [(text, options, Future[Any]()) for text in texts]
        with self._arrived:
            self.waiting += jobs
            self._arrived.notify()
        return Pending([future for *_, future in jobs], cast(Callable[..., list[Translation]], list))

    def _work(self) -> None:
        while True:
            with self._arrived:
                self._arrived.wait_for(lambda: self.waiting)
                text, options, future = self.waiting.pop(0)
                self.running = 1
            self.gate.wait(10)
            try:
                if future.cancelled():
                    pass
                elif text == "bad":
                    future.set_exception(InputError("bad text"))
                elif text == "broken":
                    future.set_exception(ValueError("broken"))
                else:
                    self.done.append(text)
                    future.set_result(Translation(text, (Hypothesis(f"{text}/{options.beam_size}", -1.0),), 1, 1))
            except InvalidStateError:
                pass
            self.running = 0


def run(scenario: Callable[[], Awaitable[Any]]) -> Any:
    """Run a scenario; one that hangs fails."""

    async def limited() -> Any:
        async with asyncio.timeout(20):
            return await scenario()

    return asyncio.run(limited())


def texts_of(translations: Sequence[Translation] | BaseException) -> list[str]:
    assert not isinstance(translations, BaseException), translations
    return [translation.text for translation in translations]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.002)


def test_a_request_keeps_its_order() -> None:
    async def scenario() -> None:
        subject = Admission(Model(), 100, 10.0)
        texts = [f"text {number}" for number in range(21)]
        assert texts_of(await subject.translate(texts, BEAM)) == [f"{text}/5" for text in texts]
        assert await subject.translate([], BEAM) == []

    run(scenario)


def test_five_hundred_random_requests_each_get_their_own_answers() -> None:
    chance = random.Random(7)

    async def scenario() -> None:
        subject = Admission(Model(), 100_000, 20.0)

        async def request(number: int) -> None:
            await asyncio.sleep(chance.random() * 0.3)
            options = chance.choice([GREEDY, BEAM])
            texts = [f"{number}.{item}" for item in range(chance.choice([1, 1, 1, 2, 5, 17]))]
            assert texts_of(await subject.translate(texts, options)) == [
                f"{text}/{options.beam_size}" for text in texts
            ]

        await asyncio.gather(*map(request, range(500)))
        assert subject.statistics()["in_hand"] == 0

    run(scenario)


def test_short_requests_go_before_long_ones() -> None:
    model = Model()

    async def scenario() -> None:
        subject = Admission(model, 100, 10.0)
        for count in (1, 8, 9, 60):
            await subject.translate(["text"] * count, BEAM)

    run(scenario)
    assert model.priorities == [Priority.INTERACTIVE] * 2 + [Priority.DOCUMENT] * 2


def test_a_failing_text_fails_its_own_request_only(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        subject = Admission(Model(), 100, 10.0)
        requests = [["one"], ["two", "bad", "bad"], ["three"], ["broken", "bad"], ["four", "five"]]
        answers = await asyncio.gather(*(subject.translate(texts, BEAM) for texts in requests), return_exceptions=True)
        assert isinstance(answers[1], InputError)
        assert isinstance(answers[3], ValueError)
        assert [texts_of(answers[i]) for i in (0, 2, 4)] == [["one/5"], ["three/5"], ["four/5", "five/5"]]
        with pytest.raises(InputError, match="not a text"):
            await subject.translate(["no text"], BEAM)
        assert subject.healthy()
        assert subject.statistics()["in_hand"] == 0

    run(scenario)
    assert [record.getMessage() for record in caplog.records] == ["a text could not be translated: ValueError"]


def test_what_does_not_fit_is_refused_at_once_and_later_taken() -> None:
    model = Model()

    async def scenario() -> None:
        subject = Admission(model, 10, 10.0)
        model.gate.clear()
        taken = [asyncio.create_task(subject.translate(["text"] * count, BEAM)) for count in (1, 8)]
        await asyncio.sleep(0)
        started = time.monotonic()
        with pytest.raises(Overloaded) as refusal:
            await subject.translate(["a", "b"], BEAM)
        assert time.monotonic() - started < 0.05
        assert 1 <= refusal.value.retry_after <= 30
        taken.append(asyncio.create_task(subject.translate(["a"], BEAM)))
        await asyncio.sleep(0)
        model.gate.set()
        await asyncio.gather(*taken)
        assert subject.statistics()["refused"] == 1
        await subject.translate(["a", "b"], BEAM)

    run(scenario)


def test_a_caller_that_goes_away_frees_its_place() -> None:
    model = Model()

    async def scenario() -> None:
        subject = Admission(model, 5, 10.0)
        model.gate.clear()
        running = asyncio.create_task(subject.translate(["running"], BEAM))
        await until(lambda: model.running == 1)
        gone = asyncio.create_task(subject.translate(["gone"] * 4, BEAM))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        stays = asyncio.create_task(subject.translate(["stays"] * 4, BEAM))
        await asyncio.sleep(0)
        model.gate.set()
        await asyncio.gather(running, stays)

    run(scenario)
    assert model.done == ["running", *["stays"] * 4]


def test_a_request_ends_at_its_deadline_and_the_next_one_works() -> None:
    model = Model()

    async def scenario() -> None:
        for subject, timeout in ((Admission(model, 5, 10.0), 0.1), (Admission(model, 5, 0.1), 100.0)):
            model.gate.clear()
            started = time.monotonic()
            with pytest.raises(DeadlineExceeded, match=r"not translated within 0\.1 s"):
                await subject.translate(["late"], BEAM, timeout)
            assert time.monotonic() - started < 0.5
            model.gate.set()
            assert texts_of(await subject.translate(["next"], BEAM)) == ["next/5"]

    run(scenario)
    assert "late" not in model.done


def test_a_storm_of_abandoned_requests_leaves_nothing_behind() -> None:
    async def scenario() -> None:
        subject = Admission(Model(), 1000, 10.0)
        tasks = [asyncio.create_task(subject.translate([f"{number}"] * 2, BEAM)) for number in range(300)]
        await asyncio.sleep(0)
        for number, task in enumerate(tasks):
            if number % 5:
                task.cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        for number, answer in enumerate(answers):
            if number % 5 == 0:
                assert texts_of(answer) == [f"{number}/5"] * 2
        assert subject.statistics()["in_hand"] == 0

    run(scenario)


def test_close_answers_all_who_wait_and_health_says_so() -> None:
    model = Model()

    async def scenario() -> None:
        subject = Admission(model, 10, 10.0)
        model.gate.clear()
        tasks = [asyncio.create_task(subject.translate([text], BEAM)) for text in ("running", "waiting")]
        await until(lambda: model.running == 1)
        assert subject.healthy()
        await subject.close()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        model.gate.set()
        assert all(isinstance(answer, Unavailable) for answer in answers)
        assert not subject.healthy()
        with pytest.raises(Unavailable):
            await subject.translate(["late"], BEAM)

    run(scenario)


def test_an_engine_that_makes_no_step_is_unhealthy_until_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.admission._STALLED_S", 0.1)
    model = Model()

    async def scenario() -> None:
        subject = Admission(model, 10, 10.0)
        assert subject.healthy()
        await asyncio.sleep(0.15)  # idle is not stalled
        assert subject.healthy()
        model.gate.clear()
        stuck = asyncio.create_task(subject.translate(["stuck"], BEAM))
        await until(lambda: model.running == 1)
        assert subject.healthy()
        await until(lambda: not subject.healthy())
        model.gate.set()
        await stuck
        assert subject.healthy()

    run(scenario)
