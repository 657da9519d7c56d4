"""Groups of sentences that are alike: in length, in how rare their words are, in what is to be copied."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nmt.corpus.store import PreparedCorpus
from nmt.evaluation.alignment import bare_words, copied_words
from nmt.evaluation.words import words
from nmt.progress import progress

_LENGTHS = (5, 10, 15, 20, 30)  # the last length of each bucket in words; above is one more
_COUNTS = (0, 4, 19, 99, 999)  # the same of how often a word is in the text
_SENTENCES = 500_000  # of a training text that are counted, at most
_BLOCK = 10_000

Buckets = dict[str, list[int]]  # label to the numbers of its sentences; those that have some, in order


@dataclass(frozen=True)
class Frequencies:
    """How often words, without case and the punctuation around them, are in a text, and which text that is."""

    counts: Mapping[str, int]
    text: str


def by_length(sources: Sequence[str], spaced: bool = True) -> Buckets:
    """By the words of the source; by its characters in a language whose words are not `spaced`."""
    return _bucketed([len(words(source, spaced)) for source in sources], _LENGTHS, 1)


def by_rarest(sources: Sequence[str], frequencies: Frequencies) -> Buckets:
    """By how often the rarest word of the source is in a text; sentences without words are left out."""
    rarest = [min((frequencies.counts.get(word, 0) for word in _folded(source)), default=-1) for source in sources]
    return _bucketed(rarest, _COUNTS, 0)


def by_copied(copied: Sequence[Sequence[str]]) -> Buckets:
    """By the words of each sentence that are to be copied (`to_copy`); one with numbers and names is in both groups."""
    kinds = [{"numbers" if is_number(word) else "names" for word in its} or {"neither"} for its in copied]
    found = {
        name: [index for index, its in enumerate(kinds) if name in its] for name in ("numbers", "names", "neither")
    }
    return {f"with {name}" if name != "neither" else name: its for name, its in found.items() if its}


def to_copy(source: str, reference: str) -> list[str]:
    """The numbers and names of a reference that stand alike in the source (`nmt.evaluation.alignment.copied_words`)."""
    said = bare_words(reference)
    return [said[place] for place in copied_words(source, reference)]


def is_number(word: str) -> bool:
    """Whether it has a digit."""
    return any(map(str.isdigit, word))


def frequencies_in(lines: Iterable[str], text: str) -> Frequencies:
    """Of all words of `lines`; `text` says what they are."""
    return Frequencies(collections.Counter(word for line in lines for word in _folded(line)), text)


def training_frequencies(corpus: PreparedCorpus, sources: Iterable[str]) -> Frequencies:
    """Of the words of `sources` in the source side of a prepared corpus, or in half a million sentences that are evenly spread over it."""
    wanted = {word for source in sources for word in _folded(source)}
    column, _ = corpus.train()
    rows = np.unique(np.linspace(0, len(column) - 1, min(len(column), _SENTENCES)).astype(np.int64))
    counts: collections.Counter[str] = collections.Counter()
    with progress("count words", "sentences", len(rows)) as bar:
        for start in range(0, len(rows), _BLOCK):
            block = column.take(rows[start : start + _BLOCK])
            for begin, length in zip(block.starts.tolist(), block.lengths.tolist(), strict=True):
                line = corpus.source_tokenizer.decode(block.ids[begin : begin + length].tolist())
                counts.update(word for word in _folded(line) if word in wanted)
            bar.update(len(block.lengths))
    of = f"{len(rows):,} of {len(column):,}" if len(rows) < len(column) else f"{len(rows):,}"
    return Frequencies(counts, f"{of} training sentences of {corpus.manifest['recipe']['name']}")


def _folded(line: str) -> list[str]:
    return [word.casefold() for word in bare_words(line) if word]


def _bucketed(values: Sequence[int], edges: Sequence[int], first: int) -> Buckets:
    """The numbers of `values` from `first` on, by the edges: the last value of each bucket."""
    held: dict[int, list[int]] = {}
    for index, value in enumerate(values):
        if value >= first:
            held.setdefault(sum(value > edge for edge in edges), []).append(index)
    lows = [first, *(edge + 1 for edge in edges)]
    labels = [f"{low}-{high}" if low < high else str(low) for low, high in zip(lows, edges, strict=False)]
    labels.append(f"{lows[-1]}+")
    return {labels[number]: its for number, its in sorted(held.items())}
