"""`nmt prepare`, `check`, `train`, `distill`, `bundle`: the commands that lead from text to a bundle."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from nmt.commands.arguments import decoding, positive
from nmt.config import dump, find_shipped, load
from nmt.errors import ConfigError

if TYPE_CHECKING:
    from nmt.training.config import RunConfig
    from nmt.training.trainer import Progress
    from nmt.training.world import World


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The commands that lead from text to a bundle."""
    configured = argparse.ArgumentParser(add_help=False)
    configured.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting, as in optimizer.lr=3e-4"
    )

    command = commands.add_parser(
        "prepare", parents=[configured], help="turn a recipe into a cleaned corpus of token ids"
    )
    command.add_argument("recipe", help="a recipe file, or the name of a shipped one")
    command.add_argument("--output", type=Path, metavar="FOLDER", help="default: data/prepared/NAME")
    command.add_argument("--force", action="store_true", help="make it anew even if nothing has changed")
    command.add_argument("--print-config", action="store_true", help="print the resolved recipe and stop")
    command.set_defaults(run=_prepare)

    command = commands.add_parser(
        "check", parents=[configured], help="look at corpus, memory, disk and time before training"
    )
    command.add_argument("config", help="a training configuration, or the name of a shipped one")
    command.set_defaults(run=_check)

    command = commands.add_parser("train", parents=[configured], help="train a model; the same command resumes")
    command.add_argument("config", help="a training configuration, or the name of a shipped one")
    command.add_argument("--print-config", action="store_true", help="print the resolved settings and stop")
    command.add_argument("--fresh", action="store_true", help="begin anew; a run that is there is put aside")
    _add_processes(command)
    command.set_defaults(run=_train)

    command = commands.add_parser(
        "distill",
        parents=[decoding()],
        help="make a corpus of a model's own translations, for a student to learn from",
    )
    command.add_argument("teacher", type=Path, help="the bundle that translates")
    command.add_argument(
        "--corpus", type=Path, required=True, metavar="PREPARED", help="the prepared corpus whose source is translated"
    )
    command.add_argument(
        "--output", type=Path, required=True, metavar="FOLDER", help="the new corpus; the same command resumes"
    )
    command.add_argument("--keep-original", action="store_true", help="add the pairs with their own targets too")
    command.add_argument("--limit", type=int, metavar="N", help="only the first N pairs")
    command.set_defaults(run=_distill)

    _add_bundling(commands)


