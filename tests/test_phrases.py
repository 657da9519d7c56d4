"""Phrases that must appear: they do, whatever else is asked for, and nobody else notices; glossaries."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import tiny
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from test_rules import V, decided, rescored, searched, sentence

from nmt.cli import main
from nmt.errors import InputError
from nmt.inference.phrases import Phrases
from nmt.inference.search import Candidate, RunningBatch, Sentence
from nmt.inference.translator import Translator
from nmt.text.glossary import Glossary
from nmt.text.tokenizer import EOS

BUNDLE = ROOT / "data/pretrained/tatoeba-en-de"
CONTINUES = np.arange(V) % 5 == 4  # of the words of the tiny models, those that go on with another


def holds(ids: list[int], phrase: tuple[int, ...], continues: bool) -> bool:
    """Whether a phrase stands in `ids`, as whole words."""
    for end in range(len(phrase), len(ids) + 1):
        if tuple(ids[end - len(phrase) : end]) == phrase:
            following = ids[end : end + 1]
            if not (continues and following and CONTINUES[following[0]]):
                return True
    return False


words = st.integers(EOS + 1, V - 1).filter(lambda word: not CONTINUES[word])
phrase = st.tuples(words) | st.tuples(words, st.integers(EOS + 1, V - 1)) | st.tuples(words, words, words)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 500), beam=st.integers(1, 8), least=st.integers(0, 9), ngram=st.integers(0, 2), extra=st.integers(0, 6),
    prefix=st.lists(words, max_size=3), phrases=st.lists(phrase, min_size=1, max_size=3, unique=True), whole=st.booleans(),
)  # fmt: skip
def test_phrases_appear_in_every_candidate(
    seed: int, beam: int, least: int, ngram: int, extra: int, prefix: list[int], phrases: list[tuple[int, ...]], whole: bool
) -> None:  # fmt: skip
    model = decided(seed % 10)
    options = {"n_best": min(beam, 3), "min_length": least, "no_repeat_ngram": ngram, "max_length_extra": extra}
    demanding = sentence(seed, tuple(prefix), beam_size=beam, **options)
    demanding.phrases = Phrases(tuple(phrases), CONTINUES if whole else None)
    free = sentence(seed + 1, beam_size=beam)
    alone = searched(model, sentence(seed + 1, beam_size=beam))[0]
    candidates, beside = searched(model, demanding, free)
    assert [c.ids for c in beside] == [c.ids for c in alone]
    assert candidates
    assert len({tuple(c.ids) for c in candidates}) == len(candidates)
    assert [c.score for c in candidates] == sorted((c.score for c in candidates), reverse=True)
    for candidate in candidates:
        assert candidate.ids[: len(prefix)] == prefix
        assert len(candidate.ids) <= demanding.limit
        for each in phrases:
            assert holds(candidate.ids, each, whole), (candidate.ids, each)
        said = candidate.ids + [EOS] * candidate.ended
        assert candidate.log_probability == pytest.approx(rescored(model, list(demanding.ids), said), abs=1e-3)


def test_how_far_a_hypothesis_has_come() -> None:
    phrases = Phrases(((5, 6, 7), (6, 8)), CONTINUES)
    start = phrases.progress([])
    assert (start.said, start.missing, start.next, start.urgent, start.closing) == (0, 5, {5, 6}, {5, 6}, False)
    within = phrases.progress([9, 5, 6])
    assert (within.said, within.missing, within.next, within.urgent) == (2, 5, {7, 8}, {7})
    one = phrases.progress([5, 6, 7])
    assert (one.said, one.missing, one.next, one.closing) == (3, 2, {6}, True)
    both = phrases.progress([5, 6, 8, 5, 6, 7, 10])
    assert (both.said, both.missing, both.next, both.closing) == (5, 0, frozenset(), False)
    broken = phrases.progress([5, 6, 7, 9])  # of which 9 makes another word
    assert (broken.said, broken.missing) == (0, 5)


def test_places_of_the_beam_are_shared() -> None:
    phrases = Phrases(((5, 6),))
    totals = np.full((4, V), -np.inf)
    totals[0, [7, 8, 9, 10]] = [-1.0, -1.1, -1.2, -1.3]  # four that put it off are the likeliest
    totals[1, 5], totals[1, EOS], totals[2, 6], totals[2, 7] = -5.0, -9.0, -6.0, -2.0
    said = [[9], [9], [5], [9]]
    candidates = [np.flatnonzero(np.isfinite(row)) for row in totals]
    stay = phrases.chosen(totals, said, candidates)
    assert [row.tolist() for row in stay] == [[7, 8], [EOS, 5], [6], []]  # one that has begun, one that is through


# --- with the bundled model -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def translator() -> Translator:
    return Translator.load(BUNDLE, threads=1)


def test_a_glossary_decides_what_things_are_called(translator: Translator) -> None:
    texts = ["I bought a new car yesterday.", "The car is red.", "How are you?"]
    free = translator.translate(texts)
    found = translator.translate(texts, demands=Glossary({"car": "Wagen"}).phrases)
    assert not any("Wagen" in result.text for result in free[:1])
    assert all("Wagen" in result.text.replace(".", "").split() for result in found[:2])
    assert found[2] == free[2]
    assert translator.translate(texts[:1], demands=Glossary({"car": "Wagen"}).phrases)[0] == found[0]


def test_phrases_that_can_not_be_said(translator: Translator) -> None:
    with pytest.raises(InputError, match="phrase '😀' can't be said"):
        translator.translate(["I am here."], demands=lambda text: ["😀"])
    drawn = translator.defaults.model_copy(update={"temperature": 1.0})
    with pytest.raises(InputError, match="set temperature to 0"):
        translator.translate(["I am here."], drawn, demands=lambda text: ["Haus"])


# --- glossaries -----------------------------------------------------------------------------------------------------


def test_terms_are_whole_words_and_the_longest_counts() -> None:
    glossary = Glossary({"car": "Wagen", "car park": "Parkhaus", "IT": "EDV", "c++": "C plus plus"})
    assert glossary.phrases("The car is in the car park. Cars, cart!") == ["Wagen", "Parkhaus"]
    assert glossary.phrases("Car, IT, it, c++!") == ["Wagen", "EDV", "C plus plus"]
    assert glossary.phrases("") == []
    assert Glossary({}).phrases("car") == []
    with pytest.raises(InputError, match="empty side"):
        Glossary({"car": " "})


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("car\tWagen\nbike Rad\n", "line 2: a term, one tab and its translation"),
        ("car\t\n", "line 1: a term"),
        ("car\tWagen\tAuto\n", "line 1: a term"),
        ("car\tWagen\n\ncar\tAuto\n", "line 3: 'car' has another translation above: 'Wagen'"),
    ],
)
def test_a_bad_glossary_is_named_with_its_line(
    tmp_path: Path, lines: str, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "glossary.tsv"
    path.write_text(lines, encoding="utf-8")
    assert main(["translate", str(BUNDLE), "--glossary", str(path), "--text", "The car."]) == 2
    assert problem in capsys.readouterr().err


def test_a_glossary_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "glossary.tsv"
    path.write_text("car\tWagen\ncar\tWagen\n", encoding="utf-8")
    assert main(["translate", str(BUNDLE), "--glossary", str(path), "--text", "I bought a new car yesterday."]) == 0
    assert "Wagen" in capsys.readouterr().out


def test_the_same_on_both_backends() -> None:
    model = decided(3)
    demanding = sentence(5, beam_size=6)
    demanding.phrases = Phrases(((7, 9), (11,)))
    torch_found = searched(model, demanding)[0]
    other = Sentence(demanding.ids, demanding.options, phrases=demanding.phrases)
    batch = RunningBatch(tiny.onnx_backend(model), 6, 16)
    batch.join([other])
    while batch.sentences:
        batch.step()
    found: list[Candidate] = other.finished
    assert found[0].ids == torch_found[0].ids


def test_a_large_glossary_takes_no_long_time() -> None:
    glossary = Glossary({f"term {number} {'x' * (number % 90)}": "y" for number in range(1000)})
    started = time.process_time()
    assert glossary.phrases("term the cat " * 8000 + "term 999 " + "x" * 9) == ["y"]
    assert time.process_time() - started < 3.0
