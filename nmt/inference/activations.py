"""What the layers of a bundle's model do with a sentence and its translation: H_t^L. Needs PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nmt.errors import InputError
from nmt.inference import torch_backend
from nmt.inference.bundle import Bundle
from nmt.model.capture import capture
from nmt.text.normalize import normalize
from nmt.text.tokenizer import EOS


@dataclass(frozen=True, slots=True)
class Activations:
    """What each layer hands on at each step, H_t^L: encoder (S, H), decoder (T, H), lowest first, of S source and T target subwords."""

    source: tuple[str, ...]
    target: tuple[str, ...]
    encoder: tuple[NDArray[np.float32], ...]
    decoder: tuple[NDArray[np.float32], ...]


def activations(bundle: Bundle, text: str, translation: str) -> Activations:
    """Of one teacher-forced pass over `text`, which is one sentence, and `translation`.

    Raises `InputError` for a text that is empty or longer than the model takes in one piece, and for a translation much longer than that.
    """
    source, target = (
        tokenizer.encode([normalize(side)])[0]
        for tokenizer, side in ((bundle.source_tokenizer, text), (bundle.target_tokenizer, translation))
    )
    if not source:
        raise InputError("there is nothing to look into: the text is empty")
    for ids, side in ((source, "text"), (target, "translation")):
        if len(ids) > (limit := bundle.config.max_source_tokens * (1 if ids is source else 3)):
            raise InputError(f"the {side} has {len(ids)} subwords, up to {limit} are looked into in one piece")
    model = torch_backend.load_model(bundle, 1)
    found = capture(model, source, target)
    encoder, decoder = (tuple(layer.float().cpu().numpy() for layer in its) for its in (found.encoder, found.decoder))
    pieces = bundle.source_tokenizer.pieces([*source, EOS]), bundle.target_tokenizer.pieces([*target, EOS])
    return Activations(tuple(pieces[0]), tuple(pieces[1]), encoder, decoder)
