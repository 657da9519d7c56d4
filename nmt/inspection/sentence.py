"""One sentence through a model: what it attended to, how sure it was of each subword, what its layers did."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nmt.errors import InputError
from nmt.inference import torch_backend
from nmt.inference.bundle import Bundle
from nmt.inference.search import beam_search
from nmt.model.capture import Capture, capture
from nmt.text.normalize import normalize
from nmt.text.tokenizer import EOS, UNK, Tokenizer

END = "</s>"
_ALTERNATIVES = 5


@dataclass(frozen=True)
class Step:
    """One target subword: its natural log probability, the entropy in bits of the distribution that it stands in, and the likeliest
    other subwords with their probabilities."""

    subword: str
    log_probability: float
    entropy: float
    alternatives: tuple[tuple[str, float], ...]

    @property
    def probability(self) -> float:
        """Its probability."""
        return math.exp(self.log_probability)


@dataclass(frozen=True)
class Inspection:
    """What was found; `source` are the S source subwords, `steps` the T target ones, both with their end mark.

    `given` says that the translation came from the user; `ended` is False where the search met its length limit first.
    """

    model: str
    text: str
    translation: str
    given: bool
    ended: bool
    source: tuple[str, ...]
    steps: tuple[Step, ...]
    capture: Capture

    @property
    def target(self) -> tuple[str, ...]:
        """The T target subwords."""
        return tuple(step.subword for step in self.steps)

    @property
    def log_probability(self) -> float:
        """Natural logarithm of the probability of the translation, end mark included."""
        return sum(step.log_probability for step in self.steps)

    def looks_at(self) -> list[tuple[str, float]]:
        """The source subword of most weight at each step, and that weight, in the mean over the attentions."""
        weight, where = torch.stack(self.capture.attention).mean(dim=0).max(dim=1)
        return [(self.source[i], w) for i, w in zip(where.tolist(), weight.tolist(), strict=True)]


def inspect(bundle: Bundle, text: str, target: str | None = None, threads: int | None = None) -> Inspection:
    """Translate `text` by the bundle's own search, or take `target` as its translation, and capture the pass over both.

    Raises `InputError` when there is no text, and when text or target has more subwords than the model takes in one piece:
    a translator would cut such a text, and which part is to be looked at is for the user to say.
    """
    source = _encode(bundle.source_tokenizer, text, "the text")
    limit = bundle.config.max_source_tokens
    if not source:
        raise InputError("there is nothing to inspect: the text is empty")
    if len(source) > limit:
        raise InputError(
            f"the text has {len(source)} subwords, the model takes up to {limit} in one piece: inspect a part of it"
        )
    decode = bundle.config.decode
    ids = None if target is None else _encode(bundle.target_tokenizer, target, "the target")
    longest = int((len(source) + 1) * decode.max_length_ratio) + decode.max_length_extra
    if ids is not None and len(ids) > longest:
        raise InputError(
            f"the target has {len(ids)} subwords, a translation of this text can have up to {longest} (decode.max_length_ratio)"
        )
    model = torch_backend.load_model(bundle, threads)
    ended = True
    if ids is None:
        best = beam_search(torch_backend.TorchBackend(model), [[*source, EOS]], decode)[0][0]
        ids, ended = best.ids, best.ended
    found = capture(model, source, ids)
    subwords = surfaces(bundle.target_tokenizer, ids, normalize(target)) if target else None
    return Inspection(
        model=bundle.config.name,
        text=normalize(text),
        translation=bundle.target_tokenizer.decode(ids) if target is None else normalize(target),
        given=target is not None,
        ended=ended,
        source=(*surfaces(bundle.source_tokenizer, source, normalize(text)), END),
        steps=_steps(bundle.target_tokenizer, ids, subwords, found.log_probabilities),
        capture=found,
    )


def spans(tokenizer: Tokenizer, ids: Sequence[int], text: str) -> list[tuple[int, int]] | None:
    """Start and end in `text`, which is normalised, of each of its subwords `ids`, without the space before a word.

    None where they can't be told, which takes a text with SentencePiece's own mark in it.
    """
    pieces = zip(ids, tokenizer.pieces(ids), strict=True)
    # An unknown subword is a run of characters that no other subword has, so the shortest match is the right one.
    pattern = "".join("(.+?)" if i == UNK else f"({re.escape(piece.replace('▁', ' '))})" for i, piece in pieces)
    match = re.fullmatch(pattern, f" {text}")
    if match is None:
        return None
    found = (match.span(group) for group in range(1, len(ids) + 1))
    return [(start - (match.string[start] != " "), end - 1) for start, end in found]


def surfaces(tokenizer: Tokenizer, ids: Sequence[int], text: str) -> list[str]:
    """The subwords `ids` of normalised `text` as the field writes them, ▁ for a space; an unknown one says what it stands for."""
    where = spans(tokenizer, ids, text)
    pieces = tokenizer.pieces(ids)
    if where is None:
        return pieces
    return [
        f"<unk:{text[start:end]}>" if i == UNK else piece
        for i, piece, (start, end) in zip(ids, pieces, where, strict=True)
    ]


def _encode(tokenizer: Tokenizer, text: str, what: str) -> list[int]:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"{what} is not valid Unicode: a lone surrogate at character {error.start + 1}") from None
    return tokenizer.encode([normalize(text)])[0]


def _steps(
    tokenizer: Tokenizer, ids: Sequence[int], subwords: Sequence[str] | None, log_probabilities: Tensor
) -> tuple[Step, ...]:
    names = [*(subwords or tokenizer.pieces(ids)), END]
    steps = []
    for name, chosen, row in zip(names, [*ids, EOS], log_probabilities, strict=True):
        best = row.topk(min(_ALTERNATIVES + 1, len(row))).indices.tolist()
        others = [i for i in best if i != chosen][:_ALTERNATIVES]
        alternatives = zip(tokenizer.pieces(others), row[others].exp().tolist(), strict=True)
        entropy = -float((row.exp() * row).nansum()) / math.log(2)  # 0 log 0 is 0
        steps.append(Step(name, float(row[chosen]), max(0.0, entropy), tuple(alternatives)))
    return tuple(steps)


# --- as text ------------------------------------------------------------------------------------------------------------


def record(found: Inspection) -> dict[str, Any]:
    """All that was found, for JSON; the layers as the root mean square over their units at each step."""
    return {
        "model": found.model,
        "text": found.text,
        "translation": found.translation,
        "given": found.given,
        "ended": found.ended,
        "log_probability": found.log_probability,
        "source": list(found.source),
        "target": [
            {
                "subword": step.subword,
                "probability": step.probability,
                "entropy_bits": step.entropy,
                "alternatives": [{"subword": name, "probability": p} for name, p in step.alternatives],
            }
            for step in found.steps
        ],
        "attention": [_rounded(weights) for weights in found.capture.attention],
        "activation_rms": {
            "encoder": [_rounded(activation(layer)) for layer in found.capture.encoder],
            "decoder": [_rounded(activation(layer)) for layer in found.capture.decoder],
        },
    }


def activation(layer: Tensor) -> Tensor:
    """The root mean square (steps,) over the units of `layer` (steps, H)."""
    return layer.float().square().mean(dim=-1).sqrt()


def short(probability: float) -> str:
    """A probability in few characters."""
    return f"{probability:.3f}" if probability >= 0.0005 else f"{probability:.0e}"


def _rounded(values: Tensor) -> Any:
    """Nested lists of `values` with as many digits as anybody reads."""
    return [_rounded(row) for row in values] if values.dim() > 1 else [round(value, 5) for value in values.tolist()]


def render(found: Inspection) -> str:
    """The table for a terminal."""
    rows = [("t", "subword", "p", "bits", "looks at", "weight", "instead")]
    for number, (step, (seen, weight)) in enumerate(zip(found.steps, found.looks_at(), strict=True), start=1):
        instead = "  ".join(f"{name} {short(p)}" for name, p in step.alternatives)
        rows.append(
            (
                str(number),
                step.subword,
                short(step.probability),
                f"{step.entropy:.2f}",
                seen,
                f"{weight:.2f}",
                instead,
            )
        )
    widths = [max(map(_width, column)) for column in zip(*rows, strict=True)][:-1]
    table = [
        "  ".join([cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=False)] + [row[-1]])
        for row in rows
    ]
    lines = [
        f"text         {found.text}",
        f"{'target given' if found.given else 'translation '} {found.translation}",
        f"log P        {found.log_probability:.3f} in {len(found.steps)} subwords with the end mark, "
        f"{found.log_probability / len(found.steps):.3f} a subword",
        *([] if found.ended else ["the search met its length limit before the model ended the sentence"]),
        "",
        *table,
    ]
    return "\n".join(line.rstrip() for line in lines)


def _width(text: str) -> int:
    """Columns that `text` takes in a terminal."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in ("W", "F") else 1 for c in text
    )
