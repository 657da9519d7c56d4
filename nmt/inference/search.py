"""Beam search over the `encode` / `decode` boundary of a model; a beam of one is greedy search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor

from nmt.inference.types import DecodeOptions
from nmt.text.tokenizer import BOS, EOS, PAD, UNK


class Selectable(Protocol):
    """A value with a row for each sentence or hypothesis of a batch."""

    def select(self, rows: Tensor) -> Self:
        """The value of `rows` (N,) of the batch, in that order; a row may be repeated or left out."""


S = TypeVar("S", bound=Selectable)
M = TypeVar("M", bound="Encoded[Any]")
State_co = TypeVar("State_co", bound=Selectable, covariant=True)


class Encoded(Selectable, Protocol[State_co]):
    """What encoding leaves for decoding: `nmt.model.decoder.Memory`, or as much of it as search must know."""

    @property
    def state(self) -> State_co:
        """The state before the first target step."""


class TranslationModel(Protocol[M, S]):
    """All that search and the Translator know of a model: `Seq2Seq` is one, an `Ensemble` of them another."""

    @property
    def device(self) -> torch.device:
        """Where source and target ids are expected."""

    def eval(self) -> Self:
        """Turn off what only training has, such as dropout."""

    def encode(self, source: Tensor, lengths: Tensor) -> M:
        """Encode `source` ids (B, S), right-padded, of `lengths` (B,), end marks included."""

    def decode(self, target: Tensor, memory: M, state: S) -> tuple[Tensor, S]:
        """Logits (B, T, V) after each of the `target` ids (B, T), and the state after the last."""


class Cancelled(Exception):
    """The caller no longer wants the result."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """Target ids without the end mark, the sum of their log probabilities with it, and whether the model ended it."""

    ids: list[int]
    log_probability: float
    score: float
    ended: bool


@dataclass
class _Sentence:
    """A sentence that is being searched for: where its result goes, its length limit, what is finished."""

    index: int
    limit: int
    finished: list[Candidate] = field(default_factory=list)


def beam_search(
    model: TranslationModel[M, S],
    source: Sequence[Sequence[int]],
    options: DecodeOptions,
    cancelled: Callable[[], bool] | None = None,
) -> list[list[Candidate]]:
    """Candidates for each source sentence (ids with the end mark), best first, `options.beam_size` at most.

    A step extends the K hypotheses of a sentence by their 2 K best continuations, so that ended ones never shrink the beam; a
    sentence leaves the batch when K have ended or the limit is reached. Scores are log P / length ** length_penalty, the end
    mark counted. `cancelled` is asked before each step and ends the search by `Cancelled`.
    """
    if not source:
        return []
    device = model.device
    lengths = torch.tensor([len(ids) for ids in source], device=device)
    padded = torch.full((len(source), int(lengths.max())), PAD, device=device)
    for row, ids in enumerate(source):
        padded[row, : len(ids)] = torch.tensor(ids, device=device)
    results: list[list[Candidate]] = [[] for _ in source]
    with torch.inference_mode():
        beam = _Beam(model, model.encode(padded, lengths), options, [len(ids) for ids in source])
        while beam.sentences:
            if cancelled is not None and cancelled():
                raise Cancelled
            for sentence in beam.step():
                order = sorted(sentence.finished, key=lambda candidate: -candidate.score)
                results[sentence.index] = order[: options.beam_size]
    return results


class _Beam(Generic[M, S]):
    """The running batch: sentences not yet done, K rows of state for each."""

    def __init__(self, model: TranslationModel[M, S], memory: M, options: DecodeOptions, lengths: list[int]) -> None:
        self.model, self.options = model, options
        k, count = options.beam_size, len(lengths)
        device = model.device
        limits = [int(length * options.max_length_ratio) + options.max_length_extra for length in lengths]
        self.sentences = [_Sentence(index, max(1, limit)) for index, limit in enumerate(limits)]
        self.memory = memory.select(torch.arange(count, device=device).repeat_interleave(k))
        self.state: S = self.memory.state
        self.scores = torch.full((count, k), float("-inf"), device=device)
        self.scores[:, 0] = 0.0  # all K rows are alike before the first step: only one may continue
        self.tokens = torch.full((count, k, 1), BOS, device=device)  # (B, K, steps)

    def step(self) -> list[_Sentence]:
        """Extend every hypothesis by one token; return the sentences that are done, which leave the batch."""
        k, count = self.options.beam_size, len(self.sentences)
        logits, state = self.model.decode(self.tokens[:, :, -1].reshape(-1, 1), self.memory, self.state)
        log_p = torch.log_softmax(logits[:, 0].float(), dim=-1)  # (B K, V)
        log_p[:, (PAD, UNK, BOS)] = float("-inf")
        vocabulary = log_p.shape[-1]
        totals = (self.scores[:, :, None] + log_p.view(count, k, vocabulary)).view(count, -1)
        best, where = totals.topk(min(2 * k, totals.shape[1] - 1), dim=1)  # (B, 2 K), best first
        origin, token = where // vocabulary, where % vocabulary
        done = self._collect(best, origin, token)
        going = self._continue(best, origin, token, state)
        if done:
            self._compact([row for row, sentence in enumerate(self.sentences) if sentence not in done], going)
        return done

    def _collect(self, best: Tensor, origin: Tensor, token: Tensor) -> list[_Sentence]:
        """Move hypotheses that have ended, or have reached the limit, to their sentences; return those that are done."""
        k, length = self.options.beam_size, self.tokens.shape[2]  # the length of a hypothesis with its new token
        best, origin, token = best.cpu(), origin.cpu(), token.cpu()  # once, not a number at a time from a GPU
        ended = (token[:, :k] == EOS) & best[:, :k].isfinite()
        rows = ended.any(dim=1).tolist()
        done = []
        for row, sentence in enumerate(self.sentences):
            if rows[row]:
                for column in ended[row].nonzero()[:, 0].tolist():
                    self._finish(sentence, row, int(origin[row, column]), float(best[row, column]), None)
            if len(sentence.finished) >= k:
                done.append(sentence)
            elif length >= sentence.limit:
                for column in range(best.shape[1]):
                    value = float(best[row, column])
                    if len(sentence.finished) < k and int(token[row, column]) != EOS and value > float("-inf"):
                        self._finish(sentence, row, int(origin[row, column]), value, int(token[row, column]))
                done.append(sentence)
        return done

    def _finish(self, sentence: _Sentence, row: int, origin: int, log_probability: float, token: int | None) -> None:
        ids = self.tokens[row, origin, 1:].tolist() + ([token] if token is not None else [])
        score = log_probability / self.tokens.shape[2] ** self.options.length_penalty
        sentence.finished.append(Candidate(ids, log_probability, score, ended=token is None))

    def _continue(self, best: Tensor, origin: Tensor, token: Tensor, state: S) -> S:
        """Keep the K best continuations that have not ended; return the state in their order."""
        k = self.options.beam_size
        live = torch.where(token == EOS, float("-inf"), best)
        self.scores, column = live.topk(k, dim=1)  # (B, K)
        origin, token = origin.gather(1, column), token.gather(1, column)
        history = self.tokens.gather(1, origin[:, :, None].expand(-1, -1, self.tokens.shape[2]))
        self.tokens = torch.cat((history, token[:, :, None]), dim=2)
        base = torch.arange(len(self.sentences), device=origin.device)[:, None] * k
        self.state = state.select((base + origin).view(-1))
        return self.state

    def _compact(self, rows: list[int], state: S) -> None:
        """Drop all but `rows` of the sentences."""
        k = self.options.beam_size
        keep = torch.tensor(rows, dtype=torch.long, device=self.scores.device)
        flat = (keep[:, None] * k + torch.arange(k, device=keep.device)).view(-1)
        self.sentences = [self.sentences[row] for row in rows]
        self.scores, self.tokens = self.scores[keep], self.tokens[keep]
        self.memory, self.state = self.memory.select(flat), state.select(flat)
