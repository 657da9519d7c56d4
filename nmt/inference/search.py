"""Beam search in a running batch, whose sentences come and go between two steps; a beam of one is greedy search.

The model runs behind a `Backend`; what is here is NumPy, a few small arrays a step.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from nmt.errors import NMTError
from nmt.inference.backend import Backend
from nmt.inference.phrases import NONE, Phrases
from nmt.inference.rules import allowed, drawn
from nmt.inference.types import DecodeOptions
from nmt.text.tokenizer import BOS, EOS

_NARROWEST = 16  # source tokens that a running batch has room for, at least; wider ones are twice that, four times, ...
_LEAST = 1e-6  # attention that a source word is taken to have had
_MARKS = EOS  # ids below it, padding, the unknown and the begin mark, are never said

Floats = NDArray[np.float64]
Weights = NDArray[np.float32]
Ints = NDArray[np.int64]


class Cancelled(Exception):
    """The caller no longer wants the result."""


class SearchError(NMTError):
    """There is no translation: the model's probabilities are not numbers, or the options forbid every one."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """Target ids without the end mark, the sum of their log probabilities with it, whether the model ended it, and the log probability of
    each of `ids`, and of the end mark where it did. Where it was asked for, `attention` (these, S) says where each looked in the source."""

    ids: list[int]
    log_probability: float
    score: float
    ended: bool
    each: list[float]
    attention: Weights | None = field(default=None, compare=False)


@dataclass(eq=False, slots=True)
class Sentence:
    """A sentence to be searched for: ids with the end mark, and what has been found so far.

    When it is done, `finished` are its candidates, best first, at least `options.n_best` where there are so many and `options.beam_size`
    at most, or `error` says why there are none.
    """

    ids: Sequence[int]
    options: DecodeOptions
    prefix: Sequence[int] = ()  # target ids that every candidate begins with
    phrases: Phrases = NONE  # that every candidate holds
    aligned: bool = False  # whether candidates shall say where they looked
    finished: list[Candidate] = field(default_factory=list, init=False)
    error: SearchError | None = field(default=None, init=False)
    # Of each step of a watched sentence: which of the hypotheses before it the K after it go on from, and where those looked (K, S).
    trail: list[tuple[Ints, Weights]] = field(default_factory=list, init=False)

    @property
    def least(self) -> int:
        """Target words at least."""
        return min(self.options.min_length, self.limit - 1)

    def ruled(self, length: int) -> bool:
        """Whether the likeliest words alone do not say what may come after so many."""
        options = self.options
        return bool(self.phrases.ids or options.no_repeat_ngram or options.temperature or length < len(self.prefix))

    @property
    def listed(self) -> bool:
        """Whether it is searched for within the shortlist, which holds nothing that rules might ask for."""
        options = self.options
        ruled = self.prefix or self.phrases.ids or options.no_repeat_ngram or options.temperature or options.min_length
        return options.shortlist and not ruled

    @property
    def watched(self) -> bool:
        """Whether it is to be kept where each hypothesis looks."""
        return self.aligned or self.options.alignment or self.options.coverage_penalty > 0

    @property
    def width(self) -> int:
        """Source tokens that its running batch has room for: always the same, as sums over another number may differ in the last digits."""
        width = _NARROWEST
        while width < len(self.ids):
            width *= 2
        return width

    @property
    def limit(self) -> int:
        """Target tokens at most, the end mark included."""
        usual = int(len(self.ids) * self.options.max_length_ratio) + self.options.max_length_extra
        demanded = len(self.prefix) + (self.phrases.total + 1 if self.phrases.ids else 0)
        return max(1, usual, demanded)


class RunningBatch:
    """Sentences that are searched for together, K rows (hypotheses) each.

    A step extends the K hypotheses of a sentence by their 2 K best continuations, so that ended ones never shrink the beam. Scores are
    log P / length ** length_penalty, the end mark counted, less what words of the source lack of being attended to (`uncovered`). A
    sentence leaves when its `n_best` best are known: when none of the hypotheses that go on can come before them any more, or its limit is
    reached. What is found for a sentence depends neither on the others nor on when they come and go.
    """

    def __init__(self, backend: Backend, beam: int, width: int, listed: bool = False) -> None:
        """For sentences with `beam_size` `beam` and up to `width` ids, that are `listed` or not."""
        self.sentences: list[Sentence] = []
        self._backend, self._beam = backend, beam
        self._rows = backend.running(beam, width, listed)
        # A row for each sentence:
        self._lengths: Ints = np.zeros(0, np.int64)  # steps done
        self._limits: Ints = np.zeros(0, np.int64)
        self._found: NDArray[np.bool_] = np.zeros(0, np.bool_)  # whether n_best hypotheses have ended
        self._scores: Floats = np.zeros((0, beam))  # log P of each hypothesis
        self._tokens: Ints = np.zeros((0, beam, 16), np.int64)  # what each says, from the left; room for more
        self._last: Ints = np.zeros((0, beam), np.int64)  # the last of that
        self._sums: Floats = np.zeros((0, beam, 16))  # log P after each of them
        self._looks: NDArray[np.float32] | None = None  # (N, K, S), where each looks now, if that is to be known

    def join(self, sentences: Sequence[Sentence]) -> None:
        """Encode sentences and let them take part from the next step on."""
        count, k = len(sentences), self._beam
        self._rows.insert(self._backend.encode([sentence.ids for sentence in sentences]))
        self.sentences += sentences
        scores = np.full((count, k), -np.inf)
        # All K rows are alike before the first step: only one may continue, unless each is drawn by itself.
        scores[:, 0] = 0.0
        scores[[sentence.options.temperature > 0 for sentence in sentences]] = 0.0
        tokens = np.zeros((count, k, self._tokens.shape[2]), np.int64)
        self._lengths = np.concatenate((self._lengths, np.zeros(count, np.int64)))
        self._limits = np.concatenate((self._limits, [sentence.limit for sentence in sentences]))
        self._found = np.concatenate((self._found, np.zeros(count, np.bool_)))
        self._scores = np.concatenate((self._scores, scores))
        self._tokens = np.concatenate((self._tokens, tokens))
        self._sums = np.concatenate((self._sums, np.zeros(tokens.shape)))
        self._last = np.concatenate((self._last, np.full((count, k), BOS, np.int64)))

    def step(self) -> list[Sentence]:
        """Extend every hypothesis by one token; return the sentences that are done, which have left."""
        k, count = self._beam, len(self.sentences)
        lengths = self._lengths.tolist()
        early = [
            row for row, each in enumerate(self.sentences) if each.options.min_length and lengths[row] < each.least
        ]
        ruled = [row for row, each in enumerate(self.sentences) if each.ruled(lengths[row])]
        top = min(2 * k + _MARKS + bool(early), self._backend.vocabulary)
        watched = self._backend.shows and any(sentence.watched for sentence in self.sentences)
        found = self._rows.step(self._last.reshape(-1), top, whole=bool(ruled), attention=watched)
        self._looks = None if found.attention is None else found.attention.reshape(count, k, -1)
        m = found.ids.shape[1]
        ids = found.ids.reshape(count, k * m)
        totals = (found.best.reshape(count, k, m) + self._scores[:, :, None]).reshape(count, k * m)
        totals[ids < _MARKS] = -np.inf
        if early:
            totals[early] = np.where(ids[early] == EOS, -np.inf, totals[early])
        for row in ruled:
            assert found.log_p is not None
            ids[row], totals[row] = self._by_rule(row, found.log_p[row * k : (row + 1) * k].astype(np.float64), m)
        order = np.argsort(-totals, axis=1, kind="stable")[:, : 2 * k]  # (N, 2 K), best first
        place = order + np.arange(0, count * k * m, k * m)[:, None]
        best, token, origin = totals.reshape(-1)[place], ids.reshape(-1)[place], order // m
        self._lengths += 1
        done = self._collect(best, origin, token)
        if np.isnan(found.best).any():
            done += [sentence for sentence in self._not_numbers(found.best) if sentence not in done]
        self._extend(best, origin, token)
        if done:
            self.leave(done)
        return done

    def leave(self, sentences: Sequence[Sentence]) -> None:
        """Let sentences go, whether they are done or not; the last of those that stay take their places."""
        gone = set(map(id, sentences))
        stay = [row for row, each in enumerate(self.sentences) if id(each) not in gone]
        count = len(stay)
        keep = np.arange(count)
        holes = np.setdiff1d(keep, stay, assume_unique=True)
        keep[holes] = stay[count - len(holes) :]
        self.sentences = [self.sentences[row] for row in keep]
        self._rows.select((keep[:, None] * self._beam + np.arange(self._beam)).reshape(-1), keep)
        self._lengths, self._limits, self._found = self._lengths[keep], self._limits[keep], self._found[keep]
        self._scores, self._tokens, self._last = self._scores[keep], self._tokens[keep], self._last[keep]
        self._sums = self._sums[keep]

    def _by_rule(self, row: int, log_p: Floats, m: int) -> tuple[Ints, Floats]:
        """Of a sentence with rules: the M best continuations that they allow, or the one that is drawn, of each of its K hypotheses, by
        the log probabilities (K, V); ids and totals, each (K M,)."""
        sentence, length = self.sentences[row], int(self._lengths[row])
        options, phrases = sentence.options, sentence.phrases
        live, said = np.isfinite(self._scores[row]), self._tokens[row, :, :length].tolist()
        worth, best = np.full(log_p.shape, -np.inf), [np.zeros(0, np.int64)] * self._beam
        for k in np.flatnonzero(live).tolist():
            may = allowed(log_p[k], said[k], sentence.prefix, sentence.least, options.no_repeat_ngram)
            demanded: list[int] = []
            if phrases.ids and length >= len(sentence.prefix):
                progress = phrases.progress(said[k])
                may = phrases.allowed(may, log_p[k], progress, sentence.limit - 1 - length)
                demanded = sorted(progress.next)
            worth[k] = self._scores[row, k] + may
            if options.temperature:
                if np.isfinite(may).any():
                    best[k] = np.array([drawn(may, options, sentence.ids, (k, length))])
                continue
            likeliest = np.argpartition(-may, m - 1)[:m]
            candidates = np.union1d(likeliest, demanded).astype(np.int64)
            candidates = candidates[np.isfinite(may[candidates])]
            best[k] = candidates[np.lexsort((candidates, -may[candidates]))][: m if not demanded else None]
        if phrases.ids:
            best = phrases.chosen(worth, said, best)
        ids, totals = np.full((self._beam, m), EOS), np.full((self._beam, m), -np.inf)
        for k, found in enumerate(best):
            ids[k, : len(found)] = found
            totals[k, : len(found)] = worth[k, found]
        return ids.reshape(-1), totals.reshape(-1)

    def _not_numbers(self, best: NDArray[np.float32]) -> list[Sentence]:
        """The sentences for which the model has no probabilities."""
        rows = np.flatnonzero(np.isnan(best).reshape(len(self.sentences), -1).any(axis=1))
        failed = [self.sentences[row] for row in rows]
        for sentence in failed:
            sentence.error = SearchError("the model's probabilities are not numbers: its weights may be damaged")
        return failed

    def _collect(self, best: Floats, origin: Ints, token: Ints) -> list[Sentence]:
        """Move hypotheses that have ended, or have reached the limit, to their sentences; return those that are done."""
        k, done = self._beam, []
        ended = (token[:, :k] == EOS) & np.isfinite(best[:, :k])
        at_limit = self._lengths >= self._limits
        for row in np.flatnonzero(ended.any(axis=1) | at_limit | self._found).tolist():
            sentence = self.sentences[row]
            for column in np.flatnonzero(ended[row]).tolist():
                self._finish(row, origin[row, column], best[row, column], None)
            going = np.flatnonzero((token[row] != EOS) & np.isfinite(best[row]))
            if at_limit[row]:
                for column in going[: max(0, sentence.options.n_best - len(sentence.finished))].tolist():
                    self._finish(row, origin[row, column], best[row, column], int(token[row, column]))
            sentence.finished.sort(key=lambda candidate: -candidate.score)
            del sentence.finished[k:]
            self._found[row] = len(sentence.finished) >= sentence.options.n_best
            if at_limit[row] or not len(going) or (self._found[row] and self._decided(row, best[row, going[0]])):
                done.append(sentence)
                if not sentence.finished:
                    sentence.error = SearchError("there is nothing that the options of this search allow to be said")
        return done

    def _decided(self, row: int, going: float) -> bool:
        """Whether no hypothesis that still goes on, the likeliest with log P `going`, can come before the `n_best` that are finished;
        those that are drawn don't compete.

        Whatever it says, log P will be no higher, the length that it is divided by no larger than the limit, and no coverage of the source
        raises a score. Greedy search has no other
        hypothesis."""
        options = self.sentences[row].options
        if options.temperature:
            return False
        bound = going / float(self._limits[row]) ** options.length_penalty
        return self._beam == 1 or self.sentences[row].finished[options.n_best - 1].score >= bound

    def _finish(self, row: int, origin: int, log_probability: float, token: int | None) -> None:
        sentence, length = self.sentences[row], int(self._lengths[row])
        ids = self._tokens[row, origin, : length - 1].tolist() + ([token] if token is not None else [])
        score = float(log_probability) / length**sentence.options.length_penalty
        attention = self._followed(row, origin) if sentence.watched else None
        if sentence.options.coverage_penalty and attention is not None:
            score -= sentence.options.coverage_penalty * uncovered(attention)
        sums = [0.0, *self._sums[row, origin, : length - 1].tolist(), float(log_probability)]
        each = [after - before for before, after in itertools.pairwise(sums)]
        sentence.finished.append(Candidate(ids, float(log_probability), score, token is None, each, attention))

    def _followed(self, row: int, hypothesis: int) -> Weights | None:
        """Where (T, S) a hypothesis looked at each of T steps, found by going back from the last."""
        if self._looks is None:
            return None
        sentence = self.sentences[row]
        found = [self._looks[row, hypothesis, : len(sentence.ids)]]
        for origins, looks in reversed(sentence.trail):
            hypothesis = origins[hypothesis]
            found.append(looks[hypothesis])
        return np.stack(found[::-1])

    def _extend(self, best: Floats, origin: Ints, token: Ints) -> None:
        """Keep the K best continuations that have not ended."""
        k, count = self._beam, len(self.sentences)
        # Those that go on, in their order, then the others:
        column = np.argsort(token == EOS, axis=1, kind="stable")[:, :k]
        flat = column + np.arange(0, token.size, token.shape[1])[:, None]
        origin, token, best = origin.reshape(-1)[flat], token.reshape(-1)[flat], best.reshape(-1)[flat]  # (N, K) each
        self._scores = np.where(token == EOS, -np.inf, best)
        rows = (origin + np.arange(0, count * k, k)[:, None]).reshape(-1)
        room = self._tokens.shape[2]
        if self._lengths.max(initial=0) > room:
            more = ((0, 0), (0, 0), (0, room))
            self._tokens, self._sums = np.pad(self._tokens, more), np.pad(self._sums, more)
        place = np.arange(count)[:, None], np.arange(k), self._lengths[:, None] - 1
        self._tokens = self._tokens.reshape(count * k, -1)[rows].reshape(count, k, -1)
        self._sums = self._sums.reshape(count * k, -1)[rows].reshape(count, k, -1)
        self._tokens[place], self._sums[place] = token, best
        if self._looks is not None:
            for sentence, origins, looks in zip(self.sentences, origin, self._looks, strict=True):
                if sentence.watched:
                    sentence.trail.append((origins, looks[:, : len(sentence.ids)].copy()))
        self._last = token
        self._rows.select(rows)


def uncovered(attention: Weights) -> float:
    """How far `attention` (T, S), whose last column is the end mark's, leaves source words out: - sum_s log min(sum_t a_ts, 1)
    (Wu et al. 2016, equation 14)."""
    total = attention[:, :-1].sum(axis=0, dtype=np.float64)
    return float(-np.log(np.clip(total, _LEAST, 1.0)).sum())


def beam_search(
    backend: Backend,
    source: Sequence[Sequence[int]],
    options: DecodeOptions,
    cancelled: Callable[[], bool] | None = None,
) -> list[list[Candidate]]:
    """Candidates for each source sentence (ids with the end mark), best first, as in `Sentence.finished`, all in one batch.

    `cancelled` is asked before each step and ends the search by `Cancelled`. The engine does the same for sentences that come one by one.
    """
    if not source:
        return []
    sentences = [Sentence(ids, options) for ids in source]
    _search(backend, sentences, cancelled)
    return [sentence.finished for sentence in sentences]


def search_alone(backend: Backend, sentence: Sentence, cancelled: Callable[[], bool]) -> list[Candidate]:
    """The candidates of a sentence, from its beginning and by itself, however far a search for it has come."""
    again = replace(sentence)
    _search(backend, [again], cancelled)
    return again.finished


def _search(backend: Backend, sentences: list[Sentence], cancelled: Callable[[], bool] | None) -> None:
    first, width = sentences[0], max(sentence.width for sentence in sentences)
    batch = RunningBatch(backend, first.options.beam_size, width, first.listed)
    batch.join(sentences)
    while batch.sentences:
        if cancelled is not None and cancelled():
            raise Cancelled
        batch.step()
    for sentence in sentences:
        if sentence.error is not None:
            raise sentence.error
