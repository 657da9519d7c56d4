"""A lexical shortlist: the target subwords that a sentence's translation is made of, at most, so that a step takes fewer products.

The most frequent subwords are on everybody's list, the likeliest translations of the sentence's own are added (Jean et al. 2015, section
3.2). Which they are follows from the sentence alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from nmt.errors import BundleError
from nmt.text.tokenizer import EOS, PAD

FILE = "shortlist.safetensors"
_SHARE = 8  # one subword in so many is on everybody's list
_EACH = 8  # subwords more for each source subword that there is room for
_BLOCK = 64  # the lists' lengths are multiples of it

Ids = NDArray[np.int64]


def _filled(ids: Ids, size: int) -> Ids:
    """The first `size` of `ids`, padding after them where they are fewer."""
    return np.pad(ids[:size], (0, max(0, size - len(ids))), constant_values=PAD)


class Shortlist:
    """The lists of a model."""

    def __init__(self, frequent: NDArray[np.uint16], candidates: NDArray[np.uint16]) -> None:
        """`frequent` (V,): the target subwords, most frequent first; `candidates` (V of the source, C): of each source subword its
        likeliest translations, best first, padding after them."""
        self.frequent, self.candidates = frequent.astype(np.int64), candidates
        size = -(-len(frequent) // _SHARE // _BLOCK) * _BLOCK
        self.head: Ids = _filled(np.array([EOS, *self.frequent[self.frequent > EOS]]), size)
        self._shared = np.zeros(len(frequent), np.bool_)
        self._shared[self.head] = True
        self._shared[: EOS + 1] = True
        self._rest = self.frequent[~self._shared[self.frequent]]

    def tail_length(self, width: int) -> int:
        """How many subwords are added for sources of up to `width` subwords."""
        return -(-min(_EACH * width, max(1, len(self._rest))) // _BLOCK) * _BLOCK

    def tail(self, source: Sequence[int], width: int) -> Ids:
        """The subwords that are added for a source: the best candidates of each of its subwords, then the second ones, ..., as far as there
        is room; then the next most frequent ones; then padding, where there are no more."""
        room = self.tail_length(width)
        ranked = self.candidates[list(dict.fromkeys(source))].T.reshape(-1).astype(np.int64)
        ranked = np.concatenate((ranked[~self._shared[ranked]], self._rest[: 2 * room]))
        first = np.empty(len(self.frequent), np.int64)  # where each of them stands first
        first[ranked[::-1]] = np.arange(len(ranked) - 1, -1, -1)
        return _filled(ranked[first[ranked] == np.arange(len(ranked))], room)

    def save(self, path: Path) -> None:
        """Write the file; raise `BundleError` where that can't be done."""
        try:
            save_file({"frequent": self.frequent.astype(np.uint16), "candidates": self.candidates}, path)
            path.chmod(0o644)
        except (SafetensorError, OSError) as error:
            raise BundleError(f"{path}: could not be written ({error})") from None

    @classmethod
    def load(cls, path: Path, source_size: int, target_size: int) -> Shortlist:
        """Read a file; raise `BundleError` where it is damaged or not of vocabularies of these sizes."""
        try:
            arrays = load_file(path)
            frequent, candidates = arrays["frequent"], arrays["candidates"]
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            raise BundleError(f"{path}: damaged or cut short ({error})") from None
        fits = frequent.shape == (target_size,) and candidates.ndim == 2 and len(candidates) == source_size
        if not fits or int(candidates.max(initial=PAD)) >= target_size or len(np.unique(frequent)) != target_size:
            raise BundleError(f"{path}: not a shortlist of this model's vocabularies")
        return cls(frequent, candidates)
