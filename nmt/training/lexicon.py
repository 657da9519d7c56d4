"""Which target subwords translate which source subwords, learned from a corpus: IBM model 1 (Brown et al. 1993, section 4.2)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nmt.corpus.store import PreparedCorpus
from nmt.inference.shortlist import Shortlist
from nmt.progress import progress
from nmt.text.tokenizer import PAD

_ROUNDS = 5  # of expectation and maximisation
_LINKS = 16_000_000  # possible links of subwords that are counted, at most: about 800 MB
_KEPT = 64  # translations of a subword


def learn_shortlist(corpus: PreparedCorpus, links: int = _LINKS) -> Shortlist:
    """The shortlist of a corpus's vocabularies, from its training pairs, or as many of them, drawn evenly, as have so many `links`."""
    source, target = corpus.train()
    sizes = (source.lengths.astype(np.int64) + 1) * target.lengths
    rows = np.arange(len(sizes))
    if sizes.sum() > links:
        order = np.random.default_rng(1).permutation(len(sizes))
        rows = np.sort(order[: max(1, int(np.searchsorted(np.cumsum(sizes[order]), links)))])
    sources, targets = source.take(rows), target.take(rows)
    said = _flat(targets.starts, targets.lengths)  # places of all target subwords
    sentence = np.repeat(np.arange(len(rows)), targets.lengths)
    each = sources.lengths[sentence] + 1  # links of each target subword: to every source subword, and to none
    starts = np.cumsum(each) - each
    offset = np.arange(each.sum()) - np.repeat(starts, each)
    place = np.repeat(sources.starts[sentence], each) + offset - 1
    from_ids = np.where(offset == 0, PAD, sources.ids[np.maximum(place, 0)]).astype(np.int64)
    to_ids = np.asarray(targets.ids[said], np.int64)
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
    frequency = np.bincount(to_ids, minlength=wide)
    frequent = np.argsort(-frequency, kind="stable").astype(np.uint16)
    return Shortlist(frequent, _best(before, after, probability, len(corpus.source_tokenizer)))


def _flat(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """The places of all items of ranges, one range after the other."""
    begins = np.cumsum(lengths) - lengths
    places: NDArray[np.int64] = np.arange(int(lengths.sum())) + np.repeat(starts - begins, lengths)
    return places


def _best(
    before: NDArray[np.int64], after: NDArray[np.int64], probability: NDArray[np.float64], size: int
) -> NDArray[np.uint16]:
    """Of each source subword the likeliest target ones (size, kept), padding after them."""
    order = np.lexsort((after, -probability, before))
    order = order[before[order] != PAD]
    first = np.searchsorted(before[order], before[order])
    rank = np.arange(len(order)) - first
    order, rank = order[rank < _KEPT], rank[rank < _KEPT]
    table = np.full((size, _KEPT), PAD, np.uint16)
    table[before[order], rank] = after[order]
    return table
