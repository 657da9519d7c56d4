"""`nmt inspect`: what a trained model attends to, and what its layers know."""

from __future__ import annotations

import argparse


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
