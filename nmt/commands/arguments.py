"""What the commands share: kinds of arguments, and packages that only some of them need."""

from __future__ import annotations

import argparse
import importlib.util

from nmt.errors import ConfigError


def positive(text: str) -> int:
    """A whole number from 1, as the type of an argument."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1")
    return int(text)


def needs(*modules: str) -> None:
    """Raise `ConfigError` that says how to install the first of `modules` that is missing, before any work is done."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise ConfigError(f"this needs {module}: pip install 'strata-nmt[study]'")
