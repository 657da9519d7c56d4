"""Peak memory and time of `nmt prepare`: N generated pairs, written to a temporary folder that is removed afterwards.

python benchmarks/prepare_memory.py                  4.5 million pairs, as many as WMT14 German-English
python benchmarks/prepare_memory.py --pairs 100000   a quick look

Prints JSON and ends with 1 when more than --limit GB were resident at once.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy
import sentencepiece

import nmt
from nmt.config import parse
from nmt.corpus.prepare import prepare
from nmt.corpus.recipe import Recipe
from nmt.corpus.store import PreparedCorpus

_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes in which the system counts resident memory


def main() -> int:
    """Prepare, measure, print."""
    parser = argparse.ArgumentParser(description="Peak memory and time of preparing generated pairs.")
    parser.add_argument("--pairs", type=int, default=4_500_000, help="default: 4,500,000")
    parser.add_argument("--limit", type=float, default=2.0, metavar="GB", help="resident at most; default: 2")
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made; default: the system's place")
    options = parser.parse_args()
    recipe = parse(
        Recipe,
        {
            "name": "memory",
            "source_language": "en",
            "target_language": "de",
            "train": [{"generate": "numbers", "limit": options.pairs}],
            "holdout": {"validation": 500, "test": 500},
            "tokenizer": {"type": "bpe", "vocab_size": 400},
        },
        "benchmark",
    )
    before = _peak()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        started = time.perf_counter()
        prepare(recipe, Path(folder) / "memory")
        seconds = time.perf_counter() - started
        peak = _peak()
        manifest = PreparedCorpus.open(Path(folder) / "memory").manifest
        size = sum(path.stat().st_size for path in (Path(folder) / "memory").iterdir())
    result = {
        "pairs": options.pairs,
        "pairs kept": manifest["splits"]["train"],
        "tokens": sum(manifest["tokens"].values()),
        "peak resident GB": round(peak / 1e9, 3),
        "resident GB before": round(before / 1e9, 3),
        "seconds": round(seconds, 1),
        "pairs per second": round(options.pairs / seconds),
        "corpus MB on disk": round(size / 1e6, 1),
        "versions": {
            "strata-nmt": nmt.__version__,
            "python": platform.python_version(),
            "numpy": numpy.__version__,
            "sentencepiece": sentencepiece.__version__,
            "system": platform.platform(),
        },
        "command": " ".join(["python", *sys.argv]),
    }
    print(json.dumps(result, indent=1))
    return int(peak > options.limit * 1e9)


def _peak() -> int:
    """The most bytes that this process had resident so far, and the largest of its children on top."""
    own, children = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return (own + children) * _UNIT


if __name__ == "__main__":
    sys.exit(main())
