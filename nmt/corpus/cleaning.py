"""The rules that a training pair must pass, with counts and samples of what each rule dropped."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nmt.corpus.recipe import Cleaning

RULES = {
    "empty": "one side is empty",
    "characters": "one side has too many characters",
    "ratio": "the lengths of the two sides differ too much",
    "copy": "the two sides are the same",
    "evaluation": "one side is a sentence of the validation or test split",
    "duplicate": "the pair was seen before",
    "tokens": "one side has too many subwords",
}
_SAMPLES = 5  # dropped pairs shown for each rule


class _Letters(dict[int, int | None]):
    """A table for `str.translate` that keeps letters, marks and digits; filled as characters are met."""

    def __missing__(self, character: int) -> int | None:
        # Marks count: they are vowels in the scripts of India and tell words apart. `\w` leaves them out.
        kept = character if unicodedata.category(chr(character))[0] in "LMN" else None
        self[character] = kept
        return kept


_LETTERS = _Letters()


@dataclass
class Report:
    """How many pairs were read and kept, how many each rule dropped, and a few of those."""

    read: int = 0
    dropped: dict[str, int] = field(default_factory=lambda: dict.fromkeys(RULES, 0))
    samples: dict[str, list[tuple[str, str]]] = field(default_factory=lambda: {rule: [] for rule in RULES})

    @property
    def kept(self) -> int:
        """Pairs that passed every rule."""
        return self.read - sum(self.dropped.values())

    def drop(self, rule: str, pair: tuple[str, str]) -> None:
        """Count one dropped pair; of n such pairs those at positions 1, 2, 4, 8, ... become the samples shown."""
        self.dropped[rule] += 1
        count, samples = self.dropped[rule], self.samples[rule]
        if count & (count - 1) == 0:
            shown = (pair[0][:200], pair[1][:200])
            if len(samples) == _SAMPLES:
                samples.pop(1)  # keep the first, make room at the end: samples spread over the whole corpus
            samples.append(shown)


class Cleaner:
    """Applies the rules to batches of normalised pairs, in the order of `RULES` except `tokens`."""

    def __init__(self, rules: Cleaning, evaluation: Iterable[tuple[str, str]]) -> None:
        """`evaluation` are the pairs of the validation and test splits, which training must not contain."""
        self.rules = rules
        self.report = Report()
        self._evaluation = (
            {loose_key(side) for pair in evaluation for side in pair} if rules.drop_evaluation else set[bytes]()
        )
        self._seen = SeenHashes()

    def clean(self, pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """The pairs of one batch that pass, order kept."""
        self.report.read += len(pairs)
        passed = []
        for pair in pairs:
            rule = broken_rule(pair, self.rules) or ("evaluation" if self._in_evaluation(pair) else None)
            if rule:
                self.report.drop(rule, pair)
            else:
                passed.append(pair)
        if not self.rules.drop_duplicates or not passed:
            return passed
        fresh = self._seen.add(np.array([_hash(pair) for pair in passed], dtype=np.uint64))
        for pair, new in zip(passed, fresh, strict=True):
            if not new:
                self.report.drop("duplicate", pair)
        return [pair for pair, new in zip(passed, fresh, strict=True) if new]

    def _in_evaluation(self, pair: tuple[str, str]) -> bool:
        return bool(self._evaluation) and any(loose_key(side) in self._evaluation for side in pair)


def broken_rule(pair: tuple[str, str], rules: Cleaning) -> str | None:
    """The first rule that `pair` breaks by itself, or None."""
    source, target = pair
    if not source or not target:
        return "empty"
    longer, shorter = max(len(source), len(target)), min(len(source), len(target))
    if longer > rules.max_characters:
        return "characters"
    if longer - shorter > rules.ratio_slack and longer > rules.max_ratio * shorter:
        return "ratio"
    if rules.drop_copies and source == target and " " in source:
        return "copy"
    return None


def loose_key(text: str) -> bytes:
    """A key under which two sentences are the same when they differ in case, punctuation or compatibility forms."""
    folded = unicodedata.normalize("NFKC", text).casefold().translate(_LETTERS)
    return hashlib.blake2b((folded or text).encode("utf-8", "surrogatepass"), digest_size=12).digest()


def _hash(pair: tuple[str, str]) -> int:
    joined = f"{pair[0]}\t{pair[1]}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(joined, digest_size=8).digest(), "little")


class SeenHashes:
    """A set of 64-bit hashes at 8 bytes each: sorted runs whose sizes at least double, merged as they grow."""

    def __init__(self) -> None:
        self._runs: list[NDArray[np.uint64]] = []

    def add(self, hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Add `hashes` (N,); True where one was seen neither before nor earlier in this call."""
        fresh = np.zeros(len(hashes), dtype=np.bool_)
        unique, first = np.unique(hashes, return_index=True)
        fresh[first] = True
        for run in self._runs:
            position = np.minimum(np.searchsorted(run, unique), len(run) - 1)
            fresh[first[run[position] == unique]] = False
        new = np.sort(hashes[fresh])
        if len(new):
            self._runs.append(new)
        while len(self._runs) > 1 and len(self._runs[-2]) < 2 * len(self._runs[-1]):
            last = self._runs.pop()
            merged = np.concatenate((self._runs.pop(), last))
            merged.sort(kind="stable")  # in place, and quick where the two halves are sorted
            self._runs.append(merged)
        return fresh
