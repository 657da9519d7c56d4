"""`nmt report`: a training run or an evaluation as one page."""

from __future__ import annotations

import argparse
from pathlib import Path


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    command = commands.add_parser("report", help="a training run, finished or not, or an evaluation as one HTML page")
    command.add_argument(
        "path", type=Path, metavar="PATH", help="a run folder, or the file of `nmt evaluate ... --results FILE`"
    )
    command.add_argument(
        "--output", type=Path, metavar="FILE", help="default: report.html in the run folder; the file's name with .html"
    )
    command.set_defaults(run=_report)


def _report(options: argparse.Namespace) -> int:
    from nmt.errors import NMTError

    path: Path = options.path
    if path.is_dir():
        return _report_run(path, options.output)
    if path.exists():
        return _report_evaluation(path, options.output)
    raise NMTError(
        f"{path}: no such folder or file: give the folder of a training run, such as runs/NAME, or an evaluation file"
    )


def _report_run(folder: Path, output: Path | None) -> int:
    from nmt.pages import write
    from nmt.study.run_log import read_run
    from nmt.study.run_report import PAGE, page

    run = read_run(folder)
    output = output or folder / PAGE
    write(output, page(run))
    print(f"{run.name}: step {run.log.last_step:,} of {run.config.train.max_steps:,}, {run.state()}")
    print(f"page: {output}")
    return 0


def _report_evaluation(path: Path, output: Path | None) -> int:
    from nmt.evaluation.results import read_results
    from nmt.pages import write
    from nmt.study.evaluation_report import page

    results = read_results(path)
    output = output or (path.with_suffix("") if path.suffix == ".gz" else path).with_suffix(".html")
    write(output, page(results))
    scores = ", ".join(f"{one.name} {one.score:.2f}" for one in results.scores)
    print(f"{results.system.name} on {results.data.name}: {scores or 'no scores'}")
    print(f"page: {output}")
    return 0
