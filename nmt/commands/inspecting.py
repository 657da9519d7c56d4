"""`nmt inspect`: what a trained model attends to, and what its layers know."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path

from nmt.commands.arguments import needs, positive
from nmt.errors import ConfigError

_SENTENCES = 1500


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    command = commands.add_parser("inspect", help="what a model attends to and how sure it is; what its layers know")
    command.add_argument("bundle", type=Path)
    subject = command.add_mutually_exclusive_group(required=True)
    subject.add_argument("--text", metavar="TEXT", help="look at the translation of this sentence")
    subject.add_argument("--probe", action="store_true", help="train linear probes on every encoder layer")
    command.add_argument(
        "--target", metavar="TEXT", help="look at this translation of --text instead of the model's own"
    )
    command.add_argument(
        "--corpus",
        type=Path,
        metavar="DIR",
        help="a prepared corpus, whose evaluation sentences are probed beside generated reviews",
    )
    command.add_argument(
        "--sentences",
        type=int,
        metavar="N",
        help=f"reviews, and sentences of the corpus, for each probe; {_SENTENCES} by default",
    )
    command.add_argument(
        "--seed", type=int, metavar="N", help="of the reviews, splits and random weights; 0 by default"
    )
    command.add_argument("--output", type=Path, metavar="DIR", help="write pictures, a page and all numbers here")
    command.add_argument("--threads", type=positive, metavar="N", help="CPU threads; all cores by default")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=_inspect)


def _inspect(options: argparse.Namespace) -> int:
    others = ("target",) if options.probe else ("corpus", "sentences", "seed")
    for name in others:
        if getattr(options, name) is not None:
            raise ConfigError(f"--{name} goes with {'--text' if options.probe else '--probe'}")
    needs(*(["sklearn", "matplotlib"] if options.probe else ["matplotlib"] if options.output else []))
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    return _probe(options) if options.probe else _look(options)


def _look(options: argparse.Namespace) -> int:
    from nmt.inference.bundle import Bundle
    from nmt.inspection.sentence import inspect, record, render

    found = inspect(Bundle.open(options.bundle), options.text, options.target, options.threads)
    print(json.dumps(record(found), ensure_ascii=False, indent=1) if options.json else render(found))
    if options.output:
        from nmt.inspection.pictures import write

        write(found, options.output)
    return 0


def _probe(options: argparse.Namespace) -> int:
    from nmt.corpus.store import PreparedCorpus
    from nmt.inference.bundle import Bundle
    from nmt.inspection.probe import probe
    from nmt.inspection.probe_report import Account, render
    from nmt.inspection.probe_tasks import materials

    count = _SENTENCES if options.sentences is None else options.sentences
    seed = options.seed or 0
    bundle = Bundle.open(options.bundle)
    corpus = PreparedCorpus.open(options.corpus) if options.corpus else None
    asked, notes = materials(bundle, corpus, count, seed)
    account = Account(
        command=_command(options, count, seed),
        model=bundle.config.name,
        digest=bundle.info.digest,
        notes=notes,
        tasks=tuple(task for material in asked for task in material.tasks),
        found=tuple(probe(bundle, asked, seed, options.threads)),
    )
    print(json.dumps(account.record(), ensure_ascii=False, indent=1) if options.json else render(account))
    if options.output:
        from nmt.inspection.probe_report import write

        write(account, options.output)
    return 0


def _command(options: argparse.Namespace, count: int, seed: int) -> str:
    """The command line that gives the same result."""
    words = ["nmt", "inspect", str(options.bundle), "--probe"]
    words += ["--corpus", str(options.corpus)] if options.corpus else []
    words += ["--sentences", str(count), "--seed", str(seed)]
    words += ["--output", str(options.output)] if options.output else []
    return shlex.join(words)
