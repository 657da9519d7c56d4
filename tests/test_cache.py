"""Sentences that come again: the same answers, without a search."""

from __future__ import annotations

import random
import threading

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from test_translator import guesser, same, some_texts

from nmt.inference.cache import Cache
from nmt.inference.search import SearchError
from nmt.inference.types import DecodeOptions

OPTIONS = [
    DecodeOptions(beam_size=beam, n_best=best, alignment=shown)
    for beam, best, shown in ((1, 1, False), (3, 2, True), (3, 1, False))
]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2)), min_size=1, max_size=12), st.sampled_from([0, 60, 10_000])
)
def test_it_never_changes_an_answer(asked: list[tuple[int, int]], limit: int) -> None:
    texts = some_texts(10, seed=3)
    plain, cached = guesser(), guesser()
    cached.cache = Cache(limit)
    for number, kind in asked:
        (one,), (other,) = (translator.translate([texts[number]], OPTIONS[kind]) for translator in (plain, cached))
        assert same(one, other)


def test_what_is_known_takes_no_step() -> None:
    translator = guesser()
    translator.cache = Cache(10_000)
    texts = ["the old cat", "the house", "the old cat"]
    first = translator.translate(texts)
    assert (translator.cache.hits, translator.cache.misses) == (1, 2)  # twice in one request is searched for once
    steps = translator.engine.statistics().steps
    assert translator.translate(texts) == first
    assert translator.engine.statistics().steps == steps
    assert (translator.cache.hits, translator.cache.misses) == (4, 2)


@pytest.mark.parametrize(
    "changed",
    [
        {"beam_size": 4},
        {"length_penalty": 0.5},
        {"n_best": 2},
        {"min_length": 3},
        {"temperature": 1.0, "seed": 1},
        {"alignment": True},
    ],
)
def test_another_option_is_another_sentence(changed: dict[str, float]) -> None:
    translator = guesser()
    translator.cache = Cache(10_000)
    translator.translate(["the old cat"])
    translator.translate(["the old cat"], translator.defaults.model_copy(update=changed))
    assert (translator.cache.hits, translator.cache.misses) == (0, 2)
    translator.translate(["the old cat"], prefixes=["the"])
    translator.translate(["the old cat"], demands=lambda _: ["house"])
    assert (translator.cache.hits, translator.cache.misses) == (0, 4)


def test_what_was_not_asked_for_longest_goes_first() -> None:
    translator = guesser()
    translator.cache = Cache(100)
    texts = list(dict.fromkeys(source for source, _ in tiny.sentence_pairs(60, seed=4)))[:20]
    missed = []
    for text in [*texts, texts[-1], texts[0]]:
        before = translator.cache.misses
        translator.translate([text], DecodeOptions(beam_size=1))
        missed.append(translator.cache.misses > before)
    assert missed == [True] * 20 + [False, True]  # the last is there, the first is not


def test_without_room_nothing_is_kept() -> None:
    translator = guesser()
    for _ in range(2):
        translator.translate(["the old cat"] * 2)
    assert (translator.cache.hits, translator.cache.misses) == (0, 0)
    assert translator.engine.statistics().sentences == 4


def test_a_failure_is_not_kept() -> None:
    translator = guesser()
    translator.cache = Cache(10_000)
    forbidden = DecodeOptions(
        beam_size=1, no_repeat_ngram=1, min_length=200, max_length_ratio=10.0, max_length_extra=1000
    )
    for _ in range(2):
        with pytest.raises(SearchError):
            translator.translate(["the old cat"], forbidden)
    assert translator.cache.hits == 0


def test_many_callers_at_once() -> None:
    translator = guesser()
    translator.cache = Cache(300)
    texts = some_texts(30, seed=9)
    expected = [each.text for each in guesser().translate(texts)]
    wrong: list[int] = []

    def ask(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(10):
            chosen = rng.choices(range(len(texts)), k=5)
            found = translator.translate([texts[number] for number in chosen])
            wrong.extend(number for number, each in zip(chosen, found, strict=True) if each.text != expected[number])

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert translator.cache.hits > 50
