"""The progress line of long work: done, rate, time left; silent where standard error is not a terminal."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm


def progress(what: str, unit: str, total: int | None = None, done: int = 0) -> tqdm[Any]:
    """A progress line for `total` units of work (unknown: None), of which `done` are behind us; a context manager."""
    return tqdm(desc=what, unit=f" {unit}", total=total, initial=done, mininterval=1.0, smoothing=0.05, disable=None)
