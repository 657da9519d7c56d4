"""Dividing text: nothing is lost, every part fits, cuts are where people would make them."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt.text.normalize import normalize
from nmt.text.segment import Segment, Stretch, split_long, stretches

PROSE = (
    "It rained all day, so we stayed at home. Did you go out? He said “Never again!” and left; she stayed (for a while). "
    "Then the sun came out — at last…"
)
PIECES = [
    "a", "word", "longer", "x" * 9, "3.14", "U.S.", "don't", "“quote”", ",", ";", ":", ".", "!", "?", "…", "—", "–", "-", "(", ")",
    "。", "！", "？", "，", "、", "；", "」", "「", "”", "“", "文", "章", " ", " ", " ",
]  # fmt: skip
WHITE = ["\n", "\r\n", "\n\n", "\t", "  ", "\u2028", "\u3000", "\xa0", "- ", "1. ", "> ", "* ", "\x85", "\u200b"]
ANYTHING = st.lists(st.sampled_from(PIECES + WHITE) | st.text(max_size=3), max_size=60).map("".join)
TEXT = st.lists(st.sampled_from(PIECES), max_size=60).map("".join).map(normalize)


def characters(text: str) -> int:
    return len(text)


def joined(segments: list[Segment]) -> str:
    return "".join((part.separator if number else "") + part.text for number, part in enumerate(segments))


def bare(text: str) -> str:
    return "".join(text.split())


@settings(deadline=None, max_examples=400)
@given(TEXT, st.integers(1, 40))
def test_joining_gives_the_text_back(text: str, limit: int) -> None:
    segments = split_long(text, characters, limit)
    assert bare(joined(segments)) == bare(text)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.text("abcdefgh.,;!?-('", min_size=1, max_size=12), min_size=1, max_size=20), st.integers(12, 40))
def test_joining_gives_the_spaces_back_too_where_words_are_spaced(words: list[str], limit: int) -> None:
    text = " ".join(words)
    assert joined(split_long(text, characters, limit)) == text


@settings(deadline=None, max_examples=400)
@given(TEXT, st.integers(1, 40))
def test_every_part_is_within_the_limit(text: str, limit: int) -> None:
    segments = split_long(text, characters, limit)
    assert all(len(part.text) <= limit for part in segments)
    assert all(part.text and part.text == part.text.strip() for part in segments) or not text


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=60).map(normalize), st.integers(1, 20))
def test_any_text_at_all_is_kept_and_fits(text: str, limit: int) -> None:
    segments = split_long(text, characters, limit)
    assert bare(joined(segments)) == bare(text)
    assert all(len(part.text) <= limit for part in segments)


@settings(deadline=None, max_examples=200)
@given(TEXT)
def test_a_text_within_the_limit_is_one_segment(text: str) -> None:
    assert split_long(text, characters, len(text)) == [Segment(text)]


def test_a_long_text_is_cut_into_its_sentences() -> None:
    assert [part.text for part in split_long(PROSE, characters, 80)] == [
        "It rained all day, so we stayed at home.",
        "Did you go out?",
        "He said “Never again!”",
        "and left; she stayed (for a while).",
        "Then the sun came out — at last…",
    ]


def test_a_long_sentence_is_cut_at_clauses_that_are_packed_together() -> None:
    text = "first clause here, second one; third one here: the fourth – and a fifth (in brackets)"
    assert [part.text for part in split_long(text, characters, 40)] == [
        "first clause here, second one;",
        "third one here: the fourth – and a fifth",
        "(in brackets)",
    ]


def test_a_clause_that_is_too_long_is_cut_between_words_as_late_as_it_may_be() -> None:
    text = " ".join(["word"] * 10)
    assert [part.text for part in split_long(text, characters, 19)] == [
        "word word word word",
        "word word word word",
        "word word",
    ]


def test_a_word_that_is_too_long_is_divided_without_a_space() -> None:
    segments = split_long("see " + "x" * 30 + " there", characters, 10)
    assert joined(segments) == "see " + "x" * 30 + " there"
    inside = [part for part in segments if part.separator == ""]
    assert len(inside) == 3  # 30 letters in 4 parts
    assert all(part.inside_word for part in inside)


def test_only_a_divided_word_is_marked_as_one() -> None:
    assert not any(part.inside_word for part in split_long(PROSE, characters, 20))
    assert not any(part.inside_word for part in split_long("你好。我很好。谢谢！", characters, 4))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("你好吗？我很好。谢谢你！", ["你好吗？", "我很好。", "谢谢你！"]),
        ("他说：“你好。”然后走了。", ["他说：", "“你好。”", "然后走了。"]),
        ("「元気です。」彼は言った。", ["「元気です。」", "彼は言った。"]),
        ("真的吗？！是的。", ["真的吗？！", "是的。"]),
    ],
)
def test_text_without_spaces_is_cut_after_its_own_full_stops(text: str, expected: list[str]) -> None:
    assert [part.text for part in split_long(text, characters, 7)] == expected
    assert joined(split_long(text, characters, 7)) == text


def test_the_measure_decides_not_the_characters() -> None:
    def words(text: str) -> int:
        return len(text.split())

    segments = split_long("internationalisation is one word, it is not four", words, 4)
    assert [part.text for part in segments] == ["internationalisation is one word,", "it is not four"]


def test_very_long_text_takes_little_time() -> None:
    text = "word " * 20_000 + "x" * 20_000
    measured = 0

    def length(part: str) -> int:
        nonlocal measured
        measured += len(part)
        return len(part)

    segments = split_long(text, length, 100)
    assert joined(segments) == text
    assert measured < 50 * len(text) + 1000 * 100  # near linear: quadratic work would be 120 000 ** 2


# --- lines and sentences ---------------------------------------------------------------------------------------------------


def whole(found: list[Stretch], rest: str) -> str:
    return "".join(each.before + each.text for each in found) + rest


@given(ANYTHING, st.sampled_from(["en", "de", "ja", "xx", "pt-BR"]), st.booleans())
@settings(max_examples=500, deadline=None)
def test_what_is_divided_is_whole_again(text: str, language: str, sentences: bool) -> None:
    found, rest = stretches(text, language, sentences)
    assert whole(found, rest) == text
    for each in found:
        assert each.text == each.text.strip()
        assert any(map(str.isalnum, each.text))
        assert not set(each.text) & set("\n\r\t\u2028\x85")


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("Hello.", "en", [("", "Hello.")]),
        ("  Hello. How are you?", "en", [("  ", "Hello."), (" ", "How are you?")]),
        ("Dr. Smith came at 5 p.m. on Jan. 5th.  He left.", "en", [("", "Dr. Smith came at 5 p.m. on Jan. 5th."), ("  ", "He left.")]),
        ("Am 5. Januar z. B. nicht. Danach schon.", "de", [("", "Am 5. Januar z. B. nicht."), (" ", "Danach schon.")]),
        ("你好。我很好。谢谢！", "zh", [("", "你好。"), ("", "我很好。"), ("", "谢谢！")]),
        ("One line\r\n\r\n  and another", "en", [("", "One line"), ("\r\n\r\n  ", "and another")]),
        ("Name\tAge", "en", [("", "Name"), ("\t", "Age")]),
        ("Buy:\n- milk\n  * bread\n1. eggs\n> > - [x] done", "en",
         [("", "Buy:"), ("\n- ", "milk"), ("\n  * ", "bread"), ("\n1. ", "eggs"), ("\n> > - [x] ", "done")]),
        ("1. Januar", "de", [("", "1. Januar")]),  # a line alone is no list
        ("- Hello.", "en", [("", "- Hello.")]),
        ("Well... ?!  Yes.", "en", [("", "Well..."), (" ?!  ", "Yes.")]),
        ("Title\n=====\n\n* * *\nText", "en", [("", "Title"), ("\n=====\n\n* * *\n", "Text")]),
    ],
)  # fmt: skip
def test_lines_and_sentences_are_seen(text: str, language: str, expected: list[tuple[str, str]]) -> None:
    found, rest = stretches(text, language)
    assert [(each.before, each.text) for each in found] == expected
    assert rest == ""


def test_sentences_may_stay_together() -> None:
    found, rest = stretches("Hello. How are you?\nFine. \n", "en", sentences=False)
    assert found == [Stretch("", "Hello. How are you?"), Stretch("\n", "Fine.")]
    assert rest == " \n"
    assert stretches(" \n\t", "en") == ([], " \n\t")


def test_a_long_text_takes_no_long_time() -> None:
    text = "Some words. " * 20_000 + "\n" * 100_000 + "word " * 50_000 + "\n" + "> " * 100_000 + " " * 100_000 + "end"
    started = time.monotonic()
    found, rest = stretches(text, "en")
    assert time.monotonic() - started < 5.0
    assert whole(found, rest) == text
    assert len(found) == 20_002
