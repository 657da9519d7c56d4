"""Recipes: every shipped one reads its data set's published layout; a wrong one is named in one line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hub_stub import Row, card, jsonl, parquet, read_in_process, running_hub
from pyarrow import parquet as parquet_file

from nmt.config import load, parse, shipped
from nmt.corpus.recipe import SPLITS, Recipe, Source
from nmt.corpus.sources import read_pairs
from nmt.errors import ConfigError

RECIPES = {path.stem: path for path in sorted(shipped("recipes").glob("*.yaml"))}
TEXT = {
    "en": ["A dog runs.", "She reads a book.", "We are here."],
    "de": ["Ein Hund läuft.", "Sie liest ein Buch.", "Wir sind hier."],
    "fr": ["Un chien court.", "Elle lit un livre.", "Nous sommes là."],
    "cs": ["Pes běží.", "Čte knihu.", "Jsme tady."],
    "vi": ["Một con chó chạy .", "Cô ấy đọc sách .", "Chúng tôi ở đây ."],
}


def translations(*languages: str) -> list[Row]:
    return [
        {"translation": dict(zip(languages, row, strict=True))} for row in zip(*map(TEXT.get, languages), strict=True)
    ]


def columns(**languages: str) -> list[Row]:
    """Rows of columns NAME=LANGUAGE."""
    return [dict(zip(languages, row, strict=True)) for row in zip(*map(TEXT.get, languages.values()), strict=True)]


def by_config(configurations: Mapping[str, tuple[list[Row], Mapping[str, str]]]) -> dict[str, bytes]:
    """Parquet files in a folder a configuration, and the README that says so; {split: file name without its number}."""
    names = {
        config: {split: f"{config}/{name}-*" for split, name in splits.items()}
        for config, (_, splits) in configurations.items()
    }
    files = {
        f"{config}/{name}-00000-of-00001.parquet": parquet(rows)
        for config, (rows, splits) in configurations.items()
        for name in splits.values()
    }
    return {"README.md": card(names), **files}


_ALL = {split: split for split in SPLITS}
_DEV = {"train": "train", "dev": "dev"}

# (repository, revision): the files, laid out as the data set's publisher lays them out.
HUB: dict[tuple[str, str], dict[str, bytes]] = {
    ("sentence-transformers/parallel-sentences-tatoeba", "main"): by_config(
        {
            "all": (columns(english="en", non_english="cs"), {"train": "train"}),
            "en-de": (columns(english="en", non_english="de"), _DEV),
            "en-fr": (columns(english="en", non_english="fr"), _DEV),
        }
    ),
    ("bentrevett/multi30k", "main"): {
        "README.md": b"---\ntask_categories:\n- translation\n---\nMulti30k\n",
        "train.jsonl": jsonl(columns(en="en", de="de")),
        "val.jsonl": jsonl(columns(en="en", de="de")),
        "test.jsonl": jsonl(columns(en="en", de="de")),
    },
    ("IWSLT/iwslt2017", "refs/convert/parquet"): {
        f"iwslt2017-{pair}/{split}/0000.parquet": parquet(translations(*pair.split("-")))
        for pair in ("de-en", "en-fr")
        for split in SPLITS
    },
    ("IWSLT/mt_eng_vietnamese", "refs/convert/parquet"): {
        f"iwslt2015-{pair}/{split}/0000.parquet": parquet(translations(*pair.split("-")))
        for pair in ("en-vi", "vi-en")
        for split in SPLITS
    },
    ("wmt/wmt14", "main"): by_config(
        {"de-en": (translations("de", "en"), _ALL), "fr-en": (translations("fr", "en"), _ALL)}
    ),
    ("wmt/wmt16", "main"): by_config(
        {"cs-en": (translations("cs", "en"), _ALL), "de-en": (translations("de", "en"), _ALL)}
    ),
    ("Helsinki-NLP/opus-100", "main"): by_config(
        {"de-en": (translations("de", "en"), _ALL), "en-fr": (translations("en", "fr"), _ALL)}
    ),
    ("Helsinki-NLP/europarl", "main"): by_config(
        {
            "de-en": (translations("de", "en"), {"train": "train"}),
            "en-fr": (translations("en", "fr"), {"train": "train"}),
        }
    ),
}
PROSE = (
    "suttacentral",
    "cataclysm-dda",
    "wesnoth",
    "games-other",
    "mozilla-www",
    "xquad",
    "stellarium-skycultures",
    "hedy",
)
LOCAL: dict[str, bytes] = {
    **{
        f"{domain}-en-{target}/data/{split}-00000-of-00001.parquet": parquet(
            [row | {"source": name} for name in PROSE for row in translations("en", target)]
        )
        for domain in ("software", "docs", "prose")
        for target in ("de", "fr")
        for split in SPLITS
    },
    **{f"tatoeba-en-de/{split}-00000-of-00001.parquet": parquet(translations("en", "de")) for split in SPLITS},
    **{f"tatoeba-en-fr/{split}-00000-of-00001.parquet": parquet(translations("en", "fr")) for split in SPLITS},
    **{
        f"multi30k/{split}-00000-of-00001.parquet": parquet(columns(en="en", de="de", fr="fr", cs="cs"))
        for split in SPLITS
    },
    **{
        f"own-files/train.{language}": "".join(f"{line}\n" for line in TEXT[language]).encode()
        for language in ("en", "de")
    },
}


def recipe(name: str) -> Recipe:
    return load(Recipe, RECIPES[name])


def sources(name: str) -> list[Source]:
    return [source for split in SPLITS for source in recipe(name).sources(split)]


def expected(name: str) -> list[tuple[str, str]]:
    made = recipe(name)
    return list(zip(TEXT[made.source_language], TEXT[made.target_language], strict=True))


def needs_hub(source: Source) -> bool:
    return source.hub is not None or str(source.parquet).startswith("hf://")


@pytest.fixture(scope="module")
def from_hub(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """What a stub hub gives for every hub source of every recipe, in the order of `sources`."""
    wanted = [
        (name, source.model_dump(mode="json"), (recipe(name).source_language, recipe(name).target_language))
        for name in RECIPES
        for source in sources(name)
        if needs_hub(source)
    ]
    with running_hub() as hub:
        for (repository, revision), files in HUB.items():
            hub.publish(repository, files, revision)
        results = read_in_process(
            hub.endpoint, tmp_path_factory.mktemp("hub"), [(keys, pair) for _, keys, pair in wanted]
        )
    answers: dict[str, list[Any]] = {name: [] for name in RECIPES}
    for (name, _, _), result in zip(wanted, results, strict=True):
        answers[name].append(result)
    return answers


def test_the_corpora_of_the_field_are_there() -> None:
    assert RECIPES.keys() >= {
        "tatoeba-en-de",
        "tatoeba-de-en",
        "tatoeba-en-fr",
        "tatoeba-en-de-hub",
        "tatoeba-de-en-hub",
        "tatoeba-en-fr-hub",
        "general-en-de",
        *(f"{domain}-en-{target}" for domain in ("software", "docs", "prose") for target in ("de", "fr")),
        "multi30k-en-de",
        "iwslt2017-de-en",
        "iwslt2015-en-vi",
        "wmt14-de-en",
        "wmt14-fr-en",
        "wmt16-de-en",
        "opus-100-de-en",
        "europarl-de-en",
        "own-files",
    }


@pytest.mark.parametrize("name", RECIPES)
def test_a_shipped_recipe_is_complete(name: str) -> None:
    made = recipe(name)
    assert made.name == name
    assert made.description
    for split in ("validation", "test"):
        held_out = getattr(made.holdout, split, 0)
        assert bool(held_out) != bool(made.sources(split)), "each evaluation split comes from one place"
    assert {made.source_language, made.target_language} <= set(name.split("-")) or name == "own-files"


@pytest.mark.parametrize("name", [name for name in RECIPES if any(map(needs_hub, sources(name)))])
def test_a_recipe_reads_its_data_set_on_the_hub(from_hub: dict[str, list[Any]], name: str) -> None:
    assert from_hub[name] == [expected(name)] * len(sources(name))


@pytest.mark.parametrize("name", [name for name in RECIPES if not any(map(needs_hub, sources(name)))])
def test_a_recipe_reads_its_local_data_set(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setenv("NMT_CORPORA", str(tmp_path))
    for file, content in LOCAL.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(content)
    made = recipe(name)
    for source in sources(name):
        pairs = list(read_pairs(source.model_copy(update={"limit": 3}), (made.source_language, made.target_language)))
        assert len(pairs) == 3
        assert source.generate or pairs == expected(name)


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("tatoeba-en-de", (161_658, 2_000, 2_000)),
        ("tatoeba-de-en", (161_658, 2_000, 2_000)),
        ("tatoeba-en-fr", (157_939, 2_000, 2_000)),
        ("multi30k-en-de", (29_000, 1_014, 1_000)),
        ("multi30k-en-fr", (29_000, 1_014, 1_000)),
        ("software-en-de", (348_990, 1_000, 1_000)),
        ("docs-en-de", (258_330, 1_000, 1_000)),
        ("prose-en-de", (128_701, 1_000, 1_000)),
        ("software-en-fr", (376_396, 1_000, 1_000)),
        ("docs-en-fr", (296_374, 1_000, 1_000)),
        ("prose-en-fr", (64_697, 1_000, 1_000)),
        ("general-en-de", (897_679, 5_000, 5_000)),
    ],
)
def test_a_local_corpus_has_as_many_pairs_as_its_recipe_says(name: str, counts: tuple[int, ...], corpora: Path) -> None:
    made = recipe(name)
    folders = [{Path(str(source.folder)).name for source in made.sources(split)} for split in SPLITS]
    found = [
        sum(
            parquet_file.read_metadata(path).num_rows
            for folder in names
            for path in (corpora / folder).rglob(f"{split}-*")
        )
        for split, names in zip(SPLITS, folders, strict=True)
    ]
    assert tuple(found) == counts
    assert all(f"{count:,}" in RECIPES[name].read_text(encoding="utf-8").splitlines()[0] for count in counts)


@pytest.mark.parametrize("name", ["tatoeba-en-de", "multi30k-en-fr", "prose-en-fr"])
def test_a_local_corpus_reads_as_its_recipe_says(
    name: str, corpora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setenv("NMT_CORPORA", str(corpora))
    made = recipe(name)
    for source in sources(name):
        pairs = list(read_pairs(source, (made.source_language, made.target_language)))
        assert len(pairs) >= 1000
        assert all(map(all, pairs))


def test_the_general_recipe_takes_every_source_of_prose_and_holds_back_the_largest(corpora: Path) -> None:
    prose = [source for source in recipe("general-en-de").train if source.where]
    (path,) = (corpora / "prose-en-de").rglob("train-*")
    there = Counter(parquet_file.read_table(path, columns=["source"]).column("source").to_pylist())
    assert {source.where["source"] for source in prose} == there.keys() == set(PROSE)
    seen = {source.where["source"]: source.weight * there[source.where["source"]] for source in prose}
    assert max(there.values()) > 0.4 * there.total()
    assert max(seen.values()) < 0.3 * sum(seen.values())


# --- wrong recipes --------------------------------------------------------------------------------------------------


def wrong(**changes: Any) -> str:
    """The message for a recipe that would be right but for `changes`."""
    data = {
        "name": "mine",
        "source_language": "en",
        "target_language": "de",
        "train": [{"files": ["a.en", "a.de"]}],
    }
    parse(Recipe, data, "mine.yaml")
    with pytest.raises(ConfigError) as caught:
        parse(Recipe, data | changes, "mine.yaml")
    message = str(caught.value)
    assert message.startswith("mine.yaml: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cleanin": {}}, "unknown key 'cleanin' (did you mean 'cleaning'?)"),
        ({"cleaning": {"max_ration": 3}}, "unknown key 'cleaning.max_ration' (did you mean 'max_ratio'?)"),
        ({"train": [{"hubb": "a/b"}]}, "(did you mean 'hub'?)"),
        ({"cleaning": {"max_ratio": "much"}}, "cleaning.max_ratio: input should be a valid number"),
        ({"tokenizer": {"type": "words"}}, "tokenizer.type: input should be 'bpe' or 'unigram' (got 'words')"),
        ({"tokenizer": {"vocab_size": 100_000}}, "less than or equal to 65535"),
        ({"cleaning": {"max_tokens": 70_000}}, "less than or equal to 65535"),
        ({"train": []}, "train: "),
        ({"train": [{}]}, "give exactly one of hub, folder, parquet, jsonl, tsv, files, generate (found none)"),
        ({"train": [{"hub": "a/b", "tsv": "c"}]}, "(found hub, tsv)"),
        ({"train": [{"files": ["a"]}]}, "train.0.files"),
        ({"train": [{"hub": "csv"}]}, "train.0.hub: string should match pattern"),
        ({"train": [{"tsv": "a"}]}, "a tsv needs `columns`"),
        ({"train": [{"generate": "numbers"}]}, "needs `limit`"),
        ({"train": [{"tsv": "a", "config": "b", "columns": {"source": "0", "target": "1"}}]}, "`config` has no meaning for tsv"),
        ({"train": [{"parquet": "a", "split": "train[:1%]"}]}, "`split` has no meaning for parquet"),
        ({"train": [{"files": ["a", "b"], "columns": {"source": "0", "target": "1"}}]}, "`columns` has no meaning for files"),
        ({"train": [{"files": ["a", "b"], "where": {"source": "x"}}]}, "`where` has no meaning for files"),
        ({"train": [{"hub": "a/b", "where": "x"}]}, "train.0.where: input should be a valid dictionary"),
        ({"train": [{"hub": "a/b", "seed": 2}]}, "`seed` has no meaning for hub"),
        ({"train": [{"hub": "a/b", "config": "x", "data_files": "y"}]}, "not both"),
        ({"train": [{"hub": "a/b", "weight": 0}]}, "train.0.weight: input should be greater than 0"),
        ({"train": [{"hub": "a/b", "columns": {"source": "x"}}]}, "missing key 'train.0.columns.target'"),
        ({"target_language": "en"}, "source_language and target_language are the same"),
        ({"target_language": "German"}, "target_language: "),
        ({"name": "a/b"}, "name: "),
        ({"holdout": {}}, "give the number of pairs of `validation`, `test` or both"),
        ({"holdout": {"test": 5}, "test": [{"hub": "a/b"}]}, "test is given both as a source and as a holdout"),
        ({"holdout": {"test": 5}, "cleaning": {"drop_evaluation": False}}, "a holdout needs cleaning.drop_evaluation"),
    ],
)  # fmt: skip
def test_a_wrong_recipe_is_an_error_that_names_the_key(changes: dict[str, Any], words: str) -> None:
    assert words in wrong(**changes)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: a\nname: b\n", "line 2: not valid YAML: key 'name' appears twice"),
        ("train:\n  - {hub: a/b, hub: c/d}\n", "line 2: not valid YAML: key 'hub' appears twice"),
        ("name: [\n", "not valid YAML"),
        ("- a\n", "found list"),
        ("", "found NoneType"),
        (b"name: \xff\n", "not UTF-8"),
    ],
)
def test_a_recipe_that_is_no_recipe_is_an_error_that_names_the_file(
    tmp_path: Path, text: str | bytes, words: str
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        load(Recipe, path)
    assert str(caught.value).startswith(str(path))
    assert words in str(caught.value)


def test_the_canonical_form_leaves_out_what_changes_no_pair() -> None:
    made = recipe("own-files")
    assert made.model_copy(update={"description": "other"}).canonical() == made.canonical()
    assert made.model_copy(update={"target_language": "fr"}).canonical() != made.canonical()


def test_a_key_that_came_later_counts_only_where_it_is_used() -> None:
    made = recipe("own-files")
    assert "where" not in made.canonical()
    chosen = made.train[0].model_copy(update={"where": {"source": "a"}})
    assert made.model_copy(update={"train": (chosen,)}).canonical() != made.canonical()
