"""The documentation is true: its commands parse, its files exist, every shipped configuration validates."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from conftest import ROOT

from nmt.cli import _parser
from nmt.config import find_shipped, load, shipped
from nmt.corpus.recipe import Recipe
from nmt.model.config import ModelConfig
from nmt.model.presets import PRESETS
from nmt.model.seq2seq import Seq2Seq
from nmt.study.config import AblationStudy, DepthStudy
from nmt.training.config import RunConfig

STUDIES = {"depth": DepthStudy, "ablation": AblationStudy}
PAGES = sorted(
    [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "data/README.md", "examples/README.md")),
        *(ROOT / "docs").rglob("*.md"),
    ]
)


def commands(page: Path, name: str) -> list[list[str]]:
    """The command lines of the page's `sh` blocks that begin with `name`, as lists of words."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    split = [shlex.split(line, comments=True) for line in lines]
    return [words for words in split if words and words[0] == name]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_nmt_commands_parse_and_name_what_is_shipped(page: Path) -> None:
    for words in commands(page, "nmt"):
        words = words[1 : words.index("|")] if "|" in words else words[1:]
        if words[0] == "serve":
            continue  # the server parses its own options
        options = _parser().parse_args(words)
        if options.command == "prepare":
            load(Recipe, find_shipped(options.recipe, "recipes"), options.set)
        if options.command == "study" and options.action in STUDIES:
            load(STUDIES[options.action], find_shipped(options.study, "studies"))
        if options.command in ("train", "check"):
            load(RunConfig, find_shipped(options.config, "configs"), options.set)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_make_targets_of_the_docs_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = {words[1] for page in PAGES for words in commands(page, "make")}
    assert named <= targets
    assert {"serve", "test"} <= named


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_training_configuration_validates(path: Path) -> None:
    if path.stem != "serve":
        config = load(RunConfig, path)
        assert config.run.name == path.stem
        assert (shipped("recipes") / f"{config.corpus.name}.yaml").is_file()


def test_recipes_and_configurations_reach_the_wheel(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(tmp_path),
        str(ROOT),
    ]
    subprocess.run(command, check=True, timeout=280)
    (wheel,) = tmp_path.glob("strata_nmt-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for path in (ROOT / "data" / "recipes").glob("*.yaml"):
        assert f"nmt/_data/recipes/{path.name}" in names
    for path in (ROOT / "configs").glob("*.yaml"):
        assert f"nmt/_data/configs/{path.name}" in names
    for path in (ROOT / "configs" / "studies").glob("*.yaml"):
        assert f"nmt/_data/studies/{path.name}" in names
    for package in ("nmt", "serving"):
        for path in (ROOT / package).rglob("*.py"):
            assert str(path.relative_to(ROOT)) in names
    assert "nmt/py.typed" in names


def test_the_table_of_presets_is_true() -> None:
    rows = re.findall(
        r"^\| `([\w-]+)` \|.*\| ([\d.]+) M \|$", (ROOT / "docs/models.md").read_text("utf-8"), re.MULTILINE
    )
    assert {name for name, _ in rows} == set(PRESETS)
    for name, millions in rows:
        with torch.device("meta"):
            model = Seq2Seq(ModelConfig.model_validate({"preset": name}), 32_000, 32_000)
        assert f"{sum(parameter.numel() for parameter in model.parameters()) / 1e6:.1f}" == millions, name
