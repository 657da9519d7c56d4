"""Guided alignment: what the guide says, and that a head which is taught learns it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from nmt.corpus.store import PreparedCorpus
from nmt.errors import ConfigError
from nmt.inference.alignment import word_numbers
from nmt.model.capture import evaluating, recorded
from nmt.model.decoder import Decoder
from nmt.text.tokenizer import BOS, EOS, PAD
from nmt.training.config import OptimizerConfig
from nmt.training.guide import Guide
from nmt.training.lexicon import Lexicon, learn_lexicon
from nmt.training.objective import Objective
from nmt.training.trainer import Trainer

LEXICON = Lexicon(
    np.array([PAD, PAD, 5, 5, 6]), np.array([7, 8, 7, 8, 8]), np.array([0.2, 0.1, 0.9, 0.1, 0.6]), np.ones(10, np.int64)
)


def test_the_guide_is_the_model_that_it_says() -> None:
    source = torch.tensor([[5, 6, EOS], [5, EOS, PAD]])
    labels = torch.tensor([[8, 7, 9, EOS], [7, EOS, PAD, PAD]])
    found = Guide(LEXICON).alignment(source, labels)
    table = {(5, 7): 0.9, (5, 8): 0.1, (6, 8): 0.6}
    none = {7: 0.2, 8: 0.1}
    expected = torch.zeros(2, 4, 3)
    for row, (length, words) in enumerate(((2, 3), (1, 1))):
        for j in range(words):
            near = [np.exp(-4 * abs(i / length - j / words)) for i in range(length)]
            said = int(labels[row, j])
            joint = [table.get((int(source[row, i]), said), 0.0) * 0.92 * near[i] / sum(near) for i in range(length)]
            total = sum(joint) + 0.08 * none.get(said, 0.0)
            for i in range(length):
                expected[row, j, i] = joint[i] / total if total else 0.0
    torch.testing.assert_close(found, expected)
    assert float(found[0, 2].sum()) == 0  # a word that the lexicon doesn't know
    assert float(found[0, 0].sum()) < 1  # which may come from nothing


def test_a_lexicon_has_probabilities(tmp_path: Path) -> None:
    corpus = PreparedCorpus.open(tiny.prepared(tmp_path))
    lexicon = learn_lexicon(corpus)
    keys = lexicon.source * len(corpus.target_tokenizer) + lexicon.target
    assert (np.diff(keys) > 0).all()
    sums = np.bincount(lexicon.source, lexicon.probability)
    np.testing.assert_allclose(sums[sums > 0], 1.0)


@pytest.mark.parametrize("wiring", ["gnmt", "luong"])
def test_a_head_that_is_taught_learns_where_words_come_from(tmp_path: Path, wiring: str) -> None:
    corpus = PreparedCorpus.open(tiny.prepared(tmp_path))
    shares = {}
    for weight in (0.0, 1.0):
        config = tiny.run_config(
            corpus.path, tmp_path / f"run-{weight}", "train.max_steps=150", "train.log_every=50", "optimizer.lr=0.02",
            "train.save_every=150", "validation.every=150", "validation.metric=loss", "optimizer.ema_decay=0", "model.embedding=16",
            "model.encoder.hidden=16", "model.decoder.hidden=16", "model.dropout={embedding: 0.0, layer: 0.0, output: 0.0}",
            f"model.wiring={wiring}", f"optimizer.guided_alignment={weight}",
        )  # fmt: skip
        trainer = Trainer(config)
        trainer.run()
        shares[weight] = aligned(trainer, corpus)
    assert shares[1.0] > 0.85
    assert shares[0.0] < 0.7


def aligned(trainer: Trainer, corpus: PreparedCorpus) -> float:
    """Of the words of the test split, which has them in the order of the source, those that the taught head links rightly."""
    attention = list(trainer.model.decoder.attentions())[-1]
    right = words = 0
    for source, target in corpus.pairs("test"):
        ids, said = corpus.source_tokenizer.encode([source])[0], corpus.target_tokenizer.encode([target])[0]
        numbers = [word_numbers(corpus.source_tokenizer.pieces(side)) for side in (ids, said)]
        with evaluating(trainer.model), recorded([attention]) as calls:
            memory = trainer.model.encode(torch.tensor([[*ids, EOS]]), torch.tensor([len(ids) + 1]))
            trainer.model.decode(torch.tensor([[BOS, *said]]), memory, memory.state)
            weights = torch.cat([attention.heads_weights(*call.arguments)[0, 0] for call in calls[attention]])
        best = weights[: len(said), : len(ids)].argmax(dim=1).tolist()
        right += sum(numbers[0][place] == number for place, number in zip(best, numbers[1], strict=True))
        words += len(said)
    return right / words


def test_a_decoder_without_attention_can_not_be_taught() -> None:
    model = tiny.model()
    model.decoder = Decoder()
    with pytest.raises(ConfigError, match="no attention that could be taught"):
        Objective(model, OptimizerConfig(guided_alignment=0.1), Guide(LEXICON))
