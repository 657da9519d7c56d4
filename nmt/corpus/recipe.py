"""The recipe of a corpus: which data, which columns, how it is cleaned and cut into subwords."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from nmt.config import Section
from nmt.text.tokenizer import TokenizerConfig

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


class Columns(Section):
    """The two named columns that hold the pair, in whatever words the data set uses."""

    source: str = Field(min_length=1)
    target: str = Field(min_length=1)


class Source(Section):
    """One place where pairs come from. Exactly one of the first seven keys says which kind it is."""

    hub: str | None = Field(
        None, pattern=r"^[\w.-]+/[\w.-]+$", description="data set on the Hugging Face hub, `owner/name`"
    )
    folder: Path | None = Field(None, description="local folder in the layout of a hub data set")
    parquet: str | None = Field(None, description="Parquet files: a path or glob, or hf://datasets/...")
    jsonl: str | None = Field(None, description="JSON lines, one object a line (.gz too)")
    tsv: Path | None = Field(None, description="tab-separated file; columns by name (with header) or 0-based number")
    files: tuple[Path, Path] | None = Field(None, description="two parallel text files, one sentence a line (.gz too)")
    generate: Literal["numbers"] | None = Field(None, description="the built-in corpus of numbers, dates and prices")

    config: str | None = Field(None, description="configuration of a hub data set, for example `de-en`")
    revision: str | None = Field(
        None, description="branch or commit of a hub data set, for example refs/convert/parquet"
    )
    data_files: str | None = Field(None, description="glob inside a hub data set, where it has no configuration")
    split: str = Field("train", description="split of the data set, or a slice of it such as `train[:1%]`")
    columns: Columns | None = Field(None, description="the two columns; without it a `translation` column is expected")
    where: dict[str, str] = Field({}, description="COLUMN: TEXT; take only the rows whose column holds that text")
    header: bool = Field(False, description="a tsv's first line names its columns")
    target: str | None = Field(None, description="target language of these pairs, of a recipe with several")
    weight: float = Field(1.0, gt=0, le=100, description="times each pair is seen in an epoch of training")
    limit: int | None = Field(None, ge=1, description="pairs taken at most, from the start; generated: how many")
    seed: int = Field(1, description="of a generated corpus")

    @model_validator(mode="after")
    def _one_kind(self) -> Source:
        kinds = ("hub", "folder", "parquet", "jsonl", "tsv", "files", "generate")
        given = [kind for kind in kinds if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(kinds)} (found {', '.join(given) or 'none'})")
        if self.kind == "generate" and self.limit is None:
            raise ValueError("a generated source needs `limit`, the number of pairs")
        if self.kind == "tsv" and self.columns is None:
            raise ValueError("a tsv needs `columns`, for example {source: '0', target: '1'}")
        for key, kinds_with_key in {
            "config": {"hub", "folder"},
            "revision": {"hub"},
            "data_files": {"hub"},
            "split": {"hub", "folder"},
            "columns": {"hub", "folder", "parquet", "jsonl", "tsv"},
            "where": {"hub", "folder", "parquet", "jsonl"},
            "header": {"tsv"},
            "seed": {"generate"},
        }.items():
            if getattr(self, key) != type(self).model_fields[key].default and self.kind not in kinds_with_key:
                raise ValueError(f"`{key}` has no meaning for {self.kind}")
        if self.config and self.data_files:
            raise ValueError("give `config` or `data_files`, not both: a configuration names its files itself")
        return self

    @property
    def kind(self) -> str:
        """Which of the kinds this source is."""
        kinds = ("hub", "folder", "parquet", "jsonl", "tsv", "files", "generate")
        return next(kind for kind in kinds if getattr(self, kind) is not None)

    @property
    def label(self) -> str:
        """A short name for messages and reports."""
        value = getattr(self, self.kind)
        name = " + ".join(map(str, value)) if isinstance(value, tuple) else str(value)
        details = [self.config] if self.config else []
        details += [f"{column} {value}" for column, value in self.where.items()]
        return f"{self.kind} {name}" + (f" ({', '.join(details)})" if details else "")


class Cleaning(Section):
    """Rules a training pair must pass. Validation and test pairs are only normalised, never dropped but when empty."""

    max_characters: int = Field(1000, ge=1, description="of either side")
    max_tokens: int = Field(100, ge=1, le=65_535, description="subwords of either side")
    max_ratio: float = Field(3.0, ge=1.0, description="of the two lengths in characters, beyond ratio_slack")
    ratio_slack: int = Field(15, ge=0, description="characters of difference that are always allowed")
    drop_copies: bool = Field(True, description="pairs whose two sides are the same and hold more than one word")
    drop_duplicates: bool = Field(True, description="pairs seen before, exactly")
    drop_evaluation: bool = Field(True, description="training pairs that share a sentence with validation or test")


class Holdout(Section):
    """Evaluation splits cut from the training data, where a data set publishes none."""

    validation: int = Field(0, ge=0)
    test: int = Field(0, ge=0)
    seed: int = 1

    @model_validator(mode="after")
    def _some(self) -> Holdout:
        if not self.validation and not self.test:
            raise ValueError("give the number of pairs of `validation`, `test` or both")
        return self


class Recipe(Section):
    """A corpus: languages, sources of each split, cleaning and subwords."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    description: str = ""
    licence: str = Field("unknown", description="of the data, as its publisher states it; goes into model cards")
    attribution: str = Field("", description="what the licence asks to be said; goes into model cards")
    source_language: str = Field(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]+)*$")
    target_language: str = Field(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]+)*$")
    target_languages: tuple[str, ...] = Field(
        (), description="all target languages of one model for several, `target_language` among them"
    )
    train: tuple[Source, ...] = Field(min_length=1)
    validation: tuple[Source, ...] = ()
    test: tuple[Source, ...] = ()
    holdout: Holdout | None = None
    cleaning: Cleaning = Cleaning()
    tokenizer: TokenizerConfig = TokenizerConfig()

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if self.source_language == self.target_language:
            raise ValueError("source_language and target_language are the same")
        several = self.target_languages
        if several and (len(set(several)) < 2 or self.target_language not in several):
            raise ValueError("target_languages are two or more, target_language among them")
        for source in (source for split in SPLITS for source in self.sources(split)):
            if (source.target is not None) != bool(several) or (several and source.target not in several):
                raise ValueError(f"{source.label}: `target` is one of target_languages, where there are such")
        for split in ("validation", "test"):
            if self.holdout and getattr(self.holdout, split) and getattr(self, split):
                raise ValueError(f"{split} is given both as a source and as a holdout: keep one")
        if self.holdout and not self.cleaning.drop_evaluation:
            raise ValueError("a holdout needs cleaning.drop_evaluation, which takes its pairs out of training")
        return self

    def sources(self, split: Split) -> tuple[Source, ...]:
        """The sources of a split."""
        chosen: tuple[Source, ...] = getattr(self, split)
        return chosen

    def canonical(self) -> str:
        """The recipe as canonical JSON, the part of a content hash that comes from the recipe."""
        data: dict[str, Any] = self.model_dump(mode="json", exclude={"description"})
        for source in (source for split in SPLITS for source in data[split]):
            for key in ("where", "target"):  # unused they say nothing: a corpus older than these keys stays current
                if not source[key]:
                    del source[key]
        if not data["target_languages"]:
            del data["target_languages"]
        return json.dumps(data, sort_keys=True, ensure_ascii=False)
