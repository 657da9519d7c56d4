"""Corpora of any size: a shuffle without memory, windows of an epoch, batches made ahead by a thread."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt.corpus.store import ColumnWriter, PreparedCorpus
from nmt.errors import DataError
from nmt.training import batches as module
from nmt.training.batches import TrainingBatches
from nmt.training.loader import Loaded, Loader, walk
from nmt.training.shuffle import permuted
from nmt.training.trainer import Trainer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.prepared(tmp_path_factory.mktemp("loader"))


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of 64 pairs: five of the tiny corpus's 300."""
    monkeypatch.setattr(module, "_WINDOW", 64)


# --- the shuffle ----------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 70_000), st.integers(0, 2**32))
def test_a_shuffle_sends_every_place_to_another(size: int, seed: int) -> None:
    found = permuted(np.arange(size), size, (seed, 0))
    assert np.array_equal(np.sort(found), np.arange(size))


@pytest.mark.parametrize("size", [4097, 5000, 65_536, 65_537, 100_000])
def test_a_part_of_a_shuffle_is_that_part_of_it(size: int) -> None:
    whole = permuted(np.arange(size), size, (7, 3))
    assert np.array_equal(permuted(np.arange(100, 900), size, (7, 3)), whole[100:900])
    assert not np.array_equal(permuted(np.arange(size), size, (7, 4)), whole)


def test_a_shuffle_looks_like_chance() -> None:
    size = 100_000
    found = permuted(np.arange(size), size, (1, 0))
    assert abs(np.corrcoef(found, np.arange(size))[0, 1]) < 0.015  # five standard deviations of chance
    assert abs(np.corrcoef(found[1:], found[:-1])[0, 1]) < 0.015
    tenths = np.stack([np.histogram(part, bins=10, range=(0, size))[0] for part in np.split(found, 10)])
    assert ((tenths - 1000) ** 2 / 1000).sum() < 160  # chi-square of 81 degrees of freedom: 1e-6 at 158


# --- windows --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_windows")
def test_the_windows_of_an_epoch_hold_every_pair_once(folder: Path) -> None:
    found = TrainingBatches(PreparedCorpus.open(folder), 512, seed=1)
    assert found.windows == 5
    for epoch in range(2):
        assert Counter(int(pair) for rows in found.epoch(epoch) for pair in rows) == Counter(range(300))
    first = sorted(np.concatenate(found.plan(0, 0)).tolist())
    assert len(first) == 64
    assert first != list(range(64))  # the shuffle is over all of the corpus
    assert first != sorted(np.concatenate(found.plan(1, 0)).tolist())


@pytest.mark.usefixtures("small_windows")
def test_weights_hold_over_windows(folder: Path) -> None:
    corpus = PreparedCorpus.open(folder)
    corpus.manifest["sources"] = [
        {"pairs": 100, "weight": 2.25},
        {"pairs": 120, "weight": 0.5},
        {"pairs": 80, "weight": 1},
    ]
    found = TrainingBatches(corpus, 512, seed=1)
    assert found.pairs == 225 + 60 + 80
    for epoch in range(2):
        counts = Counter(int(pair) for rows in found.epoch(epoch) for pair in rows)
        assert Counter(counts[pair] for pair in range(100)) == {2: 75, 3: 25}
        assert Counter(counts[pair] for pair in range(100, 220)) == {0: 60, 1: 60}
        assert all(counts[pair] == 1 for pair in range(220, 300))


def flat(loaded: Loaded) -> tuple[list[list[int]], tuple[int, int, int], float]:
    return loaded.batch.source.tolist(), loaded.after, round(loaded.epochs, 9)


@pytest.mark.usefixtures("small_windows")
def test_a_walk_goes_through_all_windows_and_can_begin_anywhere(folder: Path) -> None:
    found = TrainingBatches(PreparedCorpus.open(folder), 512, seed=1)
    epoch = sum(len(found.plan(0, window)) for window in range(5))
    walked = [flat(item) for item in itertools.islice(walk(found, (0, 0, 0)), 2 * epoch + 1)]
    assert [epochs for _, _, epochs in walked] == sorted(epochs for _, _, epochs in walked)
    assert walked[epoch - 1][2] == 1.0
    for start in (0, 3, epoch - 1, epoch):
        jumped = [flat(item) for item in itertools.islice(walk(found, walked[start][1]), 4)]
        assert jumped == walked[start + 1 : start + 5]


@pytest.mark.usefixtures("small_windows")
def test_a_run_over_windows_resumes_exactly(folder: Path, tmp_path: Path) -> None:
    whole = tiny.trained(folder, tmp_path / "whole", "train.max_steps=30")
    tiny.trained(folder, tmp_path / "parts", "train.max_steps=18")
    parts = tiny.trained(folder, tmp_path / "parts", "train.max_steps=30")
    (tensors, state), (others, expected) = tiny.last_checkpoint(whole), tiny.last_checkpoint(parts)
    assert state == expected
    assert state["progress"]["window"] > 0 or state["progress"]["epoch"] > 0
    assert all(torch.equal(value, others[name]) for name, value in tensors.items())
    assert tiny.records(whole) == tiny.records(parts)


def test_a_large_corpus_takes_no_more_memory_to_open(tmp_path: Path) -> None:
    """What is kept of 200,000 sentences is where every sixteenth begins."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 30, 200_000)
    with ColumnWriter(tmp_path, "x") as writer:
        for part in np.array_split(lengths, 20):
            writer.write([[7] * int(length) for length in part])
    from nmt.corpus.store import TokenColumn

    column = TokenColumn(tmp_path / "x.ids", tmp_path / "x.lengths.npy")
    assert column._begins.nbytes == 200_000 / 16 * 8
    ends = np.cumsum(lengths)
    for index in (0, 15, 16, 17, 12_345, 199_999):
        one = column.take(np.array([index]))
        assert (int(one.starts[0]), int(one.lengths[0])) == (ends[index] - lengths[index], lengths[index])
    with pytest.raises(IndexError, match="there are 200000 sentences"):
        column[200_000]


# --- the thread -----------------------------------------------------------------------------------------------------


def threads() -> int:
    return sum(thread.name == "batches" for thread in threading.enumerate())


def test_a_loader_gives_what_a_walk_gives_and_its_thread_ends(folder: Path) -> None:
    found, again = (TrainingBatches(PreparedCorpus.open(folder), 512, seed=1) for _ in range(2))
    with Loader(found, (0, 0, 2)) as loader:
        assert threads() == 1
        for expected in itertools.islice(walk(again, (0, 0, 2)), 30):
            assert flat(loader.next()) == flat(expected)
    assert threads() == 0


def test_what_goes_wrong_in_the_thread_is_raised_where_the_batch_is_wanted(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = TrainingBatches(PreparedCorpus.open(folder), 512, seed=1)
    good = found.batch

    def batch(epoch: int, position: int, window: int = 0) -> module.Batch:
        if position == 2:
            raise DataError("the disk is gone")
        return good(epoch, position, window)

    monkeypatch.setattr(found, "batch", batch)
    with Loader(found, (0, 0, 0)) as loader:
        loader.next()
        loader.next()
        with pytest.raises(DataError, match="the disk is gone"):
            loader.next()
    assert threads() == 0


def test_training_leaves_no_thread_behind(folder: Path, tmp_path: Path) -> None:
    trainer = Trainer(tiny.run_config(folder, tmp_path / "run", "train.max_steps=2"))
    trainer.run()
    assert threads() == 0
    assert tiny.records(tmp_path / "run")[0]["epoch"] > 0
