"""The tokenizer: subwords and back, special ids, errors."""

from __future__ import annotations

from pathlib import Path

import pytest
import sentencepiece
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt.errors import BundleError, DataError
from nmt.text.tokenizer import BOS, EOS, PAD, UNK, Tokenizer, TokenizerConfig

SENTENCES = [side for pair in tiny.sentence_pairs(200, seed=3) for side in pair]
DIGITS = [f"The number {n} is {n * 7}." for n in range(100)]
TOKENIZER = Tokenizer.train(SENTENCES + DIGITS, TokenizerConfig(vocab_size=120))
ALPHABET = sorted({c for sentence in SENTENCES + DIGITS for c in sentence if c != " "})


@settings(deadline=None, max_examples=150)
@given(st.lists(st.text(st.sampled_from(ALPHABET), min_size=1, max_size=8), max_size=8).map(" ".join))
def test_text_of_known_characters_comes_back_exactly(text: str) -> None:
    (ids,) = TOKENIZER.encode([text])
    assert TOKENIZER.decode(ids) == text
    assert all(EOS < i < len(TOKENIZER) for i in ids)


@settings(deadline=None, max_examples=150)
@given(st.text(max_size=30))
def test_any_text_becomes_ids_that_a_model_knows_and_never_a_mark(text: str) -> None:
    (ids,) = TOKENIZER.encode([text])
    assert all(i == UNK or EOS < i < len(TOKENIZER) for i in ids)


@pytest.mark.parametrize("text", ["<s>", "</s>", "<pad>", "<unk>", "a </s> b <pad>"])
def test_names_of_special_ids_in_text_are_only_text(text: str) -> None:
    (ids,) = TOKENIZER.encode([text])
    assert not {PAD, BOS, EOS} & set(ids)


def test_special_ids_print_nothing() -> None:
    (ids,) = TOKENIZER.encode(["the red cat."])
    assert TOKENIZER.decode([BOS, *ids[:2], UNK, PAD, *ids[2:], EOS, PAD]) == "the red cat."
    assert TOKENIZER.decode([]) == ""


def test_encoding_a_list_is_encoding_each_of_it() -> None:
    texts = ["the cat.", "", "das Haus sieht 12."]
    assert TOKENIZER.encode(texts) == [TOKENIZER.encode([text])[0] for text in texts]
    assert TOKENIZER.encode(texts)[1] == []
    assert TOKENIZER.encode([]) == []


def test_each_digit_is_a_piece_of_its_own() -> None:
    (ids,) = TOKENIZER.encode(["700 77"])
    assert [piece for piece in TOKENIZER.pieces(ids) if piece != "▁"] == ["7", "0", "0", "7", "7"]


def test_frequent_words_are_fewer_pieces_than_characters() -> None:
    (ids,) = TOKENIZER.encode(["the Katze"])
    assert len(ids) < len("the Katze")


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_saved_and_loaded_is_the_same(kind: str, tmp_path: Path) -> None:
    trained = Tokenizer.train(SENTENCES, TokenizerConfig.model_validate({"type": kind, "vocab_size": 90}))
    path = tmp_path / "tokenizer.model"
    path.write_bytes(trained.model)
    loaded = Tokenizer.load(path)
    assert loaded.encode(SENTENCES[:20]) == trained.encode(SENTENCES[:20])
    assert len(loaded) == len(trained) <= 90


def test_training_is_deterministic() -> None:
    again = Tokenizer.train(SENTENCES + DIGITS, TokenizerConfig(vocab_size=120))
    assert again.model == TOKENIZER.model


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"absent.model: the tokenizer is missing"):
        Tokenizer.load(tmp_path / "absent.model")


@pytest.mark.parametrize("damage", ["empty", "text", "cut"])
def test_a_damaged_file_is_named(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes({"empty": b"", "text": b"hello", "cut": TOKENIZER.model[:1000]}[damage])
    with pytest.raises(BundleError, match=r"tokenizer.model"):
        Tokenizer.load(path)


def test_a_folder_in_place_of_the_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=str(tmp_path)):
        Tokenizer.load(tmp_path)


def test_a_foreign_sentencepiece_model_is_refused(tmp_path: Path) -> None:
    prefix = tmp_path / "foreign"
    sentencepiece.SentencePieceTrainer.train(  # its defaults have no padding and other ids
        sentence_iterator=iter(SENTENCES),
        model_prefix=str(prefix),
        vocab_size=60,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    with pytest.raises(BundleError, match="special ids"):
        Tokenizer.load(prefix.with_suffix(".model"))


def test_too_little_text_is_a_data_error() -> None:
    with pytest.raises(DataError, match="tokenizer training failed"):
        Tokenizer.train([], TokenizerConfig(vocab_size=100))


def test_text_is_cut_anew_at_random_and_repeatably() -> None:
    sentences = TOKENIZER.encode([*SENTENCES[:20], "a \u4e16 b"])
    first, again, other = (TOKENIZER.resample(sentences, 0.4, seed) for seed in (1, 1, 2))
    assert first == again != other
    assert [TOKENIZER.decode(ids) for ids in first[:20]] == SENTENCES[:20]
    assert sum(map(len, first)) > sum(map(len, sentences))
    assert UNK in sentences[20]
    assert first[20] == sentences[20]  # what has lost its text stays as it is
    assert TOKENIZER.resample(sentences, 0.0, 1) == sentences
