"""Which target subwords translate which source subwords, learned from a corpus: IBM model 1 (Brown et al. 1993, section 4.2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nmt.corpus.store import PreparedCorpus
from nmt.inference.shortlist import Shortlist
from nmt.progress import progress
from nmt.text.tokenizer import PAD

_ROUNDS = 5  # of expectation and maximisation
_LINKS = 16_000_000  # possible links of subwords that are counted, at most: about 800 MB
_KEPT = 64  # translations of a subword


@dataclass(frozen=True)
class Lexicon:
    """How likely (N,) target subwords `target` (N,) are to come of source subwords `source` (N,), sorted by source, then target; padding
    stands for words that come of none. `frequency` (V,) is how often each target subword was said."""

    source: NDArray[np.int64]
    target: NDArray[np.int64]
    probability: NDArray[np.float64]
    frequency: NDArray[np.int64]


def learn_lexicon(corpus: PreparedCorpus, links: int = _LINKS) -> Lexicon:
    """The lexicon of a corpus's training pairs, or of as many of them, drawn evenly, as have so many possible `links`."""
    source, target = corpus.train()
    sizes = (source.lengths.astype(np.int64) + 1) * target.lengths
    rows = np.arange(len(sizes))
    if sizes.sum() > links:
        order = np.random.default_rng(1).permutation(len(sizes))
        rows = np.sort(order[: max(1, int(np.searchsorted(np.cumsum(sizes[order]), links)))])
    sources, targets = source.take(rows), target.take(rows)
    to_ids = np.asarray(targets.ids[_flat(targets.starts, targets.lengths)], np.int64)  # all target subwords
    sentence = np.repeat(np.arange(len(rows)), targets.lengths)
    each = sources.lengths[sentence] + 1  # links of each of them: to every source subword, and to none
    starts = np.cumsum(each) - each
    offset = np.arange(each.sum()) - np.repeat(starts, each)
    place = np.repeat(sources.starts[sentence], each) + offset - 1
    from_ids = np.where(offset == 0, PAD, sources.ids[np.maximum(place, 0)]).astype(np.int64)
    wide = len(corpus.target_tokenizer)
    pairs, link = np.unique(from_ids * wide + np.repeat(to_ids, each), return_inverse=True)
    before, after = np.divmod(pairs, wide)
    probability = np.ones(len(pairs))
    with progress("lexicon", "rounds", _ROUNDS) as bar:
        for _ in range(_ROUNDS):
            share = probability[link]
            share /= np.repeat(np.add.reduceat(share, starts), each)
            counts = np.bincount(link, share, len(pairs))
            probability = counts / np.bincount(before, counts, len(corpus.source_tokenizer))[before]
            bar.update(1)
    return Lexicon(before, after, probability, np.bincount(to_ids, minlength=wide))


def make_shortlist(lexicon: Lexicon, source_size: int) -> Shortlist:
    """The shortlist of vocabularies of `source_size` subwords and as many as the lexicon knows."""
    order = np.lexsort((lexicon.target, -lexicon.probability, lexicon.source))
    order = order[lexicon.source[order] != PAD]
    before, after = lexicon.source[order], lexicon.target[order]
    rank = np.arange(len(order)) - np.searchsorted(before, before)
    kept = rank < _KEPT
    table = np.full((source_size, _KEPT), PAD, np.uint16)
    table[before[kept], rank[kept]] = after[kept]
    return Shortlist(np.argsort(-lexicon.frequency, kind="stable").astype(np.uint16), table)


def _flat(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """The places of all items of ranges, one range after the other."""
    begins = np.cumsum(lengths) - lengths
    places: NDArray[np.int64] = np.arange(int(lengths.sum())) + np.repeat(starts - begins, lengths)
    return places
