"""What Prometheus is told. No text, key or address is ever in a label.

Metrics go through `ray.serve.metrics` to the exporter of the node, which puts `ray_` before each name; where nothing of Ray runs (the
tests of the gateway) they are not recorded.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from nmt.inference.bundle import ModelInfo

_SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0]
_GAUGES = {  # of `Admission.statistics`
    "translate_queue_depth": ("waiting", "sentences that have not begun"),
    "translate_queue_tokens": ("waiting_tokens", "their source subwords"),
    "translate_queue_seconds": ("oldest_s", "how long the oldest of them has waited"),
    "translate_batch_sentences": ("running", "sentences in running batches"),
    "translate_batch_rows": ("rows", "hypotheses in running batches"),
    "translate_in_hand": ("in_hand", "texts waiting or running"),
}
_COUNTERS = {
    "translate_sentences_total": ("sentences", "sentences finished"),
    "translate_target_tokens_total": ("tokens", "target subwords of their best candidates"),
    "translate_decode_steps_total": ("steps", "steps of running batches"),
    "translate_failed_total": ("failed", "sentences that failed"),
    "translate_dropped_total": ("dropped", "sentences given up by their callers, or too late"),
    "translate_cache_hits_total": ("cache_hits", "sentences that were known from before"),
    "translate_cache_misses_total": ("cache_misses", "sentences that were not"),
    "translate_refused_total": ("refused", "requests that found no room"),
}


@functools.cache
def _made(kind: str, name: str, description: str, tags: tuple[str, ...], **options: Any) -> Any:
    from ray.serve import metrics

    return getattr(metrics, kind)(name, description=description, tag_keys=tags, **options)


def _in_replica() -> bool:
    """Whether this process is a Serve replica, where alone metrics of Serve can be made."""
    try:
        from ray.serve.context import _get_internal_replica_context
    except ImportError:
        return False
    return _get_internal_replica_context() is not None


class EngineMetrics:
    """Of one model's engine in this process."""

    def __init__(self, info: ModelInfo) -> None:
        self._tags = {"model": info.name, "pair": f"{info.source_language}-{info.target_language}"}
        self._before: dict[str, float] = {}

    def record(self, statistics: Mapping[str, float]) -> None:
        """Tell what `Admission.statistics` says now."""
        if not _in_replica():
            return
        for name, (key, description) in _GAUGES.items():
            _made("Gauge", name, description, ("model", "pair")).set(statistics[key], self._tags)
        for name, (key, description) in _COUNTERS.items():
            more = statistics[key] - self._before.get(key, 0.0)
            if more > 0:
                # Ray puts _total behind a counter's name.
                _made("Counter", name.removesuffix("_total"), description, ("model", "pair")).inc(more, self._tags)
            self._before[key] = statistics[key]


def count_request(api: str, pair: str, status: int, seconds: float) -> None:
    """A request has been answered; `pair` is empty where none was found for it."""
    if not _in_replica():
        return
    tags = {"api": api, "pair": pair}
    counter = _made("Counter", "translate_requests", "requests answered", ("api", "pair", "status"))
    counter.inc(1.0, tags | {"status": str(status)})
    histogram = _made(
        "Histogram", "translate_request_seconds", "from head to answer", ("api", "pair"), boundaries=tuple(_SECONDS)
    )
    histogram.observe(seconds, tags)
