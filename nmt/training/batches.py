"""Batches of sentences of like length, within a budget of tokens; an epoch's order follows from its seed alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nmt.corpus.store import PreparedCorpus
from nmt.errors import DataError
from nmt.text.tokenizer import BOS, EOS, PAD

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Padded ids: `source` (B, S) ends with the end mark, `target` (B, T) begins with the begin mark, `labels` (B, T) ends
    with the end mark; `tokens` counts the real labels, `total` the real source and target tokens.

    A process's share of a batch has the `numbers` (B,) of its sentences in the whole one, and the counts of the whole one.
    """

    source: Tensor
    source_lengths: Tensor
    target: Tensor
    labels: Tensor
    numbers: Tensor
    tokens: int
    total: int

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`."""
        if device.type == "cpu":
            return self
        source, lengths, target, labels, numbers = (
            tensor.pin_memory().to(device, non_blocking=True)
            for tensor in (self.source, self.source_lengths, self.target, self.labels, self.numbers)
        )
        return Batch(source, lengths, target, labels, numbers, self.tokens, self.total)

    def share(self, rank: int, size: int) -> Batch:
        """Every `size`-th sentence from number `rank` on. Where there is none, the first one without labels: it counts for nothing,
        but the process has something to do and doesn't fall out of step."""
        if size == 1:
            return self
        nothing = rank >= len(self.source)
        rows = slice(0, 1) if nothing else slice(rank, None, size)
        lengths, labels = self.source_lengths[rows], self.labels[rows]
        longest = int((labels != PAD).sum(dim=1).max())
        if nothing:
            labels = torch.full_like(labels, PAD)
        return Batch(
            self.source[rows, : int(lengths.max())],
            lengths,
            self.target[rows, :longest],
            labels[:, :longest],
            self.numbers[rows],
            self.tokens,
            self.total,
        )


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
        self.weights = _first(corpus, pairs)
        self.sampling, self._tokenizers = subword_sampling, (corpus.source_tokenizer, corpus.target_tokenizer)
        self.batch_tokens, self.seed = batch_tokens, seed
        longest = int((self.source.lengths.astype(np.int64) + self.target.lengths).max()) + 2
        if longest > batch_tokens:
            raise DataError(
                f"{corpus.path}: the longest pair has {longest} tokens but train.batch_tokens is {batch_tokens} "
                "(raise it, or lower cleaning.max_tokens in the recipe)"
            )
        self._plans: dict[int, list[Indices]] = {}

    def plan(self, epoch: int) -> list[Indices]:
        """The batches of an epoch (from 0) as arrays of pair numbers, in the order of training."""
        if epoch not in self._plans:
            rng = np.random.default_rng((self.seed, epoch))
            chosen = _weighted(self.weights, rng)
            plan = _group(chosen, self.source.lengths, self.target.lengths, self.batch_tokens, rng)
            self._plans = {epoch: [plan[i] for i in rng.permutation(len(plan))]}  # only the current epoch is kept
        return self._plans[epoch]

    def batch(self, epoch: int, position: int) -> Batch:
        """Batch number `position` of an epoch."""
        rows = self.plan(epoch)[position]
        sides = [[column[i] for i in rows] for column in (self.source, self.target)]
        if self.sampling:
            seed = int(np.random.default_rng((self.seed, epoch, position)).integers(2**31))
            sides = [
                [
                    np.array(ids, np.uint16)
                    for ids in tokenizer.resample([ids.tolist() for ids in side], self.sampling, seed)
                ]
                for tokenizer, side in zip(self._tokenizers, sides, strict=True)
            ]
        return collate(*sides)

    def sample(self, count: int) -> tuple[list[list[int]], list[list[int]]]:
        """Ids of `count` training pairs at even distances, the same each time."""
        total = sum(count for count, _ in self.weights)
        rows = np.linspace(0, total - 1, min(count, total), dtype=np.int64)
        source, target = ([column[i].tolist() for i in rows] for column in (self.source, self.target))
        return source, target


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


def _weighted(weights: list[tuple[int, float]], rng: np.random.Generator) -> Indices:
    """Pair numbers of an epoch: each source's pairs floor(weight) times, and a random part of them once more."""
    chosen, start = [], 0
    for count, weight in weights:
        pairs = np.arange(start, start + count, dtype=np.int64)
        chosen += [pairs] * int(weight)
        if extra := round(count * (weight - int(weight))):
            chosen.append(rng.choice(pairs, size=extra, replace=False))
        start += count
    if not chosen:
        raise DataError("the weights of the recipe's sources leave not one pair for an epoch: raise a weight")
    return np.concatenate(chosen)


def _group(
    chosen: Indices, source: NDArray[np.uint16], target: NDArray[np.uint16], batch_tokens: int, rng: np.random.Generator
) -> list[Indices]:
    """Cut pairs, sorted by target length and within it by source length to and fro, into batches within the budget."""
    s, t = source[chosen].astype(np.int64) + 1, target[chosen].astype(np.int64) + 1  # with the end mark
    snake = np.where(t % 2 == 0, s, -s)  # so that source lengths do not jump where the target length changes
    order = np.lexsort((rng.random(len(chosen)), snake, t))
    pairs, lengths = chosen[order], np.stack((s[order], t[order]), axis=1)
    batches, start = [], 0
    longest_s = longest_t = 0
    for position, (this_s, this_t) in enumerate(lengths.tolist()):
        longest_s, longest_t = max(longest_s, this_s), max(longest_t, this_t)
        if position > start and (position - start + 1) * (longest_s + longest_t) > batch_tokens:
            batches.append(pairs[start:position])
            start, longest_s, longest_t = position, this_s, this_t
    batches.append(pairs[start:])
    return batches


def collate(source: list[NDArray[np.uint16]], target: list[NDArray[np.uint16]]) -> Batch:
    """Pad sentences of ids (without special ids) into a batch."""
    source_lengths = torch.tensor([len(ids) + 1 for ids in source])
    target_lengths = [len(ids) + 1 for ids in target]
    src = np.full((len(source), int(source_lengths.max())), PAD, dtype=np.int64)
    tgt = np.full((len(target), max(target_lengths)), PAD, dtype=np.int64)
    labels = tgt.copy()
    for row, (left, right) in enumerate(zip(source, target, strict=True)):
        src[row, : len(left)], src[row, len(left)] = left, EOS
        tgt[row, 0], tgt[row, 1 : len(right) + 1] = BOS, right
        labels[row, : len(right)], labels[row, len(right)] = right, EOS
    tokens = sum(target_lengths)
    return Batch(
        torch.from_numpy(src),
        source_lengths,
        torch.from_numpy(tgt),
        torch.from_numpy(labels),
        torch.arange(len(source), dtype=torch.int32),
        tokens,
        tokens + int(source_lengths.sum()),
    )


def ordered_batches(source: list[list[int]], target: list[list[int]], batch_tokens: int) -> Iterator[Batch]:
    """Batches of an evaluation split, in an order that pads little; the order of sentences is not kept."""
    lengths = [np.array([len(ids) for ids in side], dtype=np.uint16) for side in (source, target)]
    everything = np.arange(len(source), dtype=np.int64)
    for rows in _group(everything, lengths[0], lengths[1], batch_tokens, np.random.default_rng(0)):
        yield collate([np.array(source[i], np.uint16) for i in rows], [np.array(target[i], np.uint16) for i in rows])
