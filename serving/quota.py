"""How much one caller may have translated in a month."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Callable


def _this_month() -> str:
    return f"{datetime.datetime.now(datetime.UTC):%Y-%m}"


class Quota:
    """Counts the characters of each caller in a calendar month (UTC), at one gateway and as long as it runs."""

    def __init__(self, limit: int | None, month: Callable[[], str] = _this_month) -> None:
        """`limit` in characters; None for none."""
        self.limit, self._month = limit, month
        self._now, self._used = month(), Counter[str]()

    def used(self, caller: str) -> int:
        """Characters of this month."""
        if (now := self._month()) != self._now:
            self._now, self._used = now, Counter()
        return self._used[caller]

    def take(self, caller: str, characters: int) -> bool:
        """Count them, if they fit."""
        if self.limit is not None and self.used(caller) + characters > self.limit:
            return False
        self._used[caller] += characters
        return True
