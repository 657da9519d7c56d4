"""Guided alignment: one head of attention is taught which source subword each target subword comes from.

Chen et al. 2016, "Guided alignment training for topic-aware neural machine translation"; one head alone as in Garg et al. 2019.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from nmt.corpus.store import PreparedCorpus
from nmt.model.attention import Attention
from nmt.model.capture import Call
from nmt.text.tokenizer import EOS, PAD
from nmt.training.lexicon import Lexicon, learn_lexicon

_DIAGONAL = 4.0  # how much nearer the diagonal is likelier (Dyer et al. 2013, where it is learned)
_NONE = 0.08  # prior of coming from no source subword (the same)
_LEAST = 1e-6  # probability, and attention, that is told from none
_HEAD = 0  # of the last attention


class Guide(nn.Module):
    """Teaches by a lexicon: a target subword t at j of T comes from the source subword s at i of S with a probability in proportion to
    p(t | s) exp(-4 | i / S - j / T |)."""

    keys: Tensor
    probability: Tensor

    def __init__(self, lexicon: Lexicon) -> None:
        super().__init__()
        likely = lexicon.probability > _LEAST
        self.wide = len(lexicon.frequency)
        keys = lexicon.source[likely] * self.wide + lexicon.target[likely]
        self.register_buffer("keys", torch.from_numpy(keys), persistent=False)
        self.register_buffer(
            "probability", torch.from_numpy(lexicon.probability[likely].astype(np.float32)), persistent=False
        )

    @classmethod
    def learn(cls, corpus: PreparedCorpus) -> Guide:
        """The guide of a corpus's training pairs."""
        return cls(learn_lexicon(corpus))

    def alignment(self, source: Tensor, labels: Tensor) -> Tensor:
        """The probabilities (B, T, S) that each of the `labels` (B, T) comes from each of the `source` ids (B, S); none for padding and end
        marks. What is left to 1 is that it comes from none of them."""
        steps, places = labels.shape[1], source.shape[1]
        found = self._lookup(source[:, None, :].expand(-1, steps, -1), labels[:, :, None])  # (B, T, S)
        lengths = [(ids > EOS).sum(dim=1).clamp(min=1).float() for ids in (source, labels)]
        i = torch.arange(places, device=source.device) / lengths[0][:, None]  # (B, S)
        j = torch.arange(steps, device=source.device) / lengths[1][:, None]  # (B, T)
        near = torch.exp(-_DIAGONAL * (i[:, None, :] - j[:, :, None]).abs()) * (source > EOS)[:, None, :]
        near = (1 - _NONE) * near / near.sum(dim=2, keepdim=True).clamp(min=_LEAST)
        joint = found * near
        none = _NONE * self._lookup(torch.full_like(labels, PAD), labels)
        posterior = joint / (joint.sum(dim=2) + none).clamp(min=_LEAST**2)[:, :, None]
        return posterior * (labels > EOS)[:, :, None]

    def loss(self, calls: list[Call], attention: Attention, source: Tensor, labels: Tensor) -> Tensor:
        """The cross-entropy of the head's weights against `alignment`, summed over the batch, from the calls of the attention."""
        weights = torch.cat([attention.heads_weights(*call.arguments)[:, _HEAD] for call in calls], dim=1)  # (B, T, S)
        return -(self.alignment(source, labels) * weights.float().clamp(min=_LEAST).log()).sum()

    def _lookup(self, source: Tensor, target: Tensor) -> Tensor:
        keys = source * self.wide + target
        place = torch.searchsorted(self.keys, keys.contiguous()).clamp(max=len(self.keys) - 1)
        return torch.where(self.keys[place] == keys, self.probability[place], 0.0)
