"""Phrases that must appear in a translation: dynamic beam allocation (Post and Vilar 2018, "Fast lexically constrained decoding").

The places of the beam are shared among hypotheses by how many of the demanded subwords they have said, so that those that have begun are
not driven out by those that put it off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nmt.text.tokenizer import EOS

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Progress:
    """How far a hypothesis has come."""

    said: int  # demanded subwords, those of a phrase that is under way among them
    missing: int  # subwords of the phrases that have not been said to the end
    next: frozenset[int]  # what goes on with one of these or begins it
    urgent: frozenset[int]  # what goes on with the one that is under way, or begins any
    closing: bool  # whether a phrase ends here, so that the word must, too


@dataclass(frozen=True, eq=False)
class Phrases:
    """What must appear, as ids; `continues` (V,) are the subwords that go on with a word, which may not come after a phrase."""

    ids: tuple[tuple[int, ...], ...] = ()
    continues: NDArray[np.bool_] | None = None

    @property
    def total(self) -> int:
        """Subwords of all phrases."""
        return sum(map(len, self.ids))

    def progress(self, ids: Sequence[int]) -> Progress:
        """How far a hypothesis that has said `ids` has come."""
        said, done, closing = tuple(ids), 0, False
        under_way: list[tuple[int, int]] = []  # subwords said, the next one
        for phrase in self.ids:
            ends = [end for end in range(len(phrase), len(said) + 1) if said[end - len(phrase) : end] == phrase]
            if any(end == len(said) or self.continues is None or not self.continues[said[end]] for end in ends):
                done += len(phrase)
                closing = closing or ends == [len(said)]
                continue
            begun = next(
                n for n in range(min(len(phrase) - 1, len(said)), -1, -1) if said[len(said) - n :] == phrase[:n]
            )
            under_way.append((begun, phrase[begun]))
        most = max((begun for begun, _ in under_way), default=0)
        return Progress(
            done + most,
            self.total - done,
            frozenset(token for _, token in under_way),
            frozenset(token for begun, token in under_way if begun == most),
            closing and self.continues is not None,
        )

    def allowed(self, may: Floats, log_p: Floats, progress: Progress, room: int) -> Floats:
        """Of the log probabilities `may` (V,), which other rules have been at, those that still lead to all phrases within `room` subwords;
        what goes on with a phrase is allowed whatever those rules say."""
        may = may.copy()
        if progress.closing:
            may[self.continues] = -np.inf
        if progress.missing:
            may[EOS] = -np.inf
        last_call = progress.missing >= room > 0  # any other subword might be one too many
        if last_call:
            may[:] = -np.inf
        demanded = list(progress.urgent if last_call else progress.next)
        may[demanded] = log_p[demanded]
        return may

    def chosen(self, totals: Floats, said: Sequence[Sequence[int]], candidates: Sequence[Ints]) -> list[Ints]:
        """Of the `candidates` of each of K hypotheses, ids of finite `totals` (K, V), those that stay: K that go on, and all end marks."""
        k = len(said)
        banks: list[list[tuple[float, int, int]]] = [[] for _ in range(self.total + 1)]
        for row, ids in enumerate(candidates):
            for token in ids.tolist():
                if token != EOS:
                    bank = self.progress([*said[row], token]).said
                    banks[bank].append((-totals[row, token], row, token))
        places = [k // len(banks)] * len(banks)
        places[-1] += k % len(banks)
        spare = 0
        downwards = range(len(banks) - 1, -1, -1)
        for order in (downwards, downwards[::-1]):  # what a bank can't fill goes to those below, then to those above
            for number in order:
                places[number] += spare
                spare = max(0, places[number] - len(banks[number]))
                places[number] -= spare
        stay: list[list[int]] = [[EOS] if EOS in ids else [] for ids in candidates]
        for candidates_of_bank, count in zip(banks, places, strict=True):
            for _, row, token in sorted(candidates_of_bank)[:count]:
                stay[row].append(token)
        return [np.array(ids, np.int64) for ids in stay]


NONE = Phrases()
