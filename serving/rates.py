"""How often one caller may ask: a token bucket for each. Pure Python."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

_MINUTE = 60.0
_ROUNDING = 1e-6  # seconds; who has waited for as long as he was told is not refused for a rounding error


class RateLimit:
    """Lets each caller ask `per_minute` times at once, and then again as the minute goes by.

    A bucket is kept as the time at which it will be full: that is at most a minute ahead, since a bucket holds what flows into it in
    a minute, and a bucket whose time has come is like one never used. For one event loop: it has no lock.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic, most: int = 50_000) -> None:
        """`clock` in seconds; of more than `most` callers the one that has not asked for longest is forgotten."""
        assert per_minute >= 1
        assert most >= 1
        self._per_minute, self._clock, self._most = per_minute, clock, most
        self._full_at: OrderedDict[str, float] = OrderedDict()  # the one that has not asked for longest comes first

    def __len__(self) -> int:
        """How many callers are remembered."""
        return len(self._full_at)

    def take(self, identity: str, per_minute: int | None = None) -> float:
        """Count a request of `identity`: 0.0 if it is allowed, or else the seconds until one would be; those do not count.

        `per_minute` is this caller's own limit, in the place of the common one.
        """
        limit = self._per_minute if per_minute is None else per_minute
        assert limit >= 1
        now = self._clock()
        before = max(self._full_at.pop(identity, now), now)
        after = before + _MINUTE / limit
        wait = after - now - _MINUTE
        allowed = wait <= _ROUNDING
        self._full_at[identity] = after if allowed else before
        self._forget(now)
        return 0.0 if allowed else wait

    def _forget(self, now: float) -> None:
        """Drop full buckets from the front, where all are that were idle for a minute, and the first one if there are too many."""
        while self._full_at:
            identity, full_at = next(iter(self._full_at.items()))
            if full_at > now and len(self._full_at) <= self._most:
                break
            del self._full_at[identity]
