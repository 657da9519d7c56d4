"""`nmt translate ... --output PATH`: a job that may be large, is resumed by the same command, and says what it could not translate."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nmt.commands.arguments import positive
from nmt.errors import ConfigError, InputError

if TYPE_CHECKING:
    from nmt.batch.inputs import Input, Shape
    from nmt.batch.job import Outcome, Task
    from nmt.batch.system import System

INCOMPLETE = 3  # the exit status where something was not translated, or not wholly
_ONLY = (
    "column",
    "output_column",
    "format",
    "delimiter",
    "no_header",
    "config",
    "split",
    "force",
    "max_characters",
    "ray",
    "workers",
)


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The arguments of a job."""
    command.add_argument(
        "--input",
        nargs="+",
        default=[],
        metavar="PATH",
        help="what is translated, as FILE: text, .csv, .tsv, .jsonl, .parquet, documents, hf://datasets/NAME or a folder like one",
    )
    command.add_argument(
        "--output",
        type=Path,
        metavar="PATH",
        help="write here, all or nothing: a file, or a folder for several inputs; the same command resumes",
    )
    job = command.add_argument_group("with --output")
    job.add_argument("--column", "--field", metavar="NAME", help="the column or field to translate (a.b: b inside a)")
    job.add_argument("--output-column", metavar="NAME", help="the one for the translation (translation)")
    job.add_argument(
        "--format", choices=("lines", "csv", "tsv", "jsonl", "parquet", "document"), help="whatever the names say"
    )
    job.add_argument("--delimiter", metavar="C", help="between the cells of CSV files (,)")
    job.add_argument(
        "--no-header", action="store_true", default=None, help="the first row is data; --column is a number from 1"
    )
    job.add_argument("--config", metavar="NAME", help="of a hub dataset")
    job.add_argument("--split", metavar="NAME", help="of a hub dataset (train)")
    job.add_argument(
        "--force",
        action="store_true",
        default=None,
        help="write over outputs that are there, and throw away the work of another job",
    )
    job.add_argument(
        "--max-characters", type=positive, metavar="N", help="longer texts are passed on as they are (100000)"
    )
    job.add_argument(
        "--other-languages",
        choices=("translate", "pass"),
        help="what becomes of texts that are surely in another language; pass: they stay as they are (translate)",
    )
    job.add_argument(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="by workers on a Ray cluster: HOST:PORT, auto, or by default that of RAY_ADDRESS, else one started for this",
    )
    job.add_argument("--workers", type=positive, metavar="N", help="on Ray: so many (as many as there are CPUs for)")


def refuse_without_output(options: argparse.Namespace) -> None:
    """Raise `ConfigError` for arguments that mean something with --output alone."""
    for name in _ONLY:
        if getattr(options, name) is not None:
            raise ConfigError(f"--{name.replace('_', '-')} goes with --output PATH")


def run(options: argparse.Namespace, system: System) -> int:
    """Do the job; the exit status."""
    from nmt.batch import job
    from nmt.batch.languages import Watched

    if options.text:
        raise InputError("--text is printed: leave out --output")
    if (options.n_best or options.alignment) and not options.json:
        raise ConfigError("--n-best and --alignment are for --json, or without --output")
    if not options.files:
        raise InputError("give an --input; standard input is translated to standard output, without --output")
    if options.workers and options.ray is None:
        raise ConfigError("--workers goes with --ray")
    shape = _shape(options)
    opens = _inputs([str(name) for name in options.files], options.output, shape)
    links = any(each.links for each, _ in opens)
    if links:
        system = replace(system, given=system.given | {"alignment": True})
    opened = system.open(tokens=options.json)
    passed = options.other_languages == "pass"
    tasks = [job.Task(Watched(each, opened.source, passed), path) for each, path in opens]
    identity = {
        **opened.identity,
        "inputs": [task.identity for task in tasks],
        "outputs": [str(task.output) for task in tasks],
        "options": asdict(shape) | {"other languages": options.other_languages or "translate"},
    }
    if options.ray is None:
        runner = job.local(opened.begin, links, options.json)
    else:
        from nmt.batch.on_ray import on_ray

        address = options.ray or os.environ.get("RAY_ADDRESS", "")
        runner = on_ray(system, address, options.workers, links, options.json)
    folder = options.output.with_name(f"{options.output.name}.work")
    outcome = job.run(tasks, folder, identity, runner, bool(options.force), options.window)
    _tell(outcome, tasks)
    return INCOMPLETE if outcome.failed or outcome.truncated else 0


def _shape(options: argparse.Namespace) -> Shape:
    from nmt.batch.inputs import Shape

    delimiter = (options.delimiter or "").replace("\\t", "\t")
    if len(delimiter) > 1:
        raise ConfigError(f"--delimiter {options.delimiter}: one character was expected")
    names = ("column", "output_column", "config", "split", "max_characters")
    said = {name: value for name in names if (value := getattr(options, name)) is not None}
    return Shape(
        kind=options.format or "", delimiter=delimiter, header=not options.no_header, full=options.json, **said
    )


def _inputs(names: list[str], output: Path, shape: Shape) -> list[tuple[Input, Path]]:
    """The inputs, and where the output of each goes."""
    from nmt.batch.inputs import kind_of
    from nmt.batch.opening import open_input

    folder = output.is_dir()
    if len(names) > 1 and not folder:
        raise InputError(f"{output}: several inputs need a folder that is there")
    found: list[tuple[Input, Path]] = []
    for name in names:
        path = output / _name(name, shape) if folder else output
        if not name.startswith("hf://") and path.exists() and Path(name).exists() and path.samefile(name):
            raise InputError(f"{path}: is the input itself; choose another place")
        if any(path == other for _, other in found):
            raise InputError(f"{path}: two inputs would be written there; give one of them an output of its own")
        kind = shape.kind or kind_of(name)
        written = "jsonl" if shape.full else "parquet" if kind == "dataset" else kind
        if kind_of(str(path)) not in (written, "lines"):
            raise InputError(f"{path}: {name} is written as {written}, which the name does not say")
        found.append((open_input(name, shape), path))
    return found


def _name(name: str, shape: Shape) -> str:
    from nmt.batch.inputs import kind_of

    last = Path(name).name
    if kind_of(name) == "dataset" and not shape.kind:
        return f"{last}.parquet"
    return f"{last}.jsonl" if shape.full else last


def _tell(outcome: Outcome, tasks: list[Task]) -> None:
    again = f", {outcome.resumed:,} of them before" if outcome.resumed else ""
    print(f"{outcome.records:,} records{again}; {outcome.repeated:,} had come before and were not translated again")
    for task in tasks:
        print(task.output)
    if outcome.failed or outcome.truncated:
        sides = ", ".join(str(task.side) for task in tasks if task.side.exists())
        print(
            f"nmt translate: {outcome.failed:,} records were passed on as they are, "
            f"{outcome.truncated:,} ended by the length limit: {sides}",
            file=sys.stderr,
        )
