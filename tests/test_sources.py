"""Sources: every kind and layout gives its pairs; what is missing or damaged is named in one line with what to do."""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path
from typing import Any

import pytest
from hub_stub import card, jsonl, parquet
from preparing import recipe_of

import nmt.config
from nmt.corpus.prepare import prepare
from nmt.corpus.recipe import Source
from nmt.corpus.sources import fingerprint, local_path, read_pairs
from nmt.errors import ConfigError, DataError, NMTError

PAIRS = [("one", "eins"), ("two", "zwei"), ("three", "drei")]
TRANSLATIONS = [{"translation": {"de": target, "en": source}} for source, target in PAIRS]
COLUMNS = [{"id": i, "english": source, "german": target} for i, (source, target) in enumerate(PAIRS)]
NAMED = {"source": "english", "target": "german"}


def read(**keys: Any) -> list[tuple[str, str]]:
    return list(read_pairs(nmt.config.parse(Source, keys, "recipe"), ("en", "de")))


def failure(**keys: Any) -> str:
    """The message of reading a source that cannot be read."""
    with pytest.raises(NMTError) as caught:
        read(**keys)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What `datasets` stores goes with the test; it has read its own environment when it was imported."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("datasets.config.DOWNLOADED_DATASETS_PATH", tmp_path / "cache" / "downloads")


def write(path: Path, content: str | bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


# --- two text files -------------------------------------------------------------------------------------------------


def two_files(folder: Path, source: str | bytes, target: str | bytes, end: str = "txt") -> dict[str, Any]:
    return {"files": [write(folder / f"source.{end}", source), write(folder / f"target.{end}", target)]}


def test_two_text_files_are_read_line_by_line(tmp_path: Path) -> None:
    assert read(**two_files(tmp_path, "one\ntwo\nthree\n", "eins\nzwei\ndrei")) == PAIRS


def test_two_text_files_may_be_compressed(tmp_path: Path) -> None:
    packed = [gzip.compress(text) for text in (b"one\ntwo\nthree\n", b"eins\nzwei\ndrei\n")]
    assert read(**two_files(tmp_path, *packed, end="gz")) == PAIRS


def test_only_a_line_feed_ends_a_line(tmp_path: Path) -> None:
    strange = "a\u2028b\u0085c\x0bd\x0ce\rf"
    assert read(**two_files(tmp_path, f"\ufeff{strange}\r\n\n", "x\ny\n")) == [(strange, "x"), ("", "y")]


@pytest.mark.parametrize(("first", "second"), [("a\nb\n", "a\n"), ("a\n", "a\nb\nc\n")])
def test_files_of_unequal_length_are_an_error_with_both_lengths(tmp_path: Path, first: str, second: str) -> None:
    message = failure(**two_files(tmp_path, first, second))
    for text, name in ((first, "source"), (second, "target")):
        assert f"{tmp_path}/{name}.txt has {text.count(chr(10))}" in message
    assert "align them again" in message


def test_invalid_utf8_is_an_error_with_file_and_line(tmp_path: Path) -> None:
    message = failure(**two_files(tmp_path, b"a\nb\xff\nc\n", "a\nb\nc\n"))
    assert message.startswith(f"{tmp_path}/source.txt, line 2: not valid UTF-8 (byte 2)")


def _flipped(packed: bytes) -> bytes:
    middle = len(packed) // 2
    return packed[:middle] + bytes(byte ^ 0xFF for byte in packed[middle : middle + 20]) + packed[middle + 20 :]


@pytest.mark.parametrize("damage", ["cut", "flipped", "no gzip", "checksum"])
def test_a_damaged_gzip_file_is_an_error_with_its_name(tmp_path: Path, damage: str) -> None:
    text = b"".join(b"%d\n" % (i * 7919 % 10007) for i in range(5000))
    packed = gzip.compress(text)
    damaged = {"cut": packed[:-500], "flipped": _flipped(packed), "no gzip": text, "checksum": packed[:-6] + b"ABCDEF"}
    message = failure(**two_files(tmp_path, packed, damaged[damage], end="gz"))
    assert message == f"{tmp_path}/target.gz: the gzip file is damaged or cut short"


def test_the_damage_of_flipped_bytes_is_found_by_decompression() -> None:
    """The case above that is no `BadGzipFile`: without it the test would not show that both kinds are handled."""
    with pytest.raises(zlib.error):
        gzip.decompress(_flipped(gzip.compress(b"".join(b"%d\n" % (i * 7919 % 10007) for i in range(5000)))))


@pytest.mark.parametrize("kind", ["missing", "folder"])
def test_a_file_that_cannot_be_opened_is_an_error_with_its_name(tmp_path: Path, kind: str) -> None:
    keys = two_files(tmp_path, "a\n", "b\n")
    (tmp_path / "target.txt").unlink()
    if kind == "folder":
        (tmp_path / "target.txt").mkdir()
    assert failure(**keys).startswith(f"{tmp_path}/target.txt: ")


# --- tsv ------------------------------------------------------------------------------------------------------------


def test_a_tsv_is_read_by_number_or_by_header(tmp_path: Path) -> None:
    rows = "eins\t1\tone\nzwei\t2\ttwo\ndrei\t3\tthree\n\n"
    bare = write(tmp_path / "bare.tsv", rows)
    assert read(tsv=bare, columns={"source": "2", "target": "0"}) == PAIRS
    headed = write(tmp_path / "headed.tsv.gz", gzip.compress(f"german\tid\tenglish\n{rows}".encode()))
    assert read(tsv=headed, header=True, columns=NAMED) == PAIRS


def test_quotes_in_a_tsv_are_text(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tsv", '"a\tb"\n')
    assert read(tsv=path, columns={"source": "0", "target": "1"}) == [('"a', 'b"')]


def test_a_tsv_without_the_column_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tsv", "a\tb\nc\n")
    assert failure(tsv=path, columns={"source": "0", "target": "1"}).startswith(f"{path}, line 2: 1 column(s)")
    assert "no column 'english', found a, b" in failure(tsv=path, header=True, columns=NAMED)
    assert "say `header: true`" in failure(tsv=path, columns=NAMED)


# --- JSON lines -----------------------------------------------------------------------------------------------------


def test_json_lines_hold_a_translation_or_two_columns(tmp_path: Path) -> None:
    write(tmp_path / "a" / "1.jsonl", jsonl(TRANSLATIONS[:1]))
    write(tmp_path / "a" / "2.jsonl", jsonl(TRANSLATIONS[1:]) + b"\n")
    assert read(jsonl=f"{tmp_path}/a/*.jsonl") == PAIRS
    packed = write(tmp_path / "b.jsonl.gz", gzip.compress(jsonl(COLUMNS)))
    assert read(jsonl=packed, columns=NAMED) == PAIRS


def test_a_null_is_an_empty_text(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", '{"english": null, "german": "x"}\n')
    assert read(jsonl=path, columns=NAMED) == [("", "x")]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "not a JSON object"),
        ("[1]", "not a JSON object"),
        ("[" * 100_000, "not a JSON object"),
        ('{"english": "a"}', "no column 'german', found english"),
        ('{"english": "a", "german": 3}', "column 'german' holds int, text was expected"),
        ('{"english": "a", "german": "\\ud800"}', "half of a surrogate pair"),
    ],
)
def test_a_bad_json_line_is_an_error_with_its_number(tmp_path: Path, line: str, words: str) -> None:
    path = write(tmp_path / "x.jsonl", jsonl(COLUMNS[:1]) + line.encode())
    message = failure(jsonl=path, columns=NAMED)
    assert message.startswith(f"{path}, line 2: ")
    assert words in message


