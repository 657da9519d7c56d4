"""The `nmt` command: parse, call, exit code. Success is 0, a user's mistake 2, Ctrl-C 130."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import nmt
from nmt.commands import inspecting, reporting, studying, training, using
from nmt.commands.arguments import EXTRAS, missing
from nmt.errors import NMTError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["serve"]:  # the server reads its own options
        return _serve(given[1:])
    options = _parser().parse_args(given, argparse.Namespace(words=["nmt", *given]))
    try:
        try:
            status: int = options.run(options)
            return status
        except ModuleNotFoundError as error:
            if error.name not in EXTRAS:
                raise
            raise missing(error.name) from None
    except NMTError as error:
        print(f"nmt {options.command}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"nmt {options.command}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output went away: nothing is wrong, and there is nowhere to say it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _serve(arguments: list[str]) -> int:
    # No shell; the server takes this process's place, and with it its signals.
    os.execv(sys.executable, [sys.executable, "-m", "serving", *arguments])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nmt", description="Deep recurrent translation: train it, measure it, serve it."
    )
    parser.add_argument("--version", action="version", version=f"nmt {nmt.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    training.add(commands)
    using.add(commands)
    studying.add(commands)
    inspecting.add(commands)
    reporting.add(commands)
    commands.add_parser("serve", add_help=False, help="serve a model over HTTP (see nmt serve --help)")  # see `main`
    return parser
