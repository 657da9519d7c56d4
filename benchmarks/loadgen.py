"""The load on a translation service, by a process of its own that costs little: raw HTTP/1.1 over asyncio, standard library alone.

    python benchmarks/loadgen.py < plan.json > report.json

A `Plan` says what is sent; `measure` carries it out in such a process and returns the `Report`. Two kinds of load:

- closed: each of the clients sends its next request when it has its answer; some may hang up instead of waiting for it;
- open: requests are sent at times that are drawn beforehand (a Poisson process), however slow the answers are. Their latency counts from
  the time that was drawn, so that an answer that is late makes those after it late too, instead of having them sent later.

For each request there is exactly one `Answer`; what goes wrong is its `outcome`, in words.
"""

from __future__ import annotations

import asyncio
import collections
import gc
import itertools
import json
import math
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

GOOD, HUNG_UP = "200", "hung up"
SENTENCES = (  # for where there is no corpus
    "Good morning!",
    "Where is the nearest station?",
    "I would like a cup of coffee, please.",
    "The train leaves at half past seven.",
    "She has been reading that book since last week.",
    "If it rains tomorrow, we will stay at home and play cards.",
    "He did not know what to say.",
    "The children were so tired that they fell asleep in the car.",
    "Thank you.",
    "What time is it?",
    "My brother works in a small hospital near the sea.",
    "Nobody told me that the shop would be closed today.",
    "Please close the window.",
    "We have known each other for more than twenty years.",
    "The weather is getting worse.",
    "Tom said that he would call you as soon as he had finished his work.",
    "How much does this cost?",
    "I can't find my keys anywhere.",
    "When I was young, I used to swim in this river every summer.",
    "They are building a new bridge across the valley.",
    "Do you speak German?",
    "The old man sat on a bench and watched the birds for hours.",
    "Her answer surprised everyone in the room.",
    "It is much easier to ask a question than to answer it.",
    "Be careful!",
    "There are three books on the table and two under the bed.",
    "I'm sorry that I am late.",
    "The doctor told him to drink less coffee and to go for a walk every day.",
    "Who wrote this letter?",
    "This is the best soup that I have ever eaten.",
    "Our neighbours have two dogs, a cat and a parrot that never stops talking.",
    "You should have told me the truth.",
    "The meeting was put off until next Monday because too many people were ill.",
    "Can I help you?",
    "He opened the door without a word.",
    "Mary learned to play the violin when she was six years old.",
    "The city looks beautiful at night.",
    "Although the road was wet, he drove much faster than he was allowed to.",
    "We ran out of milk.",
    "I hope that we will see each other again soon.",
)
# The body of a request for texts, and the translations in that of an answer.
DIALECTS: dict[str, tuple[Callable[[Sequence[str]], object], Callable[[Any], object]]] = {
    "strata": (lambda texts: {"text": texts}, lambda its: its["translation"]),
    "opennmt": (lambda texts: [{"src": one, "id": 100} for one in texts], lambda its: [one["tgt"] for one in its[0]]),
}
_FRESH_S = 2.0  # a connection that was idle for longer is not used again: the server may be about to close it
_PAUSE_S = 0.1  # of a client after a request that came to nothing


@dataclass
class Plan:
    """What to send: with a `rate`, so many requests a second (open), else by `clients` (closed), of which a share may hang up."""

    port: int
    requests: Sequence[Sequence[str]]  # the texts of each, sent in turn, over and over
    seconds: float
    rate: float = 0.0
    clients: int = 0
    hang_up_share: float = 0.0
    hang_up_s: float = 0.05
    timeout_s: float = 60.0
    seed: int = 1
    host: str = "127.0.0.1"
    path: str = "/v1/translate"
    dialect: str = "strata"  # one of `DIALECTS`


class Answer(NamedTuple):
    """What became of a request; times are in seconds since the load began."""

    due: float  # when it was to be sent
    sent: float
    done: float
    sentences: int
    outcome: str  # an HTTP status, or what went wrong
    retry_after: bool = False  # whether it came with that header


