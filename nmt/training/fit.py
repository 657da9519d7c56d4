"""`batch_tokens: auto`: the largest batch that fits into memory, found by taking the worst batches of the corpus first."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

import torch
from torch import nn

from nmt.corpus.store import PreparedCorpus
from nmt.errors import TrainingError
from nmt.training.batches import Batch, Indices, TrainingBatches, longest_pair, training_batches
from nmt.training.config import RunConfig
from nmt.training.health import HealthRecorder
from nmt.training.machine import free_memory, memory_peak, release_heap
from nmt.training.update import Gradients, out_of_memory
from nmt.training.world import ALONE, World

_MOST = 65_536  # tokens of a process; beyond, larger batches are no faster and learn less from each sentence
_UPDATES = 100  # that an epoch has at least
_FILLED = 0.85  # of the memory, at most: later batches, the optimiser and other programs need some too


def candidates(longest: int, epoch_tokens: int, processes: int) -> list[int]:
    """Budgets to try, largest first: powers of two and those halfway between, none below the `longest` pair."""
    most = max(longest, min(_MOST * processes, epoch_tokens // _UPDATES))
    steps = sorted(
        {size for power in range(4, most.bit_length()) for size in (1 << power, 3 << (power - 1))}, reverse=True
    )
    return [size for size in steps if longest <= size <= most] or [longest]


def worst(batches: TrainingBatches) -> list[Batch]:
    """Of the first window: the batches with the most sentences, the most target cells, and the most pairs of source and target steps."""
    source, target = batches.source.lengths, batches.target.lengths

    def shape(rows: Indices) -> tuple[int, int, int]:
        return len(rows), int(source[rows].max()) + 1, int(target[rows].max()) + 1

    plan = batches.plan(0)
    shapes = [shape(rows) for rows in plan]
    costs: Sequence[Callable[[tuple[int, int, int]], int]] = (
        lambda s: s[0] * s[1] * s[2],
        lambda s: s[0] * s[2],
        lambda s: s[0],
    )
    places = dict.fromkeys(max(range(len(plan)), key=lambda i: cost(shapes[i])) for cost in costs)
    return [batches.batch(0, place) for place in places]


def fits(batches: Sequence[Batch], attempt: Callable[[Batch], object], weights: int, device: torch.device) -> bool:
    """Whether `attempt` (forward and backward, gradients thrown away) gets through all `batches`, with room for Adam's two moments and the
    gradients of a model of so many `weights`' bytes."""
    if device.type == "cpu":
        return _fits_host(batches, attempt, 3 * weights)
    _, total = torch.cuda.mem_get_info(device)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    try:
        for batch in batches:
            attempt(batch)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        return False
    finally:
        torch.cuda.empty_cache()
    return torch.cuda.max_memory_reserved(device) + 2 * weights <= _FILLED * total


def _fits_host(batches: Sequence[Batch], attempt: Callable[[Batch], object], moments: int) -> bool:
    """A system that runs out of memory ends processes instead of refusing, so a quarter of each batch is taken, which shows what the
    whole needs, and the whole only where that is there."""
    for batch in batches:
        release_heap()
        free = free_memory() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) - moments
        before = memory_peak(reset=True)
        attempt(batch.share(0, 4))
        quarter = memory_peak() - before
        if free and 4 * quarter > _FILLED * free:
            return False
    attempt(batches[0])
    return True


def sized(
    config: RunConfig, corpus: PreparedCorpus, objective: nn.Module, device: torch.device, world: World
) -> RunConfig:
    """The configuration with a number in the place of `train.batch_tokens: auto`: the largest batch whose share fits in every process.

    Raises `TrainingError` when none does.
    """
    if config.train.batch_tokens != "auto":
        return config
    gradients = Gradients(config, objective, device, ALONE, HealthRecorder(objective, None, 1.0))
    weights = sum(parameter.numel() * parameter.element_size() for parameter in objective.parameters())
    manifest, longest = corpus.manifest, longest_pair(*corpus.train())
    tokens = sum(manifest["tokens"].values()) + 2 * manifest["splits"]["train"]
    chosen = 0
    for size in (sizes := candidates(longest, tokens, world.size)):
        shares = [batch.share(world.rank, world.size) for batch in worst(training_batches(corpus, config, size))]
        if fits(shares, gradients.attempt, weights, device):
            chosen = size
            break
    chosen = int(min(world.sums(*(chosen if rank == world.rank else 0 for rank in range(world.size)))))
    if not chosen:
        raise TrainingError(
            f"not even a batch of {sizes[-1]:,} tokens fits into memory: make the model smaller, or free some memory"
        )
    if world.leads:
        print(f"train.batch_tokens: auto is {chosen:,} here", file=sys.stderr)
    return config.model_copy(update={"train": config.train.model_copy(update={"batch_tokens": chosen})})
