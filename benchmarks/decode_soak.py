"""The engine for a long time under sentences of every length, beam and priority, a tenth of them given up: does memory stay flat?

    python benchmarks/decode_soak.py --minutes 30

Needs the bundled model alone. Prints a line a minute and the slope of resident memory over the second half.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any

import numpy as np

from nmt.inference.engine import Priority
from nmt.inference.translator import Translator
from nmt.inference.types import DecodeOptions
from nmt.text.tokenizer import EOS

BUNDLE = Path("data/pretrained/tatoeba-en-de")


def resident() -> float:
    """Of this process, in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


def some(chance: random.Random, vocabulary: int) -> tuple[list[int], DecodeOptions, Priority]:
    """A sentence of random subwords, mostly short, and how to search for it."""
    length = chance.randint(1, 500) if chance.random() < 0.02 else chance.randint(1, 40)
    ids = [chance.randrange(EOS + 1, vocabulary) for _ in range(length)]
    options = DecodeOptions(beam_size=chance.choice([1, 1, 2, 5, 5, 5, 8]), max_length_ratio=chance.choice([0.5, 1, 2]))
    return [*ids, EOS], options, chance.choice(list(Priority))


def slope(samples: Sequence[tuple[float, float]]) -> float:
    """MB a minute, of (minutes, MB) in the second half."""
    half = samples[len(samples) // 2 :]
    return float(np.polyfit([at for at, _ in half], [mb for _, mb in half], 1)[0])


def soak(translator: Translator, minutes: float, seed: int, every_s: float = 60.0) -> list[tuple[float, float]]:
    """Keep up to 200 sentences in hand until the time is over; return (minutes, MB) from time to time."""
    chance, engine = random.Random(seed), translator.engine
    hand: deque[Future[Any]] = deque()
    begun = told = time.monotonic()
    samples: list[tuple[float, float]] = []
    finished = given_up = 0
    while (now := time.monotonic()) < begun + 60 * minutes:
        while len(hand) < chance.randint(1, 200):
            hand.append(engine.submit(*some(chance, len(translator.vocabularies.source))))
            if chance.random() < 0.1:
                chance.choice(hand).cancel()
        try:
            candidates = hand.popleft().result(timeout=300)
            if not candidates:
                raise RuntimeError("a sentence has no candidates")
            finished += 1
        except CancelledError:
            given_up += 1
        if now - told >= every_s:
            told = now
            samples.append(((now - begun) / 60, resident()))
            print(
                f"minute {samples[-1][0]:.1f}: {samples[-1][1]:.0f} MB, {finished:,} finished, {given_up:,} given up",
                flush=True,
            )
    for future in hand:
        future.cancel()
    return samples


def main(arguments: Sequence[str] | None = None) -> int:
    """Soak, print, judge."""
    parser = argparse.ArgumentParser(description="Memory of the engine under random shapes.")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--limit", type=float, default=1.0, help="MB a minute in the second half that are too many")
    options = parser.parse_args(arguments)
    translator = Translator.load(BUNDLE, threads=options.threads)
    samples = soak(translator, options.minutes, options.seed, min(60.0, 60 * options.minutes / 8))
    found = slope(samples)
    print(f"second half: {found:+.2f} MB a minute, {max(mb for _, mb in samples):.0f} MB at most")
    return int(found > options.limit)


if __name__ == "__main__":
    sys.exit(main())
