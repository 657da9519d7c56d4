"""How many sentences a replica's cache would answer: counted by the cache itself, without a model, over texts in their order.

    python benchmarks/cache_ratio.py /usr/share/locale/de/LC_MESSAGES software-en-de docs-en-de tatoeba-en-de

What is given is a folder of compiled catalogues (.mo, their messages in the order of the files' names), a file of any kind that can be
translated, or the name of a corpus in $NMT_CORPORA. 64 passages are asked for at a time, as of a document. A translation is counted to be
as long as its source. A corpus that has been cleaned has no line twice, so what it shows is the least: sentences that lines share.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, cast

import numpy as np
import polib

from nmt.documents.formats import open_document, slices
from nmt.inference.cache import Cache
from nmt.inference.engine import Engine, Priority
from nmt.inference.search import Candidate, Sentence
from nmt.inference.types import DecodeOptions
from nmt.machine import processor, versions
from nmt.text.normalize import normalize
from nmt.text.segment import stretches
from nmt.text.tokenizer import Tokenizer

TOKENIZER = Path(__file__).parent.parent / "data/pretrained/tatoeba-en-de/tokenizer.model"
OPTIONS = DecodeOptions(beam_size=5)


class Echo:
    """An engine that answers at once, with the source."""

    def submit_all(self, sentences: Sequence[Sentence], _: Priority) -> list[Future[list[Candidate]]]:
        found: list[Future[list[Candidate]]] = []
        for sentence in sentences:
            attention = np.broadcast_to(np.float32(0), (len(sentence.ids), len(sentence.ids)))
            found.append(Future())
            found[-1].set_result([Candidate(list(sentence.ids), 0.0, 0.0, True, [], attention)])
        return found


def main() -> None:
    """Print a line for each text."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("texts", nargs="+", metavar="FOLDER|FILE|CORPUS")
    parser.add_argument("--lines", type=int, default=50_000, help="of each at most; default: 50,000")
    parser.add_argument(
        "--subwords", type=int, default=200_000, help="of the cache; default: 200,000, as of the service"
    )
    options = parser.parse_args()
    packages = ", ".join(f"{name} {version}" for name, version in versions("sentencepiece", "sentencex").items())
    print(f"{processor()}, {os.cpu_count()} cores; {packages}")
    print(f"{'text':32} {'passages':>9} {'sentences':>9} {options.subwords:>10,} {'unlimited':>10} {'seconds':>8}")
    tokenizer = Tokenizer.load(TOKENIZER)
    for name in options.texts:
        started = time.perf_counter()
        passages = read(name)[: options.lines]
        caches = [Cache(options.subwords), Cache(sys.maxsize)]
        for some in slices(passages):
            cut = [normalize(each.text) for passage in some for each in stretches(passage, "en")[0]]
            sentences = [Sentence(ids, OPTIONS, aligned=True) for ids in tokenizer.encode(cut)]
            for cache in caches:
                cache.submit(cast(Engine, Echo()), sentences, Priority.DOCUMENT)
        count = caches[0].hits + caches[0].misses
        shares = " ".join(f"{cache.hits / max(1, count):>10.1%}" for cache in caches)
        seconds = time.perf_counter() - started
        print(f"{name:32} {len(passages):>9,} {count:>9,} {shares} {seconds:>8.0f}", flush=True)


def read(name: str) -> list[str]:
    """The passages of what was given."""
    path = Path(name)
    if path.is_dir():
        files = [each for each in sorted(path.glob("*.mo")) if not each.is_symlink()]  # those are second names
        catalogues = [polib.mofile(str(each)) for each in files]
        return [text for each in catalogues for entry in each for text in (entry.msgid, entry.msgid_plural) if text]
    if path.is_file():
        return open_document(path.read_bytes(), path.name).texts
    import datasets

    datasets.disable_progress_bars()
    corpus: Any = datasets.load_dataset(str(Path(os.environ["NMT_CORPORA"]) / name), split="train")
    return [pair["en"] for pair in corpus["translation"]]


if __name__ == "__main__":
    main()
