"""Translations as lines of text or JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable

from nmt.inference.types import Translation


def as_lines(result: Translation, number: int, as_json: bool, several: bool, alignment: bool) -> list[str]:
    """The lines of one result, one or, with `several` candidates, as many as there are: `NUMBER ||| TRANSLATION ||| SCORE`, best first.

    With `alignment` ` ||| ` and pairs SOURCE-TARGET of word numbers from 0 follow. With `as_json` it is one JSON object with scores.
    """
    if as_json:
        return [json.dumps(to_json(result), ensure_ascii=False)]
    lines = []
    for item in result.hypotheses:
        line = f"{number} ||| {item.text} ||| {item.score:.4f}" if several else item.text
        lines.append(f"{line} ||| {pharaoh(item.alignment)}" if alignment else line)
    return lines


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
