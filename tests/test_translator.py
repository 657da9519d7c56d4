"""The Translator: texts in, translations out. A model that copies its source shows what becomes of the text around the search."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt.errors import InputError
from nmt.inference.output import Vocabularies
from nmt.inference.search import Cancelled
from nmt.inference.torch_backend import TorchBackend
from nmt.inference.translator import Translator
from nmt.inference.types import DecodeOptions, Translation
from nmt.text.normalize import normalize
from nmt.text.tokenizer import EOS, Tokenizer, TokenizerConfig

LIMIT = 12  # source subwords that the translators of these tests take at a time
CHINESE = ["你好吗？我很好，谢谢。", "他说：“今天很冷！”然后走了。", "我喜欢吃苹果、香蕉和梨子。"]
LETTERS = ["x", "xx", "Katze, dog; sees! river: (old house) für"] * 20  # what a model has no subword for it cannot say
SENTENCES = [side for pair in tiny.sentence_pairs(200, seed=5) for side in pair] + CHINESE * 20 + LETTERS
TOKENIZER = Tokenizer.train(SENTENCES, TokenizerConfig(vocab_size=160))
GREEDY = DecodeOptions(beam_size=1)


def copier(source: str = "en", target: str = "de", limit: int = LIMIT) -> Translator:
    """A translator whose translation of a segment is that segment."""
    model = tiny.CopyModel(len(TOKENIZER))
    return Translator(TorchBackend(model), Vocabularies(TOKENIZER, TOKENIZER), tiny.info(source, target), GREEDY, limit)


def guesser(seed: int = 0, end: float = 2.0) -> Translator:
    """A translator with a random model, which says something else for every text."""
    model = tiny.model(vocabulary=len(TOKENIZER), seed=seed, sharpness=2.0)
    model.output_bias[EOS] += end
    options = DecodeOptions(beam_size=3, max_length_ratio=1.0, max_length_extra=3)
    return Translator(TorchBackend(model), Vocabularies(TOKENIZER, TOKENIZER), tiny.info(), options, LIMIT)


def same(one: Translation, other: Translation) -> bool:
    """Equal but for the last digits of scores, in which sums of another order differ."""
    return (
        one.source == other.source
        and [h.text for h in one.hypotheses] == [h.text for h in other.hypotheses]
        and [h.score for h in one.hypotheses] == pytest.approx([h.score for h in other.hypotheses], abs=1e-4)
        and (one.source_tokens, one.target_tokens) == (other.source_tokens, other.target_tokens)
        and (one.segments, one.truncated) == (other.segments, other.truncated)
    )


def some_texts(count: int, seed: int) -> list[str]:
    """Short, long, empty and blank texts in a random order."""
    rng = random.Random(seed)
    single = [source for source, _ in tiny.sentence_pairs(count, seed)]
    return [
        rng.choice(["", "  \n", text, text.upper(), " ".join(rng.sample(single, min(3, count)))]) for text in single
    ]


# --- one result for each input --------------------------------------------------------------------------------------


def test_a_translation_for_each_text_in_order() -> None:
    texts = ["the cat sees the dog.", "", "the old tree has the bird.", "   ", "the cat sees the dog.", "\u200b\n"]
    results = copier().translate(texts)
    assert [result.source for result in results] == texts
    assert [result.text for result in results] == [normalize(text) for text in texts]


@pytest.mark.parametrize("text", ["", " ", "\t\n\u3000", "\u200b\ufeff"])
def test_text_without_content_gives_an_empty_translation(text: str) -> None:
    (result,) = guesser().translate([text])
    assert (result.text, result.score, result.source) == ("", 0.0, text)
    assert (result.source_tokens, result.target_tokens, result.truncated) == (0, 0, False)


def test_no_texts_give_no_translations() -> None:
    assert copier().translate([]) == []
    assert list(copier().translate_iter([])) == []


def test_the_text_is_normalised_before_it_is_translated() -> None:
    plain, decomposed = copier().translate(["für die Katze", "fu\u0308r\u00a0 die\u3000Kat\u200bze"])
    assert plain.text == decomposed.text


@settings(deadline=None, max_examples=12)
@given(st.integers(0, 10_000))
def test_what_else_is_translated_with_a_text_changes_nothing(seed: int) -> None:
    translator = guesser(seed % 5)
    texts = some_texts(8, seed)
    together = translator.translate(texts)
    order = random.Random(seed).sample(range(8), 8)
    shuffled = translator.translate([texts[i] for i in order])
    for position, index in enumerate(order):
        assert same(shuffled[position], together[index])
    for index in order[:3]:
        assert same(translator.translate([texts[index]])[0], together[index])


def test_texts_that_fill_several_batches_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = some_texts(20, seed=3)
    whole = guesser().translate(texts)
    monkeypatch.setattr("nmt.inference.engine._CELLS", 60)  # a few sentences a batch
    for result, expected in zip(guesser().translate(texts), whole, strict=True):
        assert same(result, expected)


def test_the_iterable_form_gives_the_same_and_reads_no_further_than_it_must(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nmt.inference.translator._WINDOW", 4)
    texts = some_texts(11, seed=1)
    translator = guesser()
    for result, expected in zip(translator.translate_iter(iter(texts)), translator.translate(texts), strict=True):
        assert same(result, expected)
    read = 0

    def endless() -> Iterator[str]:
        nonlocal read
        for text in itertools.cycle(texts):
            read += 1
            yield text

    results = translator.translate_iter(endless())
    assert [next(results).source for _ in range(6)] == texts[:6]
    assert read == 8


# --- lines and sentences --------------------------------------------------------------------------------------------


def test_what_is_between_sentences_and_lines_comes_back() -> None:
    text = "  the cat.  the bird.\r\n\r\n\t- the red house\n> * the tree\n---\n?!\u2028the dog.\n\n"
    (result,) = copier().translate([text])
    assert result.text == text
    assert result.segments == 5
    (whole,) = copier().translate([text], DecodeOptions(split_sentences=False))
    assert whole.text == text.replace(".  the", ". the")
    assert whole.segments == 4


@pytest.mark.parametrize("text", ["?!", " -- ", "\U0001f642", "...\n\n***"])
def test_what_has_no_words_stays_as_it_is(text: str) -> None:
    (result,) = guesser().translate([text])
    assert (result.text, result.source_tokens, result.truncated) == (text, 0, False)


def test_with_a_prefix_a_line_is_one_sentence() -> None:
    text = "the cat. the dog."
    (result,) = copier().translate([text], prefixes=["the cat"])
    assert (result.text, result.segments) == (text, 1)


# --- long text ------------------------------------------------------------------------------------------------------


def long_text(sentences: int, seed: int = 0) -> str:
    return " ".join(source for source, _ in tiny.sentence_pairs(sentences, seed))


def test_long_text_is_split_and_joined_without_a_loss() -> None:
    text = long_text(12)
    (result,) = copier().translate([text])
    assert result.text == text
    assert result.segments > 12
    assert not result.truncated
    assert result.target_tokens == result.source_tokens > 100


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.sampled_from(["the", "red", "Katze,", "dog.", "sees;", "river!", "x" * 40, "(old", "house)"]),
        min_size=1,
        max_size=60,
    )
)
def test_every_source_word_comes_through(words: list[str]) -> None:
    text = " ".join(words)
    (result,) = copier().translate([text])
    assert result.text == text


@settings(deadline=None, max_examples=40)
@given(st.lists(st.sampled_from([*CHINESE, "好", "，", "。", "苹果和梨"]), min_size=1, max_size=12))
def test_every_character_of_text_without_spaces_comes_through(parts: list[str]) -> None:
    text = "".join(parts)
    (result,) = copier("zh", "ja").translate([text])
    assert result.text == text


def test_sentences_of_a_source_without_spaces_are_spaced_in_a_target_with_them() -> None:
    (result,) = copier("zh", "en").translate([CHINESE[0] + CHINESE[2]])
    assert result.text.startswith("你好吗？ 我很好，")
    assert result.text.replace(" ", "") == CHINESE[0] + CHINESE[2]
    assert all(len(piece) <= LIMIT for piece in result.text.split())
    (cut,) = copier("zh", "en").translate(["苹果" * 30])  # no mark to cut at, and no word known to be cut
    assert len(cut.text.split()) == cut.segments > 1


def test_sentences_of_a_source_with_spaces_are_not_spaced_in_a_target_without() -> None:
    (result,) = copier("en", "zh").translate(["the cat sees the dog. the bird has the tree."])
    assert result.segments > 1
    assert "dog.the" in result.text
    (regional,) = copier("en", "zh-Hant").translate(["the cat sees the dog. the bird has the tree."])
    assert regional.text == result.text


def test_each_segment_is_within_what_the_model_was_trained_for(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    encode = TorchBackend.encode

    def spy(self: TorchBackend, sentences: Sequence[Sequence[int]]) -> Any:
        seen.extend(len(ids) for ids in sentences)
        return encode(self, sentences)

    monkeypatch.setattr(TorchBackend, "encode", spy)
    copier().translate([long_text(9), "the " + "x" * 200 + " dog"])
    assert max(seen) == LIMIT + 1  # and the end mark
    assert all(length > 1 for length in seen)


def test_a_text_of_exactly_the_limit_is_one_segment() -> None:
    text = "the dog sees the cat."
    (count,) = copier().count_tokens([text])
    (whole,) = copier(limit=count).translate([text])
    (split,) = copier(limit=count - 1).translate([text])
    assert (whole.segments, whole.source_tokens) == (1, count)
    assert split.segments > 1
    assert split.text == text


def test_a_part_that_gives_nothing_leaves_no_space_behind() -> None:
    translator = guesser(end=50.0)  # ends at once
    (result,) = translator.translate([long_text(3)])
    assert result.segments > 3
    assert result.text == ""


def test_an_empty_first_part_leaves_no_space_in_front(monkeypatch: pytest.MonkeyPatch) -> None:
    translator = copier()
    decode = type(TOKENIZER).decode
    monkeypatch.setattr(Tokenizer, "decode", lambda self, ids: decode(self, ids).replace("the cat sees the dog.", ""))
    (result,) = translator.translate(["the cat sees the dog. the bird has the tree."])
    assert result.text == "the bird has the tree."


# --- what a translation says ----------------------------------------------------------------------------------------


def test_a_translation_cut_at_the_length_limit_says_so() -> None:
    short = DecodeOptions(beam_size=2, max_length_ratio=0.5, max_length_extra=0)
    text = "the cat sees the dog."
    (cut,) = copier().translate([text], short)
    (whole,) = copier().translate([text])
    assert cut.truncated
    assert not whole.truncated
    assert len(cut.text) < len(text)
    assert text.startswith(cut.text)


def test_one_part_that_was_cut_marks_the_whole() -> None:
    (result,) = copier().translate(
        [long_text(3)], DecodeOptions(beam_size=1, max_length_ratio=0.1, max_length_extra=10)
    )
    assert result.segments > 1
    assert result.truncated


def test_n_best_are_best_first_and_as_many_as_asked_for() -> None:
    (result,) = guesser().translate(["the cat sees the dog."], DecodeOptions(beam_size=4, n_best=3))
    assert len(result.hypotheses) == 3
    assert [h.score for h in result.hypotheses] == sorted((h.score for h in result.hypotheses), reverse=True)
    assert (result.text, result.score) == (result.hypotheses[0].text, result.hypotheses[0].score)
    assert len(guesser().translate(["the cat."], DecodeOptions(beam_size=4))[0].hypotheses) == 1


def test_n_best_of_a_long_text_are_joined_rank_by_rank() -> None:
    (result,) = guesser().translate([long_text(3)], DecodeOptions(beam_size=4, n_best=2))
    assert result.segments > 3
    assert len({h.text for h in result.hypotheses}) == 2


def test_the_defaults_are_those_of_the_model() -> None:
    text = "the cat sees the old dog."
    (by_default,) = guesser().translate([text])
    (spelled_out,) = guesser().translate([text], guesser().defaults)
    (other,) = guesser().translate([text], DecodeOptions(beam_size=1, max_length_extra=0))
    assert by_default == spelled_out != other


def test_subwords_are_counted_as_the_model_sees_them() -> None:
    texts = ["the cat sees the dog.", "", "the  cat"]
    counts = copier().count_tokens(texts)
    assert counts == [len(ids) for ids in TOKENIZER.encode(["the cat sees the dog.", "", "the cat"])]
    assert [result.source_tokens for result in copier().translate(texts)] == counts


# --- mistakes -------------------------------------------------------------------------------------------------------


def test_more_translations_than_the_beam_holds_are_an_input_error() -> None:
    with pytest.raises(InputError, match="n_best 3 is more than beam_size 2: raise beam_size"):
        copier().translate(["a"], DecodeOptions(beam_size=2, n_best=3))


def test_a_lone_surrogate_is_an_input_error_that_says_where() -> None:
    for use in (copier().translate, lambda texts: list(copier().translate_iter(texts))):
        with pytest.raises(InputError, match="lone surrogate at character 5"):
            use(["good", "bad \ud800"])


def test_what_is_no_text_is_an_input_error() -> None:
    with pytest.raises(InputError, match="a text was expected, found int"):
        copier().translate(["good", 3])  # type: ignore[list-item]


def test_one_text_in_place_of_a_list_is_an_input_error() -> None:
    with pytest.raises(InputError, match="put it into a list"):
        copier().translate("the cat")
    with pytest.raises(InputError, match="put it into a list"):
        list(copier().translate_iter("the cat"))


def test_a_translation_that_nobody_wants_any_more_is_given_up() -> None:
    with pytest.raises(Cancelled):
        copier().translate([long_text(2)], cancelled=lambda: True)


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=80))
def test_any_text_at_all_is_translated(text: str) -> None:
    (result,) = copier().translate([text])
    assert result.source == text
    ends = "\n\r\t\v\f\x1c\x1d\x1e\x85\u2028\u2029"
    assert not result.text or [c for c in result.text if c in ends] == [c for c in text if c in ends]


def test_a_translation_says_what_each_of_its_subwords_is_worth() -> None:
    texts = ["the red dog sees the cat.", long_text(4)]
    for result in guesser().translate(texts):
        for hypothesis in result.hypotheses:
            said = [token for token in hypothesis.tokens if token.piece != "</s>"]
            assert "".join(token.piece for token in said).replace("\u2581", "") == hypothesis.text.replace(" ", "")
            assert all(token.log_p <= 0 for token in said)
    (result,) = guesser().translate(texts[:1])
    (hypothesis,) = result.hypotheses
    assert sum(token.log_p for token in hypothesis.tokens) / len(hypothesis.tokens) == pytest.approx(
        hypothesis.score, abs=1e-6
    )
