"""Configuration: frozen pydantic sections, YAML in, `--set a.b=c` overrides, unknown keys are errors with a near miss."""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from nmt.errors import ConfigError


class Section(BaseModel):
    """Base of every configuration section: immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


def expected(what: str) -> WrapValidator:
    """For a value of several kinds: one error, instead of one for each kind."""

    def validate(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise ValueError(f"expected {what}") from None

    return WrapValidator(validate)


S = TypeVar("S", bound=Section)

Shipped = Literal["recipes", "configs", "studies"]

_SHIPPED = {  # in a clone; in a wheel they lie in nmt/_data
    "recipes": "data/recipes",
    "configs": "configs",
    "studies": "configs/studies",
}


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, except that a key given twice is an error instead of the last one winning."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = str(self.construct_object(key_node, deep=True))
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} appears twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def shipped(kind: Shipped) -> Path:
    """The folder of the recipes, configurations or studies that come with Strata: package data, or this clone's own."""
    packaged = Path(__file__).parent / "_data" / kind
    return packaged if packaged.is_dir() else Path(__file__).parent.parent / _SHIPPED[kind]


def find_shipped(name: str, kind: Shipped) -> Path:
    """The file given as a path, or as the name of a shipped one; raise `ConfigError` that lists those otherwise."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or path.exists() or len(path.parts) > 1:
        return path
    folder = shipped(kind)
    if not (folder / f"{name}.yaml").is_file():
        known = sorted(file.stem for file in folder.glob("*.yaml"))
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
        raise ConfigError(f"no file and none of the shipped {kind} is called {name!r} ({hint})")
    return folder / f"{name}.yaml"


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file whose top level is a mapping; raise `ConfigError` naming the file and line otherwise."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: is a folder, a YAML file was expected") from None
    except OSError as error:
        raise ConfigError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start})") from None
    try:
        data = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark else str(path)
        raise ConfigError(f"{where}: not valid YAML: {getattr(error, 'problem', None) or error}") from None
    except ValueError as error:  # a date such as 2024-13-45
        raise ConfigError(f"{path}: not valid YAML: {error}; put quotes around text") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected `key: value` lines at the top level, found {type(data).__name__}")
    return data


def merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A copy of `base` with `changes` laid over it, section by section."""
    result = {key: _deep_copy(value) for key, value in base.items()}
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merge(result[key], value) if both else _deep_copy(value)
    return result


def apply_overrides(data: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return a copy of `data` with each `a.b=value` of `overrides` set; values are read as YAML."""
    result: dict[str, Any] = _deep_copy(data)
    for item in overrides:
        key, separator, value = item.partition("=")
        if not separator or not key.strip():
            raise ConfigError(f"--set {item}: expected key=value, for example --set optimizer.lr=3e-4")
        *parents, last = key.strip().split(".")
        target: Any = result
        for parent in parents:
            target = _child(target, parent, item)
        try:
            loaded = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ConfigError(f"--set {item}: the value is not valid YAML") from None
        target[_position(target, last, item) if isinstance(target, list) else last] = loaded
    return result


def _child(target: Any, key: str, item: str) -> Any:
    child = target[_position(target, key, item)] if isinstance(target, list) else target.setdefault(key, {})
    if not isinstance(child, dict | list):
        raise ConfigError(f"--set {item}: {key!r} holds a value, not a section")
    return child


def _position(target: list[Any], key: str, item: str) -> int:
    if not key.isdecimal() or int(key) >= len(target):
        raise ConfigError(f"--set {item}: {key!r} is not one of the {len(target)} entries, numbered from 0")
    return int(key)


def _deep_copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _deep_copy(item) for key, item in value.items()}
    return [_deep_copy(item) for item in value] if isinstance(value, list) else value


def parse(section: type[S], data: dict[str, Any], where: str) -> S:
    """Validate `data` as a `section`; `where` (a file, usually) starts the message of any `ConfigError`."""
    try:
        return section.model_validate(data)
    except ValidationError as error:
        problems = [_describe(section, problem) for problem in error.errors()]
        shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise ConfigError(f"{where}: {shown}") from None


def load(section: type[S], path: Path, overrides: Sequence[str] = ()) -> S:
    """Read `path`, apply `overrides` and validate the result as a `section`."""
    return parse(section, apply_overrides(read_yaml(path), overrides), str(path))


def dump(section: Section) -> str:
    """The section as YAML, every default written out; `load` reads it back to an equal section."""
    return yaml.safe_dump(section.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)


def _describe(section: type[Section], problem: Any) -> str:
    path = [str(part) for part in problem["loc"]]
    dotted = ".".join(path) or "top level"
    if problem["type"] == "extra_forbidden":
        known = _known_keys(section, path[:-1])
        close = difflib.get_close_matches(path[-1], known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(known)}"
        return f"unknown key {dotted!r} ({hint})"
    if problem["type"] == "missing":
        return f"missing key {dotted!r}"
    message = problem["msg"].removeprefix("Value error, ")
    value = problem.get("input")
    shown = f" (got {value!r})" if isinstance(value, str | int | float | bool) or value is None else ""
    return f"{dotted}: {message[:1].lower()}{message[1:]}{shown}"


def _known_keys(section: type[BaseModel], path: Sequence[str]) -> list[str]:
    """The keys of the sub-section at `path`, found by following the types of the fields."""
    current: list[type[BaseModel]] = [section]
    for part in path:
        following: list[type[BaseModel]] = []
        for model in current:
            if part in model.model_fields:
                following += _models_in(model.model_fields[part].annotation)
        current = following or current  # list indices and union tags are not fields
    return sorted({name for model in current for name in model.model_fields})


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]
