"""What a sentence's options forbid or force at a step, and drawing its next words at random."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nmt.inference.types import DecodeOptions
from nmt.text.tokenizer import EOS

Floats = NDArray[np.float64]


def allowed(log_p: Floats, said: Sequence[int], prefix: Sequence[int], least: int, ngram: int) -> Floats:
    """Log probabilities (V,) of the words after `said`, those that may not follow at -inf.

    The words of `prefix` are forced, their probability counted; the sentence may not end before `least` words, nor say `ngram` words
    (0: any number) in a row twice.
    """
    if len(said) < len(prefix):
        forced = prefix[len(said)]
        only = np.full_like(log_p, -np.inf)
        only[forced] = log_p[forced]
        return only
    log_p = log_p.copy()
    log_p[:EOS] = -np.inf  # padding, the unknown and the begin mark
    if len(said) < least:
        log_p[EOS] = -np.inf
    if ngram and len(said) >= ngram:
        last = tuple(said[len(said) - ngram + 1 :])
        for begin in range(len(said) - ngram + 1):
            if tuple(said[begin : begin + ngram - 1]) == last:
                log_p[said[begin + ngram - 1]] = -np.inf
    return log_p


def drawn(log_p: Floats, options: DecodeOptions, source: Sequence[int], place: tuple[int, int]) -> int:
    """A word drawn from log probabilities (V,) at the options' temperature, out of the `top_k` likeliest and of as few of these as have
    `top_p` of the probability together (Holtzman et al. 2020).

    What is drawn follows from the seed, the source and the `place` (sample, step) alone.
    """
    scaled = log_p / options.temperature
    order = np.argsort(-scaled, kind="stable")[: options.top_k or len(scaled)]
    weights = np.exp(scaled[order] - scaled[order[0]])
    share = np.cumsum(weights) / weights.sum()
    share = share[: 1 + int(np.searchsorted(share, options.top_p))]
    number = np.random.default_rng((options.seed, zlib.crc32(np.array(source, np.int64).tobytes()), *place)).random()
    return int(order[np.searchsorted(share / share[-1], number, side="right")])
