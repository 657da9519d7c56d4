"""How many replicas a model needs, by what its engines have to do. No Ray here: Serve calls `by_waiting_tokens` in its controller.

Serve's own rule counts requests, of which one may be a document of two thousand sentences; the engine knows the work itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Protocol

WAITING, BUSY = "waiting_tokens", "busy"  # what a replica records: source subwords that wait; 1 while its engine runs


class Context(Protocol):
    """What is needed of Ray Serve's `AutoscalingContext`."""

    aggregated_metrics: dict[str, dict[Any, float]]
    current_num_replicas: int
    policy_state: dict[str, Any]


class ByWaitingTokens:
    """The policy: as many replicas as have been busy of late, and one more for each `waiting_tokens` that wait.

    So two that are busy half of the time become one, and two that are busy two thirds of it stay. Bounds and delays are Serve's.
    """

    def __init__(self, waiting_tokens: int) -> None:
        self._tokens = waiting_tokens

    def __call__(self, context: Context) -> tuple[int, dict[str, Any]]:
        """The number of replicas that there should be."""
        found = context.aggregated_metrics or {}
        if not found.get(BUSY):  # nothing is known yet
            return context.current_num_replicas, {}
        return wanted(found[BUSY].values(), found.get(WAITING, {}).values(), self._tokens), {}


def wanted(busy: Iterable[float], waiting: Iterable[float], tokens: int) -> int:
    """Replicas for these shares of time that each was busy, and these subwords that wait at each."""
    return max(1, math.ceil(round(sum(busy) + sum(waiting) / tokens, 6)))