def test_escaped_characters_in_json_are_text(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", r'{"english": "\u00e4\ud83d\ude42", "german": "b"}')
    assert read(jsonl=path, columns=NAMED) == [("ä🙂", "b")]


def test_a_translation_in_other_languages_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", '{"translation": {"en": "a", "fr": "b"}}\n')
    assert "should hold en and de, found en, fr" in failure(jsonl=path)
    path = write(tmp_path / "y.jsonl", '{"translation": "a"}\n')
    assert "found str" in failure(jsonl=path)


def test_a_pattern_without_a_file_is_an_error(tmp_path: Path) -> None:
    assert failure(jsonl=f"{tmp_path}/*.jsonl") == f"{tmp_path}/*.jsonl: no such file (named by the recipe)"


# --- Parquet --------------------------------------------------------------------------------------------------------


def test_parquet_holds_a_translation_or_two_columns(tmp_path: Path) -> None:
    write(tmp_path / "a-0.parquet", parquet(TRANSLATIONS[:2]))
    write(tmp_path / "a-1.parquet", parquet(TRANSLATIONS[2:]))
    assert read(parquet=f"{tmp_path}/a-*.parquet") == PAIRS
    assert read(parquet=write(tmp_path / "b.parquet", parquet(COLUMNS)), columns=NAMED) == PAIRS


def test_parquet_of_many_rows_keeps_their_order(tmp_path: Path) -> None:
    rows = [{"english": str(i), "german": str(-i)} for i in range(2500)]
    path = write(tmp_path / "x.parquet", parquet(rows))
    assert read(parquet=path, columns=NAMED) == [(str(i), str(-i)) for i in range(2500)]
    assert read(parquet=path, columns=NAMED, limit=1001)[-1] == ("1000", "-1000")


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "text"])
def test_a_damaged_parquet_file_is_an_error_with_its_name(tmp_path: Path, damage: str) -> None:
    whole = parquet([{"english": str(i * 7919), "german": str(i)} for i in range(3000)])
    content = {"empty": b"", "cut": whole[: len(whole) // 2], "flipped": _flipped(whole), "text": b"no table"}[damage]
    path = write(tmp_path / "x.parquet", content)
    message = failure(parquet=path, columns=NAMED)
    assert message.startswith(f"{path}: not a readable Parquet file (")
    assert "get it anew" in message


def test_a_parquet_file_without_the_column_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", parquet(COLUMNS))
    message = failure(parquet=path)
    assert message.startswith(f"{path}: no column 'translation', found id, english, german")
    assert "columns: {source: ..., target: ...}" in message
    assert "column 'id' holds int" in failure(parquet=path, columns={"source": "id", "target": "german"})


# --- a local folder in hub layout -----------------------------------------------------------------------------------


def test_a_folder_in_hub_layout_has_splits_and_slices(tmp_path: Path) -> None:
    write(tmp_path / "x" / "data" / "train-00000-of-00001.parquet", parquet(TRANSLATIONS))
    write(tmp_path / "x" / "data" / "validation-00000-of-00001.parquet", parquet(TRANSLATIONS[:1]))
    assert read(folder=tmp_path / "x") == PAIRS
    assert read(folder=tmp_path / "x", split="validation") == PAIRS[:1]
    assert read(folder=tmp_path / "x", split="train[1:]") == PAIRS[1:]
    assert read(folder=tmp_path / "x", limit=2) == PAIRS[:2]


def test_a_folder_may_have_configurations_and_named_columns(tmp_path: Path) -> None:
    write(tmp_path / "x" / "README.md", card({"en-de": {"train": "en-de/*"}, "en-fr": {"train": "en-fr/*"}}))
    write(tmp_path / "x" / "en-de" / "a.jsonl", jsonl(COLUMNS))
    write(tmp_path / "x" / "en-fr" / "a.jsonl", jsonl([{"english": "x", "german": "y"}]))
    assert read(folder=tmp_path / "x", config="en-de", columns=NAMED) == PAIRS
    assert "'en-es' not found. Available: ['en-de', 'en-fr']" in failure(folder=tmp_path / "x", config="en-es")


def test_a_relative_folder_is_no_name_that_the_library_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "parquet" / "train.parquet", parquet(TRANSLATIONS))
    write(tmp_path / "train.parquet", parquet(TRANSLATIONS[:1]))  # what a loader called `parquet` would find here
    monkeypatch.chdir(tmp_path)
    assert read(folder="parquet") == PAIRS


def test_changed_content_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "x" / "train.parquet"
    write(path, parquet(TRANSLATIONS))
    assert read(folder=tmp_path / "x") == PAIRS
    write(path, parquet(TRANSLATIONS[1:]))
    assert read(folder=tmp_path / "x") == PAIRS[1:]


@pytest.mark.parametrize(
    ("content", "keys", "words"),
    [
        (None, {}, "no such folder"),
        ({}, {}, "could not be loaded"),
        ({"train.parquet": parquet(TRANSLATIONS)}, {"split": "dev"}, "['train']"),
        ({"train.parquet": parquet(TRANSLATIONS)[:-40]}, {}, "could not be loaded: ArrowInvalid"),
        ({"train.parquet": parquet(COLUMNS)}, {}, "no column 'translation', found id, english, german"),
        ({"train.parquet": parquet([{"translation": {"en": "a", "es": "b"}}])}, {}, "found en, es"),
    ],
    ids=["missing", "empty", "unknown split", "damaged", "column", "language"],
)
def test_a_bad_folder_is_an_error_with_its_name(
    tmp_path: Path, content: dict[str, bytes] | None, keys: dict[str, str], words: str
) -> None:
    folder = tmp_path / "x"
    if content is not None:
        folder.mkdir()
        for name, data in content.items():
            write(folder / name, data)
    message = failure(folder=folder, **keys)
    assert str(folder) in message
    assert words in message


# --- paths, fingerprints --------------------------------------------------------------------------------------------


def test_variables_in_paths_are_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "x" / "train.parquet", parquet(TRANSLATIONS))
    write(tmp_path / "x" / "x.tsv", "one\teins\n")
    monkeypatch.setenv("MY_CORPORA", str(tmp_path))
    assert read(folder="${MY_CORPORA}/x") == PAIRS
    assert read(tsv="${MY_CORPORA}/x/x.tsv", columns={"source": "0", "target": "1"}) == PAIRS[:1]
    assert read(parquet="${MY_CORPORA}/x/*.parquet") == PAIRS
    assert local_path("~") == Path(os.path.expanduser("~"))


