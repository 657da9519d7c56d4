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

_PATIENCE = timedelta(minutes=10)  # for a process that lives but does not answer; one that dies is noticed at once


@dataclass(frozen=True)
class World:
    """`size` processes, of which this is number `rank`, and number `local_rank` on its machine."""

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


@contextlib.contextmanager
def world(cuda: bool) -> Iterator[World]:
    """The world that `torchrun` or `nmt train --gpus` started this process in; one of its own without them.

    Inside it, an error of the connection is a `TrainingError` that says what has happened.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield ALONE
        return
    rank, size, local = (int(os.environ.get(name, "0")) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    neighbours = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    own_gpu = cuda and neighbours <= torch.cuda.device_count()  # NCCL wants one each; gloo lets processes share
    if own_gpu:
        torch.cuda.set_device(local)
    try:
        backend = "nccl" if own_gpu else "gloo"
        dist.init_process_group(backend, store=_store(rank, size), rank=rank, world_size=size, timeout=_PATIENCE)
        control = dist.new_group(backend="gloo", timeout=_PATIENCE) if own_gpu else dist.group.WORLD
        here = World(rank, size, local, control)
        yield here
        here.wait()  # nobody hangs up on those who are still at work
        dist.destroy_process_group()
    except (dist.DistError, RuntimeError) as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error) or "Connection" in str(error):
            reason = str(error).strip().partition("\n")[0]
            raise TrainingError(
                f"process {rank} of {size} lost the others ({reason}): see what the first of them to end has printed; the "
                "checkpoints are intact, the same command goes on from the last"
            ) from None
        raise


def _store(rank: int, size: int) -> Any:  # a torch.distributed.Store
    """Where the processes find each other. Those that `torchrun` starts again share it with the dead, whose addresses are still in it, so
    each attempt has its own names. Several machines don't count attempts alike: see docs/training.md."""
    store = next(rendezvous("env://", rank, size))[0]
    if os.environ.get("GROUP_WORLD_SIZE", "1") != "1":
        return store
    return dist.PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)  # type: ignore[attr-defined]
