"""Validation: loss and real BLEU on text that training has not seen."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nmt.corpus.store import PreparedCorpus
from nmt.evaluation.scores import Score, score
from nmt.inference.bundle import ModelInfo, architecture
from nmt.inference.output import Vocabularies
from nmt.inference.torch_backend import TorchBackend
from nmt.inference.translator import Translator
from nmt.inference.types import DecodeOptions
from nmt.model.capture import capture
from nmt.model.seq2seq import Seq2Seq
from nmt.text.normalize import normalize
from nmt.training.batches import Batch, TrainingBatches, ordered_batches
from nmt.training.config import RunConfig
from nmt.training.loss import smoothed_cross_entropy
from nmt.training.world import ALONE, World


@dataclass(frozen=True)
class Validation:
    """The outcome: nats per target token (end marks counted) of the validation split and of a sample of the training pairs,
    both without dropout; BLEU and chrF with signatures, samples, seconds taken."""

    loss: float
    train_loss: float
    bleu: Score
    chrf: Score
    samples: tuple[tuple[str, str, str], ...]  # (source, reference, translation)
    seconds: float

    def record(self) -> dict[str, Any]:
        """What the log keeps of it."""
        return {
            "loss": round(self.loss, 5),
            "train_loss": round(self.train_loss, 5),
            "bleu": self.bleu.score,
            "bleu_signature": self.bleu.signature,
            "chrf": self.chrf.score,
            "chrf_signature": self.chrf.signature,
            "seconds": round(self.seconds, 1),
            "samples": [list(sample) for sample in self.samples],
        }


class Validator:
    """Holds the validation split of a corpus, and as many training pairs, ready to judge a model again and again."""

    def __init__(self, corpus: PreparedCorpus, config: RunConfig, training: TrainingBatches) -> None:
        self.pairs = corpus.pairs("validation")
        self._config, self._corpus = config, corpus
        source = corpus.source_tokenizer.encode([normalize(pair[0]) for pair in self.pairs])
        target = corpus.target_tokenizer.encode([normalize(pair[1]) for pair in self.pairs])
        longest = max(len(a) + len(b) + 2 for a, b in zip(source, target, strict=True))
        budget = max(longest, config.train.budget)
        self._batches = list(ordered_batches(source, target, budget))
        self._seen = list(ordered_batches(*training.sample(len(source)), budget))

    def loss(
        self, model: Seq2Seq, batches: list[Batch], autocast: AbstractContextManager[object], world: World = ALONE
    ) -> float:
        """Negative log likelihood of `batches` in nats per target token."""
        total, tokens = 0.0, 0
        with torch.inference_mode(), autocast:
            for batch in (item.to(model.device) for item in batches[world.rank :: world.size]):
                vectors = model(batch.source, batch.source_lengths, batch.target)
                logits = model.logits(vectors.flatten(0, 1)[batch.places])
                nll = smoothed_cross_entropy(logits, batch.labels.flatten()[batch.places], 0.0)[1]
                total, tokens = total + float(nll), tokens + batch.tokens
        total, tokens_of_all = world.sums(total, tokens)
        return total / tokens_of_all

    def run(self, model: Seq2Seq, autocast: AbstractContextManager[object], world: World = ALONE) -> Validation:
        """Judge `model`, which is left in the mode that it was in; every process of the world does a part and gets the whole."""
        started, training = time.perf_counter(), model.training
        model.eval()
        loss, train_loss = (self.loss(model, batches, autocast, world) for batches in (self._batches, self._seen))
        languages = self._corpus.languages
        info = ModelInfo(
            "validation", *languages, "", 0, architecture(model.config), [], "", self._corpus.target_languages
        )
        options = DecodeOptions(beam_size=self._config.validation.beam_size)
        vocabularies = Vocabularies(self._corpus.source_tokenizer, self._corpus.target_tokenizer)
        translator = Translator(
            TorchBackend(model), vocabularies, info, options, self._corpus.manifest["recipe"]["cleaning"]["max_tokens"]
        )
        pairs = self.pairs[: self._config.validation.sentences]
        mine = [source for source, _ in pairs[world.rank :: world.size]]
        texts = world.joined([item.text for item in translator.translate(mine)])
        bleu, chrf = score(texts, [reference for _, reference in pairs])
        samples = tuple((*pair, text) for pair, text in list(zip(pairs, texts, strict=True))[:3])
        model.train(training)
        return Validation(loss, train_loss, bleu, chrf, samples, time.perf_counter() - started)

    def attention(self, model: Seq2Seq, sample: Sequence[str]) -> Tensor | None:
        """The weights (T, S) of the top attention, a mean over its heads, in a sample (source, reference, translation); None for a decoder
        that shows none."""
        tokenizers = self._corpus.source_tokenizer, self._corpus.target_tokenizer
        (source,), (target,) = (
            tokenizer.encode([normalize(text)]) for tokenizer, text in zip(tokenizers, sample[::2], strict=True)
        )
        if not list(model.decoder.attentions()):
            return None
        return capture(model, source, target).attention[-1].float().cpu()
