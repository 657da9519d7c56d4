"""The schedule of the learning rate, the optimiser's groups, and the moving average."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt.errors import ConfigError
from nmt.training.config import OptimizerConfig
from nmt.training.optim import MovingAverage, learning_rate, make_optimizer

SCHEDULES = ["inverse_sqrt", "linear", "cosine", "step", "constant"]


def config(**settings: Any) -> OptimizerConfig:
    return OptimizerConfig.model_validate({"lr": 0.01, "warmup_steps": 100} | settings)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_warm_up_is_a_line_to_the_peak(schedule: str) -> None:
    rates = [learning_rate(step, config(schedule=schedule), 1000) for step in (1, 50, 100)]
    assert rates == pytest.approx([0.0001, 0.005, 0.01])


@pytest.mark.parametrize(
    ("schedule", "at_400", "at_1000"),
    [
        ("inverse_sqrt", 0.01 * math.sqrt(100 / 400), 0.01 * math.sqrt(0.1)),
        ("linear", 0.01 * 600 / 900, 0.0),
        ("cosine", 0.01 * 0.5 * (1 + math.cos(math.pi * 300 / 900)), 0.0),
        ("step", 0.01, 0.01 / 16),
        ("constant", 0.01, 0.01),
    ],
)
def test_the_decay(schedule: str, at_400: float, at_1000: float) -> None:
    assert learning_rate(400, config(schedule=schedule), 1000) == pytest.approx(at_400)
    assert learning_rate(1000, config(schedule=schedule), 1000) == pytest.approx(at_1000, abs=1e-12)


def test_the_step_schedule_halves_four_times_in_the_last_third() -> None:
    steps = (800, 801, 901, 1001, 1101, 1200)
    rates = [learning_rate(step, config(schedule="step"), 1200) for step in steps]
    assert rates == pytest.approx([0.01, 0.005, 0.0025, 0.00125, 0.000625, 0.000625])


def test_a_plateau_halves_as_often_as_it_has_struck() -> None:
    assert [learning_rate(500, config(schedule="plateau"), 1000, times) for times in (0, 1, 3)] == pytest.approx(
        [0.01, 0.005, 0.00125]
    )


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(SCHEDULES), st.integers(0, 50), st.integers(51, 300))
def test_it_rises_to_the_peak_and_never_again(schedule: str, warmup: int, steps: int) -> None:
    rates = [learning_rate(step, config(schedule=schedule, warmup_steps=warmup), steps) for step in range(1, steps + 1)]
    peak = max(1, warmup)
    assert max(rates) == pytest.approx(0.01, rel=0.05 if warmup == 0 else 1e-9)
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak - 1 :] == sorted(rates[peak - 1 :], reverse=True)
    assert min(rates) >= 0.0


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_a_warm_up_that_leaves_no_step_is_a_config_error(schedule: str) -> None:
    with pytest.raises(ConfigError, match=r"warmup_steps 12 leaves no step of train.max_steps 12"):
        tiny.run_config(Path("c"), Path("r"), f"optimizer.schedule={schedule}", "optimizer.warmup_steps=12")


def test_matrices_decay_and_vectors_do_not() -> None:
    model = tiny.model(tiny.model_config("encoder.layer_norm=true")).requires_grad_(True)
    optimizer = make_optimizer(model, config(weight_decay=0.1))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()  # without a gradient only the decay acts
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.detach(), before[name] * (1 - 0.01 * 0.1 if p.dim() > 1 else 1.0))


def test_every_parameter_is_optimised_once() -> None:
    model = tiny.model()
    optimizer = make_optimizer(model, config())
    found = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(found) == sorted(id(p) for p in model.parameters())


def test_the_average_follows_the_weights_with_a_decay_that_rises() -> None:
    model = tiny.model()
    average = MovingAverage(model, decay=0.9)
    expected = model.output_bias.clone()
    for step in range(1, 200):
        model.output_bias.add_(1.0)
        average.update(step)
        decay = min(0.9, step / (step + 10))
        expected = decay * expected + (1 - decay) * model.output_bias
        torch.testing.assert_close(average.model.output_bias, expected)
    assert average.model.output_bias is not model.output_bias
    lag = (model.output_bias - average.model.output_bias).mean().item()
    assert lag == pytest.approx(9.0, rel=0.01)  # decay / (1 - decay) steps behind a steady climb


def test_the_average_of_tied_weights_is_tied() -> None:
    average = MovingAverage(tiny.model(), decay=0.9).model
    assert average.output is average.target_embedding.weight is average.source_embedding.weight
    assert not any(p.requires_grad for p in average.parameters())


def test_without_a_decay_the_average_is_the_model_itself() -> None:
    model = tiny.model()
    average = MovingAverage(model, decay=0.0)
    before = model.output_bias.clone()
    average.update(1)
    assert average.model is model
    assert torch.equal(model.output_bias, before)
