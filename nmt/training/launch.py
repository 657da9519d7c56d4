"""`nmt train --gpus N`: as many processes of the same command, each with a GPU, watched by PyTorch's elastic agent."""

from __future__ import annotations

import logging
import signal
import sys
import uuid
from collections.abc import Sequence

import torch
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from nmt.errors import ConfigError

STOPPED = 130


def launch(processes: int, command: Sequence[str]) -> int:
    """Run `python -m nmt COMMAND` in so many processes that know of each other; return the exit status.

    Where one fails the others are ended, and its status is returned after a line that says which it was.
    """
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # the processes print what a user needs
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(),
    )
    try:
        elastic_launch(config, sys.executable)("-m", "nmt", *command)
    except SignalException:
        return STOPPED
    except ChildFailedError as error:
        rank, first = error.get_first_failure()
        if first.exitcode == STOPPED:
            return STOPPED
        how = (
            f"was ended by {signal.Signals(-first.exitcode).name}"
            if first.exitcode < 0
            else f"ended with status {first.exitcode}"
        )
        print(f"nmt train: process {rank} of {processes} {how}; the others were ended too", file=sys.stderr)
        return first.exitcode if first.exitcode > 0 else 1
    return 0


def check_gpus(processes: int) -> None:
    """Raise `ConfigError` when there are fewer GPUs than processes."""
    there = torch.cuda.device_count()
    if not 1 <= processes <= there:
        raise ConfigError(f"--gpus {processes}: PyTorch sees {there} here")
