"""Preparing a corpus: what is stored, what is held out, and when nothing is done."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
from hub_stub import parquet
from preparing import files, prepare_small, recipe_of, tree

from nmt.config import dump, parse
from nmt.corpus.prepare import content_hash, prepare
from nmt.corpus.recipe import Recipe
from nmt.corpus.store import PreparedCorpus
from nmt.errors import DataError
from nmt.text.tokenizer import Tokenizer

Pair = tuple[str, str]


def stored(corpus: PreparedCorpus) -> list[Pair]:
    """The training pairs, decoded."""
    tokenizers = (corpus.source_tokenizer, corpus.target_tokenizer)
    sides = [
        [tokenizer.decode(column[i].tolist()) for i in range(len(column))]
        for tokenizer, column in zip(tokenizers, corpus.train(), strict=True)
    ]
    return list(zip(*sides, strict=True))


# --- what is stored -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("joint", [True, False], ids=["joint", "separate"])
@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_what_is_stored_is_what_was_read(tmp_path: Path, kind: str, joint: bool) -> None:
    pairs = tiny.sentence_pairs(200, seed=1)
    recipe = recipe_of([files(tmp_path, pairs)], tokenizer={"type": kind, "joint": joint, "vocab_size": 80})
    assert prepare(recipe, tmp_path / "out")
    corpus = PreparedCorpus.open(tmp_path / "out")
    assert stored(corpus) == pairs
    assert {path.name for path in (tmp_path / "out").glob("*.model")} == (
        {"tokenizer.model"} if joint else {"source.model", "target.model"}
    )
    assert corpus.manifest["vocabulary"]["source"] <= 80
    first = tree(tmp_path / "out")
    prepare(recipe, tmp_path / "out", force=True)
    second = tree(tmp_path / "out")
    assert {name: content for name, (content, _) in first.items()} == {
        name: content for name, (content, _) in second.items()
    }, "the same again gives the same bytes"


def test_training_text_is_normalised_and_evaluation_text_is_as_published(tmp_path: Path) -> None:
    raw = [("cafe\u0301  au\u00a0lait", "ein\u200b Kaffee"), ("a\tb c", "d  e f"), *tiny.sentence_pairs(40, seed=2)]
    test = [("  odd\u00a0 text", "so\u200b etwas"), ("", "lost"), ("\u200b", "lost as well")]
    rows = [{"translation": {"en": source, "de": target}} for source, target in test]
    (tmp_path / "test.parquet").write_bytes(parquet(rows))
    jsonl = tmp_path / "train.jsonl"
    jsonl.write_text("".join(json.dumps({"translation": {"en": s, "de": t}}) + "\n" for s, t in raw), encoding="utf-8")
    recipe = recipe_of([{"jsonl": str(jsonl)}], test=[{"parquet": str(tmp_path / "test.parquet")}])
    prepare(recipe, tmp_path / "out")
    corpus = PreparedCorpus.open(tmp_path / "out")
    assert stored(corpus)[:2] == [("café au lait", "ein Kaffee"), ("a b c", "d e f")]
    assert corpus.pairs("test") == test[:1], "an empty side can't be scored"


def test_sources_keep_their_order_their_counts_and_their_weights(tmp_path: Path) -> None:
    pairs = tiny.sentence_pairs(90, seed=3)
    recipe = recipe_of(
        [
            files(tmp_path, pairs[:30], "a") | {"weight": 2.5},
            files(tmp_path, pairs[20:60], "b"),
            files(tmp_path, pairs[60:], "c") | {"limit": 10, "weight": 0.5},
        ]
    )
    prepare(recipe, tmp_path / "out")
    corpus = PreparedCorpus.open(tmp_path / "out")
    assert corpus.weights() == [(30, 2.5), (30, 1.0), (10, 0.5)], "what two sources share counts for the first"
    assert stored(corpus) == pairs[:70]


def test_manifest_and_report_account_for_every_pair(tmp_path: Path) -> None:
    good = tiny.sentence_pairs(60, seed=4)
    long = ("the " * 150).strip(), ("das " * 150).strip()
    bad = [("", "x"), ("a" * 2000, "b" * 2000), ("a", "b" * 60), ("same same", "same same"), good[5], good[59], long]
    recipe = recipe_of([files(tmp_path, good[:59] + bad)], test=[files(tmp_path, good[59:], "test")])
    prepare(recipe, tmp_path / "out")
    manifest = PreparedCorpus.open(tmp_path / "out").manifest
    cleaning = manifest["cleaning"]
    assert cleaning["dropped"] == dict.fromkeys(cleaning["dropped"], 1), "one pair each"
    assert set(cleaning["dropped"]) >= {"empty", "characters", "ratio", "copy", "duplicate", "evaluation", "tokens"}
    assert (cleaning["read"], cleaning["kept"]) == (66, 59)
    assert manifest["splits"] == {"train": 59, "validation": 0, "test": 1}
    assert manifest["recipe"]["name"] == "tiny"
    assert manifest["tokens"]["source"] == int(PreparedCorpus.open(tmp_path / "out").train()[0].lengths.sum())
    report = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "Read 66 pairs, kept 59 for training" in report
    assert "| evaluation | 1 | 1.52% | one side is a sentence of the validation or test split |" in report
    assert "## Dropped by `copy`, samples\n\n- 'same same' / 'same same'" in report


def test_subwords_are_learned_from_a_sample_of_a_big_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    train = Tokenizer.train

    def spy(sentences: Iterator[str], config: Any, symbols: Any) -> Tokenizer:
        seen.extend(sentences)
        return train(seen, config, symbols)

    monkeypatch.setattr(Tokenizer, "train", spy)
    pairs = tiny.sentence_pairs(500, seed=5)
    prepare(recipe_of([files(tmp_path, pairs)], tokenizer={"vocab_size": 60, "sample": 100}), tmp_path / "out")
    assert 90 <= len(seen) <= 100
    places = [index for index, pair in enumerate(pairs) if pair[0] in seen]
    assert max(places) > 450
    assert min(places) < 50, "drawn from all over the corpus"


def test_the_command_shows_its_progress_and_the_report(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(dump(recipe_of([files(tmp_path, tiny.sentence_pairs(50, seed=12))], holdout={"test": 5})))
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 120))
    done = subprocess.run(
        [sys.executable, "-m", "nmt", "prepare", str(path), "--output", str(tmp_path / "out")],
        cwd=Path(__file__).parent.parent,
        env={name: value for name, value in os.environ.items() if name != "TQDM_DISABLE"},
        stdout=subprocess.PIPE,
        stderr=theirs,  # a terminal: elsewhere there is no progress to see
        timeout=120,
        check=True,
    )
    os.close(theirs)
    shown = ""
    with contextlib.suppress(OSError), os.fdopen(ours, "rb", buffering=0) as terminal:  # how a terminal says the end
        while part := terminal.read(1000):
            shown += part.decode()
    assert [bar for bar in ("hold out: ", "clean files", "learn subwords: ", "encode: ") if bar not in shown] == []
    assert b"train 45, validation 0, test 5 pairs" in done.stdout
    assert b"| rule | dropped | share | why |" in done.stdout


# --- held-out splits ------------------------------------------------------------------------------------------------


def held_out(folder: Path, pairs: list[Pair], **holdout: int) -> tuple[list[Pair], list[Pair], list[Pair]]:
    """(train, validation, test) of a corpus with a holdout."""
    folder.mkdir(exist_ok=True)
    prepare(recipe_of([files(folder, pairs)], holdout=holdout), folder / "out", force=True)
    corpus = PreparedCorpus.open(folder / "out")
    splits = [corpus.pairs(split) if holdout.get(split) else [] for split in ("validation", "test")]
    return stored(corpus), splits[0], splits[1]


def test_held_out_splits_share_no_sentence_with_training_or_each_other(tmp_path: Path) -> None:
    base = tiny.sentence_pairs(150, seed=6)
    pairs = base + [(source.upper(), f"{target} ja") for source, target in base] + base[:50] * 30
    train, validation, test = held_out(tmp_path, pairs, validation=20, test=30)
    assert (len(validation), len(test)) == (20, 30)
    sentences = [{side.casefold().strip(".") for pair in split for side in pair} for split in (train, validation, test)]
    assert not sentences[0] & sentences[1]
    assert not sentences[0] & sentences[2]
    assert not sentences[1] & sentences[2]
    assert len(train) > 150


def test_held_out_splits_do_not_depend_on_the_order_but_on_the_seed(tmp_path: Path) -> None:
    pairs = tiny.sentence_pairs(200, seed=7)
    _, validation, test = held_out(tmp_path / "a", pairs, validation=10, test=10)
    assert held_out(tmp_path / "b", pairs[::-1], validation=10, test=10)[1:] == (validation, test)
    assert held_out(tmp_path / "c", pairs, validation=10, test=10, seed=2)[1] != validation
    assert held_out(tmp_path / "d", pairs, test=5)[1:] == ([], validation[:5])


def test_a_pair_that_is_there_a_thousand_times_does_not_crowd_out_the_others(tmp_path: Path) -> None:
    pairs = tiny.sentence_pairs(60, seed=8)
    _, validation, _ = held_out(tmp_path, pairs[:1] * 1000 + pairs[1:2] * 1000 + pairs, validation=25)
    assert len(set(validation)) == 25


def test_too_large_a_holdout_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"70 pairs are to be held out, but only 40 .* \(make `holdout` smaller\)"):
        held_out(tmp_path, tiny.sentence_pairs(40, seed=9), validation=30, test=40)


# --- again ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def made(tmp_path: Path) -> tuple[Recipe, Path]:
    return prepare_small(tmp_path)


def test_nothing_is_done_when_nothing_has_changed(made: tuple[Recipe, Path]) -> None:
    recipe, output = made
    before = tree(output)
    os.utime(output.parent / "in" / "train.en")
    assert not prepare(recipe.model_copy(update={"description": "said otherwise"}), output)
    assert tree(output) == before
    assert prepare(recipe, output, force=True)


@pytest.mark.parametrize("what", ["text", "rule", "weight", "vocabulary"])
def test_a_change_is_seen(made: tuple[Recipe, Path], what: str) -> None:
    recipe, output = made
    data = recipe.model_dump(mode="json")
    if what == "text":
        path = output.parent / "in" / "train.de"
        path.write_text(path.read_text(encoding="utf-8").replace("Katze", "Mieze"), encoding="utf-8")
    elif what == "rule":
        data["cleaning"]["max_tokens"] = 99
    elif what == "weight":
        data["train"][0]["weight"] = 2.0
    else:
        data["tokenizer"]["vocab_size"] = 61
    assert prepare(parse(Recipe, data, "recipe"), output)
    assert not prepare(parse(Recipe, data, "recipe"), output)


@pytest.mark.parametrize("file", ["train.source.ids", "tokenizer.model", "test.jsonl", "manifest.json"])
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_damaged_corpus_is_made_anew(made: tuple[Recipe, Path], file: str, damage: str) -> None:
    recipe, output = made
    before = {name: content for name, (content, _) in tree(output).items()}
    if damage == "missing":
        (output / file).unlink()
    else:
        (output / file).write_bytes((output / file).read_bytes()[:-100])
    if (file, damage) == ("manifest.json", "missing"):
        with pytest.raises(DataError, match="not a prepared corpus; it is left as it is"):
            prepare(recipe, output)
        return
    assert prepare(recipe, output)
    assert {name: content for name, (content, _) in tree(output).items()} == before


def test_an_evaluation_split_that_lost_a_pair_is_made_anew(made: tuple[Recipe, Path]) -> None:
    recipe, output = made
    path = output / "test.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    assert prepare(recipe, output)
    assert len(PreparedCorpus.open(output).pairs("test")) == 20


def test_a_hub_corpus_is_known_again_without_a_network(tmp_path: Path) -> None:
    recipe = recipe_of([{"hub": "own/corpus", "config": "en-de"}])
    assert content_hash(recipe) == content_hash(recipe_of([{"hub": "own/corpus", "config": "en-de"}]))
    assert content_hash(recipe) != content_hash(recipe_of([{"hub": "own/corpus", "config": "en-fr"}]))
