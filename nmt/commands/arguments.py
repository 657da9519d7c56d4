"""What the commands share: kinds of arguments, and packages that only some of them need."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from nmt.errors import ConfigError

if TYPE_CHECKING:
    from nmt.inference.translator import Translator
    from nmt.inference.types import DecodeOptions


def positive(text: str) -> int:
    """A whole number from 1, as the type of an argument."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1")
    return int(text)


def natural(text: str) -> int:
    """A whole number from 0, as the type of an argument."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0")
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


def open_translator(options: argparse.Namespace) -> Translator:
    """The translator of the bundle, or ensemble, that was given."""
    from nmt.inference.translator import Translator

    return Translator.load(options.bundle, options.threads, "cpu", options.ensemble, options.precision)


def given(options: argparse.Namespace) -> dict[str, object]:
    """The search options that were given on the command line."""
    names = ("beam_size", "length_penalty", "n_best", "alignment", "target")
    return {name: value for name in names if (value := getattr(options, name, None)) is not None}


def decode_options(options: argparse.Namespace, defaults: DecodeOptions) -> DecodeOptions:
    """The options of the search: `defaults` with what was given. Raises `ConfigError`."""
    from nmt.config import apply_overrides, parse
    from nmt.inference.types import DecodeOptions

    return parse(DecodeOptions, apply_overrides(defaults.model_dump() | given(options), options.set), "search options")
