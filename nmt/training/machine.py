"""What a run goes on: versions, processor, memory. Read from the system, for the record of a run and for what `auto` comes to."""

from __future__ import annotations

import contextlib
import ctypes
import platform
from pathlib import Path
from typing import Any

import numpy
import sacrebleu
import sentencepiece
import torch

import nmt
import nmt.machine
from nmt.machine import kilobytes
from nmt.machine import processor as processor  # for those who ask here

_PROCESS, _MACHINE, _GROUP = Path("/proc/self"), Path("/proc/meminfo"), Path("/sys/fs/cgroup")


def versions() -> dict[str, str]:
    """Of everything that a model's weights and scores depend on."""
    return {
        "strata-nmt": nmt.__version__,
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "sentencepiece": sentencepiece.__version__,
        "sacrebleu": sacrebleu.__version__,
        "python": platform.python_version(),
    }


def machine() -> dict[str, Any]:
    """System, processor, cores, memory, GPUs."""
    found = nmt.machine.machine()
    if torch.cuda.is_available():
        found["GPUs"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return found


def memory_in_use(device: torch.device) -> int:
    """Bytes of this process on the CPU, page cache of mapped files aside, or the most that it had on a GPU since it was last asked;
    0 where the system does not tell."""
    if device.type == "cuda":
        most = torch.cuda.max_memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        return most
    return 1024 * kilobytes(_PROCESS / "status", "RssAnon")


def keep_heap() -> None:
    """Let this process keep the memory that it has freed, where the C library is glibc's.

    It would give each large tensor back to the system and take it anew, zeroed page by page, at every update: a seventh of the
    time of training on a CPU where batches are large (`benchmarks/training_step.py --heap`).
    """
    for option, value in (
        (-4, 0),
        (-1, 2**31 - 1),
        (-2, 1 << 26),
    ):  # M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD of malloc.h
        with contextlib.suppress(AttributeError, OSError):
            ctypes.CDLL(None).mallopt(option, value)


def release_heap() -> None:
    """Give freed memory back to the system all the same, as before measuring what is in use."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def free_memory() -> int:
    """Bytes that processes can still take: of the machine, or of the control group that it is divided into; 0 where it is unknown."""
    free = 1024 * kilobytes(_MACHINE, "MemAvailable")
    try:
        limit, used = ((_GROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
        return min(free, int(limit) - int(used)) if limit.isdecimal() else free
    except (OSError, ValueError):
        return free


def memory_peak(reset: bool = False) -> int:
    """The most bytes that this process had resident since the last `reset` (of Linux; 0 where the system does not tell)."""
    if reset:
        try:
            (_PROCESS / "clear_refs").write_text("5")
        except OSError:
            return 0
    return 1024 * kilobytes(_PROCESS / "status", "VmHWM")
