"""How well a model's attention aligns words whose source is known beyond doubt: numbers and names that are copied."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nmt.inference.alignment import by_words
from nmt.inference.output import Part
from nmt.inference.translator import Translator
from nmt.inference.types import AlignmentHead
from nmt.text.normalize import normalize
from nmt.text.tokenizer import BOS, Tokenizer

if TYPE_CHECKING:
    from nmt.model.seq2seq import Seq2Seq

_OUTSIDE = ".,;:!?\"'()[]«»„“”‚‘’…-"  # of a word, no part of it
_FEWEST = 50  # copies that a head is judged by, at least
_ENOUGH = 500  # and at most, or little more


@dataclass(frozen=True)
class Copied:
    """How many copied words of how many pairs were linked to where they are copied from."""

    pairs: int
    words: int
    right: int

    @property
    def share(self) -> float:
        """Of the words."""
        return self.right / max(self.words, 1)


def bare_words(text: str) -> list[str]:
    """The words of a text, without the punctuation around them."""
    return [word.strip(_OUTSIDE) for word in normalize(text).split(" ")]


def copied_words(source: str, target: str) -> dict[int, int]:
    """The numbers of target words that stand alike in the source, once on each side, with that of their source word: words with a digit
    or a capital at the beginning, without the punctuation around them."""
    sides = [bare_words(text) for text in (source, target)]
    once = [{word for word, count in collections.Counter(side).items() if count == 1} for side in sides]
    return {
        place: sides[0].index(word)
        for place, word in enumerate(sides[1])
        if word in once[0] & once[1] and (word[:1].isupper() or any(map(str.isdigit, word)))
    }


def evaluate_alignment(translator: Translator, pairs: Sequence[tuple[str, str]]) -> Copied:
    """Align given pairs by the head that the model shows; pairs without copied words are left out."""
    found = [(pair, copied) for pair in pairs if (copied := copied_words(*pair))]
    scored = translator.score([pair for pair, _ in found], alignment=True)
    right = sum(
        (source, target) in one.alignment
        for one, (_, copied) in zip(scored, found, strict=True)
        for target, source in copied.items()
    )
    return Copied(len(found), sum(len(copied) for _, copied in found), right)


def best_head(
    model: Seq2Seq, tokenizers: tuple[Tokenizer, Tokenizer], pairs: Sequence[tuple[str, str]]
) -> tuple[AlignmentHead | None, Copied]:
    """The head of attention that links most of the copied words of `pairs` rightly, and how many it does; None where there are too few
    such words to tell, or the decoder shows no attention."""
    import torch

    from nmt.model.capture import evaluating, recorded

    attentions = list(model.decoder.attentions())
    right: collections.Counter[tuple[int, int]] = collections.Counter()
    seen = words = 0
    for source, target in pairs:
        copied = copied_words(source, target)
        if not copied or words >= _ENOUGH or not attentions:
            continue
        ids, given = (
            tokenizer.encode([normalize(text)])[0] for tokenizer, text in zip(tokenizers, (source, target), strict=True)
        )
        part = Part.of(0, normalize(source), ids, tokenizers[0])
        pieces = tokenizers[1].pieces(given)
        with evaluating(model), recorded(attentions) as calls:
            encoded = torch.tensor([part.ids], device=model.device)
            memory = model.encode(encoded, torch.tensor([len(part.ids)], device=model.device))
            model.decode(torch.tensor([[BOS, *given]], device=model.device), memory, memory.state)
            for layer, attention in enumerate(attentions):
                weights = torch.cat([attention.heads_weights(*call.arguments)[0] for call in calls[attention]], dim=1)
                best = by_words(weights.float().cpu().numpy(), part.words, pieces).argmax(axis=2)  # (A, words)
                for place, number in copied.items():
                    right.update((layer, head) for head in (best[:, place] == number).nonzero()[0].tolist())
        seen, words = seen + 1, words + len(copied)
    if words < _FEWEST:
        return None, Copied(seen, words, 0)
    (layer, head), most = min(right.items(), key=lambda item: (-item[1], item[0]))
    return AlignmentHead(layer=layer, head=head), Copied(seen, words, most)
