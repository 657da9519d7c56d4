"""The generated corpus: every pair is right, the mapping is a function, and the seed decides everything."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import tracemalloc
from functools import cache

import pytest

from nmt.corpus.numbers import generate
from nmt.errors import ConfigError
from nmt.text.normalize import normalize

pytest.importorskip("num2words")
pytest.importorskip("babel")

PAIRS = [("en", "de"), ("de", "en"), ("fr", "en"), ("en", "es"), ("tr", "pl")]

# Checked by hand. All are frequent enough to be among the pairs that the tests draw.
GOLDEN: dict[tuple[str, str], dict[str, str]] = {
    ("en", "de"): {
        "seven": "sieben",
        "ninety-nine": "neunundneunzig",
        "one hundred": "einhundert",
        "twenty-first": "einundzwanzigste",
        "half past three": "halb vier",
        "quarter to one": "Viertel vor eins",
        "one o'clock": "ein Uhr",
        "one euro": "ein Euro",
        "the third of March": "der dritte März",
        "the year nineteen eighty-seven": "das Jahr neunzehnhundertsiebenundachtzig",
    },
    ("en", "fr"): {
        "seventy-one": "soixante et onze",
        "eighty": "quatre-vingts",
        "eighty-one": "quatre-vingt-un",
        "first": "premier",
        "eightieth": "quatre-vingtième",
        "half past one": "une heure et demie",
        "quarter to one": "une heure moins le quart",
        "one dollar": "un dollar",
        "the first of August": "le premier août",
        "the third of March": "le trois mars",
    },
    ("en", "es"): {
        "twenty-two": "veintidós",
        "one hundred": "cien",
        "eleventh": "undécimo",
        "one o'clock": "la una",
        "quarter past two": "las dos y cuarto",
        "one pound": "una libra",
        "twenty-one euros": "veintiún euros",
        "the third of March": "el tres de marzo",
    },
    ("fr", "en"): {
        "quatre-vingt-dix-sept": "ninety-seven",
        "trois heures moins vingt": "twenty to three",
        "le vingt et un juin": "the twenty-first of June",
        "deux livres sterling": "two pounds",
    },
}

# Inflection that a careless concatenation gets wrong: what may never be said.
UNSAID = {
    ("en", "de"): r"eins (Euro|Dollar|Pfund|Cent|Uhr)|(kostet|für|habe) ein (Euro|Dollar)|am \w+te ",
    (
        "en",
        "fr",
    ): r"\bun livres? sterling|cents (mille|un\b|deux\b)|vingts[ -](mille|deux|trois)|\ble un \w+|\bun heure",
    (
        "en",
        "es",
    ): r"\b(uno|\w*cientos) (libras|sillas)|uno (euro|dólar|mil)|las una\b|(primero|tercero) (día|tren|libro)",
}


@cache
def drawn(languages: tuple[str, str]) -> list[tuple[str, str]]:
    """50,000 pairs of two languages, made once."""
    return list(generate(*languages, 50_000, 3))


@pytest.fixture(params=PAIRS, ids="-".join)
def sample(request: pytest.FixtureRequest) -> list[tuple[str, str]]:
    return drawn(request.param)


def test_a_source_has_one_target(sample: list[tuple[str, str]]) -> None:
    targets: dict[str, str] = {}
    clashes = [(s, t, targets[s]) for s, t in sample if targets.setdefault(s, t) != t]
    assert clashes == []


def test_a_kind_that_num2words_spells_ambiguously_is_left_out() -> None:
    """num2words forgets the currency of nineteen in Welsh: such prices would have three targets."""
    targets: dict[str, str] = {}
    for source, target in generate("cy", "en", 10_000, 1):
        assert targets.setdefault(source, target) == target, source


def test_all_is_words(sample: list[tuple[str, str]]) -> None:
    for text in itertools.chain.from_iterable(sample):
        assert text
        assert normalize(text) == text
        assert not any(map(str.isdigit, text)), text
        assert len(text.split()) <= 24, text


def test_many_distinct_pairs(sample: list[tuple[str, str]]) -> None:
    assert len(set(sample)) > 20_000


@pytest.mark.parametrize("languages", GOLDEN, ids="-".join)
def test_golden_pairs(languages: tuple[str, str]) -> None:
    said = dict(drawn(languages))
    expected = GOLDEN[languages]
    assert {source: said.get(source) for source in expected} == expected


@pytest.mark.parametrize("languages", UNSAID, ids="-".join)
def test_numbers_agree_with_what_they_count(languages: tuple[str, str]) -> None:
    wrong = [pair for pair in drawn(languages) if re.search(UNSAID[languages], pair[1])]
    assert wrong == []


def test_languages_without_sentences_have_no_gaps_filled_with_other_words() -> None:
    japanese = dict(generate("en", "ja", 3000, 1)).values()
    assert any("月" in text for text in japanese)
    assert not any("月月" in text for text in japanese)
    assert not any(re.search("pound|dollar|euro", text) for _, text in generate("en", "hu", 3000, 1))


def test_same_seed_same_pairs_and_other_seed_other_pairs() -> None:
    first, again, other = (list(generate("en", "de", 500, seed)) for seed in (7, 7, 8))
    assert first == again
    assert first != other


@pytest.mark.parametrize("languages", [("en", "de"), ("it", "pl")], ids="-".join)
def test_a_smaller_count_is_a_prefix(languages: tuple[str, str]) -> None:
    longer = list(generate(*languages, 900, 5))
    assert len(longer) == 900
    assert list(generate(*languages, 250, 5)) == longer[:250]
    assert list(generate(*languages, 0, 5)) == []


def test_the_same_in_another_process() -> None:
    """No order of a set or salted hash decides: a corpus made again elsewhere is the same corpus."""
    code = "from nmt.corpus.numbers import generate; print(ascii(list(generate('en', 'it', 60, 1))))"
    made = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": "77"}, capture_output=True, text=True
    )
    assert made.stdout.strip() == ascii(list(generate("en", "it", 60, 1))), made.stderr


def test_unknown_language_is_named_at_once_with_those_known() -> None:
    with pytest.raises(ConfigError, match=r"tlh.*\bde\b.*\bfr\b"):
        generate("en", "tlh", 10, 1)


@pytest.mark.parametrize("library", ["num2words", "babel"])
def test_missing_library_says_what_to_install(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigError, match=r"strata-nmt\[train\]"):
        next(generate("en", "de", 1, 1))


def test_importing_loads_neither_library() -> None:
    code = "import sys, nmt.corpus.numbers; print({'num2words', 'babel'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


def test_pairs_are_made_as_they_are_asked_for() -> None:
    """A count that no memory holds costs nothing until its pairs are taken, and what was taken is not kept."""
    pairs = generate("en", "de", 10**12, 1)
    for _ in itertools.islice(pairs, 3000):  # fills the bounded caches of spelled values with most of what recurs
        pass
    tracemalloc.start()
    for _ in itertools.islice(pairs, 3000):
        pass
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 1_500_000
