"""What training makes small: the smoothed cross-entropy of a batch, and with R-Drop the disagreement of two dropout masks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nmt.errors import ConfigError
from nmt.model.capture import recorded
from nmt.model.dropout import keyed, mixed
from nmt.model.seq2seq import Seq2Seq
from nmt.training.config import OptimizerConfig
from nmt.training.guide import Guide
from nmt.training.loss import disagreement, smoothed_cross_entropy


class Objective(nn.Module):
    """A model with its loss: one module, so that its forward pass is all that a data-parallel wrapper has to see."""

    def __init__(self, model: Seq2Seq, config: OptimizerConfig, guide: Guide | None = None) -> None:
        """`guide` teaches the last attention where to look."""
        super().__init__()
        self.model, self.smoothing, self.agree = model, config.label_smoothing, config.r_drop
        self.guide, self.guided = guide, config.guided_alignment
        # In a list: it is a part of the model, not of this module.
        self.taught = list(model.decoder.attentions())[-1:] if guide else []
        if guide and not self.taught:
            raise ConfigError("optimizer.guided_alignment: this decoder has no attention that could be taught")

    def forward(
        self, source: Tensor, lengths: Tensor, target: Tensor, labels: Tensor, places: Tensor, keys: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Sums over the batch of the loss, which is differentiable, and of the negative log likelihood (nats).

        The first five are those of a `Batch`; `keys` (B,) say the dropout masks (`keyed`).
        """
        if self.agree:  # every sentence twice, with two dropout masks
            places = torch.cat((places, places + target.numel()))
            source, lengths, target, labels = (torch.cat((x, x)) for x in (source, lengths, target, labels))
            keys = torch.cat((keys, mixed(keys + 1)))
        with keyed(keys), recorded(self.taught) as calls:
            vectors = self.model(source, lengths, target)  # (B, T, E)
        logits = self.model.logits(vectors.flatten(0, 1)[places])  # (N, V)
        loss, nll = smoothed_cross_entropy(logits, labels.flatten()[places], self.smoothing)
        if self.guide is not None:
            (attention,) = self.taught
            loss = loss + self.guided * self.guide.loss(calls[attention], attention, source, labels)
        return (loss / 2 + self.agree * disagreement(logits) / 2, nll / 2) if self.agree else (loss, nll)
