"""The hub: by name, by its converted branch, over a line that breaks, without a line from the cache; and what it lacks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hub_stub import Hub, card, jsonl, parquet, read_in_process, running_hub

PAIRS = [("one", "eins"), ("two", "zwei"), ("three", "drei")]
TRANSLATIONS = [{"translation": {"de": target, "en": source}} for source, target in PAIRS]
COLUMNS = [{"id": i, "english": source, "german": target} for i, (source, target) in enumerate(PAIRS)]
NAMED = {"source": "english", "target": "german"}
MANY = [
    {"translation": {"en": f"{i * i * 7907 % 1000033}", "de": f"{i * i * i * 7919 % 1000003}"}} for i in range(9000)
]
MANY_PAIRS = [(row["translation"]["en"], row["translation"]["de"]) for row in MANY]
_SPLITS = {"train": "de-en/train-*", "validation": "de-en/validation-*"}


def _shards(pattern: str, origin: str) -> dict[str, bytes]:
    """Two files of pairs. A column more makes their content their own: the hub's cache keeps equal files once."""
    parts = [[row | {"origin": origin} for row in part] for part in (MANY[:6000], MANY[6000:])]
    return {pattern.format(i): parquet(part) for i, part in enumerate(parts)}


def _publish(hub: Hub) -> None:
    for name in ("corpus", "shaky", "broken"):
        files = {
            "README.md": card({"de-en": _SPLITS, "columns": {"train": "columns/*"}}),
            "de-en/validation-00000-of-00001.parquet": parquet(TRANSLATIONS),
            "columns/train.parquet": parquet(COLUMNS),
        }
        hub.publish(f"own/{name}", files | _shards("de-en/train-0000{}-of-00002.parquet", f"{name}, main"))
    for name in ("programmed", "shaky", "broken"):
        files = {".gitattributes": b""} | _shards("en-de/train/000{}.parquet", f"{name}, converted")
        hub.publish(f"own/{name}", files, revision="refs/convert/parquet")
    hub.publish("own/lines", {"train.jsonl": jsonl(COLUMNS)})
    hub.publish("own/half", {"README.md": b"", "train.parquet": parquet(TRANSLATIONS)[:-30]})
    hub.publish("own/programmed", {"README.md": b"A data set.\n", "programmed.py": b"raise SystemExit\n"})
    for name, times in (("shaky", 2), ("broken", 99)):
        hub.drop(f"own/{name}/de-en/train-00001-of-00002.parquet", after=20_000, times=times)
        hub.drop(f"own/{name}/en-de/train/0001.parquet", after=20_000, times=times)


_BOTH = ("en", "de")
_BRANCH = "hf://datasets/own/{}@refs/convert/parquet/en-de/train/*.parquet"
_GOOD: list[tuple[dict[str, Any], tuple[str, str], list[tuple[str, str]]]] = [
    ({"hub": "own/corpus", "config": "de-en"}, _BOTH, MANY_PAIRS),
    ({"hub": "own/corpus", "config": "de-en", "split": "validation"}, _BOTH, PAIRS),
    ({"hub": "own/corpus", "config": "columns", "columns": NAMED}, _BOTH, PAIRS),
    ({"hub": "own/corpus", "config": "de-en", "split": "train[:10]"}, _BOTH, MANY_PAIRS[:10]),
    ({"hub": "own/lines", "columns": NAMED}, _BOTH, PAIRS),
    ({"parquet": _BRANCH.format("programmed")}, _BOTH, MANY_PAIRS),
    ({"parquet": _BRANCH.format("programmed").replace("refs/convert/", "refs%2Fconvert%2F")}, _BOTH, MANY_PAIRS),
    (
        {"hub": "own/programmed", "revision": "refs/convert/parquet", "data_files": "en-de/train/*.parquet"},
        _BOTH,
        MANY_PAIRS,
    ),
    (
        {"parquet": "hf://datasets/own/corpus/de-en/validation-*", "limit": 2},
        ("de", "en"),
        [(target, source) for source, target in PAIRS[:2]],
    ),
    # The connection breaks while these are fetched, and comes back.
    ({"hub": "own/shaky", "config": "de-en"}, _BOTH, MANY_PAIRS),
    ({"parquet": _BRANCH.format("shaky")}, _BOTH, MANY_PAIRS),
]
# The connection breaks whenever these are fetched.
_BROKEN: list[dict[str, Any]] = [{"hub": "own/broken", "config": "de-en"}, {"parquet": _BRANCH.format("broken")}]
_BAD: list[tuple[dict[str, Any], str]] = [
    ({"hub": "own/nothing"}, "Dataset 'own/nothing' doesn't exist"),
    ({"hub": "own/corpus", "config": "fr-en"}, "'fr-en' not found. Available: ['de-en', 'columns']"),
    ({"hub": "own/corpus", "config": "de-en", "split": "test"}, "['train', 'validation']"),
    ({"hub": "own/corpus", "revision": "v9"}, "Revision 'v9' doesn't exist"),
    ({"hub": "own/corpus", "config": "columns"}, "no column 'translation', found id, english, german"),
    ({"hub": "own/corpus", "data_files": "nothing-*"}, "data files"),
    ({"hub": "own/programmed"}, "hf://datasets/own/programmed@refs/convert/parquet/CONFIG/SPLIT/*.parquet"),
    ({"parquet": "hf://datasets/own/nothing/x.parquet"}, "Repository Not Found"),
    ({"parquet": "hf://datasets/own/corpus@main/test/*.parquet"}, "the data set has no such file"),
    ({"parquet": "hf://own/corpus"}, "expected hf://datasets/OWNER/NAME@REVISION/PATH"),
    ({"hub": "own/half"}, "ArrowInvalid"),
]


