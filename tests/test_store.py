"""A prepared corpus on disk: what is written comes back, memory-mapped; what is damaged is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nmt.corpus.store import ColumnWriter, PreparedCorpus, TokenColumn, write_pairs
from nmt.errors import DataError, NMTError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.prepared(tmp_path_factory.mktemp("store"))


@pytest.fixture
def corpus(made: Path, tmp_path: Path) -> Path:
    """A copy that the test may damage."""
    return Path(shutil.copytree(made, tmp_path / "corpus"))


def write_column(folder: Path, batches: list[list[list[int]]]) -> TokenColumn:
    with ColumnWriter(folder, "x") as writer:
        for batch in batches:
            writer.write(batch)
    return TokenColumn(folder / "x.ids", folder / "x.lengths.npy")


_sentences = st.lists(st.lists(st.integers(0, 65_535), max_size=5), max_size=4)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_sentences, max_size=4))
def test_ids_come_back_as_they_were_written(tmp_path: Path, batches: list[list[list[int]]]) -> None:
    column = write_column(tmp_path, batches)
    flat = [sentence for batch in batches for sentence in batch]
    assert [column[i].tolist() for i in range(len(column))] == flat
    assert column.lengths.tolist() == [len(sentence) for sentence in flat]


def test_ids_are_memory_mapped_and_read_only(made: Path) -> None:
    for column in PreparedCorpus.open(made).train():
        sentence = column[0]
        assert isinstance(sentence, np.memmap)
        assert sentence.dtype == np.uint16
        with pytest.raises(ValueError, match="read-only"):
            sentence[0] = 1


def test_a_failed_writer_leaves_no_lengths(tmp_path: Path) -> None:
    writer = ColumnWriter(tmp_path, "x")
    writer.write([[1, 2]])
    writer.__exit__(RuntimeError, RuntimeError("stop"), None)
    assert not (tmp_path / "x.lengths.npy").exists()


def test_evaluation_text_comes_back_whatever_it_holds(made: Path, corpus: Path) -> None:
    pairs = [
        ('quote " and \\', "tab\there"),
        ("line\u2028separator\u0085", "zero\u200bwidth"),
        ("\ufeffmark", "𝄞 emoji 🙂"),
    ]
    write_pairs(corpus / "test.jsonl", pairs)
    assert PreparedCorpus.open(corpus).pairs("test") == pairs


def test_an_opened_corpus_says_what_it_is(made: Path) -> None:
    corpus = PreparedCorpus.open(made)
    assert corpus.joint
    assert corpus.languages == ("en", "de")
    assert corpus.weights() == [(300, 1.0)]
    assert len(corpus.pairs("validation")) == len(corpus.pairs("test")) == 12
    with pytest.raises(DataError, match=r"no text of split 'train' \(has validation, test"):
        corpus.pairs("train")


def test_separate_vocabularies_are_two(tmp_path: Path) -> None:
    corpus = PreparedCorpus.open(tiny.prepared(tmp_path, joint=False))
    assert not corpus.joint
    assert corpus.source_tokenizer.model != corpus.target_tokenizer.model
    source, target = corpus.train()
    assert corpus.source_tokenizer.decode(source[0].tolist()).startswith("the ")
    assert corpus.target_tokenizer.decode(target[0].tolist()).startswith("das ")


def use(path: Path) -> None:
    """Open a corpus and read all of it."""
    corpus = PreparedCorpus.open(path)
    corpus.train()
    corpus.pairs("validation")
    corpus.pairs("test")


def edit_manifest(path: Path, **changes: Any) -> None:
    manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    (path / "manifest.json").write_text(json.dumps(manifest | changes), encoding="utf-8")


_FILES = ("manifest.json", "tokenizer.model", "train.source.ids", "train.target.lengths.npy", "validation.jsonl")
_DAMAGES = [(file, damage) for file in _FILES for damage in ("missing", "empty", "truncated")]
_DAMAGES.remove(("validation.jsonl", "empty"))  # an empty list of pairs is one; preparing again compares the counts


@pytest.mark.parametrize(("file", "damage"), _DAMAGES)
def test_a_damaged_file_is_named_with_what_to_do(corpus: Path, file: str, damage: str) -> None:
    path = corpus / file
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(b"" if damage == "empty" else content[: len(content) // 2 + 1])
    with pytest.raises(DataError) as caught:
        use(corpus)
    message = str(caught.value)
    assert str(corpus) in message
    assert "\n" not in message
    assert "prepare" in message or "no text of split" in message


@pytest.mark.parametrize("content", ["[]", "null", "{}", '{"format": 1}', "\x00", '{"format": 1, "recipe": 3}'])
def test_a_manifest_that_is_something_else_is_an_error(corpus: Path, content: str) -> None:
    (corpus / "manifest.json").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=r"manifest\.json: damaged"):
        use(corpus)


def test_another_format_is_told_apart(corpus: Path) -> None:
    edit_manifest(corpus, format=99)
    with pytest.raises(DataError, match="format 99, this version reads 1: prepare it again"):
        use(corpus)


def test_lengths_of_another_type_are_an_error(corpus: Path) -> None:
    np.save(corpus / "train.source.lengths.npy", np.zeros((2, 2), np.float64))
    with pytest.raises(DataError, match="damaged"):
        use(corpus)


def test_sides_of_unequal_number_are_an_error(corpus: Path) -> None:
    with ColumnWriter(corpus, "train.source") as writer:
        writer.write([[5, 6]])
    with pytest.raises(DataError, match="1 source and 300 target"):
        use(corpus)


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: None], ids=["empty folder", "file", "nothing"])
def test_what_is_no_corpus_is_an_error_with_the_command(tmp_path: Path, make: Any) -> None:
    path = tmp_path / "none"
    make(path)
    with pytest.raises(NMTError, match="none"):
        PreparedCorpus.open(path)
