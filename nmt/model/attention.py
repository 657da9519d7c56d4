"""Multi-head scaled dot-product attention over the encoder's outputs (Luong 2015 eq. 8 scaled; Vaswani 2017 eq. 1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Queries of the decoder attend to keys and values that are projected from the encoder's outputs once a sentence."""

    def __init__(self, query_width: int, memory_width: int, heads: int) -> None:
        """`heads` divides `query_width`, which is also the width of the context."""
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(query_width, query_width, bias=False)
        self.key_value = nn.Linear(memory_width, 2 * query_width, bias=False)
        for linear in (self.query, self.key_value):
            nn.init.xavier_uniform_(linear.weight)

    def project(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values, each (B, A, S, H / A), of `memory` (B, S, H)."""
        key, value = self.key_value(memory).chunk(2, dim=-1)
        return self._split(key), self._split(value)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        """The context (B, T, H) of `query` (B, T, H) over projected `key` and `value`; `mask` (B, S) is True at real tokens."""
        context = F.scaled_dot_product_attention(
            self._split(self.query(query)), key, value, attn_mask=mask[:, None, None, :]
        )
        return context.transpose(1, 2).flatten(2)  # (B, T, H)

    def weights(self, query: Tensor, key: Tensor, mask: Tensor) -> Tensor:
        """The attention weights (B, T, S) that `forward` uses, averaged over the heads."""
        q = self._split(self.query(query))
        scores = q @ key.transpose(-1, -2) / q.shape[-1] ** 0.5  # (B, A, T, S)
        return torch.softmax(scores.masked_fill(~mask[:, None, None, :], float("-inf")), dim=-1).mean(dim=1)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], self.heads, -1).transpose(1, 2)  # (B, A, steps, H / A)