@dataclass(frozen=True)
class Answers:
    """What three processes read, one after the other, with one cache: with the hub, without it, and with it mended."""

    online: dict[str, Any]
    offline: dict[str, Any]
    mended: dict[str, Any]
    offline_log: list[str]
    undropped: int


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    home = tmp_path_factory.mktemp("hub")
    asked = [(keys, languages) for keys, languages, _ in _GOOD] + [(keys, _BOTH) for keys in _BROKEN]
    bad = [(keys, _BOTH) for keys, _ in _BAD]

    def ask(hub: Hub, wanted: list[Any], **environment: str) -> dict[str, Any]:
        found = read_in_process(hub.endpoint, home, wanted, **environment)
        return {str(keys): result for (keys, _), result in zip(wanted, found, strict=True)}

    with running_hub() as hub:
        _publish(hub)
        online = ask(hub, asked + bad)
        undropped = sum(times for file, (_, times) in hub.drops.items() if "shaky" in file)
        hub.log.clear()
        offline = ask(hub, asked, HF_HUB_OFFLINE="1")
        offline_log = hub.log.copy()
        hub.drops.clear()
        return Answers(online, offline, ask(hub, [(keys, _BOTH) for keys in _BROKEN]), offline_log, undropped)


@pytest.mark.parametrize("case", range(len(_GOOD)), ids=[" ".join(map(str, keys.values())) for keys, _, _ in _GOOD])
def test_the_hub_is_read_by_name_and_by_branch_and_from_the_cache(answers: Answers, case: int) -> None:
    keys, _, pairs = _GOOD[case]
    assert answers.online[str(keys)] == pairs
    assert answers.offline[str(keys)] == pairs


def test_without_the_network_nothing_is_asked(answers: Answers) -> None:
    assert answers.offline_log == []


def test_the_connections_did_break(answers: Answers) -> None:
    """Else the sources called shaky above would show nothing."""
    assert answers.undropped == 0


@pytest.mark.parametrize("keys", _BROKEN, ids=["by name", "by branch"])
def test_a_connection_that_keeps_breaking_is_an_error_and_never_half_a_corpus(
    answers: Answers, keys: dict[str, Any]
) -> None:
    result = answers.online[str(keys)]
    assert isinstance(result, str)
    assert result.startswith("DataError: ")
    assert "check the name, the configuration, the split and the network" in result
    result = answers.offline[str(keys)]
    assert isinstance(result, str), "what was loaded in part is not taken for the whole"
    assert "HF_HUB_OFFLINE is set: only what was loaded before can be read" in result
    assert answers.mended[str(keys)] == MANY_PAIRS


@pytest.mark.parametrize(("keys", "words"), _BAD, ids=[" ".join(map(str, keys.values())) for keys, _ in _BAD])
def test_what_the_hub_does_not_have_is_an_error_with_what_to_do(
    answers: Answers, keys: dict[str, Any], words: str
) -> None:
    result = answers.online[str(keys)]
    assert isinstance(result, str)
    assert result.startswith(("DataError: ", "ConfigError: "))
    assert words in result
    assert "\n" not in result
