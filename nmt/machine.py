"""What a figure was measured on: versions of packages, and the machine. Loads none of the packages."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

import nmt

_MEMORY = Path("/proc/meminfo")


def versions(*packages: str) -> dict[str, str]:
    """Of Strata, Python and those of `packages` that are installed."""
    found = {"strata-nmt": nmt.__version__, "python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """System, processor, cores, memory."""
    return {
        "system": platform.platform(),
        "processor": processor(),
        "cores": os.cpu_count() or 1,
        "memory GB": round(kilobytes(_MEMORY, "MemTotal") / 1e6, 1),
    }


def processor() -> str:
    """Its name, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def kilobytes(path: Path, key: str) -> int:
    """An entry of a file such as /proc/meminfo; 0 where there is none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{key}:")), 0)
