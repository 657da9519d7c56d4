"""What the tests of preparing share: recipes of small files, and a picture of a folder to compare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tiny

from nmt.config import parse
from nmt.corpus.prepare import prepare
from nmt.corpus.recipe import Recipe

Pair = tuple[str, str]


def recipe_of(train: list[dict[str, Any]], **changes: Any) -> Recipe:
    """A recipe from English to German of these training sources, with `changes` of its other keys."""
    data = {"name": "tiny", "source_language": "en", "target_language": "de", "train": train}
    return parse(Recipe, data | {"tokenizer": {"vocab_size": 60}} | changes, "recipe")


def files(folder: Path, pairs: list[Pair], name: str = "train") -> dict[str, Any]:
    """A source of two text files in `folder` that hold `pairs`."""
    return dict(tiny.write_files(folder, name, pairs))


def tree(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file below `folder`, hidden ones too: its content and when it was written."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}


def prepare_small(folder: Path) -> tuple[Recipe, Path]:
    """A recipe of two files with a test split, in `folder`/in, and where it is prepared, `folder`/out."""
    pairs = tiny.sentence_pairs(120, seed=10)
    recipe = recipe_of([files(folder / "in", pairs[:100])], test=[files(folder / "in", pairs[100:], "test")])
    assert prepare(recipe, folder / "out")
    return recipe, folder / "out"
