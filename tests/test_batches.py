"""Batches: every pair as often as its weight says, never more than the budget, the same again from the same seed."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt.cli import main
from nmt.config import dump
from nmt.corpus.store import PreparedCorpus, Ragged
from nmt.errors import DataError
from nmt.text.tokenizer import BOS, EOS, PAD
from nmt.training.batches import Batch, TrainingBatches, collate, ordered_batches

BUDGET = 512


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.prepared(tmp_path_factory.mktemp("batches"))


def weighted(folder: Path, *sources: tuple[int, float]) -> PreparedCorpus:
    """The corpus as if its training pairs came from `sources` of so many pairs and such a weight."""
    corpus = PreparedCorpus.open(folder)
    corpus.manifest["sources"] = [{"label": "x", "pairs": count, "weight": weight} for count, weight in sources]
    return corpus


def counts(batches: TrainingBatches, epoch: int) -> Counter[int]:
    return Counter(int(pair) for rows in batches.plan(epoch) for pair in rows)


def cells(batch: Batch) -> int:
    return batch.source.numel() + batch.labels.numel()


# --- an epoch -------------------------------------------------------------------------------------------------------


def test_every_pair_comes_exactly_once_an_epoch(folder: Path) -> None:
    batches = TrainingBatches(PreparedCorpus.open(folder), BUDGET, seed=1)
    for epoch in range(3):
        assert counts(batches, epoch) == Counter(range(300))


def test_a_batch_holds_the_pairs_of_its_plan(folder: Path) -> None:
    corpus = PreparedCorpus.open(folder)
    batches = TrainingBatches(corpus, BUDGET, seed=1)
    batch = batches.batch(0, 3)
    for row, pair in enumerate(batches.plan(0)[3]):
        source, target = batches.source[pair].tolist(), batches.target[pair].tolist()
        assert batch.source[row].tolist() == [*source, EOS] + [PAD] * (batch.source.shape[1] - len(source) - 1)
        assert batch.target[row].tolist() == [BOS, *target] + [PAD] * (batch.target.shape[1] - len(target) - 1)
        assert batch.labels[row].tolist() == [*target, EOS] + [PAD] * (batch.labels.shape[1] - len(target) - 1)
        assert batch.source_lengths[row] == len(source) + 1


def test_weight_two_is_twice_and_weight_a_half_is_half_anew_each_epoch(folder: Path) -> None:
    batches = TrainingBatches(weighted(folder, (100, 2.0), (120, 0.5), (80, 1.0)), BUDGET, seed=1)
    halves = []
    for epoch in range(2):
        found = counts(batches, epoch)
        assert all(found[pair] == 2 for pair in range(100))
        halves.append({pair for pair in range(100, 220) if found[pair]})
        assert len(halves[-1]) == 60
        assert all(found[pair] <= 1 for pair in range(100, 220))
        assert all(found[pair] == 1 for pair in range(220, 300))
    assert halves[0] != halves[1]


def test_a_weight_with_a_fraction_repeats_a_part(folder: Path) -> None:
    found = counts(TrainingBatches(weighted(folder, (200, 2.25), (100, 0.01)), BUDGET, seed=1), 0)
    assert Counter(found[pair] for pair in range(200)) == {2: 150, 3: 50}
    assert sum(found[pair] for pair in range(200, 300)) == 1


def test_weights_that_leave_nothing_are_a_data_error(folder: Path) -> None:
    with pytest.raises(DataError, match="raise a weight"):
        TrainingBatches(weighted(folder, (300, 0.001)), BUDGET, seed=1)


def test_only_the_first_pairs_are_seen_when_so_asked(folder: Path) -> None:
    corpus = PreparedCorpus.open(folder)
    assert counts(TrainingBatches(corpus, BUDGET, seed=1, pairs=120), 0) == Counter(range(120))
    cut = TrainingBatches(weighted(folder, (100, 2.0), (200, 1.0)), BUDGET, seed=1, pairs=120)
    assert counts(cut, 0) == Counter({pair: 2 if pair < 100 else 1 for pair in range(120)})
    with pytest.raises(DataError, match=r"train\.pairs is 301 but the corpus has 300 pairs"):
        TrainingBatches(corpus, BUDGET, seed=1, pairs=301)


def test_subwords_are_cut_anew_each_time_and_the_text_stays(folder: Path) -> None:
    corpus = PreparedCorpus.open(folder)
    plain = TrainingBatches(corpus, BUDGET, seed=1)
    sampled = TrainingBatches(corpus, BUDGET, seed=1, subword_sampling=0.3)
    first, again, later = sampled.batch(0, 2), sampled.batch(0, 2), sampled.batch(1, 2)
    assert torch.equal(first.source, again.source)  # a position of an epoch is always the same: resuming is exact
    assert torch.equal(first.labels, again.labels)
    whole = plain.batch(0, 2)
    for sides in (("source", corpus.source_tokenizer), ("labels", corpus.target_tokenizer)):
        name, tokenizer = sides
        texts = [[tokenizer.decode(row.tolist()) for row in getattr(batch, name)] for batch in (whole, first)]
        assert texts[0] == texts[1]
    assert first.total > whole.total  # fewer merges, more pieces
    assert first.source.shape != later.source.shape or not torch.equal(first.source, later.source)


# --- the budget -----------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=80), st.integers(82, 400))
def test_no_batch_is_over_the_budget_and_none_could_take_the_next_pair(
    lengths: list[tuple[int, int]], budget: int
) -> None:
    source, target = ([[7] * pair[side] for pair in lengths] for side in (0, 1))
    batches = list(ordered_batches(source, target, budget))
    assert all(cells(batch) <= budget for batch in batches)
    pairs = [
        (int(batch.source_lengths[row]) - 1, int((batch.labels[row] != PAD).sum()) - 1)
        for batch in batches
        for row in range(len(batch.source))
    ]
    assert Counter(pairs) == Counter(lengths)
    position = 0
    for batch in batches[:-1]:
        position += len(batch.source)
        rows = len(batch.source) + 1
        width = max(batch.source.shape[1], pairs[position][0] + 1) + max(batch.labels.shape[1], pairs[position][1] + 1)
        assert rows * width > budget


@pytest.mark.parametrize("budget", [64, 512, 4096])
def test_training_batches_keep_the_budget_too(folder: Path, budget: int) -> None:
    batches = TrainingBatches(PreparedCorpus.open(folder), budget, seed=1)
    made = [batches.batch(0, position) for position in range(len(batches.plan(0)))]
    assert all(cells(batch) <= budget for batch in made)
    assert sum(batch.total for batch in made) / sum(cells(batch) for batch in made) > 0.85  # little of it is padding


def test_a_pair_longer_than_the_budget_is_a_data_error_that_names_both(folder: Path) -> None:
    with pytest.raises(DataError, match=r"the longest pair has \d+ tokens but train.batch_tokens is 20"):
        TrainingBatches(PreparedCorpus.open(folder), 20, seed=1)
    pairs = zip(*(column.lengths.tolist() for column in PreparedCorpus.open(folder).train()), strict=True)
    longest = max(source + target for source, target in pairs) + 2
    exact = TrainingBatches(PreparedCorpus.open(folder), longest, seed=1)
    assert counts(exact, 0) == Counter(range(300))


# --- the order ------------------------------------------------------------------------------------------------------


def test_the_order_follows_from_the_seed_and_differs_by_epoch(folder: Path) -> None:
    def order(seed: int, epoch: int) -> list[list[int]]:
        plan = TrainingBatches(PreparedCorpus.open(folder), BUDGET, seed).plan(epoch)
        return [rows.tolist() for rows in plan]

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(2, 0)
    assert order(1, 0) != order(1, 1)


def test_an_epoch_can_be_entered_anywhere(folder: Path) -> None:
    first = TrainingBatches(PreparedCorpus.open(folder), BUDGET, seed=1)
    walked = [first.batch(epoch, position) for epoch in (0, 1) for position in range(len(first.plan(epoch)))][-1]
    second = TrainingBatches(PreparedCorpus.open(folder), BUDGET, seed=1)
    jumped = second.batch(1, len(second.plan(1)) - 1)
    assert torch.equal(walked.source, jumped.source)
    assert torch.equal(walked.labels, jumped.labels)


def test_batches_of_an_epoch_are_not_in_order_of_length(folder: Path) -> None:
    batches = TrainingBatches(PreparedCorpus.open(folder), BUDGET, seed=1)
    widths = [batches.batch(0, position).labels.shape[1] for position in range(len(batches.plan(0)))]
    assert widths != sorted(widths)
    assert widths != sorted(widths, reverse=True)


# --- one batch ------------------------------------------------------------------------------------------------------


def test_padding_marks_and_counts() -> None:
    batch = collate(Ragged.of([[5, 6, 7], [8]]), Ragged.of([[9], []]))
    assert batch.source.tolist() == [[5, 6, 7, EOS], [8, EOS, PAD, PAD]]
    assert batch.source_lengths.tolist() == [4, 2]
    assert batch.target.tolist() == [[BOS, 9], [BOS, PAD]]
    assert batch.labels.tolist() == [[9, EOS], [EOS, PAD]]
    assert (batch.tokens, batch.total) == (3, 9)
    assert batch.source.dtype == torch.int64


def test_the_largest_id_survives() -> None:
    batch = collate(Ragged.of([[65_534]]), Ragged.of([[65_534]]))
    assert batch.source[0, 0] == batch.labels[0, 0] == 65_534


def test_a_manifest_that_disagrees_with_the_arrays_is_noticed(folder: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "corpus"
    damaged.mkdir()
    for path in folder.iterdir():
        (damaged / path.name).write_bytes(path.read_bytes())
    (damaged / "train.source.ids").write_bytes((folder / "train.source.ids").read_bytes()[:-2])
    assert json.loads((damaged / "manifest.json").read_text())["sources"][0]["pairs"] == 300
    with pytest.raises(DataError, match=r"train\.source\.ids"):
        TrainingBatches(PreparedCorpus.open(damaged), BUDGET, seed=1)


def test_an_id_beyond_the_vocabulary_is_a_damaged_corpus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = tiny.prepared(tmp_path)
    ids = np.memmap(made / "train.target.ids", dtype=np.uint16, mode="r+")
    ids[len(ids) // 2] = 65_535
    ids.flush()
    config = tmp_path / "run.yaml"
    config.write_text(dump(tiny.run_config(made, tmp_path / "run")), encoding="utf-8")
    assert main(["train", str(config)]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert f"{made}/train.target.ids: holds 65535, but the tokenizer has" in message
    assert "run `nmt prepare` again" in message
