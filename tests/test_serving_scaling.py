"""How many replicas there should be, by a simulated load; no Ray."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import pytest

from serving.config import Autoscale
from serving.scaling import BUSY, WAITING, ByWaitingTokens, wanted


@pytest.mark.parametrize(
    ("busy", "waiting", "replicas"),
    [
        ([0.0], [0], 1),  # idle: never none
        ([1.0], [0], 1),
        ([1.0], [1], 2),  # more than one has hands for
        ([1.0], [2000], 2),
        ([1.0], [2001], 3),
        ([0.4, 0.4], [0, 0], 1),  # one would do
        ([0.7, 0.7], [0, 0], 2),
        ([0.1] * 10, [0] * 10, 1),  # ten times a tenth is one, whatever floats say
    ],
)
def test_as_many_as_are_busy_and_one_more_for_what_waits(
    busy: list[float], waiting: list[float], replicas: int
) -> None:
    assert wanted(busy, waiting, 2000) == replicas


@dataclass
class Context:
    aggregated_metrics: dict[str, dict[Any, float]]
    current_num_replicas: int = 3
    policy_state: dict[str, Any] = field(default_factory=dict)


def test_before_anything_is_recorded_it_stays_as_it_is() -> None:
    assert ByWaitingTokens(2000)(Context({})) == (3, {})
    assert ByWaitingTokens(2000)(Context({BUSY: {"a": 1.0}, WAITING: {"a": 6000.0}})) == (4, {})


def test_a_document_of_one_request_brings_replicas_and_they_go_again() -> None:
    """A document of 40,000 subwords at 1,000 a second for each replica: up at once, down when it is done."""
    config, replicas, queue, history = Autoscale(max_replicas=8), 1, 40_000.0, [1]
    for second in range(120):
        queue += 200.0 if second < 60 else 0.0  # and a few short requests
        done = min(queue, 1000.0 * replicas)
        queue -= done
        share = done / (1000.0 * replicas)
        found = wanted([share] * replicas, [queue / replicas] * replicas, config.waiting_tokens)
        replicas = min(config.max_replicas, found)
        history.append(replicas)
    assert max(history[:4]) == 8
    assert queue == 0
    assert history[-1] == 1
    assert sum(after > before for before, after in itertools.pairwise(history)) == 1, "it goes up once, not up and down"


@pytest.mark.parametrize("tokens", [1, 500, 2000])
def test_more_that_waits_never_means_fewer(tokens: int) -> None:
    counts = [wanted([0.5, 1.0], [waiting, 0], tokens) for waiting in range(0, 10_000, 37)]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]
