"""A study file: a base configuration, the axes of a grid or the variants of an ablation, and the cells they make."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from nmt.config import Section, merge, parse
from nmt.errors import ConfigError
from nmt.model.config import Cell as RecurrentCell
from nmt.training.config import RunConfig

BASE = "base"  # the variant that changes nothing
Label = Annotated[str, Field(pattern=r"^\w[\w.+-]*$", max_length=60)]  # part of a file's name

_SETS = {  # the keys of a run configuration that an axis sets
    "layers": ("model.encoder.layers", "model.decoder.layers"),
    "dropout": ("model.dropout.embedding", "model.dropout.layer", "model.dropout.output"),
    "width": ("model.encoder.hidden", "model.decoder.hidden"),
    "cell": ("model.encoder.cell", "model.decoder.cell"),
    "seed": ("seed",),
}
_BUDGET = ("train.max_steps", "train.batch_tokens", "train.accumulate")  # one token budget for every cell


class CorpusChoice(Section):
    """A prepared corpus, or its first pairs, under the name that it has in the report."""

    label: Label
    corpus: Path
    pairs: int | None = Field(None, ge=1, description="train on the first so many pairs; all by default")


class Axes(Section):
    """What every study varies; an axis that is left out keeps the value of the base."""

    corpora: tuple[CorpusChoice, ...] = Field(min_length=1)
    seed: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _distinct(self) -> Axes:
        for name in type(self).model_fields:
            values = [getattr(value, "label", value) for value in getattr(self, name)]
            twice = [value for value in values if values.count(value) > 1]
            if twice:
                raise ValueError(f"{name} lists {twice[0]} twice")
        return self


class DepthAxes(Axes):
    """The grid of a depth study. Layers, width and cell are those of encoder and decoder alike."""

    layers: tuple[int, ...] = Field(min_length=1, description="the single layer is always among them")
    dropout: tuple[float, ...] = Field((), description="of embeddings, recurrent layers and output together")
    width: tuple[int, ...] = ()
    cell: tuple[RecurrentCell, ...] = ()


class Study(Section):
    """What the studies have in common."""

    name: Label
    results: Path | None = Field(None, description="folder of the cells; runs/studies/NAME by default")
    report: Path = Field(description="the Markdown file that is written; its figures lie beside it")
    base: dict[str, Any] = Field(description="a training configuration without corpus and run")
    axes: Axes

    @model_validator(mode="after")
    def _base_is_open(self) -> Study:
        for key in ("corpus", "run"):
            if key in self.base:
                raise ValueError(f"base.{key}: the study gives every cell its own; remove it")
        return self

    @property
    def folder(self) -> Path:
        """Where the cells' results lie."""
        return self.results or Path("runs/studies") / self.name


class DepthStudy(Study):
    """What `nmt study depth` reads: a grid of depth, data size, dropout, width and cell around one base."""

    axes: DepthAxes

    @property
    def kind(self) -> Literal["depth"]:
        """The name of the command."""
        return "depth"


class AblationStudy(Study):
    """What `nmt study ablation` reads: variants, each applied alone to the base."""

    variants: dict[Label, dict[str, Any]] = Field(
        min_length=1, description="name: {dotted key of the configuration: value}"
    )

    @model_validator(mode="after")
    def _comparable(self) -> AblationStudy:
        for name, changes in self.variants.items():
            if name == BASE:
                raise ValueError(f"variants.{BASE}: this name means the base itself; choose another")
            if not changes:
                raise ValueError(f"variants.{name}: changes nothing")
            for key in changes:
                if key in _BUDGET:
                    raise ValueError(f"variants.{name}: {key} is the token budget, which is one for all cells")
                if key.partition(".")[0] in ("corpus", "run") or key == "train.pairs":
                    raise ValueError(f"variants.{name}: {key} is given by axes.corpora")
        return self

    @property
    def kind(self) -> Literal["ablation"]:
        """The name of the command."""
        return "ablation"


@dataclass(frozen=True)
class Cell:
    """One training run of a study: its place in the grid and its whole configuration."""

    name: str
    point: dict[str, Any]  # value on each axis, by the axis' name; the corpus by its label
    config: RunConfig

    def beside(self, suffix: str) -> Path:
        """The file of this cell beside its run folder, such as the result (`.json`)."""
        return self.config.run.with_name(self.name + suffix)


def cells(study: DepthStudy | AblationStudy) -> list[Cell]:
    """Every cell of the study, in the order of its file; raise `ConfigError` naming the first that is impossible."""
    found = list(_cells(study))
    names = [cell.name for cell in found]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ConfigError(
            f"study {study.name}: two cells are called {twice[0]}: change a label or the name of a variant"
        )
    for cell in found:  # a variant may reach the budget by a whole section too
        if _budget(cell) != _budget(found[0]):
            raise ConfigError(f"study {study.name}, cell {cell.name}: changes {', '.join(_BUDGET)}, one for all cells")
    return found


def _budget(cell: Cell) -> tuple[int, int, int]:
    train = cell.config.train
    return train.max_steps, train.budget, train.accumulate


def _cells(study: DepthStudy | AblationStudy) -> Iterator[Cell]:
    values: dict[str, tuple[Any, ...]] = {}
    for axis in _SETS:
        values[axis] = tuple(getattr(study.axes, axis, ()))
    if isinstance(study, DepthStudy):
        values["layers"] = tuple(sorted({1, *study.axes.layers}))
    axes = {axis: listed for axis, listed in values.items() if listed}
    variants = {BASE: {}, **study.variants} if isinstance(study, AblationStudy) else {}
    for choice in study.axes.corpora:
        for variant in variants or (None,):
            for combination in itertools.product(*axes.values()):
                point = dict(zip(axes, combination, strict=True))
                yield _cell(study, choice, point, (variant, variants[variant]) if variant else None)


def _cell(
    study: Study, choice: CorpusChoice, point: dict[str, Any], variant: tuple[str, dict[str, Any]] | None
) -> Cell:
    name = "-".join([choice.label, *([variant[0]] if variant else []), *(f"{axis}{point[axis]}" for axis in point)])
    data = study.base
    for axis, value in point.items():
        for key in _SETS[axis]:
            data = merge(data, _nested(key, value))
    if choice.pairs is not None:
        data = merge(data, _nested("train.pairs", choice.pairs))
    for key, value in (variant[1] if variant else {}).items():
        data = merge(data, _nested(key, value))
    place = {"corpus": str(choice.corpus), "run": str(study.folder / name)}
    where = {"corpus": choice.label} | ({"variant": variant[0]} if variant else {})
    return Cell(name, where | point, parse(RunConfig, merge(data, place), f"study {study.name}, cell {name}"))


def _nested(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return dict(value)


def same_run(config: RunConfig, other: RunConfig) -> bool:
    """Whether two configurations ask for the same training; place, device, threads, and what is logged or kept don't matter."""
    return _essence(config) == _essence(other)


def _essence(config: RunConfig) -> dict[str, Any]:
    train = {"threads", "device", "log_every", "health_every", "save_every", "keep"}
    return config.model_dump(exclude={"corpus": True, "run": True, "train": train})


def read_config(data: dict[str, Any]) -> RunConfig | None:
    """The configuration stored in a result, or None where this version can't read it."""
    try:
        return parse(RunConfig, data, "stored configuration")
    except ConfigError:
        return None
