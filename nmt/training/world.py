"""The processes that train one model together: which of them this one is, and what they tell each other.

Each takes its share of every batch; gradients are summed by PyTorch's DistributedDataParallel. Everything here goes over a group on
the CPU, so that it never waits for a GPU. One process alone is a world of its own and needs no group.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from nmt.errors import TrainingError

PATIENCE = timedelta(minutes=10)  # for a process that lives but does not answer; one that dies is noticed at once


@dataclass(frozen=True)
class World:
    """`size` processes, of which this is number `rank`, with GPU number `local_rank` of its machine where there are GPUs."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    control: dist.ProcessGroup | None = None

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def device(self, kind: str) -> torch.device:
        """This process's own device of `kind` ("cpu" or "cuda"); GPUs are shared where there are fewer than processes."""
        if kind == "cuda" and self.control is not None:
            return torch.device("cuda", self.local_rank % torch.cuda.device_count())
        return torch.device(kind)

    def wrap(self, module: nn.Module, device: torch.device) -> nn.Module:
        """`module` with gradients that are means over the processes; itself where there is one process without a group."""
        if self.control is None:
            return module
        return DistributedDataParallel(module, device_ids=[device.index] if device.type == "cuda" else None)

    def sums(self, *values: float) -> list[float]:
        """Each value summed over the processes."""
        if self.control is None:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total, group=self.control)
        return [float(value) for value in total]

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return self.sums(flag)[0] > 0

    def joined(self, mine: list[str]) -> list[str]:
        """A list that was dealt out in turn (`all[rank::size]`), whole again in every process."""
        if self.control is None:
            return mine
        parts: list[list[str]] = [[] for _ in range(self.size)]
        dist.all_gather_object(parts, mine, group=self.control)
        whole = [""] * sum(map(len, parts))
        for rank, part in enumerate(parts):
            whole[rank :: self.size] = part
        return whole

    def wait(self) -> None:
        """Until every process has come here."""
        if self.control is not None:
            dist.barrier(group=self.control)


ALONE = World()


class LostProcesses(TrainingError):
    """Another process of the world has died, or can't be reached."""


@contextlib.contextmanager
def world(cuda: bool) -> Iterator[World]:
    """The world that `torchrun`, `nmt train --gpus` or Ray Train started this process in; one of its own without them.

    Inside it, an error of the connection is `LostProcesses`, a `TrainingError` that says what has happened.
    """
    found = dist.is_initialized()  # Ray Train has made the group, and ends it
    if not found and ("RANK" not in os.environ or "WORLD_SIZE" not in os.environ):
        yield ALONE
        return
    rank, size = (int(os.environ.get(name, "0")) for name in ("RANK", "WORLD_SIZE"))
    try:
        here = _taken_over() if found else _made(rank, size, cuda)
        rank, size = here.rank, here.size
        yield here
        here.wait()  # nobody hangs up on those who are still at work
        if not found:
            dist.destroy_process_group()
    except (dist.DistError, RuntimeError) as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error) or "Connection" in str(error):
            reason = str(error).strip().partition("\n")[0]
            raise LostProcesses(
                f"process {rank} of {size} lost the others ({reason}): see what the first of them to end has printed; the "
                "checkpoints are intact, the same command goes on from the last"
            ) from None
        raise


def _made(rank: int, size: int, cuda: bool) -> World:
    """This process in a new group of those that were started together."""
    local, neighbours = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    own_gpu = cuda and neighbours <= torch.cuda.device_count()  # NCCL wants one each; gloo lets processes share
    if own_gpu:
        torch.cuda.set_device(local)
    backend = "nccl" if own_gpu else "gloo"
    dist.init_process_group(backend, store=_store(rank, size), rank=rank, world_size=size, timeout=PATIENCE)
    return World(rank, size, local, _control())


def _taken_over() -> World:
    """This process in the group that is there; where each has a GPU of its own, that is chosen already."""
    nccl = "nccl" in dist.get_backend()
    local = torch.cuda.current_device() if nccl else int(os.environ.get("LOCAL_RANK", "0"))
    return World(dist.get_rank(), dist.get_world_size(), local, _control())


def _control() -> dist.ProcessGroup | None:
    """The group on the CPU, beside that of the GPUs where there is one."""
    return dist.new_group(backend="gloo", timeout=PATIENCE) if "nccl" in dist.get_backend() else dist.group.WORLD


def _store(rank: int, size: int) -> Any:  # a torch.distributed.Store
    """Where the processes find each other. Those that `torchrun` starts again share it with the dead, whose addresses are still in it, so
    each attempt has its own names. Several machines don't count attempts alike: see docs/training.md."""
    store = next(rendezvous("env://", rank, size))[0]
    if os.environ.get("GROUP_WORLD_SIZE", "1") != "1":
        return store
    return dist.PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)  # type: ignore[attr-defined]
