"""Cleaning: what each rule drops and keeps, what the report says, and what a set of hashes costs and finds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nmt.corpus.cleaning import RULES, Cleaner, SeenHashes, broken_rule, loose_key
from nmt.corpus.recipe import Cleaning

Pair = tuple[str, str]


def clean(pairs: list[Pair], evaluation: list[Pair] | None = None, **rules: object) -> tuple[list[Pair], Cleaner]:
    cleaner = Cleaner(Cleaning.model_validate(rules), evaluation or [])
    return cleaner.clean(pairs), cleaner


@pytest.mark.parametrize(
    ("pair", "rule"),
    [
        (("A good day.", "Ein guter Tag."), None),
        (("", "Ein guter Tag."), "empty"),
        (("A good day.", ""), "empty"),
        (("a" * 30, "b" * 30), None),
        (("a" * 31, "b" * 30), "characters"),
        (("a" * 10, "b" * 31), "characters"),
        (("ab", "b" * 12), None),  # five times as long, but short sentences may
        (("ab", "b" * 13), "ratio"),
        (("abcdefg", "b" * 21), None),  # three times as long is allowed
        (("abcdef", "b" * 19), "ratio"),
        (("b" * 19, "abcdef"), "ratio"),
        (("Alpha beta", "Alpha beta"), "copy"),
        (("Berlin", "Berlin"), None),  # a name is its own translation
        (("Alpha beta", "alpha beta"), None),
    ],
)
def test_a_rule_drops_what_is_past_its_limit_and_nothing_else(pair: Pair, rule: str | None) -> None:
    rules = Cleaning(max_characters=30, max_ratio=3.0, ratio_slack=10)
    assert broken_rule(pair, rules) == rule
    assert broken_rule((pair[1], pair[0]), rules) == rule


def test_copies_stay_when_the_recipe_says_so() -> None:
    pair = ("Alpha beta", "Alpha beta")
    assert clean([pair])[0] == []
    assert clean([pair], drop_copies=False)[0] == [pair]


def test_exact_duplicates_go_within_a_batch_and_across_batches() -> None:
    a, b, c = ("one", "eins"), ("two", "zwei"), ("one", "Eins")
    kept, cleaner = clean([a, b, a, c])
    assert kept == [a, b, c], "the first of equals stays, order too; another target is another pair"
    assert cleaner.clean([b, ("three", "drei"), ("three", "drei")]) == [("three", "drei")]
    assert cleaner.report.dropped["duplicate"] == 3
    assert clean([a, a], drop_duplicates=False)[0] == [a, a]


def test_the_boundary_between_the_sides_counts() -> None:
    assert len(clean([("a b", "c"), ("a", "b c")])[0]) == 2


@pytest.mark.parametrize(
    "leaked",
    [
        ("It rains.", "Anderes."),
        ("Other.", "Es regnet."),
        ("IT RAINS!", "Anderes."),
        ("it, rains", "Anderes."),
        ("Es regnet.", "swapped sides"),
        ("Ｉt rains.", "full-width letters"),
    ],
)
def test_no_evaluation_sentence_stays_in_training(leaked: Pair) -> None:
    evaluation, harmless = [("It rains.", "Es regnet.")], ("It rained.", "Es regnete.")
    kept, cleaner = clean([leaked, harmless], evaluation)
    assert kept == [harmless]
    assert cleaner.report.dropped["evaluation"] == 1
    assert clean([leaked], evaluation, drop_evaluation=False)[0] == [leaked]


@pytest.mark.parametrize(
    ("first", "second"),
    [("की", "का"), ("ثِق", "ثُق"), ("10", "11"), ("!", "?"), ("ab c", "abd")],
    ids=["vowel signs", "vowel marks", "digits", "nothing but punctuation", "letters"],
)
def test_different_words_have_different_loose_keys(first: str, second: str) -> None:
    assert loose_key(first) != loose_key(second)


def test_case_punctuation_spaces_and_compatibility_forms_do_not_change_a_loose_key() -> None:
    keys = {
        loose_key(text)
        for text in ("Straße, no. 5", "STRASSE NO 5!", "strasse no_5", "ｓtrasse–no5", "Stra\u00adße no 5")
    }
    assert len(keys) == 1


def test_the_report_counts_every_pair_once_and_shows_samples() -> None:
    pairs = [("", "x"), ("a b", "a b"), ("a", "b"), ("a", "b"), ("c", "d"), ("x" * 1001, "y")]
    kept, cleaner = clean(pairs, [("C.", "zz")])
    report = cleaner.report
    assert report.dropped == dict.fromkeys(RULES, 0) | {
        "empty": 1,
        "copy": 1,
        "duplicate": 1,
        "evaluation": 1,
        "characters": 1,
    }
    assert (report.read, report.kept, len(kept)) == (6, 1, 1)
    assert report.samples["empty"] == [("", "x")]
    assert report.samples["characters"] == [("x" * 200, "y")], "long samples are cut"
    assert report.samples["ratio"] == []


def test_samples_are_few_and_spread_over_the_corpus() -> None:
    _, cleaner = clean([("", str(i)) for i in range(1000)])
    shown = [int(target) for _, target in cleaner.report.samples["empty"]]
    assert shown[0] == 0
    assert len(shown) == 5
    assert shown == sorted(shown)
    assert shown[-1] > 500


_texts = st.text(alphabet="ab \u00e4", max_size=4)


@given(st.lists(st.tuples(_texts, _texts), max_size=40), st.integers(1, 10))
def test_batches_do_not_change_the_outcome(pairs: list[Pair], size: int) -> None:
    evaluation = pairs[:1]
    whole, one = clean(pairs, evaluation)
    rules = Cleaning()
    many = Cleaner(rules, evaluation)
    parts = [pair for start in range(0, len(pairs), size) for pair in many.clean(pairs[start : start + size])]
    assert parts == whole
    assert many.report.dropped == one.report.dropped
    assert one.report.read == len(pairs) == one.report.kept + sum(one.report.dropped.values())


@given(st.lists(st.lists(st.integers(0, 40), max_size=12), max_size=12))
def test_a_set_of_hashes_finds_what_a_set_finds(batches: list[list[int]]) -> None:
    hashes, reference = SeenHashes(), set[int]()
    for batch in batches:
        expected = []
        for value in batch:
            expected.append(value not in reference)
            reference.add(value)
        assert hashes.add(np.array(batch, dtype=np.uint64)).tolist() == expected


def test_hashes_use_the_whole_range_of_64_bits() -> None:
    hashes = SeenHashes()
    edge = np.array([0, 2**63, 2**64 - 1], dtype=np.uint64)
    assert hashes.add(edge).all()
    assert not hashes.add(edge[::-1]).any()
