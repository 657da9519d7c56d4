"""Placeholders, addresses, code, emoji and numbers arrive as they are, whatever a model makes of what it reads in their place."""

from __future__ import annotations

import re
import time

import numpy as np
import pytest
import tiny
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from test_translator import CHINESE, GREEDY, SENTENCES, copier, guesser

from nmt.inference.alignment import Word
from nmt.inference.copying import Copy, with_copies, with_numbers
from nmt.inference.output import Vocabularies
from nmt.inference.torch_backend import TorchBackend
from nmt.inference.translator import Translator
from nmt.text.placeholders import STAND_INS, held_spans, hold
from nmt.text.segment import stretches
from nmt.text.tokenizer import Tokenizer, TokenizerConfig

KEPT = [
    *("%s", "%d", "%1$s", "%2$d", "%(count)d", "%.2f", "%5ld", "%1", "%L1", "%APPDATA%", "%@"),
    *(
        "{name}",
        "{0}",
        "{}",
        "{{ user.name }}",
        "${HOME}",
        "#{x}",
        "{count, number}",
        "{0:>8}",
        "$name",
        "@tom",
        "#tag",
    ),
    *("https://example.org/a_b?c=1&d=%20", "www.example.org", "me.too@mail.example.co", "ftp://x.y/z", "`rm -rf x`"),
    *("😀", "👍🏽", "👨‍👩‍👧", "🇩🇪", "1️⃣", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "❤️"),
]
EMOJI = [text for text in KEPT if not text.isascii()]
PLAIN = [
    "100% sure",
    "50 % der Leute",
    "eine 100 %ige Sicherheit",
    "{see below}",
    "5 $ and US$ 3",
    "#1",
    "a@b",
    "1:2",
    "50%off",
]


@pytest.fixture(scope="module")
def bundled() -> Translator:
    return Translator.load(ROOT / "data/pretrained/tatoeba-en-de", threads=1)


@pytest.mark.parametrize("text", KEPT)
def test_what_stays_is_found_and_nothing_around_it(text: str) -> None:
    for before, after in (("", ""), ("See ", "."), ("(", "), or"), ("“", "”!"), ("a: ", " b")):
        spans = held_spans(before + text + after)
        assert [(start, end) for start, end, _ in spans] == [(len(before), len(before) + len(text))]


@pytest.mark.parametrize("text", PLAIN)
def test_what_only_looks_like_it_does_not(text: str) -> None:
    assert held_spans(text) == []
    assert hold(text) == (text, None)


def test_what_has_no_space_between_is_one() -> None:
    assert [text.text for text in _kept("Turn %1$s/%2$s and {a}-{b} now")] == ["%1$s/%2$s", "{a}-{b}"]


def test_a_digit_that_is_held_is_no_number_before_a_percent_sign() -> None:
    for text in ("https://example.org/a%20 %s", "%1 %s", "`a1` %d %d"):
        assert " ".join(held.text for held in _kept(text)) == text
    assert [held.text for held in _kept("{x} 20 %s")] == ["{x}"]


def test_stand_ins_are_words_that_the_text_has_not() -> None:
    read, _ = hold("Tom and 37 of {name} or %d")
    assert read == "Tom and 37 of Boston or 42"
    many, _ = hold(" ".join(f"{{x{number}}}" for number in range(20)))
    words = many.split()
    assert len(words) == len(set(words)) == 20


@given(st.lists(st.sampled_from([*KEPT, "the", "a cat.", "  ", "ü", "\ue000"]), max_size=12))
def test_each_word_that_is_read_knows_its_word_of_the_text(parts: list[str]) -> None:
    text = " ".join(parts)
    read, kept = hold(text)
    if kept is None:
        return
    assert kept.words == len(text.split())
    assert len(kept.origin) == len(read.split())
    assert sorted(kept.origin) == list(kept.origin)
    for word, origin in zip(read.split(), kept.origin, strict=True):
        assert word == text.split()[origin] or any(held.stand_in in word for held in kept.held)


