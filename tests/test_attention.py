"""Attention: the three scores against their formulas, with any number of heads and under any mask."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from nmt.model.attention import AdditiveAttention, Attention, DotAttention, make_attention
from nmt.model.config import ModelConfig

B, T, S, QUERY, MEMORY = 3, 4, 6, 8, 5
KINDS = ("scaled_dot", "dot", "additive")
kinds = pytest.mark.parametrize("kind", KINDS)
heads_ = pytest.mark.parametrize("heads", [1, 2, 8])


@pytest.fixture(autouse=True)
def _doubles() -> Iterator[None]:
    """Float64, where only a wrong formula makes a difference."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def attention(kind: str, heads: int) -> Attention:
    """An attention with no parameter that is zero or one, so that none can be forgotten unseen."""
    shape = {"attention": kind, "attention_heads": heads, "decoder": {"layers": 1, "hidden": QUERY}}
    made = make_attention(ModelConfig.model_validate(shape), QUERY, MEMORY)
    for parameter in made.parameters():
        nn.init.normal_(parameter, mean=0.2)
    return made.requires_grad_(False)


def noise() -> tuple[Tensor, Tensor]:
    """Queries (B, T, H) and encoder outputs (B, S, H), arbitrary at padding too."""
    return torch.randn(B, T, QUERY), torch.randn(B, S, MEMORY)


def masks(lengths: list[int]) -> Tensor:
    return torch.arange(S) < torch.tensor(lengths)[:, None]


def by_hand(kind: str, made: Attention, query: Tensor, memory: Tensor, lengths: list[int]) -> tuple[Tensor, Tensor]:
    """Context (B, T, H) and weights (B, A, T, S), one number at a time over the real tokens alone."""
    heads, width = made.heads, QUERY // made.heads
    q, kv = made.query(query), made.key_value(memory)
    context, weights = torch.zeros(B, T, QUERY), torch.zeros(B, heads, T, S)
    for b, length in enumerate(lengths):
        for head in range(heads):
            columns = slice(head * width, (head + 1) * width)
            keys, values = kv[b, :length, :QUERY][:, columns], kv[b, :length, QUERY:][:, columns]
            for t in range(T):
                scores = torch.stack([score(kind, made, head, q[b, t, columns], key) for key in keys])
                exponentials = scores.exp()
                weights[b, head, t, :length] = exponentials / exponentials.sum()
                context[b, t, columns] = weights[b, head, t, :length] @ values
    return context, weights


def score(kind: str, made: Attention, head: int, q: Tensor, k: Tensor) -> Tensor:
    if kind == "additive":  # g v / |v| tanh(q + k + b)
        assert isinstance(made, AdditiveAttention)
        v = made.v[head]
        return made.gain[head] * (v @ torch.tanh(q + k + made.bias[head])) / math.sqrt(float(v @ v))
    return q @ k / (math.sqrt(len(q)) if kind == "scaled_dot" else 1)


