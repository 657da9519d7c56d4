"""The division of the code, read from its imports: floors, no cycles, what never appears, and what stays light."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Each package imports only from packages of lower floors; those of one floor know nothing of each other.
FLOORS = {
    "nmt": 0,  # the version
    "nmt.errors": 0,
    "nmt.config": 1,
    "nmt.machine": 1,
    "nmt.cluster": 1,
    "nmt.progress": 1,
    "nmt.figures": 1,
    "nmt.pages": 1,
    "nmt.text": 2,
    "nmt.corpus": 3,
    "nmt.model": 3,
    "nmt.inference": 4,
    "nmt.documents": 5,
    "nmt.batch": 6,
    "nmt.evaluation": 6,
    "nmt.training": 7,
    "nmt.inspection": 8,
    "nmt.study": 8,
    "nmt.commands": 9,
    "nmt.cli": 10,
    "nmt.__main__": 11,
    "serving": 12,
}
SERVICE = ("serving", "fastapi", "starlette", "uvicorn")
ON_RAY = (
    "nmt.training.on_ray",
    "nmt.training.ray_worker",
    "nmt.batch.on_ray",
)  # `nmt train --ray`, `nmt translate --ray`
UNPICKLERS = ("pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the two packages, parsed."""
    paths = [path for package in ("nmt", "serving") for path in sorted((ROOT / package).rglob("*.py"))]
    return {module_name(path): ast.parse(path.read_text(encoding="utf-8"), str(path)) for path in paths}


def statements(tree: ast.AST, inside: bool) -> Iterator[ast.stmt]:
    """Import statements; without `inside` only those that run when the module is imported."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            if inside:
                yield from statements(node, inside)
        elif inside or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from statements(node, inside)


def imports(name: str, inside: bool = True) -> set[str]:
    """What a module imports, as full names; of our own packages the modules themselves."""
    found = set()
    for node in statements(modules()[name], inside):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: imports are absolute"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in modules() else str(node.module))
    return found


def package(name: str) -> str:
    """The entry of FLOORS that a module belongs to."""
    parts = name.split(".")
    return "serving" if parts[0] == "serving" else ".".join(parts[:2])


def is_ours(name: str) -> bool:
    return name.split(".")[0] in ("nmt", "serving")


def test_the_walk_finds_the_code() -> None:
    assert {"nmt", "nmt.config", "nmt.model.rnn", "nmt.training.trainer", "serving.app"} <= modules().keys()
    assert "nmt.model.rnn" in imports("nmt.model.encoder")
    assert "nmt.corpus.numbers" in imports("nmt.corpus.sources")
    assert "nmt.corpus.numbers" not in imports("nmt.corpus.sources", inside=False)  # loaded only when asked for


@pytest.mark.parametrize("name", sorted(modules()))
def test_a_module_imports_only_from_floors_below(name: str) -> None:
    assert package(name) in FLOORS, f"{name}: give its package a floor"
    for other in filter(is_ours, imports(name)):
        same = package(other) == package(name)
        assert same or FLOORS[package(other)] < FLOORS[package(name)], f"{name} imports {other}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {name: {other for other in imports(name) if other in modules()} for name in modules()}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError with the circle


@pytest.mark.parametrize("name", sorted(name for name in modules() if name.startswith("nmt")))
def test_the_library_knows_nothing_of_the_service(name: str) -> None:
    assert not {other for other in imports(name) if other.split(".")[0] in SERVICE}
    assert "ray.serve" not in ast.unparse(modules()[name])
    assert not re.search(r"from ray import .*\bserve\b", ast.unparse(modules()[name]))


@pytest.mark.parametrize("name", sorted(name for name in modules() if name.startswith("nmt")))
def test_ray_is_loaded_only_by_training_on_it(name: str) -> None:
    assert not {other for other in imports(name, inside=name not in ON_RAY) if other.split(".")[0] == "ray"}


def test_training_and_serving_meet_only_in_the_bundle() -> None:
    reached, waiting = set(), [name for name in modules() if name.startswith("serving")]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += [other for other in imports(name) if other in modules()]
    assert not {
        name for name in reached if name.startswith(("nmt.training", "nmt.corpus", "nmt.study", "nmt.inspection"))
    }


# --- what never appears ---------------------------------------------------------------------------------------------


def unpicklings(tree: ast.AST) -> list[str]:
    """Every place of `tree` that could load a pickle."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            bases = [node.module or ""] if isinstance(node, ast.ImportFrom) else names
            found += [base for base in bases if base.split(".")[0] in UNPICKLERS]
            if isinstance(node, ast.ImportFrom) and node.module == "torch":
                found += [f"torch.{name}" for name in names if name == "load"]
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in ("torch.load", "torch.jit.load", "torch.package"):
            found.append(ast.unparse(node))
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
            found.append("allow_pickle")
    return found


@pytest.mark.parametrize("name", sorted(modules()))
def test_nothing_is_ever_unpickled(name: str) -> None:
    assert unpicklings(modules()[name]) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from pickle import loads",
        "import torch\ntorch.load('x')",
        "from torch import load",
        "np.load('x', allow_pickle=True)",
        "np.load('x', allow_pickle=flag)",
        "import cloudpickle.cloudpickle",
    ],
)
def test_the_search_for_unpickling_finds_it(code: str) -> None:
    assert unpicklings(ast.parse(code))


@pytest.mark.parametrize("name", sorted(modules()))
def test_importing_a_module_does_nothing_but_define(name: str) -> None:
    for node in modules()[name].body:
        if isinstance(node, ast.Expr):
            assert isinstance(node.value, ast.Constant), f"{name}, line {node.lineno}: a call at import time"
        assert not isinstance(node, ast.For | ast.While | ast.With | ast.Delete), f"{name}, line {node.lineno}"


@pytest.mark.parametrize("name", sorted(modules()))
def test_files_and_functions_are_short(name: str) -> None:
    tree = modules()[name]
    assert max((node.end_lineno or 0 for node in tree.body), default=0) <= 400
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            assert lines <= 62, f"{name}.{node.name} has {lines} lines"


# --- what stays light -----------------------------------------------------------------------------------------------


def test_what_needs_no_pytorch_does_not_load_it() -> None:
    light = (
        "nmt.cli",
        "nmt.config",
        "nmt.corpus.prepare",
        "nmt.corpus.store",
        "nmt.inference.bundle",
        "nmt.model.config",
        "nmt.study.evaluation_report",
        "nmt.study.run_report",
    )
    code = (
        f"import sys, {', '.join(light)}\n"
        "print(*sorted({'torch', 'datasets', 'ray', 'fastapi', 'tensorboard', 'num2words'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.split() == []
