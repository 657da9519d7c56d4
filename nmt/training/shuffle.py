"""A shuffle that needs no memory: where each of N things goes is computed, so an epoch of any size has one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 6
_SMALL = 1 << 12  # below it numpy's own permutation is as good and needs no cycles


def permuted(places: NDArray[np.int64], size: int, seed: tuple[int, ...]) -> NDArray[np.int64]:
    """Where a permutation of 0 ... size-1, drawn by `seed`, sends `places`: distinct places go to distinct ones.

    A Feistel network on the bits of a number (Luby and Rackoff 1988) permutes the powers of two; what falls beyond `size` goes round
    again until it does not (Black and Rogaway 2002, "cycle walking").
    """
    rng = np.random.default_rng(seed)
    if size <= _SMALL:
        return rng.permutation(size)[places]
    keys = rng.integers(2**63, size=_ROUNDS, dtype=np.uint64)
    bits = (size - 1).bit_length()
    result = _network(places.astype(np.uint64), bits, keys)
    beyond = np.flatnonzero(result >= size)
    while len(beyond):
        result[beyond] = _network(result[beyond], bits, keys)
        beyond = beyond[result[beyond] >= size]
    return result.astype(np.int64)


def _network(x: NDArray[np.uint64], bits: int, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One pass over numbers of `bits` bits; its rounds are even in number, so that halves of unequal width change back."""
    wide, narrow = np.uint64(bits - bits // 2), np.uint64(bits // 2)
    left, right = x >> narrow, x & ((np.uint64(1) << narrow) - np.uint64(1))
    for number, key in enumerate(keys):
        width = wide if number % 2 == 0 else narrow  # of the left half
        left, right = right, left ^ (_mixed(right ^ key) & ((np.uint64(1) << width) - np.uint64(1)))
    return (left << narrow) | right


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A hash of 64 bits (the finaliser of SplitMix64, Steele, Lea and Flood 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
