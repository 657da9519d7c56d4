"""How often a caller may ask: bursts, refilling, own limits, bounded memory; against an exact model and as a property."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.rates import RateLimit


class Clock:
    """Stands still until it is told."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def allowed(limit: RateLimit, identity: str, times: int, per_minute: int | None = None) -> int:
    return sum(limit.take(identity, per_minute) == 0 for _ in range(times))


@pytest.mark.parametrize("start", [0.0, 1000.0, 4e6 + 1 / 3])
@pytest.mark.parametrize("per_minute", [1, 7, 60, 6000])
def test_a_minutes_worth_at_once_and_then_as_it_refills(per_minute: int, start: float) -> None:
    clock = Clock(start)
    limit = RateLimit(per_minute, clock)
    assert allowed(limit, "a", 2 * per_minute) == per_minute
    clock.now += 30
    assert allowed(limit, "a", 2 * per_minute) == per_minute // 2
    clock.now += 1000
    assert allowed(limit, "a", 2 * per_minute) == per_minute


def test_the_wait_is_as_long_as_it_says() -> None:
    clock = Clock(100.0)
    limit = RateLimit(20, clock)
    assert allowed(limit, "a", 20) == 20
    assert limit.take("a") == pytest.approx(3.0)
    clock.now += 1.0
    assert limit.take("a") == pytest.approx(2.0), "a refused request must not count"
    clock.now += 1.99
    assert limit.take("a") == pytest.approx(0.01)
    clock.now += 0.01
    assert limit.take("a") == 0.0
    assert limit.take("a") == pytest.approx(3.0)


@given(st.integers(1, 1000), st.floats(0, 1e7), st.floats(0, 59))
@settings(deadline=None, max_examples=100)
def test_who_waits_as_told_is_let_in(per_minute: int, start: float, pause: float) -> None:
    clock = Clock(start)
    limit = RateLimit(per_minute, clock)
    limit.take("a")
    clock.now += pause
    for _ in range(per_minute + 2):
        if wait := limit.take("a"):
            clock.now += wait
            assert limit.take("a") == 0.0
            return
    pytest.fail("never refused")


def test_callers_do_not_share() -> None:
    limit = RateLimit(2, Clock())
    assert allowed(limit, "a", 5) == 2
    assert allowed(limit, "b", 5) == 2
    assert limit.take("a") > 0


def test_a_caller_can_have_a_limit_of_its_own() -> None:
    clock = Clock()
    limit = RateLimit(2, clock)
    assert allowed(limit, "more", 20, per_minute=10) == 10
    assert limit.take("more", 10) == pytest.approx(6.0)
    assert allowed(limit, "less", 20, per_minute=1) == 1
    assert limit.take("less", 1) == pytest.approx(60.0)
    clock.now += 30
    assert allowed(limit, "more", 20, per_minute=10) == 5


def test_a_raised_limit_holds_at_once() -> None:
    clock = Clock()
    limit = RateLimit(60, clock)
    assert allowed(limit, "a", 100, per_minute=2) == 2
    clock.now += 6
    assert limit.take("a", 2) > 0
    assert allowed(limit, "a", 100, per_minute=60) == 6


def test_the_real_clock_is_the_default() -> None:
    limit = RateLimit(1)
    assert limit.take("a") == 0.0
    assert 59 < limit.take("a") <= 60


def test_idle_callers_are_forgotten_when_their_buckets_are_full() -> None:
    clock = Clock()
    limit = RateLimit(60, clock)
    for number in range(100):
        limit.take(str(number))
    assert len(limit) == 100
    clock.now += 1.5
    limit.take("new")
    assert len(limit) == 1


def test_a_bucket_that_is_not_full_is_kept() -> None:
    clock = Clock()
    limit = RateLimit(60, clock)
    assert allowed(limit, "a", 60) == 60
    clock.now += 30
    assert allowed(limit, "b", 1) == 1
    assert allowed(limit, "a", 60) == 30


def test_the_caller_that_was_idle_longest_is_forgotten() -> None:
    limit = RateLimit(2, Clock(), most=3)
    for identity in ("a", "b", "c"):
        assert allowed(limit, identity, 3) == 2
    assert limit.take("a") > 0, "a refused request shows that a is there"
    assert limit.take("d") == 0.0
    assert len(limit) == 3
    assert limit.take("a") > 0
    assert limit.take("c") > 0
    assert limit.take("b") == 0.0


def test_no_flood_of_callers_takes_more_memory() -> None:
    limit = RateLimit(1, Clock(), most=10)
    for number in range(1000):
        limit.take(str(number))
        assert len(limit) <= 10


# Many requests at once, some soon after, now and then a long pause.
GAPS = st.lists(st.one_of(st.just(0), st.integers(0, 3000), st.integers(0, 200_000)), min_size=1, max_size=60)


@given(st.integers(1, 8), GAPS, st.integers(0, 10**9))
@settings(deadline=None, max_examples=150)
def test_no_window_ever_holds_more_than_burst_and_rate(per_minute: int, gaps: list[int], start: int) -> None:
    clock = Clock(start / 1000)
    limit = RateLimit(per_minute, clock)
    times = []
    for gap in [*gaps, *[0] * per_minute]:
        clock.now += gap / 1000
        if limit.take("a") == 0:
            times.append(clock.now)
    for first, begin in enumerate(times):
        for last in range(first, len(times)):
            assert last - first + 1 <= per_minute + per_minute / 60 * (times[last] - begin) + 1e-3


@given(st.integers(1, 30), GAPS)
@settings(deadline=None, max_examples=150)
def test_it_is_a_token_bucket(per_minute: int, gaps: list[int]) -> None:
    """Request for request the same as the textbook's, in exact numbers."""
    clock = Clock()
    limit = RateLimit(per_minute, clock)
    tokens, now = Fraction(per_minute), 0
    for gap in [*gaps, *[0] * per_minute]:
        now += gap
        clock.now = now / 1000
        tokens = min(Fraction(per_minute), tokens + Fraction(per_minute * gap, 60_000))
        wait = limit.take("a")
        if tokens >= 1:
            assert wait == 0.0
            tokens -= 1
        else:
            assert wait == pytest.approx(float((1 - tokens) * 60 / per_minute))
