"""Configuration: YAML in, overrides, and messages that say what, where and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from nmt.config import Section, apply_overrides, dump, find_shipped, load, parse, read_yaml, shipped
from nmt.errors import ConfigError
from nmt.inference.types import DecodeOptions
from nmt.training.config import OptimizerConfig, RunConfig


class Inner(Section):
    rate: float = Field(0.5, gt=0, le=1)
    steps: int = Field(10, ge=1)


class Item(Section):
    name: str
    weight: float = 1.0


class Outer(Section):
    path: Path
    inner: Inner = Inner()
    widths: int | tuple[int, ...] = 8
    items: tuple[Item, ...] = ()


def write(folder: Path, text: str) -> Path:
    path = folder / "setting.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_is_read_and_defaults_are_filled_in(tmp_path: Path) -> None:
    path = write(tmp_path, "path: data/x\ninner: {steps: 3}\nwidths: [4, 2]\n")
    assert load(Outer, path) == Outer(path=Path("data/x"), inner=Inner(rate=0.5, steps=3), widths=(4, 2))


def test_overrides_win_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "path: x\ninner: {steps: 3}\n")
    found = load(Outer, path, ["inner.rate=3e-1", "inner.steps=7", "widths=[1, 2]", "path=a=b"])
    assert found == Outer(path=Path("a=b"), inner=Inner(rate=0.3, steps=7), widths=(1, 2))


def test_a_later_override_wins_and_the_data_given_is_left_alone() -> None:
    data: dict[str, Any] = {"inner": {"steps": 1}}
    assert apply_overrides(data, ["inner.steps=2", "inner.steps=3", "a.b.c=1"]) == {
        "inner": {"steps": 3},
        "a": {"b": {"c": 1}},
    }
    assert data == {"inner": {"steps": 1}}


def test_an_override_reaches_into_a_list() -> None:
    data: dict[str, Any] = {"items": [{"name": "a"}, {"name": "b"}]}
    assert apply_overrides(data, ["items.1.weight=2"])["items"] == [{"name": "a"}, {"name": "b", "weight": 2}]
    with pytest.raises(ConfigError, match="'2' is not one of the 2 entries"):
        apply_overrides(data, ["items.2.weight=2"])


@pytest.mark.parametrize("item", ["inner.rate", "=3", "inner.rate=[1", "path.x=1"])
def test_a_malformed_override_is_quoted(item: str) -> None:
    with pytest.raises(ConfigError) as caught:
        apply_overrides({"path": "p"}, [item])
    assert f"--set {item}" in str(caught.value)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"path": "p", "inner": {"stesp": 3}}, ["unknown key 'inner.stesp'", "did you mean 'steps'"]),
        ({"path": "p", "zzz": 3}, ["unknown key 'zzz'", "known keys: inner, items, path, widths"]),
        ({}, ["missing key 'path'"]),
        ({"path": "p", "inner": {"rate": 2}}, ["inner.rate", "less than or equal to 1", "(got 2)"]),
        ({"path": "p", "inner": {"steps": "many"}}, ["inner.steps", "integer", "'many'"]),
        ({"path": "p", "inner": {"rate": float("nan")}}, ["inner.rate", "finite"]),
        ({"path": "p", "items": [{"name": "a"}, {"weigth": 1}]}, ["items.1", "did you mean 'weight'"]),
        ({"path": "p", "inner": None}, ["inner"]),
    ],
)
def test_a_mistake_is_said_with_its_place(data: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(Outer, data, "setting.yaml")
    message = str(caught.value)
    assert message.startswith("setting.yaml: ")
    assert "\n" not in message
    for word in words:
        assert word in message


def test_all_mistakes_are_said_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(Outer, {"inner": {"rate": -1, "steps": 0}}, "x")
    assert all(word in str(caught.value) for word in ("missing key 'path'", "inner.rate", "inner.steps"))


def test_a_section_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Inner().steps = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: [\n", ["line 3", "not valid YAML"]),
        ("a: 1\nb: 2\na: 3\n", ["line 3", "'a' appears twice"]),
        ("inner:\n  steps: 1\n  steps: 2\n", ["line 3", "'steps' appears twice"]),
        ("- a\n- b\n", ["found list"]),
        ("", ["expected `key: value` lines"]),
        ("a: \x07\n", ["not valid YAML"]),
        ("a: !!python/object/apply:os.getcwd []\n", ["not valid YAML"]),
    ],
)
def test_a_malformed_file_is_named_with_the_line(tmp_path: Path, text: str, words: list[str]) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        read_yaml(path)
    for word in [str(path), *words]:
        assert word in str(caught.value)


def test_a_path_through_a_file_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"setting\.yaml"):
        read_yaml(write(tmp_path, "a: 1") / "below.yaml")


def test_a_date_that_is_none_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"setting\.yaml"):
        read_yaml(write(tmp_path, "released: 2024-13-45\n"))


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml: no such file"):
        read_yaml(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="is a folder"):
        read_yaml(tmp_path)
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("name: Köln".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin\.yaml: not UTF-8 text \(byte 7\)"):
        read_yaml(latin)


@settings(deadline=None, max_examples=60)
@given(
    st.builds(
        OptimizerConfig,
        lr=st.floats(1e-9, 1.0),
        schedule=st.sampled_from(["inverse_sqrt", "constant"]),
        warmup_steps=st.integers(0, 10_000),
        clip_norm=st.floats(1e-6, 1e6),
    ),
    st.text(st.characters(codec="utf-8", exclude_categories=("C", "Zl", "Zp")), min_size=1, max_size=20),
)
def test_what_is_dumped_reads_back_equal(
    tmp_path_factory: pytest.TempPathFactory, part: OptimizerConfig, name: str
) -> None:
    config = RunConfig(corpus=Path("c") / name, run=Path(name), optimizer=part)
    path = tmp_path_factory.getbasetemp() / "dump.yaml"
    path.write_bytes(dump(config).encode("utf-8"))
    assert load(RunConfig, path) == config


def test_a_dump_writes_every_default_out() -> None:
    text = dump(RunConfig(corpus=Path("c"), run=Path("r")))
    for key in ("label_smoothing: 0.1", "attention_heads: 4", "patience: null", "seed: 1"):
        assert key in text


@pytest.mark.parametrize("kind", ["recipes", "configs", "studies"])
def test_a_shipped_file_is_found_by_name_and_a_near_miss_is_hinted(kind: Any) -> None:
    name = sorted(path.stem for path in shipped(kind).glob("*.yaml"))[0]
    assert find_shipped(name, kind) == shipped(kind) / f"{name}.yaml"
    with pytest.raises(ConfigError, match=f"did you mean '{name}'"):
        find_shipped(name[:-1], kind)


def test_a_path_is_taken_as_it_is() -> None:
    assert find_shipped("some/where.yaml", "configs") == Path("some/where.yaml")


def leaves(section: type[Section]) -> list[str]:
    """Every option of a section, those of the sections within it by their dotted names."""
    found: list[str] = []
    for name, field in section.model_fields.items():
        types = (field.annotation, *get_args(field.annotation))
        inner = [kind for kind in types if isinstance(kind, type) and issubclass(kind, Section)]
        found += [f"{name}.{leaf}" for kind in inner for leaf in leaves(kind)] or [name]
    return found


def test_training_and_search_have_at_most_80_options() -> None:
    options = leaves(RunConfig) + [f"decode.{name}" for name in leaves(DecodeOptions)]
    assert "model.encoder.hidden" in options  # the count sees what lies within
    assert len(options) == len(set(options))
    assert len(options) + 1 <= 80  # one more for `model.preset`, which is no field
