"""The tokenizer: SentencePiece subwords, the vocabulary and its special ids."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import sentencepiece
from pydantic import Field

from nmt.config import Section
from nmt.errors import BundleError, DataError

PAD, UNK, BOS, EOS = 0, 1, 2, 3
_TOGETHER = 64  # SentencePiece starts threads for a list of texts, which takes as long as so many texts
SPACE = "▁"  # what SentencePiece writes for it


class TokenizerConfig(Section):
    """How subwords are learned (SentencePiece: Kudo and Richardson 2018)."""

    type: Literal["bpe", "unigram"] = "bpe"
    vocab_size: int = Field(8000, ge=32, le=65_535, description="pieces, the four special ids among them")
    joint: bool = Field(
        True, description="one vocabulary for both languages, so that embeddings can be tied three ways"
    )
    character_coverage: float = Field(1.0, gt=0.9, le=1.0, description="share of characters that get a piece")
    split_digits: bool = Field(True, description="a piece for each digit, so that numbers are copied, not memorised")
    sample: int = Field(1_000_000, ge=100, description="sentences it is trained on at most, drawn evenly")


class Tokenizer:
    """One SentencePiece model: text to ids and back. Specials are fixed: pad 0, unknown 1, begin 2, end 3."""

    def __init__(self, model: bytes) -> None:
        """`model` is a serialised SentencePiece model; raise `BundleError` if it is not one of ours."""
        self.model = model
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(model)
        except RuntimeError:
            raise BundleError("the tokenizer is not a SentencePiece model (damaged file?)") from None
        found = (self._processor.pad_id(), self._processor.unk_id(), self._processor.bos_id(), self._processor.eos_id())
        if found != (PAD, UNK, BOS, EOS):
            raise BundleError(f"the tokenizer's special ids are {found}, expected {(PAD, UNK, BOS, EOS)}")

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """Read a `.model` file; raise `BundleError` naming it when it is missing or damaged."""
        try:
            return cls(path.read_bytes())
        except FileNotFoundError:
            raise BundleError(f"{path}: the tokenizer is missing") from None
        except OSError as error:
            raise BundleError(f"{path}: the tokenizer cannot be read ({error.strerror})") from None
        except BundleError as error:
            raise BundleError(f"{path}: {error}") from None

    @classmethod
    def train(cls, sentences: Iterable[str], config: TokenizerConfig, symbols: Sequence[str] = ()) -> Tokenizer:
        """Learn subwords from `sentences`, `symbols` being one each; raise `DataError` when they are too few for the vocabulary size."""
        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(sentences),
                model_writer=model,
                model_type=config.type,
                vocab_size=config.vocab_size,
                character_coverage=config.character_coverage,
                split_digits=config.split_digits,
                hard_vocab_limit=False,
                normalization_rule_name="identity",  # text is normalised by nmt.text.normalize, once, for all uses
                pad_id=PAD,
                unk_id=UNK,
                bos_id=BOS,
                eos_id=EOS,
                user_defined_symbols=list(symbols),
                max_sentence_length=16_384,
                train_extremely_large_corpus=False,
                minloglevel=2,
            )
        except (RuntimeError, OSError) as error:
            message = str(error).splitlines()[-1].strip() if str(error) else "unknown cause"
            raise DataError(f"tokenizer training failed: {message} (try a smaller tokenizer.vocab_size)") from None
        return cls(model.getvalue())

    def __len__(self) -> int:
        return int(self._processor.GetPieceSize())

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without begin and end marks."""
        if len(texts) < _TOGETHER:
            return [self._processor.Encode(text, out_type=int) for text in texts]
        ids: list[list[int]] = self._processor.Encode(list(texts), out_type=int)
        return ids

    def surfaces(self, text: str) -> list[str]:
        """What each id of `encode` stands for in the text, spaces written as `SPACE`: the subword, or the characters that have none."""
        found: list[str] = self._processor.Encode(text, out_type=str)
        return found

    def resample(self, sentences: Sequence[list[int]], rate: float, seed: int) -> list[list[int]]:
        """Cut the same text into subwords anew, at random: BPE-dropout with `rate` of the merges left out (Provilkov et al. 2020), or
        unigram sampling with smoothing `rate` (Kudo 2018). The result follows from the seed; sentences with unknown characters,
        whose text is lost, stay as they are."""
        texts: list[str] = self._processor.Decode(list(sentences))
        # The generator belongs to a thread and reads the seed when it is made: a fresh worker for each call makes it repeatable.
        sentencepiece.set_random_generator_seed(seed)
        found: list[list[int]] = self._processor.Encode(
            texts, out_type=int, enable_sampling=True, alpha=rate, nbest_size=-1, num_threads=1
        )
        return [old if UNK in old else new for old, new in zip(sentences, found, strict=True)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`; special ids print nothing."""
        text: str = self._processor.Decode([i for i in ids if i > EOS])
        return text

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The subword of each id, with SentencePiece's word-boundary mark."""
        return [str(self._processor.IdToPiece(int(i))) for i in ids]
