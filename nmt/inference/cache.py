"""Sentences that come again, and what they came to. The key holds all that a search depends on, so an answer is never another one than
the search would give; of those of catalogues 8 % come again (benchmarks/cache_ratio.py)."""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future

from nmt.inference.engine import Engine, Priority
from nmt.inference.search import Candidate, Sentence

Key = tuple[object, ...]


class Cache:
    """The results of late, those that were not asked for longest go first. All methods may be called from any thread."""

    def __init__(self, limit: int) -> None:
        """`limit`: subwords of sources and candidates (about 100 bytes each) that are kept; 0 keeps nothing."""
        self.hits = self.misses = 0
        self._limit, self._kept = limit, 0
        self._found: OrderedDict[Key, list[Candidate]] = OrderedDict()
        self._lock = threading.Lock()

    def submit(
        self, engine: Engine, sentences: Sequence[Sentence], priority: Priority
    ) -> list[Future[list[Candidate]]]:
        """As `Engine.submit_all`; what is known is not searched for, nor is one twice that is there twice."""
        if not self._limit:
            return engine.submit_all(sentences, priority)
        futures: dict[Key, Future[list[Candidate]]] = {}
        keys = [_key(sentence) for sentence in sentences]
        missing: dict[Key, Sentence] = {}
        with self._lock:
            for key, sentence in zip(keys, sentences, strict=True):
                if (found := self._found.get(key)) is not None:
                    self._found.move_to_end(key)
                    futures[key] = Future()
                    futures[key].set_result(found)
                else:
                    missing.setdefault(key, sentence)
            self.misses += len(missing)
            self.hits += len(sentences) - len(missing)
        begun = engine.submit_all(list(missing.values()), priority)
        for (key, sentence), future in zip(missing.items(), begun, strict=True):
            future.add_done_callback(functools.partial(self._keep, key, sentence.options.n_best))
            futures[key] = future
        return [futures[key] for key in keys]

    def _keep(self, key: Key, count: int, future: Future[list[Candidate]]) -> None:
        if future.cancelled() or future.exception():
            return
        candidates = future.result()[:count]
        with self._lock:
            if key in self._found:
                return
            self._found[key] = candidates
            self._kept += _size(key, candidates)
            while self._kept > self._limit:
                self._kept -= _size(*self._found.popitem(last=False))


def _key(sentence: Sentence) -> Key:
    return tuple(sentence.ids), sentence.options, tuple(sentence.prefix), sentence.phrases.ids, sentence.aligned


def _size(key: Key, candidates: Sequence[Candidate]) -> int:
    attention = sum(each.attention.size // 16 for each in candidates if each.attention is not None)
    return len(key[0]) + sum(len(each.ids) for each in candidates) + attention  # type: ignore[arg-type]
