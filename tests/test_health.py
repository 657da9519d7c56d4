"""Health of the flow: figures that are exact, warnings where gradients do vanish or explode, and a run that is none the wiser."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nmt.model.config import Cell, StackConfig
from nmt.model.rnn import RecurrentLayer, StackedRNN
from nmt.study.vanishing import Case, Recall, cases
from nmt.text.tokenizer import PAD
from nmt.training.flow import FlowMonitor, LayerHealth, gradient_map, parts
from nmt.training.health import FlowWarning, HealthRecorder, flow_warnings

CELLS: tuple[Cell, ...] = ("lstm", "gru", "gru_before", "rnn", "rnn_relu")
WIRINGS = ("gnmt", "deep", "luong", "bahdanau")


# --- saturation -----------------------------------------------------------------------------------------------------


def sharp(module: nn.Module) -> Any:
    """`module` with weights so large that a fair part of its gates is saturated."""
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(torch.randn_like(weight))
    return module


def slow_counts(cell: Cell, kernel: nn.Module, steps: Tensor, h: Tensor, c: Tensor) -> tuple[int, int]:
    """Saturated and all activations of one direction over one sequence (S, inputs) from the state (H,), unit by unit."""
    w, u = kernel.weight_ih_l0, kernel.weight_hh_l0
    b, d = kernel.bias_ih_l0, kernel.bias_hh_l0
    size, flat, count = len(h), 0, 0
    for x in steps:
        seen: list[float] = []
        if cell == "lstm":
            i, f, g, o = (
                x @ w[k : k + size].T + h @ u[k : k + size].T + b[k : k + size] + d[k : k + size]
                for k in range(0, 4 * size, size)
            )
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            seen = torch.sigmoid(torch.cat((i, f, o))).tolist()
        elif cell.startswith("gru"):
            r, z = (
                torch.sigmoid(x @ w[k : k + size].T + h @ u[k : k + size].T + b[k : k + size] + d[k : k + size])
                for k in (0, size)
            )
            last = slice(2 * size, 3 * size)
            back = u[last] @ (r * h) + d[last] if cell == "gru_before" else r * (u[last] @ h + d[last])
            h = (1 - z) * torch.tanh(w[last] @ x + b[last] + back) + z * h
            seen = torch.cat((r, z)).tolist()
        else:
            h = w @ x + b + u @ h + d
            h = torch.tanh(h) if cell == "rnn" else h.clamp(min=0)
            seen = h.abs().tolist()
        if cell == "rnn":
            flat += sum(value > 0.95 for value in seen)
        elif cell == "rnn_relu":
            flat += sum(value == 0 for value in seen)
        else:
            flat += sum(value < 0.05 or value > 0.95 for value in seen)
        count += len(seen)
    return flat, count


@pytest.mark.parametrize("cell", CELLS)
@torch.no_grad()
def test_saturation_of_a_ragged_bidirectional_batch_is_that_of_a_slow_count(cell: Cell) -> None:
    stack = sharp(
        StackedRNN(StackConfig(layers=2, hidden=6, cell=cell, bidirectional="all", residual=False), 4, return_grid=True)
    )
    x, lengths = torch.randn(3, 7, 4), torch.tensor([7, 2, 4])
    with FlowMonitor(stack) as monitor:
        below = stack(x, lengths).grid[0]
    for layer, inputs, health in zip(stack.layers, (x, below), monitor.healths(), strict=False):
        flat = count = 0
        for row, length in enumerate(lengths):
            steps = inputs[row, :length]
            for kernel, ordered in ((layer.forwards, steps), (layer.backwards, steps.flip(0))):
                more = slow_counts(cell, kernel, ordered, torch.zeros(3), torch.zeros(3))
                flat, count = flat + more[0], count + more[1]
        assert health.saturation == pytest.approx(flat / count)
        assert 0.05 < flat / count < 0.95


@pytest.mark.parametrize("cell", CELLS)
@torch.no_grad()
def test_saturation_knows_the_state_that_a_decoder_starts_from(cell: Cell) -> None:
    layer = sharp(RecurrentLayer(cell, 3, 5))
    x, h, c = torch.randn(1, 4, 3), 3 * torch.randn(1, 5), torch.randn(1, 5)
    with FlowMonitor(layer) as monitor:
        layer(x, state=(h, c) if cell == "lstm" else (h,))
    flat, count = slow_counts(cell, layer.forwards, x[0], h[0], c[0])
    assert monitor.healths()[0].saturation == pytest.approx(flat / count)


# --- gradients and updates ------------------------------------------------------------------------------------------


def by_name(monitor: FlowMonitor) -> dict[str, LayerHealth]:
    return {health.name: health for health in monitor.healths()}


def classifier(**keys: Any) -> Recall:
    torch.manual_seed(1)
    return Recall(Case("", StackConfig(**({"layers": 2, "hidden": 8} | keys))))


def symbols(rows: int = 8, steps: int = 12) -> Tensor:
    return torch.randint(8, (rows, steps), generator=torch.Generator().manual_seed(2))


def test_gradient_norms_are_those_before_clipping_and_update_ratios_those_of_the_step() -> None:
    model = classifier()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with FlowMonitor(model) as monitor:
        for batch in (symbols(8), symbols(4)):  # two batches for one update
            F.cross_entropy(model(batch)[0], batch[:, 0]).backward()
    kept = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    norm = float(nn.utils.clip_grad_norm_(model.parameters(), 1e-3))
    optimizer.step()
    healths = by_name(monitor)
    assert list(healths) == ["stack layer 1", "stack layer 2", "embedding", "output"]
    for name, prefix in {"stack layer 2": "stack.layers.1.", "embedding": "embedding.", "output": "output."}.items():
        gradients = torch.cat([kept[key].flatten() for key in kept if key.startswith(prefix)])
        weights = torch.cat([before[key].flatten() for key in before if key.startswith(prefix)])
        assert healths[name].gradient_norm == pytest.approx(float(gradients.norm()), rel=1e-5)
        assert healths[name].gradient_rms == pytest.approx(float(gradients.square().mean().sqrt()), rel=1e-5)
        assert healths[name].update_ratio == pytest.approx(
            0.1 * 1e-3 / norm * float(gradients.norm() / weights.norm()), rel=1e-2
        )
    assert math.hypot(*(health.gradient_norm for health in healths.values())) == pytest.approx(norm, rel=1e-5)


def test_weights_that_are_all_zero_have_no_update_ratio() -> None:
    model = classifier()
    nn.init.zeros_(model.output.weight)
    nn.init.zeros_(model.output.bias)
    with FlowMonitor(model) as monitor:
        model(symbols())[0].sum().backward()
    assert by_name(monitor)["output"].update_ratio is None
    assert "update_ratio" not in by_name(monitor)["output"].figures()


def test_flow_and_reach_are_those_of_the_gradients_of_a_layers_outputs_and_inputs() -> None:
    model = classifier(residual=False)
    batch = symbols(steps=20)
    with FlowMonitor(model) as monitor:
        logits, grid, _ = model(batch)
        loss = F.cross_entropy(logits, batch[:, 0])
        loss.backward(retain_graph=True)
    into, lower, upper = (gradient.square() for gradient in torch.autograd.grad(loss, grid))
    for name, inputs, outputs in (("stack layer 1", into, lower), ("stack layer 2", lower, upper)):
        health = by_name(monitor)[name]
        assert health.flow == pytest.approx(float(outputs.mean().sqrt()), rel=1e-4)
        tenths = inputs.unflatten(1, (10, 2)).mean((0, 2, 3))
        assert health.reach == pytest.approx(float((tenths[0] / tenths.max()).sqrt()), rel=1e-4)
        assert health.reach < 0.5


@pytest.mark.parametrize("wiring", WIRINGS)
def test_a_padded_batch_has_the_figures_of_its_rows_one_by_one(wiring: str) -> None:
    norm = ("encoder.layer_norm=true", "decoder.layer_norm=true") if wiring == "deep" else ()
    model = tiny.model(tiny.model_config(f"wiring={wiring}", *norm)).requires_grad_().train()
    source, target = torch.randint(4, 40, (3, 9)), torch.randint(4, 40, (3, 8))
    lengths, sizes = torch.tensor([9, 4, 6]), torch.tensor([5, 8, 1])
    target[torch.arange(8) >= sizes[:, None]] = PAD
    with FlowMonitor(model) as together:
        vectors = model(source, lengths, target)
        vectors[target != PAD].square().sum().backward()
    model.zero_grad()
    with FlowMonitor(model) as apart:
        for row in range(3):
            vectors = model(
                source[row : row + 1, : lengths[row]], lengths[row : row + 1], target[row : row + 1, : sizes[row]]
            )
            vectors.square().sum().backward()
    for one, other in zip(together.healths(), apart.healths(), strict=True):
        assert one.figures() == pytest.approx(other.figures(), rel=1e-3)
        assert (one.flow is None) == (one.saturation is None) == ("layer" not in one.name)


@pytest.mark.parametrize("wiring", WIRINGS)
@pytest.mark.parametrize("tied", ["none", "output", "all"])
def test_every_weight_belongs_to_one_part(wiring: str, tied: str) -> None:
    norm = ("encoder.layer_norm=true", "decoder.layer_norm=true") if wiring == "deep" else ()
    model = tiny.model(tiny.model_config(f"wiring={wiring}", f"tie_embeddings={tied}", *norm)).requires_grad_()
    found = parts(model)
    assert sorted(id(weight) for part in found.values() for weight in part) == sorted(map(id, model.parameters()))
    layers = [f"{side} layer {number}" for side in ("encoder", "decoder") for number in (1, 2)]
    others = ["embedding", "attention", *(["feed-forward"] if wiring == "deep" else []), "output", "other"]
    assert list(found) == layers + others
    assert any(weight is model.target_embedding.weight for weight in found["embedding"])


@pytest.mark.parametrize("bidirectional", ["none", "all"])
def test_the_map_of_gradients_is_that_of_every_h_of_real_steps(bidirectional: str) -> None:
    torch.manual_seed(0)
    config = StackConfig(layers=3, hidden=(4, 6, 2), bidirectional=bidirectional)
    stack = StackedRNN(config, 5, return_sequences=False, return_grid=True)
    x, lengths = torch.randn(3, 6, 5), torch.tensor([5, 1, 3])
    found = stack(x, lengths)
    loss = found.output.pow(3).sum()
    seen = gradient_map(loss, found.grid, lengths)
    assert all(weight.grad is None for weight in stack.parameters())
    for layer in found.grid:
        layer.retain_grad()
    loss.backward()
    assert seen.shape == (3, 6)
    assert seen[:, 5].isnan().all()
    for level, layer in enumerate(found.grid):
        for step in range(5):
            rows = [row for row in range(3) if step < lengths[row]]
            assert float(seen[level, step]) == pytest.approx(
                float(layer.grad[rows, step].square().mean().sqrt()), rel=1e-4
            )


# --- no trace -------------------------------------------------------------------------------------------------------


def hooks(module: nn.Module) -> int:
    return sum(
        len(child._forward_hooks) + len(child._forward_pre_hooks) + len(child._backward_hooks)
        for child in module.modules()
    )


def test_nothing_stays_on_the_module_or_on_its_inputs_even_after_a_failure() -> None:
    stack = StackedRNN(StackConfig(layers=2, hidden=4, bidirectional="all"), 3)
    x, lengths = torch.randn(2, 5, 3, requires_grad=True), torch.tensor([5, 2])

    def fail() -> None:
        with FlowMonitor(stack):
            stack(x, lengths)
            assert hooks(stack) == 2
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert hooks(stack) == 0
    assert not x._backward_hooks
    with FlowMonitor(stack) as monitor:
        stack(x, lengths).output.sum().backward()
    assert [health.name for health in monitor.healths()] == ["layer 1", "layer 2"]
    assert hooks(stack) == 0
    assert not x._backward_hooks


# --- warnings -------------------------------------------------------------------------------------------------------


def first_update(case: Case, seed: int, steps: int = 40) -> list[FlowWarning]:
    torch.manual_seed(seed)
    model = Recall(case)
    batch = torch.randint(8, (8, steps))
    with FlowMonitor(model) as monitor:
        F.cross_entropy(model(batch)[0], batch[:, 0]).backward()
    return flow_warnings(monitor.healths())


def numbers(warning: FlowWarning) -> list[int]:
    return [int(name.removeprefix("stack layer ")) for name in warning.layers]


@pytest.mark.parametrize("seed", [1, 2])
def test_a_deep_simple_rnn_is_warned_of_its_lowest_layers_and_of_time(seed: int) -> None:
    vanishing, fading = first_update(cases()[0], seed)
    assert (vanishing.kind, fading.kind) == ("vanishing", "fading")
    assert 1 in numbers(vanishing)
    assert max(numbers(vanishing)) < 6
    assert "what reaches stack layer 10" in str(vanishing)
    assert 1 in numbers(fading)


@pytest.mark.parametrize("seed", [1, 2])
def test_residual_connections_help_through_depth_but_gates_are_needed_through_time(seed: int) -> None:
    plain, rnn, gru, lstm = cases()
    assert (rnn.config.cell, gru.config.cell, lstm.config.cell) == ("rnn", "gru", "lstm")
    assert [warning.kind for warning in first_update(rnn, seed)] == ["fading"]
    assert first_update(gru, seed) == []
    assert first_update(lstm, seed) == []
    ungated = Case("", plain.config.model_copy(update={"cell": "lstm"}), plain.init)
    assert "vanishing" in [warning.kind for warning in first_update(ungated, seed)]


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("layer_norm", [False, True])
def test_deep_residual_stacks_with_gates_are_not_warned(cell: Cell, layer_norm: bool) -> None:
    config = StackConfig(layers=12, hidden=32, cell=cell, layer_norm=layer_norm)
    assert first_update(Case("", config), seed=3) == []


def test_exploding_gradients_are_warned_of() -> None:
    config = StackConfig(layers=4, hidden=32, cell="rnn_relu", residual=False)
    (warning,) = (found for found in first_update(Case("", config, 0.4), seed=1) if found.kind == "exploding")
    assert warning.layers[0].startswith("stack layer ")
    assert "gradients explode, most of all in stack layer" in str(warning)


def test_a_gradient_that_is_no_number_counts_as_exploding() -> None:
    healths = [LayerHealth("layer 1", 1, 5.0, 1.0, 0.0), LayerHealth("layer 2", 1, math.nan, 1.0, 0.0)]
    (warning,) = flow_warnings(healths)
    assert (warning.kind, warning.layers) == ("exploding", ("layer 2",))


@pytest.mark.parametrize("wiring", WIRINGS)
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_translation_models_are_not_warned_at_their_first_update(wiring: str, cell: str) -> None:
    sides = [f"{side}.{key}" for side in ("encoder", "decoder") for key in ("layers=6", f"cell={cell}")]
    norm = ["encoder.layer_norm=true", "decoder.layer_norm=true"] if wiring == "deep" else []
    model = tiny.model(tiny.model_config(f"wiring={wiring}", *sides, *norm)).requires_grad_().train()
    source, target = torch.randint(4, 40, (4, 15)), torch.randint(4, 40, (4, 16))
    with FlowMonitor(model) as monitor:
        logits = model.logits(model(source, torch.tensor([15, 3, 9, 12]), target[:, :-1]))
        F.cross_entropy(logits.flatten(0, 1), target[:, 1:].flatten()).backward()
    assert flow_warnings(monitor.healths()) == []


# --- a training run -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.prepared(tmp_path_factory.mktemp("health"))


def test_a_run_records_the_first_update_and_every_nth_and_is_the_same_to_the_bit(corpus: Path, tmp_path: Path) -> None:
    shape = ("train.accumulate=2", "model.encoder.bidirectional=all")
    watched = tiny.trained(corpus, tmp_path / "watched", "train.health_every=4", *shape)
    alone = tiny.trained(corpus, tmp_path / "alone", "train.health_every=null", *shape)
    found = tiny.records(watched, "health")
    assert [item["step"] for item in found] == [1, 4, 8, 12]
    assert tiny.records(alone, "health") == []
    assert tiny.records(watched) == tiny.records(alone)
    tensors, expected = tiny.last_checkpoint(watched)[0], tiny.last_checkpoint(alone)[0]
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)
    for item, train in ((item, tiny.records(watched)[item["step"] - 1]) for item in found):
        norms = [value for key, value in item.items() if key.endswith("/gradient_norm")]
        assert math.hypot(*norms) == pytest.approx(train["gradient_norm"], rel=1e-3)
        assert 0 < item["decoder_layer_2/update_ratio"] < 0.1
        assert 0 <= item["encoder_layer_1/saturation"] < 0.5
        assert item["warnings"] == []


def test_a_resumed_run_has_the_records_of_an_uninterrupted_one(corpus: Path, tmp_path: Path) -> None:
    whole = tiny.trained(corpus, tmp_path / "whole", "train.health_every=3")
    tiny.trained(corpus, tmp_path / "run", "train.health_every=3", "train.max_steps=7")
    resumed = tiny.trained(corpus, tmp_path / "run", "train.health_every=3")
    assert tiny.records(resumed, "health") == tiny.records(whole, "health")


def test_a_run_says_a_warning_once(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tiny.trained(corpus, tmp_path / "run", "train.health_every=1", "optimizer.clip_norm=1e-3")
    found = [text for item in tiny.records(run, "health") for text in item["warnings"]]
    assert len(found) == 12
    assert all("clipping leaves 0.001" in text for text in found)
    said = [line for line in capsys.readouterr().err.splitlines() if "gradients explode" in line]
    assert said[0] == f"step 1: {found[0]}"
    assert (
        len(said) == len({text.partition(":")[0] for text in found}) < 12
    )  # one for each part that was ever the strongest


class Said:
    """A journal that keeps what is said, and is never written to."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)


def test_an_explosion_between_two_records_is_said_too() -> None:
    model, journal = classifier(), Said()
    recorder = HealthRecorder(model, every=100, clip_norm=1.0)
    for step, scale in ((2, 1.0), (3, 1e4), (4, 1.0), (5, 2e4)):
        model.zero_grad()
        with recorder.watching(step):
            model(symbols())[0].sum().mul(scale).backward()
        recorder.clipped(float(nn.utils.clip_grad_norm_(model.parameters(), 1.0)))
        recorder.report(step, journal)  # type: ignore[arg-type]
    (line,) = journal.lines
    assert line.startswith("step 3: gradients explode, most of all in output: their norm is ")