@dataclass
class Report:
    """All answers, and what the generator itself took."""

    seconds: float  # in which requests were sent
    wall_s: float  # until the last answer
    cpu_s: float  # of the generator
    answers: list[Answer] = field(default_factory=list)

    def rate(self, warm: float = 0.0) -> float:
        """Sentences a second of good answers that came while requests were sent, after `warm` seconds."""
        good = [each for each in self.answers if each.outcome == GOOD and warm < each.done <= self.seconds]
        return sum(each.sentences for each in good) / (self.seconds - warm)

    def outcomes(self) -> collections.Counter[str]:
        """How many of each kind."""
        return collections.Counter(each.outcome for each in self.answers)

    def share(self, outcome: str = GOOD) -> float:
        """Of all requests, those with this outcome."""
        return self.outcomes()[outcome] / len(self.answers) if self.answers else math.nan

    def latencies(self, outcomes: Sequence[str] = (GOOD,), since_due: bool = False) -> list[float]:
        """Milliseconds of the answers with such an outcome, since they were sent or should have been."""
        chosen = [each for each in self.answers if each.outcome in outcomes]
        return [1e3 * (each.done - (each.due if since_due else each.sent)) for each in chosen]

    def lag_ms(self, share: float = 0.99) -> float:
        """How late requests were sent, connecting included."""
        return percentile([1e3 * (each.sent - each.due) for each in self.answers], share)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of the values that is not exceeded by at least that share of them (nearest rank); NaN where there are none."""
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(share * len(values) - 1e-9) - 1)]


def poisson(rate: float, seconds: float, seed: int) -> list[float]:
    """When requests are due: `rate` a second on average, independent of each other."""
    chance, at, times = random.Random(seed), 0.0, []
    while (at := at + chance.expovariate(rate)) < seconds:
        times.append(at)
    return times


def measure(plan: Plan) -> Report:
    """Carry out the plan in a process of its own. Raises `RuntimeError` with its words when it fails."""
    command = [sys.executable, str(Path(__file__).resolve())]
    done = subprocess.run(command, input=json.dumps(asdict(plan)), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the load generator failed: {done.stderr.strip()}")
    found = json.loads(done.stdout)
    found["answers"] = [Answer(*each) for each in found["answers"]]
    return Report(**found)


# --- HTTP ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP response; names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


def parse(data: bytes | bytearray) -> tuple[Response, int] | None:
    """The response at the beginning of `data` and where it ends; None where it is not complete. Raises `ValueError`."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    first, *lines = data[:end].decode("latin-1").split("\r\n")
    pairs = [line.partition(":") for line in lines]
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    status = int(first.split()[1])
    if headers.get("transfer-encoding", "").lower() == "chunked":
        found = _chunks(data, end + 4)
        return found and (Response(status, headers, found[0]), found[1])
    if "content-length" not in headers:
        raise ValueError(f"an answer {status} without a length")
    ends = end + 4 + int(headers["content-length"])
    return (Response(status, headers, bytes(data[end + 4 : ends])), ends) if len(data) >= ends else None


def _chunks(data: bytes | bytearray, at: int) -> tuple[bytes, int] | None:
    body = b""
    while (end := data.find(b"\r\n", at)) >= 0:
        size = int(data[at:end].split(b";")[0], 16)
        at = end + 2 + size + 2
        if len(data) < at:
            return None
        if not size:
            return body, at
        body += data[end + 2 : end + 2 + size]
    return None


class Connection(asyncio.Protocol):
    """A connection that carries one request after the other; `complain` is told of an answer to none."""

    def __init__(self, complain: Callable[[str], None]) -> None:
        self._complain, self._received = complain, bytearray()
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[Response] | None = None

    @property
    def open(self) -> bool:
        """Whether a request can be sent."""
        return self._transport is not None

    def ask(self, request: bytes) -> asyncio.Future[Response]:
        """Send a request; its response comes in the future. Raises `ConnectionError`."""
        if self._transport is None:
            raise ConnectionError("closed before the request")
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._waiter

    def close(self) -> None:
        """Hang up, whatever is on its way."""
        if self._waiter is not None:
            self._waiter.cancel()
            self._waiter = None
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        self._received += data
        if self._waiter is None or self._waiter.done():
            if self.open:
                self._complain("an answer to no request")
            self.close()
            return
        try:
            found = parse(self._received)
        except ValueError as error:
            self._waiter.set_exception(error)
            return
        if found is None:
            return
        del self._received[: found[1]]
        waiter, self._waiter = self._waiter, None
        waiter.set_result(found[0])
        if self._received:
            self._complain("more than one answer to a request")
        if self._received or found[0].headers.get("connection", "").lower() == "close":
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        """Called by asyncio."""
        self._transport = None
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error or ConnectionResetError("closed before the answer"))


