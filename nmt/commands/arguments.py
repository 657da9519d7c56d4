"""What the commands share: kinds of arguments, and packages that only some of them need."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

from nmt.errors import ConfigError


def positive(text: str) -> int:
    """A whole number from 1, as the type of an argument."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1")
    return int(text)


# Packages that are not there in every installation, and the extra that brings them.
EXTRAS = {"torch": "train", "datasets": "train", "tensorboard": "train", "matplotlib": "study", "sklearn": "study"}


def missing(module: str) -> ConfigError:
    """The error that says how to install one of them."""
    return ConfigError(f"this needs {module}: pip install 'strata-nmt[{EXTRAS[module]}]'")


def needs(*modules: str) -> None:
    """Raise the error for the first of `modules` that is missing, before any work is done."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise missing(module)


def decoding() -> argparse.ArgumentParser:
    """The arguments of every command that decodes, as a parent of its parser."""
    parent = argparse.ArgumentParser(add_help=False)
    parent.add_argument("--beam-size", type=int, metavar="N", help="hypotheses kept at each step; 1 is greedy")
    parent.add_argument(
        "--ensemble",
        type=Path,
        action="append",
        default=[],
        metavar="BUNDLE",
        help="decode with this one too, as one model; may be repeated",
    )
    parent.add_argument("--threads", type=positive, metavar="N", help="CPU threads; all cores by default")
    return parent
