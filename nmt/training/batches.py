"""Batches of sentences of like length, within a budget of tokens; an epoch's order follows from its seed alone.

All pairs of an epoch are shuffled; windows of half a million of the shuffled are sorted by length, cut into batches, and the batches of a
window shuffled. So memory doesn't grow with the corpus, and a corpus of one window is sorted as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nmt.corpus.store import PreparedCorpus, Ragged, TokenColumn
from nmt.errors import DataError
from nmt.text.tokenizer import BOS, EOS, PAD
from nmt.training.config import RunConfig
from nmt.training.shuffle import permuted

Indices = NDArray[np.int64]

_WINDOW = 1 << 19  # shuffled pairs that are sorted and cut into batches together


@dataclass(frozen=True)
class Batch:
    """Padded ids: `source` (B, S) ends with the end mark, `target` (B, T) begins with the begin mark, `labels` (B, T) ends
    with the end mark; `places` (N,) are those of the real labels in the flat (B T); `tokens` counts the real labels, `total` the real
    source and target tokens.

    A process's share of a batch has the `numbers` (B,) of its sentences in the whole one, and the counts of the whole one.
    """

    source: Tensor
    source_lengths: Tensor
    target: Tensor
    labels: Tensor
    places: Tensor
    numbers: Tensor
    tokens: int
    total: int

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`, which need not have received it yet; pinned memory makes that possible."""
        if device.type == "cpu":
            return self
        source, lengths, target, labels, places, numbers = (
            tensor.pin_memory().to(device, non_blocking=True)
            for tensor in (self.source, self.source_lengths, self.target, self.labels, self.places, self.numbers)
        )
        return Batch(source, lengths, target, labels, places, numbers, self.tokens, self.total)

    def share(self, rank: int, size: int) -> Batch:
        """Every `size`-th sentence from number `rank` on. Where there is none, the first one without labels: it counts for nothing,
        but the process has something to do and doesn't fall out of step. On the CPU only."""
        if size == 1:
            return self
        if rank >= len(self.source):
            return self.idle()
        rows = slice(rank, None, size)
        lengths, labels = self.source_lengths[rows], self.labels[rows]
        longest = max(1, int((labels != PAD).sum(dim=1).max()))
        source, target, labels = (
            self.source[rows, : int(lengths.max())],
            self.target[rows, :longest],
            labels[:, :longest],
        )
        return Batch(source, lengths, target, labels, _real(labels), self.numbers[rows], self.tokens, self.total)

    def idle(self) -> Batch:
        """The first sentence, without labels: it counts for nothing."""
        source, target = self.source[:1, : int(self.source_lengths[0])], self.target[:1, :1]
        labels = torch.full_like(target, PAD)
        return Batch(
            source, self.source_lengths[:1], target, labels, _real(labels), self.numbers[:1], self.tokens, self.total
        )


def _real(labels: Tensor) -> Tensor:
    return torch.nonzero(labels.flatten() != PAD).flatten()


