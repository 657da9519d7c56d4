"""Documents as jobs of a desk, without HTTP: they wait, end, expire, and are finished before a gateway stops."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref

import pytest
from serving_fakes import FILES, FakeBackend

from nmt.documents.formats import Document, open_document
from nmt.inference.types import Translation
from serving.app import Gateway
from serving.config import ServeConfig
from serving.jobs import Jobs, Upload
from serving.protocol import Overloaded, Overrides

CONFIG = ServeConfig(models=["unused"], deadline_s=5.0)


class Busy(FakeBackend):
    """Refuses the first `times` calls."""

    times = 2

    async def translate(
        self, model: str, texts: list[str], overrides: Overrides, timeout_s: float
    ) -> list[Translation]:
        if self.times:
            self.times -= 1
            raise Overloaded("busy", 0.01)
        return await super().translate(model, texts, overrides, timeout_s)


def test_a_document_waits_where_a_request_would_be_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.jobs._PAUSE_S", 0.01)

    async def scenario() -> None:
        jobs = Jobs(Busy(), FILES, True, 5.0)
        number = (await jobs.submit(Upload("a.txt", b"yes", "de", "en"))).number
        while (now := await jobs.look(number)) and now.state != "done":
            await asyncio.sleep(0.01)
        assert await jobs.fetch(number) == b"YES"

    asyncio.run(scenario())


def test_documents_have_a_room_that_ends() -> None:
    async def scenario() -> None:
        jobs = Jobs(FakeBackend(), FILES.model_copy(update={"total_bytes": 1024}), True, 5.0)
        first = (await jobs.submit(Upload("a.txt", b"hang" + b"\n" * 600, "de", "en"))).number
        with pytest.raises(Overloaded, match="leave no room"):
            await jobs.submit(Upload("a.txt", b"\n" * 600, "de", "en"))
        await jobs.drop(first)
        await jobs.submit(Upload("a.txt", b"\n" * 600, "de", "en"))

    asyncio.run(scenario())


def test_documents_that_wait_are_not_held_open(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: weakref.WeakSet[Document] = weakref.WeakSet()

    def noted(content: bytes, name: str) -> Document:
        document = open_document(content, name)
        opened.add(document)
        return document

    async def scenario() -> None:
        monkeypatch.setattr("serving.jobs.open_document", noted)
        jobs = Jobs(FakeBackend(), FILES.model_copy(update={"at_a_time": 1}), True, 5.0)
        numbers = [(await jobs.submit(Upload("a.txt", b"hang", "de", "en"))).number for _ in range(3)]
        await asyncio.sleep(0.2)
        assert [await state(jobs, number) for number in numbers] == ["translating", "queued", "queued"]
        gc.collect()
        assert len(opened) == 1
        for number in numbers:
            await jobs.drop(number)

    asyncio.run(scenario())


def test_documents_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        jobs = Jobs(FakeBackend(), FILES.model_copy(update={"expire_s": 0.2}), True, 5.0)
        done = (await jobs.submit(Upload("a.txt", b"yes", "de", "en"))).number
        stuck = (await jobs.submit(Upload("a.txt", b"hang", "de", "en"))).number
        await asyncio.sleep(0.1)
        assert await jobs.fetch(done) == b"YES"
        await asyncio.sleep(0.4)
        assert jobs._jobs == {}  # without being asked for
        assert await jobs.look(done) is None
        assert await jobs.look(stuck) is None
        assert await jobs.fetch(done) is None

    asyncio.run(scenario())


class Held(FakeBackend):
    """Translates once it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.let_go = asyncio.Event()

    async def translate(
        self, model: str, texts: list[str], overrides: Overrides, timeout_s: float
    ) -> list[Translation]:
        await self.let_go.wait()
        return await super().translate(model, texts, overrides, timeout_s)


def test_documents_in_hand_are_finished_and_fetched_before_a_gateway_stops() -> None:
    async def scenario() -> None:
        gateway, backend = Gateway(CONFIG, {}, {}), Held()
        gateway._desk = jobs = Jobs(backend, FILES, True, 5.0)
        numbers = [(await jobs.submit(Upload("a.txt", text, "de", "en"))).number for text in (b"yes", b"no", b"crash")]
        drained = asyncio.create_task(gateway.drain(20.0))
        await asyncio.sleep(0.2)
        backend.let_go.set()
        await asyncio.sleep(0.3)
        assert [(await state(jobs, number)) for number in numbers] == ["done", "done", "error"]
        assert await jobs.fetch(numbers[0]) == b"YES"
        await asyncio.sleep(0.2)
        assert not drained.done()  # one is not fetched
        await jobs.drop(numbers[1])
        assert await asyncio.wait_for(drained, 1.0) == 0

    asyncio.run(scenario())


async def state(jobs: Jobs, number: str) -> str:
    found = await jobs.look(number)
    return found.state if found else "gone"


def test_a_document_that_a_request_brought_while_the_gateway_was_stopping_is_waited_for() -> None:
    async def scenario() -> None:
        gateway = Gateway(CONFIG, {}, {})
        gateway._desk = jobs = Jobs(FakeBackend(), FILES, True, 5.0)
        with gateway._activity.request():
            drained = asyncio.create_task(gateway.drain(20.0))
            await asyncio.sleep(0.2)
            number = (await jobs.submit(Upload("a.txt", b"hang", "de", "en"))).number
        await asyncio.sleep(0.2)
        assert not drained.done()
        await jobs.drop(number)
        assert await asyncio.wait_for(drained, 1.0) == 0

    asyncio.run(scenario())


def test_a_gateway_waits_for_documents_no_longer_than_it_may_and_not_for_those_done_before() -> None:
    async def scenario() -> None:
        gateway = Gateway(CONFIG, {}, {})
        gateway._desk = jobs = Jobs(FakeBackend(), FILES, True, 5.0)
        await jobs.submit(Upload("a.txt", b"yes", "de", "en"))
        await asyncio.sleep(0.2)
        started = time.monotonic()
        await gateway.drain(20.0)
        assert time.monotonic() - started < 1.0
        await jobs.submit(Upload("a.txt", b"hang", "de", "en"))
        await gateway.drain(0.5)
        assert 0.5 <= time.monotonic() - started < 5.0

    asyncio.run(scenario())


def test_how_long_it_will_take_is_told() -> None:
    async def scenario() -> None:
        jobs = Jobs(FakeBackend(), FILES, True, 5.0)
        content = b"a\n" * 64 + b"hang\n" * 64
        number = (await jobs.submit(Upload("a.txt", content, "de", "en"))).number
        await asyncio.sleep(0.2)
        now = await jobs.look(number)
        assert now is not None
        assert (now.state, now.passages, now.done) == ("translating", 128, 64)
        assert now.seconds_left is not None
        assert 0 < now.seconds_left < 5
        await jobs.drop(number)
        assert await jobs.look(number) is None

    asyncio.run(scenario())