@pytest.mark.parametrize(
    "text", ["a", "%", "{", "http://", "@", "`", "a@", "%1", "{a:", "😀", "$a", "w.ww.", "http://."]
)
def test_a_long_text_takes_time_by_its_length(text: str) -> None:
    started = time.process_time()
    hold(text * (200_000 // len(text)))
    assert time.process_time() - started < 3.0


def test_no_sentence_ends_inside_an_address() -> None:
    line = "See https://example.org/Who?is.this! Yes. Ask {a:b. C}."
    found, rest = stretches(line, "en")
    assert [each.text for each in found] == ["See https://example.org/Who?is.this!", "Yes.", "Ask {a:b. C}."]
    assert "".join(each.before + each.text for each in found) + rest == line


def test_a_text_of_nothing_else_is_not_translated() -> None:
    text = " %s: {name}\n\n- https://example.org\t😀"
    result = copier().translate([text])[0]
    assert (result.text, result.source_tokens) == (text, 0)


# --- into the translation -------------------------------------------------------------------------------------------------

NAMES = [*STAND_INS.name, *STAND_INS.number]
TOKENIZER = Tokenizer.train([*SENTENCES, *NAMES * 20], TokenizerConfig(vocab_size=200))


def reader(limit: int = 200) -> Translator:
    """A translator whose translation of a segment is that segment, and which knows the stand-ins."""
    vocabularies = Vocabularies(TOKENIZER, TOKENIZER)
    return Translator(TorchBackend(tiny.CopyModel(len(TOKENIZER))), vocabularies, tiny.info("en", "de"), GREEDY, limit)


WORDS = ["the", "old", "cat", "sees", "a house", "für", "river:"]


@settings(max_examples=60)
@given(st.lists(st.sampled_from([*(text for text in KEPT if text.isascii()), *WORDS]), min_size=1, max_size=7))
def test_what_a_model_copies_comes_back_to_the_byte(parts: list[str]) -> None:
    text = " ".join(parts)
    assert reader().translate([text])[0].text == text


@settings(max_examples=40)
@given(st.lists(st.one_of(st.sampled_from(KEPT), st.sampled_from(WORDS)), min_size=2, max_size=8), st.integers(0, 3))
def test_whatever_a_model_says_each_is_there_once(parts: list[str], seed: int) -> None:
    result = guesser(seed).translate([" ".join(parts)])[0]
    for text in {part for part in parts if part in KEPT}:
        alone = rf"(?<!\S){re.escape(text)}(?![^\s.,;:!?])"
        assert len(re.findall(alone, result.text)) >= parts.count(text), result.text


def test_a_long_sentence_that_is_divided_keeps_them() -> None:
    text = " ".join(f"the old cat sees {{x{number}}} and %d" for number in range(7))
    result = reader(12).translate([text])[0]
    assert result.segments > 3
    assert result.text == text


def test_links_count_the_words_of_the_text(bundled: Translator) -> None:
    options = bundled.defaults.model_copy(update={"alignment": True})
    result = bundled.translate(["{{ old name }} is my 😀friend and  {x} is not."], options)[0]
    source, target = result.source.split(), result.text.split()
    links = result.hypotheses[0].alignment
    for text, word in (("{{", 0), ("{x}", 8)):
        assert text in source[word]
        assert any(text in target[place] for origin, place in links if origin == word)
    assert "😀" in result.text


@pytest.mark.parametrize("text", EMOJI)
def test_emoji_are_there_with_all_their_parts(bundled: Translator, text: str) -> None:
    assert bundled.translate([f"I love you{text} and her {text}!"])[0].text.count(text) == 2


def test_it_can_be_turned_off(bundled: Translator) -> None:
    text = "Hello {name}, I was there in 1987."
    off = bundled.defaults.model_copy(update={"keep_placeholders": False})
    assert "{name}" in bundled.translate([text])[0].text
    assert bundled.translate([text], off)[0].text != bundled.translate([text])[0].text


def test_unspaced_languages_keep_them() -> None:
    text = CHINESE[1] + "{name}"
    assert copier("zh", "zh", 200).translate([text])[0].text == text


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Hello %s, you have %d messages.", ["%s", "%d"]),
        ("{name} went to {city} yesterday.", ["{name}", "{city}"]),
        ("Please visit https://a.b/c_d?x=1. It is good!", ["https://a.b/c_d?x=1"]),
        ("I am happy 😀👍🏽! Thank you.", ["😀👍🏽"]),
        ("Write to me@example.co or call 555-1234.", ["me@example.co", "555-1234"]),
        ("The tickets are 20 yen each.", ["20"]),
        ("Harvard University was founded in 1636.", ["1636"]),
        ("There are 7,097 known living languages.", ["7,097"]),
    ],
)
def test_the_bundled_model_keeps_them(bundled: Translator, text: str, kept: list[str]) -> None:
    said = bundled.translate([text])[0].text
    for one in kept:
        assert said.count(one) == 1, said


