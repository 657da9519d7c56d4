"""`nmt report`: a training run as one page."""

from __future__ import annotations

import argparse
from pathlib import Path


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    command = commands.add_parser("report", help="a training run as one HTML page, finished or not")
    command.add_argument("path", type=Path, metavar="RUN", help="a run folder")
    command.add_argument("--output", type=Path, metavar="FILE", help="default: RUN/report.html")
    command.set_defaults(run=_report)


def _report(options: argparse.Namespace) -> int:
    from nmt.pages import write
    from nmt.study.run_log import read_run
    from nmt.study.run_report import PAGE, page

    run = read_run(options.path)
    output = options.output or options.path / PAGE
    write(output, page(run))
    print(f"{run.name}: step {run.log.last_step:,} of {run.config.train.max_steps:,}, {run.state()}")
    print(f"page: {output}")
    return 0
