"""Beam search, against searches that are written another way."""

from __future__ import annotations

import itertools
import random

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt.inference.search import Cancelled, Candidate
from nmt.inference.types import DecodeOptions
from nmt.model.seq2seq import Seq2Seq
from nmt.text.tokenizer import BOS, EOS, PAD, UNK

V = 24


def decided(seed: int = 0, vocabulary: int = V, end: float = 2.0) -> Seq2Seq:
    """A random model whose choices are clear, and that likes to end a sentence as much as `end` says."""
    model = tiny.model(vocabulary=vocabulary, seed=seed, sharpness=2.0)
    model.output_bias[EOS] += end
    return model


def sentences(count: int, seed: int = 0, vocabulary: int = V) -> list[list[int]]:
    rng = random.Random(seed)
    return [[rng.randrange(EOS + 1, vocabulary) for _ in range(rng.randint(0, 9))] + [EOS] for _ in range(count)]


def options(beam: int, penalty: float = 1.0, ratio: float = 1.0, extra: int = 5) -> DecodeOptions:
    """All K are wanted."""
    return DecodeOptions(
        beam_size=beam, n_best=beam, length_penalty=penalty, max_length_ratio=ratio, max_length_extra=extra
    )


def rescored(model: Seq2Seq, source: list[int], ids: list[int]) -> list[float]:
    """Log probabilities of `ids` by teacher forcing over all of them at once."""
    memory = model.encode(torch.tensor([source]), torch.tensor([len(source)]))
    logits, _ = model.decode(torch.tensor([[BOS, *ids[:-1]]]), memory, memory.state)
    return torch.log_softmax(logits[0], dim=-1)[range(len(ids)), ids].tolist()


def greedy(model: Seq2Seq, source: list[int], limit: int) -> tuple[list[int], bool]:
    """The best next word again and again, the whole prefix decoded anew each time."""
    memory = model.encode(torch.tensor([source]), torch.tensor([len(source)]))
    ids: list[int] = []
    while len(ids) < limit:
        logits, _ = model.decode(torch.tensor([[BOS, *ids]]), memory, memory.state)
        logits[:, :, [PAD, UNK, BOS]] = float("-inf")
        best = int(logits[0, -1].argmax())
        if best == EOS:
            return ids, True
        ids.append(best)
    return ids, False


def simple_beam(
    model: Seq2Seq, source: list[int], beam: int, penalty: float, limit: int, to_the_limit: bool = False
) -> list[tuple[float, tuple[int, ...]]]:
    """Beam search over one sentence with lists, (score, ids with the end mark), the whole prefix decoded anew each time."""
    memory = model.encode(torch.tensor([source]), torch.tensor([len(source)]))
    live: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    finished: list[tuple[float, tuple[int, ...]]] = []
    for length in range(1, limit + 1):
        longer = []
        for total, ids in live:
            logits, _ = model.decode(torch.tensor([[BOS, *ids]]), memory, memory.state)
            log_p = torch.log_softmax(logits[0, -1], dim=-1).tolist()
            longer += [(total + log_p[word], (*ids, word)) for word in range(EOS, len(log_p))]
        best = sorted(longer, reverse=True)[: 2 * beam]
        finished += [item for item in best[:beam] if item[1][-1] == EOS]
        live = [item for item in best if item[1][-1] != EOS]
        if length == limit:
            finished += live[: max(0, beam - len(finished))]
        live = live[:beam]
        ranked = sorted((total / len(ids) ** penalty for total, ids in finished), reverse=True)
        if not to_the_limit and len(ranked) >= beam and (beam == 1 or ranked[beam - 1] >= live[0][0] / limit**penalty):
            break
    return sorted(((total / len(ids) ** penalty, ids) for total, ids in finished), reverse=True)[:beam]


def full(candidate: Candidate) -> list[int]:
    return candidate.ids + [EOS] * candidate.ended


@pytest.mark.parametrize("seed", range(8))
def test_a_beam_of_one_is_greedy_search(seed: int) -> None:
    model = decided(seed)
    batch = sentences(6, seed)
    for source, (candidate,) in zip(batch, tiny.beam_search(model, batch, options(1)), strict=True):
        assert (candidate.ids, candidate.ended) == greedy(model, source, limit=len(source) + 5)