def test_an_unset_variable_is_an_error_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_CORPORA", raising=False)
    with pytest.raises(ConfigError, match="set the environment variable MY_CORPORA"):
        read(folder="${MY_CORPORA}/x")
    with pytest.raises(ConfigError, match="no such user"):
        local_path("~nobody-is-called-so/x")


def print_of(**keys: Any) -> str:
    return fingerprint(nmt.config.parse(Source, keys, "recipe"), ("en", "de"))


def test_a_fingerprint_changes_with_content_and_layout_alone(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    write(folder / "train.parquet", b"one")
    before = print_of(folder=folder)
    write(folder / ".cache" / "huggingface" / "lock", b"noise")
    os.utime(folder / "train.parquet", (1, 1))
    assert print_of(folder=folder) == before
    seen = {before}
    for change in (
        lambda: write(folder / "train.parquet", b"two"),
        lambda: (folder / "train.parquet").rename(folder / "test.parquet"),
        lambda: write(folder / "a" / "b.parquet", b"x"),
        lambda: (folder / "a").rename(folder / "c"),
        lambda: write(folder / "README.md", b"---\nconfigs: []\n---\n"),
    ):
        change()
        assert print_of(folder=folder) not in seen
        seen.add(print_of(folder=folder))


def test_fingerprints_of_files(tmp_path: Path) -> None:
    keys = two_files(tmp_path, "a\n", "b\n")
    before = print_of(**keys)
    write(tmp_path / "target.txt", "c\n")
    assert print_of(**keys) != before
    (tmp_path / "target.txt").unlink()
    with pytest.raises(DataError, match=r"target\.txt: no such file"):
        print_of(**keys)


def test_a_generated_corpus_has_the_fingerprint_of_what_it_gives() -> None:
    prints = [print_of(generate="numbers", limit=50, seed=seed) for seed in (1, 2, 1)]
    assert prints[0] != prints[1]
    assert prints[0] == prints[2]


def test_generated_pairs_are_limited() -> None:
    assert len(read(generate="numbers", limit=7)) == 7


# --- rows chosen by a column ----------------------------------------------------------------------------------------

MIXED = [row | {"source": name} for row, name in zip(TRANSLATIONS, ("web", "book", "web"), strict=True)]


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "folder"])
def test_where_takes_the_rows_whose_column_holds_the_text(tmp_path: Path, kind: str) -> None:
    content = jsonl(MIXED) if kind == "jsonl" else parquet(MIXED)
    path = write(tmp_path / "data" / ("train.jsonl" if kind == "jsonl" else "train.parquet"), content)
    place = {kind: str(tmp_path / "data") if kind == "folder" else path}
    assert read(**place, where={"source": "web"}) == [PAIRS[0], PAIRS[2]]
    assert read(**place, where={"source": "book"}) == [PAIRS[1]]
    assert read(**place, where={"source": "web"}, limit=1) == [PAIRS[0]]
    assert read(**place, where={"source": "boo"}) == []
    assert read(**place) == PAIRS


def test_where_works_beside_named_columns_and_with_several_conditions(tmp_path: Path) -> None:
    rows = [{"english": a, "german": b, "kind": "k", "age": age} for (a, b), age in zip(PAIRS, "112", strict=True)]
    path = write(tmp_path / "x.parquet", parquet(rows))
    assert read(parquet=path, columns=NAMED, where={"kind": "k", "age": "1"}) == PAIRS[:2]
    assert read(parquet=path, columns=NAMED, where={"english": "two"}) == PAIRS[1:2]


def test_where_names_a_column_that_is_there(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", parquet(MIXED))
    message = failure(parquet=path, where={"sorce": "web"})
    assert "no column 'sorce', found translation, source (it is named by `where` in the recipe)" in message


def test_a_choice_that_finds_no_row_is_named_by_its_text(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", parquet(MIXED))
    with pytest.raises(DataError, match=r"x\.parquet \(source boo\): holds no pair"):
        prepare(recipe_of([{"parquet": path}, {"parquet": path, "where": {"source": "boo"}}]), tmp_path / "out")