def _add_bundling(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The commands that make a bundle, or add to one."""
    command = commands.add_parser("bundle", help="make a self-contained model of a training run")
    command.add_argument("run_folder", type=Path, metavar="RUN")
    command.add_argument("--output", type=Path, metavar="FOLDER", help="default: RUN/bundle")
    command.add_argument(
        "--average", type=positive, default=1, metavar="N", help="average the last N checkpoints; default: the best"
    )
    command.add_argument("--weights", choices=("fp32", "fp16", "int8"), default="fp16", help="how weights are stored")
    command.add_argument("--name", help="name of the model; default: the corpus's")
    command.add_argument("--note", metavar="TEXT", help="how it was trained, for the model card; default: this command")
    command.set_defaults(run=_bundle)

    command = commands.add_parser(
        "shortlist", help="learn a bundle's lexical shortlist from the corpus of its training"
    )
    command.add_argument("bundle", type=Path)
    command.add_argument("--corpus", type=Path, required=True, metavar="FOLDER", help="the prepared corpus")
    command.set_defaults(run=_shortlist)


def _add_processes(command: argparse.ArgumentParser) -> None:
    """Who computes: several processes of this machine, or the workers of a Ray cluster."""
    several = command.add_mutually_exclusive_group()
    several.add_argument("--gpus", type=positive, metavar="N", help="train on N GPUs of this machine")
    several.add_argument("--processes", type=positive, metavar="N", help="train in N processes on the CPU")
    several.add_argument(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="train on a Ray cluster: HOST:PORT, auto, or by default that of RAY_ADDRESS, else one started for this",
    )
    command.add_argument("--workers", type=positive, metavar="N", help="with --ray: how many workers")
    command.add_argument(
        "--max-restarts", type=int, default=0, metavar="K", help="with --ray: begin again when a worker dies, K times"
    )


def _prepare(options: argparse.Namespace) -> int:
    from nmt.corpus.prepare import prepare
    from nmt.corpus.recipe import Recipe
    from nmt.corpus.store import MANIFEST, PreparedCorpus

    recipe = load(Recipe, find_shipped(options.recipe, "recipes"), options.set)
    if options.print_config:
        print(dump(recipe), end="")
        return 0
    output = options.output or Path("data/prepared") / recipe.name
    made = prepare(recipe, output, options.force)
    splits = PreparedCorpus.open(output).manifest["splits"]
    counts = ", ".join(f"{split} {count:,}" for split, count in splits.items())
    print(
        f"{output}: {counts} pairs"
        if made
        else f"{output}: nothing has changed ({counts} pairs); --force makes it anew"
    )
    if made:
        print(f"{(output / 'report.md').read_text(encoding='utf-8').rstrip()}\n\nmanifest: {output / MANIFEST}")
    return 0


def _check(options: argparse.Namespace) -> int:
    from nmt.training.check import check
    from nmt.training.config import RunConfig

    for finding in check(load(RunConfig, find_shipped(options.config, "configs"), options.set)):
        print(finding)
    return 0


def _train(options: argparse.Namespace) -> int:
    from nmt.training.config import RunConfig
    from nmt.training.run_folder import resolve_device
    from nmt.training.trainer import rehearse
    from nmt.training.world import world

    device = ["train.device=cuda"] if options.gpus else ["train.device=cpu"] if options.processes else []
    settings = [*options.set, *device]
    config = load(RunConfig, find_shipped(options.config, "configs"), settings)
    if options.print_config:
        print(dump(config), end="")
        return 0
    if options.ray is not None:
        return _train_on_ray(config, options)
    if options.workers or options.max_restarts:
        raise ConfigError("--workers and --max-restarts go with --ray (torchrun has a --max-restarts of its own)")
    if options.gpus or options.processes:
        from nmt.training.launch import check_gpus, launch

        if options.gpus:
            check_gpus(options.gpus)
        rehearse(config)  # what is wrong for all is said once
        if options.fresh:
            _put_aside(config)
        overrides = [part for item in settings for part in ("--set", item)]
        return launch(options.gpus or options.processes, ["train", options.config, *overrides])
    with world(resolve_device(config.train)[0].type == "cuda") as here:
        if options.fresh:
            if here.leads and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
                _put_aside(config)
            here.wait()
        return _train_here(config, here)


def _put_aside(config: RunConfig) -> None:
    from nmt.training.run_folder import put_aside

    if aside := put_aside(config.run):
        print(f"nmt train: the run that was in {config.run} is now {aside}", file=sys.stderr)


def _train_on_ray(config: RunConfig, options: argparse.Namespace) -> int:
    from nmt.training.on_ray import RayOptions, train_on_ray

    if not options.workers or options.max_restarts < 0:
        raise ConfigError("--ray needs --workers N (and --max-restarts is 0 or more)")
    address = options.ray or os.environ.get("RAY_ADDRESS", "")
    chosen = RayOptions(address, options.workers, options.max_restarts)

    def fresh() -> None:
        if options.fresh:
            _put_aside(config)

    return _report(config, lambda: train_on_ray(config, chosen, fresh))


def _train_here(config: RunConfig, here: World) -> int:
    """Train as one process of a world."""
    from nmt.training.trainer import Trainer

    return _report(config, lambda: Trainer(config, world=here).run(), here.leads)


def _report(config: RunConfig, train: Callable[[], Progress], leads: bool = True) -> int:
    """Train, and say how it went where this process `leads`; return the exit status."""
    from nmt.training.trainer import Interrupted

    try:
        progress = train()
    except Interrupted as stopped:
        if leads:
            print(f"nmt train: {stopped}", file=sys.stderr)
        return 130
    if leads:
        best = abs(progress.best or 0)
        print(f"{config.run}: {progress.step:,} updates, best validation {config.validation.metric} {best:.2f}")
        print(f"next: nmt bundle {config.run} --output MODEL")
    return 0


def _distill(options: argparse.Namespace) -> int:
    from nmt.training.config import TrainConfig
    from nmt.training.distill import DistillOptions, distill
    from nmt.training.run_folder import resolve_device

    device = resolve_device(TrainConfig())[0].type
    chosen = DistillOptions(options.beam_size, options.keep_original, options.limit, options.threads, device)
    try:
        made = distill([options.teacher, *options.ensemble], options.corpus, options.output, chosen)
    except KeyboardInterrupt:
        print("nmt distill: interrupted; the same command goes on from there", file=sys.stderr)
        return 130
    print((options.output / "report.md").read_text(encoding="utf-8").rstrip())
    print(f"\n{options.output}: {'made' if made else 'nothing has changed'}")
    print(f"next: nmt train CONFIG --set corpus={options.output} --set run=RUN")
    return 0


def _bundle(options: argparse.Namespace) -> int:
    from nmt.inference.bundle import Bundle
    from nmt.training.bundling import BundleOptions, make_bundle

    command = "nmt " + " ".join(sys.argv[1:]) if not options.note else options.note
    output = options.output or options.run_folder / "bundle"
    make_bundle(options.run_folder, output, BundleOptions(options.average, options.weights, options.name, command))
    size = sum(path.stat().st_size for path in output.iterdir())
    print(f"{output}: {Bundle.open(output).info.architecture}; {size / 1e6:.1f} MB")
    return 0


def _shortlist(options: argparse.Namespace) -> int:
    from nmt.corpus.store import PreparedCorpus
    from nmt.training.bundling import add_shortlist

    made = add_shortlist(options.bundle, PreparedCorpus.open(options.corpus))
    print(
        f"{options.bundle}: {len(made.head)} subwords on every list, {made.tail_length(16)} more for sentences of up to 16 subwords, "
        f"of {len(made.frequent)}; use it with --set shortlist=true"
    )
    return 0
