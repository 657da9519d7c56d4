"""Documents in the service: each is a job that is translated beside the requests, looked after by its number, fetched, and forgotten."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from nmt.documents.formats import Document, kind_of, open_document, slices
from nmt.errors import InputError
from nmt.inference.types import Translation
from nmt.text.language import Detected
from serving import languages
from serving.config import Files
from serving.protocol import Backend, Overloaded, Overrides, Unavailable
from serving.routing import Wanted, choose, sources_of, translate_along

State = Literal["queued", "translating", "done", "error"]
_DETECTED = 5000  # characters by which the language of a document is told
_PAUSE_S = 1.0  # before a busy translator is asked again
_LOOK_S = 0.05
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that is to be translated; `source` None has its language told. `caller` is who may fetch it."""

    name: str
    content: bytes
    target: str
    source: str | None = None
    caller: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is."""

    number: str
    key: str
    name: str  # of the file
    state: State
    passages: int = 0
    done: int = 0
    characters: int = 0
    source: str | None = None
    target: str = ""
    seconds_left: float | None = None
    truncated: int = 0  # passages that the length limit ended
    error: str | None = None


class Desk(Protocol):
    """Takes documents in and gives them back."""

    async def submit(self, upload: Upload) -> Progress:
        """Take it in. Raises `InputError` for a file that can't be translated, `Overloaded`, `UnknownModel`."""

    async def look(self, number: str) -> Progress | None:
        """How far it is; None for one that is not, or no longer, there."""

    async def fetch(self, number: str) -> bytes | None:
        """The translated file, where it is done."""

    async def drop(self, number: str) -> None:
        """Forget it, finished or not."""

    async def finish(self, seconds: float) -> None:
        """Wait, so long at most, until those that are not finished now have been, and their callers have fetched them."""


@dataclass(slots=True)
class _Job:
    progress: Progress
    expires: float
    size: int  # bytes, of the upload and then of the result
    task: asyncio.Task[None] | None = None
    result: bytes = b""
    fetched: bool = False
    since: float = field(default_factory=time.monotonic)


