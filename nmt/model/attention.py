"""Attention over the encoder's outputs: dot-product and additive, with any number of heads."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nmt.model.config import ModelConfig


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
        return (self.heads_weights(query, key, value, mask) @ value).transpose(1, 2).flatten(2)

    def weights(self, query: Tensor, key: Tensor, mask: Tensor, head: int | None = None) -> Tensor:
        """The attention weights (B, T, S) that `forward` uses, of one head or averaged over all."""
        weights = self.heads_weights(query, key, None, mask)
        return weights.mean(dim=1) if head is None else weights[:, head]

    def scores(self, query: Tensor, key: Tensor) -> Tensor:
        """How well each key fits each query: (B, A, T, S) of `query` (B, A, T, H / A) and `key` (B, A, S, H / A)."""
        raise NotImplementedError

    def heads_weights(self, query: Tensor, key: Tensor, value: Tensor | None, mask: Tensor) -> Tensor:
        """The attention weights (B, A, T, S) of every head; arguments as `forward`'s."""
        scores = self.scores(self._split(self.query(query)), key)  # (B, A, T, S)
        return torch.softmax(scores.masked_fill(~mask[:, None, None, :], float("-inf")), dim=-1)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], self.heads, -1).transpose(1, 2)  # (B, A, steps, H / A)


class DotAttention(Attention):
    """q W k, Luong's "general" score (2015, eq. 8) with any number of heads; scaled by 1 / sqrt(H / A) as in Vaswani 2017, eq. 1."""

    def __init__(self, query_width: int, memory_width: int, heads: int, scaled: bool) -> None:
        """As `Attention`; unscaled scores grow with the width, so beyond about 512 they saturate the softmax (Britz 2017)."""
        super().__init__(query_width, memory_width, heads)
        self.scale = (query_width // heads) ** -0.5 if scaled else 1.0

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        """As `Attention.forward`, in one fused kernel, but on a CPU in training: its gradient there takes 2 to 8 times as long as the
        plain products' (torch 2.13, bf16, 14 to 90 steps; `benchmarks/training_step.py`)."""
        if query.device.type == "cpu" and torch.is_grad_enabled():
            return super().forward(query, key, value, mask)
        context = F.scaled_dot_product_attention(
            self._split(self.query(query)), key, value, attn_mask=mask[:, None, None, :], scale=self.scale
        )
        return context.transpose(1, 2).flatten(2)  # (B, T, H)

    def scores(self, query: Tensor, key: Tensor) -> Tensor:
        """q k scale; in single precision at least, as the fused kernel has it: half would round large scores to whole numbers."""
        with torch.autocast(query.device.type, enabled=False):
            if query.dtype.itemsize < 4:
                query, key = query.float(), key.float()
            return (query * self.scale) @ key.transpose(-1, -2)


class AdditiveAttention(Attention):
    """g v / |v| tanh(W q + U k + b): Bahdanau 2015 (A.1.2), normalised as in Salimans and Kingma 2016 and GNMT v2.

    The tanh is over (B, A, T, S, H / A) values, so memory and time grow with T S H.
    """

    def __init__(self, query_width: int, memory_width: int, heads: int) -> None:
        """As `Attention`."""
        super().__init__(query_width, memory_width, heads)
        width = query_width // heads
        self.v = nn.Parameter(torch.empty(heads, width).uniform_(-(width**-0.5), width**-0.5))
        self.gain = nn.Parameter(torch.full((heads,), width**-0.5))
        self.bias = nn.Parameter(torch.zeros(heads, width))

    def scores(self, query: Tensor, key: Tensor) -> Tensor:
        """g v / |v| tanh(q + k + b)."""
        v = self.v * (self.gain / self.v.norm(dim=-1))[:, None]  # (A, H / A)
        query = query + self.bias[:, None].to(query.dtype)  # in half precision, so that the next line is too
        hidden = torch.tanh(query[:, :, :, None] + key[:, :, None])  # (B, A, T, S, H / A)
        return torch.einsum("batsh,ah->bats", hidden, v.to(hidden.dtype))


def make_attention(config: ModelConfig, query_width: int, memory_width: int) -> Attention:
    """The attention that the configuration names."""
    if config.attention == "additive":
        return AdditiveAttention(query_width, memory_width, config.attention_heads)
    return DotAttention(query_width, memory_width, config.attention_heads, scaled=config.attention == "scaled_dot")
