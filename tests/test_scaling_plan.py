"""The plan for many GPUs: the limits of its model of an update, the law of large batches, the page."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import tiny
from conftest import ROOT

from nmt.errors import ConfigError

WEIGHTS = 138_791_169


@pytest.fixture(scope="module")
def plans() -> Iterator[Any]:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield importlib.import_module("scaling_plan")
    sys.path.remove(str(ROOT / "benchmarks"))


def test_the_weights_are_those_of_the_model(plans: Any) -> None:
    config = tiny.model_config("encoder.layers=3", "attention_heads=4")
    assert plans.parameters(config, 40) == sum(weight.numel() for weight in tiny.model(config, 40).parameters())
    assert plans.parameters(plans.gnmt(), 32_000) == WEIGHTS  # 138.8 M, as docs/models.md says


def test_one_gpu_sums_nothing(plans: Any) -> None:
    alone = plans.update(1, 2048, WEIGHTS, plans.Machine())
    assert (alone.all_reduce, alone.exposed) == (0.0, 0.0)
    assert alone.seconds == alone.compute


def test_without_a_fall_of_the_rate_compute_is_tokens_over_rate(plans: Any) -> None:
    machine = plans.Machine(rate=1e5, half=0.0)
    assert plans.update(8, 2048, WEIGHTS, machine).compute == pytest.approx(2048 / 8 * plans.PAIR_TOKENS / 1e5)


def test_the_rates_that_the_fall_is_made_from_come_out_again(plans: Any) -> None:
    for known in (plans.SMALL, plans.LARGE):
        found = plans.update(known.gpus, known.gpus * known.sentences, WEIGHTS, plans.Machine()).compute
        assert known.sentences * plans.PAIR_TOKENS / found == pytest.approx(known.rate, rel=0.01)


def test_the_all_reduce_is_that_of_a_ring(plans: Any) -> None:
    machine = plans.Machine(latency_inside=0.0, latency_between=0.0, reached=1.0)
    size = 4 * WEIGHTS
    inside = 2 * 7 / 8 * size / machine.inside
    assert plans.all_reduce(8, WEIGHTS, machine) == pytest.approx(inside)
    assert plans.all_reduce(32, WEIGHTS, machine) == pytest.approx(inside + 2 * 3 / 4 * size / machine.between)


def test_what_grows_and_what_falls(plans: Any) -> None:
    machine = plans.Machine()
    counts = (1, 2, 4, 8, 16, 64, 256)
    sums = [plans.all_reduce(count, WEIGHTS, machine) for count in counts]
    assert sums == sorted(sums)
    work = [plans.update(count, 8192, WEIGHTS, machine).compute for count in counts]
    assert work == sorted(work, reverse=True)
    minutes = [plans.plan(count, WEIGHTS, machine).minutes for count in (8, 16, 32, 64, 128, 256)]
    assert minutes == sorted(minutes, reverse=True)


@pytest.mark.parametrize("name", ["rate", "inside", "between", "overlap", "reached"])
def test_a_better_machine_is_no_slower(plans: Any, name: str) -> None:
    machine = plans.Machine(overlap=0.4)
    better = plans.replace(machine, **{name: 1.2 * getattr(machine, name)})
    assert plans.plan(64, WEIGHTS, better).minutes < plans.plan(64, WEIGHTS, machine).minutes


def test_all_is_hidden_or_nothing(plans: Any) -> None:
    hidden = plans.update(16, 8192, WEIGHTS, plans.Machine(overlap=1.0))
    bare = plans.update(16, 8192, WEIGHTS, plans.Machine(overlap=0.0))
    assert hidden.exposed == 0.0
    assert bare.exposed == bare.all_reduce > 0


def test_the_law_meets_its_points_and_stays_between_them(plans: Any) -> None:
    for batch, lr, epochs in plans.LAW:
        assert plans.law(batch) == pytest.approx((lr, epochs))
    rates = [plans.law(batch)[0] for batch in range(1024, 16385, 512)]
    assert rates == sorted(rates)
    assert 5.5 < plans.law(6000)[1] < 6.5
    for batch in (1023, 16385):
        with pytest.raises(ConfigError, match="published points reach from 1,024 to 16,384"):
            plans.law(batch)


def test_each_gpu_has_a_whole_number_of_sentences(plans: Any) -> None:
    assert plans.plan(24, WEIGHTS, plans.Machine()).batch % 24 == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--between", "0"], "between is 0"),
        (["--ethernet", "0"], "between is 0"),
        (["--nvlink", "-1"], "inside is -1"),
        (["--rate", "0"], "rate is 0"),
        (["--overlap", "1.5"], "shares, from 0 to 1"),
        (["--gpus", "12"], "12 GPUs: up to 8, or whole nodes of 8"),
        (["--gpus", "0"], "0 GPUs"),
        (["--gpus", "32768"], "no published batch has a sentence for each of them"),
    ],
)
def test_what_can_not_be_is_refused_in_one_line(
    plans: Any, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert plans.main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert printed.err.count("\n") == 1


def test_more_gpus_than_sentences(plans: Any) -> None:
    with pytest.raises(ConfigError, match="16 GPUs for 15 sentences an update"):
        plans.update(16, 15, WEIGHTS, plans.Machine())


def test_the_page(plans: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert plans.main([]) == 0
    page = capsys.readouterr().out
    assert page.startswith("Calculated: nothing of Strata has been measured on more than CPUs.")
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows[1:7]] == ["8", "16", "32", "64", "128", "256"]
    assert len({len(row) for row in rows[:7]}) == 1
    assert float(rows[1][-1]) == pytest.approx(7.81, abs=0.15)  # the published result that it is made from
    for label in ("Ours, counted", "Published", "Derived from published numbers", "Assumed", "Left out", "Measured"):
        assert f"**{label}" in page
