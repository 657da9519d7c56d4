"""The loss: PyTorch's label-smoothed cross-entropy, in value and in gradient."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from nmt.training.loss import disagreement, smoothed_cross_entropy


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """On tensors this small more threads only wait for each other."""
    torch.set_num_threads(1)


def drawn(rows: int, vocabulary: int, scale: float, seed: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, vocabulary, generator=generator, dtype=torch.float64) * scale
    labels = torch.randint(0, vocabulary, (rows,), generator=generator)
    return logits.to(dtype).requires_grad_(), labels


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 9),
    st.integers(2, 50),
    st.floats(0.01, 30.0),
    st.sampled_from([0.0, 0.1, 0.5, 0.99]),
    st.integers(0, 99),
)
def test_it_is_pytorchs_in_value_and_gradient(
    rows: int, vocabulary: int, scale: float, smoothing: float, seed: int
) -> None:
    logits, labels = drawn(rows, vocabulary, scale, seed, torch.float64)
    loss, nll = smoothed_cross_entropy(logits, labels, smoothing)
    (gradient,) = torch.autograd.grad(loss, logits)
    expected = F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="sum")
    (other,) = torch.autograd.grad(expected, logits)
    tolerance = 1e-4 * max(1.0, expected.item())  # the sum is in float32
    assert loss.item() == pytest.approx(expected.item(), abs=tolerance)
    assert nll.item() == pytest.approx(F.cross_entropy(logits, labels, reduction="sum").item(), abs=tolerance)
    torch.testing.assert_close(gradient, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
def test_the_gradient_is_right_in_the_precision_of_the_logits(dtype: torch.dtype, tolerance: float) -> None:
    logits, labels = drawn(64, 200, 3.0, 0, dtype)
    loss, _ = smoothed_cross_entropy(logits, labels, 0.1)
    (loss / 64).backward()
    exact = logits.detach().double().requires_grad_()
    (F.cross_entropy(exact, labels, label_smoothing=0.1)).backward()
    assert logits.grad is not None
    assert exact.grad is not None
    assert logits.grad.dtype == dtype
    assert loss.dtype == torch.float32
    assert (logits.grad.double() - exact.grad).abs().max() <= tolerance * exact.grad.abs().max()
    assert loss.item() / 64 == pytest.approx(F.cross_entropy(exact, labels, label_smoothing=0.1).item(), rel=1e-4)


def test_the_gradient_scales_with_what_comes_from_above() -> None:
    logits, labels = drawn(5, 7, 1.0, 0, torch.float64)
    loss, _ = smoothed_cross_entropy(logits, labels, 0.1)
    (once,) = torch.autograd.grad(loss, logits, retain_graph=True)
    (thrice,) = torch.autograd.grad(3 * loss, logits)
    torch.testing.assert_close(thrice, 3 * once)


def test_the_likelihood_is_a_measure_not_something_to_train_on() -> None:
    logits, labels = drawn(5, 7, 1.0, 0, torch.float32)
    loss, nll = smoothed_cross_entropy(logits, labels, 0.1)
    assert loss.requires_grad
    assert not nll.requires_grad


def test_a_uniform_guess_costs_log_v_with_any_smoothing() -> None:
    for smoothing in (0.0, 0.1, 0.7):
        loss, nll = smoothed_cross_entropy(torch.zeros(3, 50), torch.tensor([0, 7, 49]), smoothing)
        assert loss.item() / 3 == pytest.approx(math.log(50), rel=1e-5)
        assert nll.item() / 3 == pytest.approx(math.log(50), rel=1e-5)


def test_certainty_costs_nothing_without_smoothing_and_something_with_it() -> None:
    logits = torch.full((1, 10), -20.0)
    logits[0, 4] = 20.0
    assert smoothed_cross_entropy(logits, torch.tensor([4]), 0.0)[0].item() == pytest.approx(0.0, abs=1e-5)
    assert smoothed_cross_entropy(logits, torch.tensor([4]), 0.1)[0].item() == pytest.approx(0.1 * 0.9 * 40, rel=1e-4)


def test_huge_logits_give_finite_numbers() -> None:
    logits = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    loss, _ = smoothed_cross_entropy(logits, torch.tensor([1]), 0.1)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_the_logits_are_left_as_they_were() -> None:
    logits, labels = drawn(5, 7, 1.0, 0, torch.float32)
    before = logits.detach().clone()
    smoothed_cross_entropy(logits, labels, 0.1)[0].backward()
    assert torch.equal(logits, before)


def test_disagreement_is_the_mean_of_both_kl_divergences() -> None:
    p, q = (torch.randn(5, 7, dtype=torch.float64).log_softmax(-1) for _ in range(2))
    there = F.kl_div(q, p, log_target=True, reduction="sum")
    back = F.kl_div(p, q, log_target=True, reduction="sum")
    torch.testing.assert_close(disagreement(torch.cat((p, q)) + 3.0), ((there + back) / 2).float())
    assert disagreement(torch.cat((p, p))) == 0.0