# --- pieces -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("Hallo Tom, du", "Hallo {x}, du"),
        ("„Tom“ und Toms Tom", "„{x}“ und s"),  # once only; the model's repetition goes
        ("Hallo Ana du", "Hallo {x} du"),  # by the alignment, where it has not said it
        ("ja", "ja {x}"),
    ],
)
def test_the_stand_in_is_turned_back(said: str, found: str) -> None:
    words = [Word(word, number) for number, word in enumerate(said.split())]
    assert " ".join(word.text for word in with_copies(words, {1: Copy("{x}", True, "Tom", "Tom")}, 2)) == found


@pytest.mark.parametrize(
    ("source", "said", "found"),
    [
        ("20 yen", "200 Yen", "20 Yen"),
        ("$1,000 yen", "10.000 Yen", "1.000 Yen"),
        ("a 1636.", "der 163.", "der 1636."),
        ("20 yen", "zwanzig Yen", "zwanzig Yen"),
        ("6 p.m.", "18 Uhr", "18 Uhr"),
        ("2:30 p.m.", "14.30 Uhr", "14.30 Uhr"),
        ("155 over 105", "155 über 155", "155 über 105"),
        ("two 5", "2 5", "2 5"),
        ("5 cats", "5 5 Katzen", "5 5 Katzen"),  # another source word
    ],
)
def test_numbers_are_those_of_the_text(source: str, said: str, found: str) -> None:
    words = said.split()
    looks = np.eye(len(words), len(source.split()) + 1, dtype=np.float32) + 0.01
    result = with_numbers([Word(word, place) for place, word in enumerate(words)], source.split(), looks)
    assert " ".join(word.text for word in result) == found


def test_a_number_said_in_pieces_is_said_once() -> None:
    words = [Word("Es", 0), Word("7,", 1), Word("797,", 1), Word("Sprachen", 2)]
    looks = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0.9, 0, 0], [0, 0, 1, 0]], np.float32)
    result = with_numbers(words, ["It's", "7,097", "languages"], looks)
    assert [word.text for word in result] == ["Es", "7,097,", "Sprachen"]


def test_what_is_a_part_of_a_word_takes_the_word_with_it() -> None:
    copied = {1: Copy("{x}", True, "Tom", "file_Tomend")}
    for said, found in (
        ("die file_Tomend.", "die file_{x}end."),
        ("die Datei.", "die file_{x}end."),
        ("ja", "ja file_{x}end"),
    ):
        words = [Word(word, number) for number, word in enumerate(said.split())]
        assert " ".join(word.text for word in with_copies(words, copied, 2)) == found


def _kept(text: str) -> tuple[object, ...]:
    _, kept = hold(text)
    return kept.held if kept else ()


@pytest.mark.parametrize(
    ("source", "prefix"),
    [
        ("Open %s on https://example.org now.", "Öffnen Sie %s"),
        ("Open %s on https://example.org now.", "Öffne"),
        ("Open %s on https://example.org now.", "Öffnen Sie %s auf https://example.org"),
        ("Tom paid 42 euros for {name}.", "Tom hat 43"),
        ("Tom paid 42 euros for {name}.", "{name} hat"),
        ("Hello {name}, {name}!", "Hallo {name}"),
        ("Do you know Łukasz?", "Kennst du Łuk"),
        ("Do you know Łukasz and Piotr?", "Kennst du Łukasz"),
    ],
)
def test_what_is_kept_leaves_a_given_beginning_as_it_is(source: str, prefix: str, bundled: Translator) -> None:
    (result,) = bundled.translate([source], prefixes=[prefix])
    assert result.text.startswith(prefix)
    for kept in ("%s", "https://example.org", "Łukasz"):
        assert result.text.count(kept) == source.count(kept)
    assert result.text.count("{name}") == source.count("{name}")
    assert "<unk>" not in result.text
