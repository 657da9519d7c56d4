"""Text of several sentences a line: translated sentence by sentence, as is the default, and line by line, by the bundled model.

    python benchmarks/several_sentences.py            a minute or two on two cores

Lines are made of 1, 2 or 4 sentences drawn from the validation split of data/prepared/tatoeba-en-de, references likewise.
"""

from __future__ import annotations

import argparse
import os
import random
from collections.abc import Sequence

import sacrebleu
from serve_sides import BUNDLE, ROOT

from nmt.corpus.store import PreparedCorpus
from nmt.inference.translator import Translator
from nmt.training.machine import processor


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a line for each length."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--lines", type=int, default=300)
    options = parser.parse_args(arguments)
    pairs = list(PreparedCorpus.open(ROOT / "data/prepared/tatoeba-en-de").pairs("validation"))
    translator, rng = Translator.load(BUNDLE), random.Random(1)
    print(f"{processor()}, {os.cpu_count()} cores; {options.lines} lines, seed 1; BLEU (13a, cased) and chrF2")
    for count in (1, 2, 4):
        drawn = [rng.sample(pairs, count) for _ in range(options.lines)]
        sources, references = ([" ".join(pair[side] for pair in line) for line in drawn] for side in (0, 1))
        for split in (False, True):
            search = translator.defaults.model_copy(update={"split_sentences": split})
            found = [translation.text for translation in translator.translate(sources, search)]
            scores = [measure(found, [references]).score for measure in (sacrebleu.corpus_bleu, sacrebleu.corpus_chrf)]
            how = "sentence by sentence" if split else "line by line"
            print(f"{count} sentences a line, {how}: {scores[0]:.2f}, {scores[1]:.2f}", flush=True)


if __name__ == "__main__":
    main()