class TrainingBatches:
    """The training pairs of a prepared corpus as batches, epoch after epoch, from any position."""

    def __init__(
        self,
        corpus: PreparedCorpus,
        batch_tokens: int,
        seed: int,
        pairs: int | None = None,
        subword_sampling: float = 0.0,
    ) -> None:
        """Take the first `pairs` pairs, all by default; with `subword_sampling` words are cut anew each time they are seen, so that a
        batch may grow a little beyond its budget.

        Raises `DataError` when a pair is longer than a whole batch may be, or when there are fewer than `pairs`.
        """
        self.source, self.target = corpus.train()
        self._corpus = corpus
        self.weights = _first(corpus, pairs)
        self.pairs = sum(_whole(part) + _extra(part) for part in self.weights)  # of an epoch
        if not self.pairs:
            raise DataError("the weights of the recipe's sources leave not one pair for an epoch: raise a weight")
        self.windows = -(-self.pairs // _WINDOW)  # of an epoch
        self.sampling = subword_sampling
        self.batch_tokens, self.seed = batch_tokens, seed
        longest = longest_pair(self.source, self.target)
        if longest > batch_tokens:
            raise DataError(
                f"{corpus.path}: the longest pair has {longest} tokens but train.batch_tokens is {batch_tokens} "
                "(raise it, or lower cleaning.max_tokens in the recipe)"
            )
        self._plan: tuple[tuple[int, int], list[Indices]] = (-1, -1), []

    def plan(self, epoch: int, window: int = 0) -> list[Indices]:
        """The batches of a window of an epoch (both from 0) as arrays of pair numbers, in the order of training."""
        if self._plan[0] != (epoch, window):
            places = np.arange(window * _WINDOW, min((window + 1) * _WINDOW, self.pairs))
            chosen = self._chosen(permuted(places, self.pairs, (self.seed, epoch)), epoch)
            rng = np.random.default_rng((self.seed, epoch, window))
            plan = _group(chosen, self.source.lengths, self.target.lengths, self.batch_tokens, rng)
            self._plan = (epoch, window), [plan[i] for i in rng.permutation(len(plan))]  # only the current one is kept
        return self._plan[1]

    def epoch(self, epoch: int) -> Iterator[Indices]:
        """The batches of all windows of an epoch."""
        for window in range(self.windows):
            yield from self.plan(epoch, window)

    def epoch_batches(self) -> float:
        """How many batches an epoch has: exactly for a corpus of one window, else as the first window says."""
        return len(self.plan(0)) * self.pairs / min(self.pairs, _WINDOW)

    def share_of_epoch(self, window: int, pairs: int) -> float:
        """How much of an epoch is done after so many pairs of a window."""
        return (window * _WINDOW + pairs) / self.pairs

    def batch(self, epoch: int, position: int, window: int = 0) -> Batch:
        """Batch number `position` of a window of an epoch; raise `DataError` when it holds what is no subword."""
        rows = self.plan(epoch, window)[position]
        sides = self.source.take(rows), self.target.take(rows)
        tokenizers = (self._corpus.source_tokenizer, self._corpus.target_tokenizer)
        if self.sampling:
            seed = int(np.random.default_rng((self.seed, epoch, window, position)).integers(2**31))
            source, target = (
                Ragged.of(tokenizer.resample([column[i].tolist() for i in rows], self.sampling, seed))
                for tokenizer, column in zip(tokenizers, (self.source, self.target), strict=True)
            )
            sides = source, target
        batch = collate(*sides)
        for name, ids, tokenizer in zip(("source", "target"), (batch.source, batch.labels), tokenizers, strict=True):
            if int(ids.max()) >= len(tokenizer):
                raise DataError(
                    f"{self._corpus.path}/train.{name}.ids: holds {int(ids.max())}, but the tokenizer has {len(tokenizer)} "
                    "subwords: damaged (run `nmt prepare` again)"
                )
        return batch

    def sample(self, count: int) -> tuple[list[list[int]], list[list[int]]]:
        """Ids of `count` training pairs at even distances, the same each time."""
        total = sum(count for count, _ in self.weights)
        rows = np.linspace(0, total - 1, min(count, total), dtype=np.int64)
        source, target = ([column[i].tolist() for i in rows] for column in (self.source, self.target))
        return source, target

    def _chosen(self, places: Indices, epoch: int) -> Indices:
        """The pair at each of the `places` of an unshuffled epoch: each source's pairs as often as its weight says in whole, then a
        random part of them once more."""
        chosen, begin, first = np.empty_like(places), 0, 0
        for number, part in enumerate(self.weights):
            local, whole, count = places - begin, _whole(part), part[0]
            repeated = (local >= 0) & (local < whole)
            chosen[repeated] = first + local[repeated] % count
            again = (local >= whole) & (local < whole + _extra(part))
            if again.any():
                chosen[again] = first + permuted(local[again] - whole, count, (self.seed, epoch, number))
            begin, first = begin + whole + _extra(part), first + count
        return chosen


def training_batches(corpus: PreparedCorpus, config: RunConfig, budget: int | None = None) -> TrainingBatches:
    """The batches of a run, of `budget` tokens each in the place of the configured number."""
    train = config.train
    return TrainingBatches(corpus, budget or train.budget, config.seed, train.pairs, train.subword_sampling)


def longest_pair(source: TokenColumn, target: TokenColumn) -> int:
    """Tokens of the longest pair, both end marks included."""
    step = 1 << 20
    return 2 + max(
        int((source.lengths[i : i + step].astype(np.int64) + target.lengths[i : i + step]).max())
        for i in range(0, len(source), step)
    )


def _whole(part: tuple[int, float]) -> int:
    """Places of an epoch that a source of (pairs, weight) takes with all its pairs."""
    return part[0] * int(part[1])


def _extra(part: tuple[int, float]) -> int:
    """Places that it takes with a random part of its pairs."""
    return round(part[0] * (part[1] - int(part[1])))


def _first(corpus: PreparedCorpus, pairs: int | None) -> list[tuple[int, float]]:
    """The corpus's (number of pairs, weight) of each source, cut off after `pairs` pairs."""
    weights = corpus.weights()
    total = sum(count for count, _ in weights)
    if pairs is None:
        return weights
    if pairs > total:
        raise DataError(f"{corpus.path}: train.pairs is {pairs:,} but the corpus has {total:,} pairs")
    cut, left = [], pairs
    for count, weight in weights:
        cut.append((min(count, left), weight))
        left -= cut[-1][0]
    return cut


def _group(
    chosen: Indices, source: NDArray[np.uint16], target: NDArray[np.uint16], batch_tokens: int, rng: np.random.Generator
) -> list[Indices]:
    """Cut pairs, sorted by target length and within it by source length to and fro, into batches within the budget."""
    s, t = source[chosen].astype(np.int64) + 1, target[chosen].astype(np.int64) + 1  # with the end mark
    snake = np.where(t % 2 == 0, s, -s)  # so that source lengths do not jump where the target length changes
    order = np.lexsort((rng.random(len(chosen)), snake, t))
    pairs = chosen[order]
    batches, start = [], 0
    longest_s = longest_t = 0
    for position, (this_s, this_t) in enumerate(zip(s[order].tolist(), t[order].tolist(), strict=True)):
        longest_s, longest_t = max(longest_s, this_s), max(longest_t, this_t)
        if position > start and (position - start + 1) * (longest_s + longest_t) > batch_tokens:
            batches.append(pairs[start:position])
            start, longest_s, longest_t = position, this_s, this_t
    batches.append(pairs[start:])
    return batches


def collate(source: Ragged, target: Ragged) -> Batch:
    """Pad sentences of ids (without special ids) into a batch."""
    rows, steps = np.arange(len(source.lengths)), int(target.lengths.max()) + 1
    src, labels = source.padded(int(source.lengths.max()) + 1, PAD), target.padded(steps, PAD)
    tgt = np.full_like(labels, PAD)
    tgt[:, 0], tgt[:, 1:] = BOS, labels[:, :-1]
    src[rows, source.lengths], labels[rows, target.lengths] = EOS, EOS
    real = torch.from_numpy(labels)
    tokens = int(target.lengths.sum()) + len(rows)
    return Batch(
        torch.from_numpy(src),
        torch.from_numpy(source.lengths + 1),
        torch.from_numpy(tgt),
        real,
        _real(real),
        torch.arange(len(rows), dtype=torch.int32),
        tokens,
        tokens + int(source.lengths.sum()) + len(rows),
    )


def ordered_batches(source: list[list[int]], target: list[list[int]], batch_tokens: int) -> Iterator[Batch]:
    """Batches of an evaluation split, in an order that pads little; the order of sentences is not kept."""
    lengths = [np.array([len(ids) for ids in side], dtype=np.uint16) for side in (source, target)]
    everything = np.arange(len(source), dtype=np.int64)
    for rows in _group(everything, lengths[0], lengths[1], batch_tokens, np.random.default_rng(0)):
        yield collate(*(Ragged.of([side[i] for i in rows]) for side in (source, target)))
