"""Where the command `nmt train --ray` and its workers leave word for each other.

A module of its own, so that the process of this actor is a small one: it imports neither PyTorch nor the trainer.
"""

from __future__ import annotations

import asyncio


class Desk:
    """Where workers and the command leave word for each other: a Ray actor."""

    def __init__(self) -> None:
        self._letters: list[tuple[str, str]] = []
        self._come, self._stop = asyncio.Event(), asyncio.Event()

    async def tell(self, kind: str, text: str) -> None:
        """A worker says something: a line of `out` or `err`, that it is `up`, or the name of an `nmt.errors` class and its message."""
        self._letters.append((kind, text))
        self._come.set()

    async def hear(self) -> list[tuple[str, str]]:
        """What has been said since the last time, as soon as there is something."""
        await self._come.wait()
        self._come.clear()
        letters, self._letters = self._letters, []
        return letters

    async def stop(self) -> None:
        """The command wants the workers to save and stop."""
        self._stop.set()

    async def stopped(self) -> bool:
        """True, once the command wants them to stop."""
        return await self._stop.wait()
