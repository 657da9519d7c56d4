"""Unicode normalisation: one canonical form for training text and for text to be translated."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nmt.text.normalize import normalize

# Text in which the rare cases are frequent: white space, invisible characters and combining marks of several scripts.
SPECIAL = " \t\n\r\x0b\x0c\x00\x1b\x85\xa0\xad\u0301\u0308\u0327\u200b\u200c\u200d\u200e\u2028\u2060\u3000\ufeffae\u00e9\u1100\u1161"
TEXT = st.text(st.one_of(st.sampled_from(SPECIAL), st.characters()), max_size=40)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("", ""),
        ("   ", ""),
        ("\t\n\u2028\u3000", ""),
        ("Hello, world!", "Hello, world!"),
        ("  Hello \t\r\n world  ", "Hello world"),
        ("cafe\u0301", "café"),
        ("\ufeffHello", "Hello"),
        ("soft\u00adhyphen", "softhyphen"),
        ("zero\u200bwidth", "zerowidth"),
        ("nul\x00and\x1bescape", "nulandescape"),
        ("a\u00a0b\u2009c\u3000d", "a b c d"),
        ("می\u200cخواهم", "می\u200cخواهم"),  # the non-joiner is spelling in Persian
        ("क्\u200dष", "क्\u200dष"),  # the joiner is spelling in Hindi
        ("“quoted” — 5 € ½ ﬁ", "“quoted” — 5 € ½ ﬁ"),  # compatibility forms are left alone
    ],
)
def test_examples(raw: str, expected: str) -> None:
    assert normalize(raw) == expected


@settings(deadline=None, max_examples=300)
@given(TEXT)
@example("e\u00ad\u0301")  # what is removed stood between what composes
def test_the_result_is_canonical(text: str) -> None:
    result = normalize(text)
    assert result == unicodedata.normalize("NFC", result)
    assert result == result.strip()
    assert "  " not in result
    assert all(c == " " or not c.isspace() for c in result)
    assert not any(unicodedata.category(c) in ("Cc", "Cs") for c in result)


@settings(deadline=None, max_examples=300)
@given(TEXT)
@example("e\u00ad\u0301")
def test_normalising_twice_is_normalising_once(text: str) -> None:
    assert normalize(normalize(text)) == normalize(text)


@settings(deadline=None, max_examples=200)
@given(TEXT)
def test_visible_characters_stay(text: str) -> None:
    def visible(value: str) -> str:
        kept = (c for c in unicodedata.normalize("NFD", value) if unicodedata.category(c)[0] not in "CZ")
        return unicodedata.normalize("NFC", "".join(kept))

    assert visible(normalize(text)) == visible(text)


@settings(deadline=None, max_examples=100)
@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40))
def test_the_short_cut_for_plain_ascii_changes_nothing(text: str) -> None:
    assert normalize(text) == " ".join(text.split())


def test_composed_and_decomposed_spellings_become_one() -> None:
    assert normalize("A\u030angstro\u0308m") == normalize("\u00c5ngstr\u00f6m") == normalize("\u212bngstr\u00f6m")
