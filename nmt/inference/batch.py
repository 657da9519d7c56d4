"""Batch translation: lines in, one line out for each, in constant memory."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator

from nmt.inference.types import Translation


def translate_lines(
    translate: Callable[[list[str]], list[Translation]],
    lines: Iterable[str],
    as_json: bool = False,
    several: bool = False,
    alignment: bool = False,
    window: int = 2000,
) -> Iterator[list[str]]:
    """For each window of input lines, the output lines: the translation of each, in order.

    With `several` candidates a line gives as many, `NUMBER ||| TRANSLATION ||| SCORE`, best first, numbered by input line from 0. With
    `alignment` ` ||| ` and pairs SOURCE-TARGET of word numbers from 0 follow. With `as_json` each line gives one JSON object with scores. A
    window is translated as a whole.
    """
    numbers = itertools.count()
    iterator = iter(lines)
    while chunk := list(itertools.islice(iterator, window)):
        output: list[str] = []
        for result in translate(chunk):
            number = next(numbers)
            if as_json:
                output.append(json.dumps(to_json(result), ensure_ascii=False))
            else:
                for item in result.hypotheses:
                    line = f"{number} ||| {item.text} ||| {item.score:.4f}" if several else item.text
                    output.append(f"{line} ||| {pharaoh(item.alignment)}" if alignment else line)
        yield output


def pharaoh(alignment: Iterable[tuple[int, int]]) -> str:
    """Links of words as the field writes them, `0-0 1-2`."""
    return " ".join(f"{source}-{target}" for source, target in alignment)


def to_json(result: Translation) -> dict[str, object]:
    """A translation as a JSON object."""
    best = result.hypotheses[0]
    aligned = {
        "alignment": best.alignment,
        "attention": [[[round(weight, 4) for weight in row] for row in part.tolist()] for part in best.attention],
        "source_subwords": result.source_subwords,
    }
    return {
        "source": result.source,
        "translation": result.text,
        "score": round(result.score, 6),
        "tokens": [[token.piece, round(token.log_p, 4)] for token in best.tokens],
        "alternatives": [{"text": item.text, "score": round(item.score, 6)} for item in result.hypotheses[1:]],
        "source_tokens": result.source_tokens,
        "target_tokens": result.target_tokens,
        "segments": result.segments,
        "truncated": result.truncated,
    } | (aligned if result.source_subwords else {})
