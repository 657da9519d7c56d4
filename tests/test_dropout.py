"""Dropout by keys: rates and scales, and masks that follow from the sentence's key alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nmt.model.dropout import Dropout, SharedDropout, WordDropout, keyed

KINDS = [Dropout, SharedDropout, WordDropout]
kinds = pytest.mark.parametrize("kind", KINDS)


def keys(*numbers: int) -> Tensor:
    return torch.tensor(numbers, dtype=torch.int32)


def many(count: int) -> Tensor:
    return torch.randint(-(2**31), 2**31 - 1, (count,), dtype=torch.int32)


@kinds
def test_what_stays_is_scaled_so_that_the_mean_stays(kind: type[Dropout]) -> None:
    with keyed(many(2000)):
        dropped = kind(0.3)(torch.ones(2000, 20, 20))
    assert dropped.unique().tolist() == pytest.approx([0.0, 1 / 0.7])
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.02)
    assert (dropped == 0).float().mean(dim=0).std() < 0.02  # the same at every place


@pytest.mark.parametrize(("kind", "shape"), [(Dropout, (6, 7)), (SharedDropout, (1, 7)), (WordDropout, (6, 1))])
def test_what_shares_a_decision(kind: type[Dropout], shape: tuple[int, int]) -> None:
    with keyed(many(50)):
        dropped = kind(0.5)(torch.ones(50, 6, 7))
    assert torch.equal(dropped, dropped[:, : shape[0], : shape[1]].expand(50, 6, 7))
    assert len({tuple(row.flatten().tolist()) for row in dropped[:, : shape[0], : shape[1]]}) > 25


@kinds
def test_a_sentence_gets_its_mask_in_any_batch(kind: type[Dropout]) -> None:
    whole = torch.ones(4, 9, 5)
    with keyed(keys(11, -12, 13, 2**31 - 1)):
        first, second = kind(0.5)(whole), kind(0.5)(whole)
    with keyed(keys(13, 11)):
        again, other = kind(0.5)(whole[:2, :6]), kind(0.5)(whole[:2, :6])
    assert torch.equal(again, first[[2, 0], :6])
    assert torch.equal(other, second[[2, 0], :6])
    assert not torch.equal(first, second)  # each dropout of a pass draws its own


def test_neighbouring_keys_give_masks_that_have_nothing_in_common() -> None:
    with keyed(torch.arange(300, dtype=torch.int32)):
        kept = Dropout(0.5)(torch.ones(300, 1, 400)).view(300, 400) > 0
    agreement = (kept[:, None] == kept[None]).float().mean(dim=2)
    agreement.fill_diagonal_(0.5)
    assert agreement.min() > 0.35
    assert agreement.max() < 0.65
    assert agreement.std() == pytest.approx((0.25 / 400) ** 0.5, rel=0.05)


@kinds
def test_without_keys_the_seed_decides(kind: type[Dropout]) -> None:
    x = torch.ones(3, 8, 8)
    torch.manual_seed(1)
    first = kind(0.5)(x)
    assert not torch.equal(kind(0.5)(x), first)
    torch.manual_seed(1)
    assert torch.equal(kind(0.5)(x), first)


@kinds
def test_gradients_pass_where_values_do(kind: type[Dropout]) -> None:
    x = torch.ones(3, 8, 8, requires_grad=True)
    dropped = kind(0.4)(x)
    dropped.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, dropped.detach())


@kinds
def test_nothing_happens_otherwise(kind: type[Dropout]) -> None:
    x = torch.ones(2, 3, 4)
    with keyed(keys(1, 2)):
        assert kind(0.0)(x) is x
        assert kind(0.5).eval()(x) is x


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_dtype_stays(dtype: torch.dtype) -> None:
    assert Dropout(0.5)(torch.ones(2, 3, 4, dtype=dtype)).dtype == dtype


def test_keys_of_another_batch_are_refused() -> None:
    with keyed(keys(1, 2)), pytest.raises(ValueError, match="2 keys for 3 sentences"):
        Dropout(0.5)(torch.ones(3, 4, 5))