def test_the_greedy_comparison_meets_both_kinds_of_end() -> None:
    ends = {greedy(decided(seed), source, len(source) + 5)[1] for seed in range(8) for source in sentences(6, seed)}
    assert ends == {True, False}


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.integers(2, 5), st.sampled_from([0.0, 1.0]), st.floats(0.0, 4.0))
def test_a_beam_finds_what_a_simple_one_finds(seed: int, beam: int, penalty: float, end: float) -> None:
    model = decided(seed, end=end)
    batch = sentences(2, seed)
    for source, candidates in zip(batch, tiny.beam_search(model, batch, options(beam, penalty)), strict=True):
        expected = simple_beam(model, source, beam, penalty, limit=len(source) + 5)
        assert [tuple(full(c)) for c in candidates] == [ids for _, ids in expected]
        assert [c.score for c in candidates] == pytest.approx([score for score, _ in expected], abs=1e-3)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.integers(2, 5), st.sampled_from([0.0, 0.6, 1.0, 2.0]), st.floats(-2.0, 3.0))
def test_a_search_ends_when_its_best_are_known_and_not_before(seed: int, beam: int, penalty: float, end: float) -> None:
    model = decided(seed, end=end)
    batch = sentences(2, seed)
    for n_best in (1, beam - 1):
        found = tiny.beam_search(model, batch, options(beam, penalty).model_copy(update={"n_best": n_best}))
        for source, candidates in zip(batch, found, strict=True):
            everything = simple_beam(model, source, beam, penalty, len(source) + 5, to_the_limit=True)
            ended = [item for item in everything if item[1][-1] == EOS][:n_best]
            if len(ended) == n_best:
                assert [tuple(full(c)) for c in candidates[:n_best]] == [ids for _, ids in ended]


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.integers(1, 6), st.sampled_from([0.0, 0.6, 1.0, 2.0]), st.floats(0.0, 4.0))
def test_a_score_is_the_teacher_forced_one(seed: int, beam: int, penalty: float, end: float) -> None:
    model = decided(seed, end=end)
    batch = sentences(3, seed)
    for source, candidates in zip(batch, tiny.beam_search(model, batch, options(beam, penalty)), strict=True):
        for candidate in candidates:
            each = rescored(model, source, full(candidate))
            assert candidate.each == pytest.approx(each, abs=1e-3)
            total = sum(each)
            assert candidate.log_probability == pytest.approx(total, abs=1e-3)
            assert candidate.score == pytest.approx(total / len(full(candidate)) ** penalty, abs=1e-3)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.integers(1, 6), st.floats(0.0, 4.0))
def test_candidates_are_distinct_sorted_within_the_limit_and_without_marks(seed: int, beam: int, end: float) -> None:
    batch = sentences(4, seed)
    for source, candidates in zip(batch, tiny.beam_search(decided(seed, end=end), batch, options(beam)), strict=True):
        assert len(candidates) == beam
        assert [c.score for c in candidates] == sorted((c.score for c in candidates), reverse=True)
        assert len({tuple(c.ids) for c in candidates}) == beam
        for candidate in candidates:
            assert not {PAD, UNK, BOS, EOS} & set(candidate.ids)
            assert len(full(candidate)) <= len(source) + 5
            assert candidate.ended or len(candidate.ids) == len(source) + 5


def test_marks_are_never_produced_however_much_the_model_likes_them() -> None:
    model = decided()
    model.output_bias[[PAD, UNK, BOS]] = 50.0
    for candidates in tiny.beam_search(model, sentences(4), options(3)):
        assert all(not {PAD, UNK, BOS} & set(c.ids) for c in candidates)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("penalty", [0.0, 1.0, 1.5])
def test_a_beam_that_holds_everything_finds_the_best_of_all_sequences(seed: int, penalty: float) -> None:
    model = decided(seed, vocabulary=6, end=0.5)  # two words and the end mark: 31 sequences within 4 steps
    source = [4, 5, 5, EOS]
    found = tiny.beam_search(model, [source], options(64, penalty, ratio=1.0, extra=0))[0]
    everything = []
    for length in range(5):
        for words in itertools.product((4, 5), repeat=length):
            ids = [*words, EOS] if length < 4 else list(words)
            everything.append((sum(rescored(model, source, ids)) / len(ids) ** penalty, tuple(ids)))
    everything.sort(reverse=True)
    assert [tuple(full(c)) for c in found] == [ids for _, ids in everything]
    assert [c.score for c in found] == pytest.approx([score for score, _ in everything], abs=1e-3)


