"""`nmt study`: grids of training runs, and how gradients flow in one."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from nmt.commands.arguments import needs, positive
from nmt.config import find_shipped, load
from nmt.errors import ConfigError

if TYPE_CHECKING:
    from nmt.study.config import AblationStudy, DepthStudy


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    study = commands.add_parser("study", help="when depth pays; how gradients flow through the layers")
    actions = study.add_subparsers(dest="action", required=True, metavar="STUDY")
    _add_depth(actions)
    _add_ablation(actions)
    _add_flow(actions)


# --- depth and ablation -------------------------------------------------------------------------------------------------


def _add_depth(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = actions.add_parser(
        "depth", help="a grid of depth, data size, dropout ...: what to train; the same command resumes"
    )
    _add_grid_options(command)
    command.set_defaults(run=_depth)


def _add_ablation(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = actions.add_parser("ablation", help="variants, each applied alone to a base; the same command resumes")
    _add_grid_options(command)
    command.set_defaults(run=_ablation)


def _add_grid_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("study", metavar="STUDY", help="a study file, or the name of a shipped one")
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a key of the study, as in report=here.md",
    )
    command.add_argument("--workers", type=positive, metavar="N", help="cells at a time; default: one a GPU, else one")
    command.add_argument("--per-gpu", type=positive, default=1, metavar="K", help="cells at a time on each GPU")
    command.add_argument(
        "--cells",
        action="append",
        default=[],
        metavar="PATTERN|N",
        help="run only the cells of such names (with * and ?), or at most N; may be repeated",
    )
    command.add_argument("--keep", action="store_true", help="keep checkpoints and bundles of finished cells")
    command.add_argument(
        "--report-only", action="store_true", help="train nothing: write the report from what is there"
    )


def _depth(options: argparse.Namespace) -> int:
    from nmt.study.config import DepthStudy

    return _run(load(DepthStudy, find_shipped(options.study, "studies"), options.set), options)


def _ablation(options: argparse.Namespace) -> int:
    from nmt.study.config import AblationStudy

    return _run(load(AblationStudy, find_shipped(options.study, "studies"), options.set), options)


def _run(study: DepthStudy | AblationStudy, options: argparse.Namespace) -> int:
    """Run the cells that are not finished and write the report; 1 when one failed, 130 when it was stopped."""
    needs("matplotlib")
    from nmt.study.config import cells
    from nmt.study.report import write_report
    from nmt.study.runner import Runner, RunOptions, check_cells, read_outcomes, selected

    grid = cells(study)
    runner = Runner(
        RunOptions(options.workers, options.per_gpu, options.keep),
        lambda line: print(line, file=sys.stderr, flush=True),
    )
    if not options.report_only:
        check_cells(study, grid)
        runner.run(selected(read_outcomes(grid), options.cells))
    outcomes = read_outcomes(grid)
    overrides = [f"--set {shlex.quote(item)}" for item in options.set]
    write_report(study, outcomes, " ".join(["nmt study", options.action, options.study, *overrides]))
    done = sum(outcome.result is not None for outcome in outcomes)
    print(f"{study.report}: {done} of {len(grid)} cells are finished")
    return 130 if runner.stopped else int(runner.failed > 0)


# --- flow ---------------------------------------------------------------------------------------------------------------


def _add_flow(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = actions.add_parser(
        "flow", help="gradients, updates and saturated gates of a run's layers; or where gradients vanish"
    )
    command.add_argument(
        "run_folder", type=Path, nargs="?", metavar="RUN", help="a run folder: draws flow.png of its log"
    )
    command.add_argument(
        "--demo",
        action="store_true",
        help="instead of a run: deep stacks of each cell learn to remember, or cannot; draws gradients.png",
    )
    command.add_argument(
        "--output", type=Path, metavar="FOLDER", help="for the figure; default: RUN, or runs/flow-demo"
    )
    command.set_defaults(run=_flow)


def _flow(options: argparse.Namespace) -> int:
    if bool(options.run_folder) == options.demo:
        raise ConfigError("give a run folder or --demo, one of the two")
    needs("matplotlib")
    if options.demo:
        return _flow_demo(options.output or Path("runs/flow-demo"))
    from nmt.study import charts, flow

    log = flow.read(options.run_folder)
    print(log.render())
    path = (options.output or options.run_folder) / flow.FIGURE
    charts.draw_flow(log, path)
    print(f"figure: {path}")
    return 0


def _flow_demo(folder: Path) -> int:
    from nmt.progress import progress
    from nmt.study import vanishing

    trials = []
    for case in vanishing.cases():
        with progress(case.title, "updates", vanishing.UPDATES) as bar:
            trials.append(vanishing.try_case(case, vanishing.UPDATES, progress=bar.update))
        print(f"{trials[-1].render()}\n", flush=True)
    path = folder / vanishing.FIGURE
    vanishing.draw(trials, path)
    print(f"figure: {path}")
    return 0