@kinds
@heads_
def test_context_and_weights_are_the_formula(kind: str, heads: int) -> None:
    made = attention(kind, heads)
    query, memory = noise()
    lengths = [S, 2, 1]
    context, weights = by_hand(kind, made, query, memory, lengths)
    key, value = made.project(memory)
    assert key.shape == value.shape == (B, heads, S, QUERY // heads)
    torch.testing.assert_close(made(query, key, value, masks(lengths)), context)
    torch.testing.assert_close(made.weights(query, key, masks(lengths)), weights.mean(1))


def test_the_configuration_chooses_the_score() -> None:
    for kind, made, scale in (("dot", DotAttention, 1.0), ("scaled_dot", DotAttention, (QUERY // 2) ** -0.5)):
        chosen = attention(kind, 2)
        assert type(chosen) is made
        assert chosen.scale == scale
    assert type(attention("additive", 2)) is AdditiveAttention


@kinds
@pytest.mark.parametrize("length", range(1, S + 1))
def test_padding_never_matters_at_any_length(kind: str, length: int) -> None:
    made = attention(kind, 2)
    query, memory = noise()
    lengths = [length, S, 1]
    mask = masks(lengths)
    key, value = made.project(memory)
    context, weights = made(query, key, value, mask), made.weights(query, key, mask)
    torch.testing.assert_close(weights.sum(-1), torch.ones(B, T))
    assert not weights[~mask[:, None].expand_as(weights)].any()
    assert (weights[mask[:, None].expand_as(weights)] > 0).all()
    key, value = made.project(torch.where(mask[:, :, None], memory, 1e3 * torch.randn_like(memory)))
    torch.testing.assert_close(made(query, key, value, mask), context)
    torch.testing.assert_close(made.weights(query, key, mask), weights)
    key, value = made.project(memory[:1, :length])  # and as if it had never been there
    torch.testing.assert_close(made(query[:1], key, value, mask[:1, :length]), context[:1])
    torch.testing.assert_close(made.weights(query[:1], key, mask[:1, :length]), weights[:1, :, :length])


@kinds
def test_padding_gets_no_gradient_and_every_real_token_some(kind: str) -> None:
    made = attention(kind, 2)
    query, memory = noise()
    memory.requires_grad_()
    mask = masks([4, S, 1])
    key, value = made.project(memory)
    made(query, key, value, mask).pow(2).sum().backward()
    assert memory.grad is not None
    assert (memory.grad.abs().sum(-1) > 0).equal(mask)


@kinds
@heads_
def test_the_weights_shown_are_those_that_forward_uses(kind: str, heads: int) -> None:
    made = attention(kind, heads)
    query, memory = noise()
    mask = masks([5, S, 2])
    key, _ = made.project(memory)
    position = torch.eye(S).expand(B, heads, S, S)  # as values they make the context of each head its weights
    context = made(query, key, position, mask).view(B, T, heads, S)
    torch.testing.assert_close(made.weights(query, key, mask), context.mean(2))


@kinds
def test_each_query_is_answered_alone(kind: str) -> None:
    made = attention(kind, 2)
    query, memory = noise()
    mask = masks([4, S, 1])
    key, value = made.project(memory)
    together = made(query, key, value, mask)
    for step in range(T):
        torch.testing.assert_close(made(query[:, step : step + 1], key, value, mask)[:, 0], together[:, step])


def test_scaling_keeps_the_spread_of_the_scores_as_heads_grow_wide() -> None:
    query, key = torch.randn(2, 1, 64, 256), torch.randn(2, 1, 64, 256)
    scaled, plain = (DotAttention(256, 256, 1, scaled=scaled).scores(query, key).std() for scaled in (True, False))
    assert 0.9 < scaled < 1.1
    assert 14 < plain < 18


def test_the_length_of_v_does_not_matter_but_its_gain_does() -> None:
    made = attention("additive", 2)
    assert isinstance(made, AdditiveAttention)
    query, memory = noise()
    query, key = query.view(B, T, 2, 4).transpose(1, 2), made.project(memory)[0]
    before = made.scores(query, key)
    made.v.mul_(7)
    torch.testing.assert_close(made.scores(query, key), before)
    made.gain.mul_(3)
    torch.testing.assert_close(made.scores(query, key), 3 * before)


@kinds
def test_half_precision_stays_near_and_keeps_its_masks(kind: str) -> None:
    made = attention(kind, 2).float()
    query, memory = (x.float() for x in noise())
    mask = masks([4, S, 1])
    exact = made(query, *made.project(memory), mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        key, value = made.project(memory)
        near, weights = made(query, key, value, mask), made.weights(query, key, mask)
    assert (near.float() - exact).abs().max() < 0.05 * exact.abs().max()
    assert not weights[~mask[:, None].expand_as(weights)].any()
    torch.testing.assert_close(weights.float().sum(-1), torch.ones(B, T, dtype=torch.float32), atol=0.01, rtol=0)


def test_the_large_tensor_of_additive_attention_is_in_half_precision_too(monkeypatch: pytest.MonkeyPatch) -> None:
    made, kinds_of = attention("additive", 2).float(), []
    query, memory = (x.float() for x in noise())
    tanh = torch.tanh
    monkeypatch.setattr(torch, "tanh", lambda x: kinds_of.append((x.shape, x.dtype)) or tanh(x))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made(query, *made.project(memory), masks([4, S, 1]))
    assert kinds_of == [((B, 2, T, S, 4), torch.bfloat16)]