class Jobs:
    """The desk of one process. All methods belong to one event loop."""

    def __init__(self, backend: Backend, limits: Files, pivot: bool, deadline_s: float) -> None:
        """`deadline_s` is for one call of the backend."""
        self._backend, self._limits, self._pivot, self._deadline_s = backend, limits, pivot, deadline_s
        self._jobs: dict[str, _Job] = {}
        self._opening = asyncio.Semaphore(limits.at_a_time)
        self._running = asyncio.Semaphore(limits.at_a_time)

    async def submit(self, upload: Upload) -> Progress:
        """Take it in."""
        self._expire()
        kind_of(upload.name)
        if len(upload.content) > self._limits.bytes:
            raise InputError(f"the file has {len(upload.content)} bytes; at most {self._limits.bytes} are allowed")
        if len(self._jobs) >= self._limits.kept:
            raise Overloaded(f"{len(self._jobs)} documents are kept already", 10.0)
        if sum(job.size for job in self._jobs.values()) + len(upload.content) > self._limits.total_bytes:
            raise Overloaded("the documents that are kept already leave no room for this one", 10.0)
        number = secrets.token_hex(16)
        progress = Progress(number, secrets.token_hex(16), upload.name, "queued", target=upload.target)
        job = self._jobs[number] = _Job(progress, time.monotonic() + self._limits.expire_s, len(upload.content))
        try:
            document = await self._open(upload)
            characters = sum(map(len, document.texts))
            if characters > self._limits.characters:
                raise InputError(
                    f"the document has {characters} characters; at most {self._limits.characters} are allowed"
                )
            source = upload.source or await self._language(document, upload.target)
            choose(Wanted(source, upload.target), await self._backend.models(), self._pivot)
        except BaseException:
            self._jobs.pop(number, None)
            raise
        self._tell(job, passages=len(document.texts), characters=characters, source=source)
        job.task = asyncio.create_task(self._work(job, upload))
        return job.progress

    async def look(self, number: str) -> Progress | None:
        """How far it is."""
        self._expire()
        job = self._jobs.get(number)
        if job is None:
            return None
        now = job.progress
        if now.state == "translating" and now.done:
            left = (time.monotonic() - job.since) / now.done * (now.passages - now.done)
            return replace(now, seconds_left=left)
        return now

    async def fetch(self, number: str) -> bytes | None:
        """The translated file."""
        self._expire()
        job = self._jobs.get(number)
        if job is None or job.progress.state != "done":
            return None
        job.fetched = True
        return job.result

    async def drop(self, number: str) -> None:
        """Forget it."""
        job = self._jobs.pop(number, None)
        if job and job.task:
            job.task.cancel()

    async def finish(self, seconds: float) -> None:
        """Wait for those in hand, and for their callers."""
        ends = time.monotonic() + seconds
        waited = [number for number, job in self._jobs.items() if job.progress.state in ("queued", "translating")]
        while waited and time.monotonic() < ends:
            await asyncio.sleep(_LOOK_S)
            waited = [number for number in waited if self._awaited(number)]

    def _awaited(self, number: str) -> bool:
        job = self._jobs.get(number)
        return job is not None and not job.fetched and job.progress.state != "error"

    def _expire(self) -> None:
        now = time.monotonic()
        for number in [number for number, job in self._jobs.items() if job.expires < now]:
            job = self._jobs.pop(number)
            if job.task:
                job.task.cancel()

    def _tell(self, job: _Job, **changes: object) -> None:
        job.progress = replace(job.progress, **changes)  # type: ignore[arg-type]

    async def _language(self, document: Document, target: str) -> str:
        texts = " ".join(document.texts)[:_DETECTED]
        sources, found = sources_of(await self._backend.models(), target, self._pivot)
        detected = (await languages.detect([texts], [*sources, found]))[0] or [Detected(sources[0], 0.0)]
        return next((each.language for each in detected if each.language in sources), sources[0])

    async def _open(self, upload: Upload) -> Document:
        """Open it, so many at a time as are translated: each takes many times as much memory as its file."""
        async with self._opening:
            return await asyncio.to_thread(open_document, upload.content, upload.name)

    async def _work(self, job: _Job, upload: Upload) -> None:
        try:
            async with self._running:
                document = await self._open(upload)  # again: one that waits is kept as a file
                self._tell(job, state="translating")
                job.since = time.monotonic()
                found: list[Translation] = []
                for some in slices(document.texts):
                    found += await self._translate(job, some)
                    self._tell(job, done=len(found))
                hypotheses = [each.hypotheses[0] for each in found]
                job.result = await asyncio.to_thread(document.write, hypotheses)
                job.size = len(job.result)
                self._tell(job, state="done", truncated=sum(each.truncated for each in found))
        except Exception as error:
            words = str(error) if isinstance(error, InputError) else "internal error; the server's log has the details"
            _log.error("a document could not be translated: %s", type(error).__name__, exc_info=error)
            self._tell(job, state="error", error=words)
        finally:
            job.expires = time.monotonic() + self._limits.expire_s
            asyncio.get_running_loop().call_later(self._limits.expire_s + 0.1, self._expire)

    async def _translate(self, job: _Job, texts: list[str]) -> list[Translation]:
        """A document can wait where a request can't."""
        now, gives_up = job.progress, time.monotonic() + self._limits.expire_s
        overrides = Overrides(alignment=True, keep_placeholders=True)
        while True:
            try:
                route = choose(Wanted(now.source, now.target), await self._backend.models(), self._pivot)
                ends = time.monotonic() + self._deadline_s
                return await translate_along(self._backend, route, texts, overrides, ends)
            except Unavailable as error:
                if time.monotonic() > gives_up:
                    raise
                await asyncio.sleep(max(_PAUSE_S, error.retry_after))
