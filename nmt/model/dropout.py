"""Dropout whose masks follow from a key of each sentence, so that they are the same in whatever batch and on however many devices.

A mask is a hash of the sentence's key, of the number of the dropout within the pass, and of the place in the sentence. Training gives
keys that follow from seed, update and sentence (`keyed`); so nothing about dropout has to be stored to resume, and the
weights do not depend on how a batch is shared out. Without keys they are drawn from PyTorch's generator.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor, nn

_GOLDEN = -1640531527  # 2^32 / golden ratio, odd: multiples of it are spread out


@dataclass
class _Pass:
    keys: Tensor
    drawn: int = 0


_PASS: ContextVar[_Pass | None] = ContextVar("pass", default=None)


@contextlib.contextmanager
def keyed(keys: Tensor) -> Iterator[None]:
    """Within it every dropout of a forward pass takes its masks from `keys` (B,), int32, one a sentence."""
    token = _PASS.set(_Pass(keys))
    try:
        yield
    finally:
        _PASS.reset(token)


def sentence_keys(seed: int, numbers: Tensor) -> Tensor:
    """A key (B,) for each sentence of a batch, by its number (B,), int32, within it; `seed` is that of the batch, 32 bits."""
    return mixed(numbers * _GOLDEN + (seed - 2**31))


def mixed(x: Tensor) -> Tensor:
    """A hash of each int32 of `x`, which is changed in place: multiply and shift, twice (C. Wellons 2018, "lowbias32")."""
    x.bitwise_xor_((x >> 16).bitwise_and_(0xFFFF)).mul_(0x7FEB352D)
    x.bitwise_xor_((x >> 15).bitwise_and_(0x1FFFF)).mul_(-2073254261)
    return x.bitwise_xor_((x >> 16).bitwise_and_(0xFFFF))


def keep(x: Tensor, rate: float, width: int) -> Tensor:
    """What a dropout multiplies with: (B, width) in the dtype of `x` (B, ...), 0 with probability `rate`, else 1 / (1 - rate)."""
    here = _PASS.get()
    if here is None:
        keys = torch.randint(-(2**31), 2**31, (len(x),), dtype=torch.int32, device=x.device)
    else:
        here.drawn += 1
        keys = mixed(here.keys + (here.drawn * _GOLDEN + 2**31) % 2**32 - 2**31)
    if len(keys) != len(x):
        raise ValueError(f"{len(keys)} keys for {len(x)} sentences")
    places = torch.arange(width, dtype=torch.int32, device=x.device).mul_(_GOLDEN)
    kept = mixed(keys[:, None] ^ places) >= round(rate * 2**32) - 2**31  # (B, width)
    return kept.to(x.dtype).div_(1.0 - rate)


class Dropout(nn.Module):
    """Dropout of single elements."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """`x` is (B, S, H), and so is the mask."""
        if not self.training or self.rate == 0.0:
            return x
        return x * keep(x, self.rate, x[0].numel()).view(x.shape)


class SharedDropout(Dropout):
    """Dropout whose mask is drawn once a sequence and shared by all its steps (Gal and Ghahramani 2016)."""

    def forward(self, x: Tensor) -> Tensor:
        """`x` is (B, S, H); the mask is (B, 1, H)."""
        if not self.training or self.rate == 0.0:
            return x
        return x * keep(x, self.rate, x.shape[2])[:, None]


class WordDropout(Dropout):
    """Dropout of whole steps (Gal and Ghahramani 2016: of word embeddings)."""

    def forward(self, x: Tensor) -> Tensor:
        """`x` is (B, S, H); the mask is (B, S, 1)."""
        if not self.training or self.rate == 0.0:
            return x
        return x * keep(x, self.rate, x.shape[1])[:, :, None]