def test_a_wider_beam_finds_what_greedy_search_misses() -> None:
    better = 0
    for seed in range(10):
        model, batch = decided(seed), sentences(6, seed)
        narrow, wide = (tiny.beam_search(model, batch, options(beam, penalty=0.0)) for beam in (1, 6))
        better += sum(b[0].log_probability > a[0].log_probability + 1e-4 for a, b in zip(narrow, wide, strict=True))
    assert better > 5


def test_at_the_limit_a_candidate_is_marked_as_not_ended() -> None:
    model = decided(end=-50.0)
    for source, candidates in zip(
        sentences(4), tiny.beam_search(model, sentences(4), options(3, ratio=2.0, extra=1)), strict=True
    ):
        assert len(candidates) == 3
        for candidate in candidates:
            assert not candidate.ended
            assert len(candidate.ids) == 2 * len(source) + 1


def test_a_sentence_may_be_empty_at_once() -> None:
    (candidate,) = tiny.beam_search(decided(end=50.0), [[7, EOS]], options(1))[0]
    assert candidate.ids == []
    assert candidate.ended
    assert candidate.score == pytest.approx(0.0, abs=1e-3)


def test_the_limit_is_at_least_one_word() -> None:
    for candidates in tiny.beam_search(decided(end=-50.0), [[EOS]], options(2, ratio=0.1, extra=0)):
        assert [len(c.ids) for c in candidates] == [1, 1]


def test_a_longer_sequence_wins_under_a_higher_penalty() -> None:
    lengths = [0.0, 0.0]
    for seed in range(6):
        model, batch = decided(seed, end=1.0), sentences(5, seed)
        for which, penalty in enumerate((0.0, 2.0)):
            lengths[which] += sum(len(c[0].ids) for c in tiny.beam_search(model, batch, options(5, penalty)))
    assert lengths[1] > lengths[0]


@pytest.mark.parametrize("beam", [8, 64])
def test_a_beam_wider_than_the_vocabulary_repeats_nothing(beam: int) -> None:
    for candidates in tiny.beam_search(decided(vocabulary=7), [[4, 5, 6, EOS], [6, EOS]], options(beam)):
        assert 1 < len(candidates) <= beam
        assert len({tuple(c.ids) for c in candidates}) == len(candidates)
        assert all(c.log_probability > float("-inf") for c in candidates)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.integers(1, 5), st.integers(2, 7))
def test_what_else_is_in_the_batch_changes_nothing(seed: int, beam: int, count: int) -> None:
    model = decided(seed % 20)
    batch = sentences(count, seed)
    together = tiny.beam_search(model, batch, options(beam))
    order = random.Random(seed).sample(range(count), count)
    shuffled = tiny.beam_search(model, [batch[i] for i in order], options(beam))
    for position, index in enumerate(order):
        (alone,) = tiny.beam_search(model, [batch[index]], options(beam))
        for other in (together[index], shuffled[position]):
            assert [c.ids for c in other] == [c.ids for c in alone]
            assert [c.score for c in other] == pytest.approx([c.score for c in alone], abs=1e-4)


def test_no_sentences_give_no_candidates() -> None:
    assert tiny.beam_search(decided(), [], options(2)) == []


def test_a_search_that_nobody_wants_any_more_ends_between_two_steps() -> None:
    asked = 0

    def cancelled() -> bool:
        nonlocal asked
        asked += 1
        return asked == 3

    with pytest.raises(Cancelled):
        tiny.beam_search(decided(end=-50.0), sentences(3), options(2), cancelled)
    assert asked == 3


def test_a_search_that_is_still_wanted_is_the_same_as_one_that_is_not_asked_for() -> None:
    asked = tiny.beam_search(decided(), sentences(3), options(2), lambda: False)
    assert asked == tiny.beam_search(decided(), sentences(3), options(2))


def test_a_search_leaves_the_model_as_it_was() -> None:
    model = decided()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    tiny.beam_search(model, sentences(3), options(3))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