def judged(response: Response, sentences: int, dialect: str) -> str:
    """The outcome: the status, and for 200 whether there is a translation for each sentence."""
    if response.status != 200:
        return str(response.status)
    try:
        found = DIALECTS[dialect][1](json.loads(response.body))
    except (ValueError, LookupError, TypeError) as error:
        return f"200 with a bad body: {type(error).__name__}"
    if not isinstance(found, list) or len(found) != sentences or not all(isinstance(each, str) for each in found):
        return f"200 without {sentences} translations"
    return GOOD


# --- load ----------------------------------------------------------------------------------------------------------------


class Load:
    """Carries out a plan, once."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        encoded = [(self._request(texts), len(texts)) for texts in plan.requests]
        self._requests: Iterator[tuple[bytes, int]] = itertools.cycle(encoded)
        self._idle: list[tuple[float, Connection]] = []
        self.answers: list[Answer] = []
        self._started = time.perf_counter()

    async def run(self) -> Report:
        """Send everything and wait for every answer."""
        gc.collect()
        gc.freeze()
        self._started, cpu = time.perf_counter(), time.process_time()
        if self._plan.rate:
            await self._open()
        else:
            hanging = round(self._plan.clients * self._plan.hang_up_share)
            await asyncio.gather(*(self._client(number < hanging) for number in range(self._plan.clients)))
        for _, connection in self._idle:
            connection.close()
        return Report(self._plan.seconds, self._now(), time.process_time() - cpu, self.answers)

    def _request(self, texts: Sequence[str]) -> bytes:
        body = json.dumps(DIALECTS[self._plan.dialect][0](texts)).encode()
        head = f"POST {self._plan.path} HTTP/1.1\r\nHost: {self._plan.host}:{self._plan.port}\r\n"
        return f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body

    def _now(self) -> float:
        return time.perf_counter() - self._started

    async def _client(self, hangs_up: bool) -> None:
        """A closed loop."""
        connection: Connection | None = None
        while (due := self._now()) < self._plan.seconds:
            connection = await self._exchange(due, connection, hangs_up)
            if self.answers[-1].outcome not in (GOOD, HUNG_UP):
                await asyncio.sleep(_PAUSE_S)
        if connection is not None:
            connection.close()

    async def _open(self) -> None:
        async def one(due: float) -> None:
            if connection := await self._exchange(due, self._unused()):
                self._idle.append((self._now(), connection))

        tasks = []
        for due in poisson(self._plan.rate, self._plan.seconds, self._plan.seed):
            await asyncio.sleep(max(0.0, due - self._now()))
            tasks.append(asyncio.create_task(one(due)))
        await asyncio.gather(*tasks)

    def _unused(self) -> Connection | None:
        """The connection that was used last, of those that are idle."""
        while self._idle:
            since, connection = self._idle.pop()
            if connection.open and self._now() - since < _FRESH_S:
                return connection
            connection.close()
        return None

    async def _exchange(self, due: float, connection: Connection | None, hangs_up: bool = False) -> Connection | None:
        """Send the next request and note what became of it; return the connection if it can be used again."""
        request, expected = next(self._requests)
        sent, sentences, retry_after = due, 0, False
        try:
            async with asyncio.timeout(self._plan.timeout_s):
                connection = connection or await self._connect()
                sent = self._now()
                waiter = connection.ask(request)
                if hangs_up and not (await asyncio.wait({waiter}, timeout=self._plan.hang_up_s))[0]:
                    outcome = HUNG_UP
                    connection.close()
                else:
                    response = await waiter
                    outcome = judged(response, expected, self._plan.dialect)
                    retry_after = "retry-after" in response.headers
                    sentences = expected if outcome == GOOD else 0
        except (OSError, TimeoutError, ValueError) as error:  # TimeoutError: ours
            outcome = f"{type(error).__name__}: {error}".rstrip(": ")
            if connection is not None:
                connection.close()
        self.answers.append(Answer(due, sent, self._now(), sentences, outcome, retry_after))
        return connection if connection is not None and connection.open else None

    async def _connect(self) -> Connection:
        make = asyncio.get_running_loop().create_connection
        return (await make(lambda: Connection(self._complain), self._plan.host, self._plan.port))[1]

    def _complain(self, what: str) -> None:
        self.answers.append(Answer(self._now(), self._now(), self._now(), 0, what))


def main() -> int:
    """Read a plan, carry it out, write the report."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # under overload there is a connection for each request
    report = asyncio.run(Load(Plan(**json.load(sys.stdin))).run())
    json.dump(asdict(report), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
