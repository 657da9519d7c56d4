"""Initial weights: what each scheme draws, and what it leaves alone."""

from __future__ import annotations

import math
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor, nn

from nmt.model.config import Initialisation, ModelConfig
from nmt.model.initialise import initialise
from nmt.model.rnn import RecurrentLayer
from nmt.model.seq2seq import Seq2Seq

GATES = {"lstm": 4, "gru": 3, "gru_before": 3, "rnn": 1, "rnn_relu": 1}
INPUTS, UNITS = 60, 40
cells = pytest.mark.parametrize("cell", GATES)
WIRINGS: dict[str, dict[str, Any]] = {
    "gnmt": {},
    "deep": {"encoder": {"hidden": 8, "layer_norm": True}, "decoder": {"hidden": 8, "layer_norm": True}},
    "luong": {"attention": "additive", "decoder": {"hidden": 8, "layer_norm": True}},
    "bahdanau": {"attention": "additive"},
}


def drawn(cell: Any, scheme: Initialisation) -> list[dict[str, Tensor]]:
    """The parameters of both directions of a layer after `initialise`, by PyTorch's names."""
    torch.manual_seed(0)
    layer = RecurrentLayer(cell, INPUTS, 2 * UNITS, bidirectional=True).requires_grad_(False)
    for parameter in layer.parameters():
        parameter.fill_(9.0)
    initialise(layer, scheme)
    assert layer.backwards is not None
    return [dict(kernel.named_parameters()) for kernel in (layer.forwards, layer.backwards)]


def seq2seq(wiring: str, init: Initialisation) -> Seq2Seq:
    shape = {"embedding": 6, "wiring": wiring, "attention_heads": 2, "init": init}
    base = {"encoder": {"hidden": 8}, "decoder": {"hidden": 8}}
    return tiny.model(ModelConfig.model_validate(shape | base | WIRINGS[wiring]))


def is_flat(value: Tensor, bound: float) -> bool:
    """Whether the values look uniform in +-`bound`."""
    near = bound / math.sqrt(3)
    return bool(value.abs().max() <= bound and value.abs().max() > 0.97 * bound and abs(value.std() / near - 1) < 0.1)


# --- recurrent layers -----------------------------------------------------------------------------------------------


@cells
@pytest.mark.parametrize("scheme", ["orthogonal", "uniform"])
def test_recurrent_weights_are_orthogonal_gate_by_gate_and_biases_zero_but_for_an_lstms_forget_gate(
    cell: str, scheme: Initialisation
) -> None:
    for p in drawn(cell, scheme):
        blocks = p["weight_hh_l0"].split(UNITS)
        assert len(blocks) == GATES[cell]
        for block in blocks:
            torch.testing.assert_close(block @ block.T, torch.eye(UNITS), atol=1e-5, rtol=0)
        bias = torch.zeros(GATES[cell], UNITS)
        if cell == "lstm":
            bias[1] = 1.0
        assert torch.equal(p["bias_ih_l0"] + p["bias_hh_l0"], bias.flatten())


@cells
def test_input_weights_are_glorots_for_each_gate_or_uniform_in_the_square_root_of_the_units(cell: str) -> None:
    for scheme, bound in (("orthogonal", math.sqrt(6 / (INPUTS + UNITS))), ("uniform", UNITS**-0.5)):
        for p in drawn(cell, scheme):
            for block in p["weight_ih_l0"].split(UNITS):
                assert is_flat(block, bound)


@cells
def test_a_number_is_the_bound_of_every_weight(cell: str) -> None:
    for p in drawn(cell, 0.04):
        assert is_flat(p["weight_hh_l0"], 0.04)
        assert is_flat(p["weight_ih_l0"], 0.04)
        assert 0 < p["bias_ih_l0"].abs().max() <= 0.04
        assert not p["bias_hh_l0"].any()


@pytest.mark.parametrize("scheme", ["orthogonal", "uniform", 0.1])
def test_directions_and_gates_begin_different(scheme: Initialisation) -> None:
    forwards, backwards = drawn("lstm", scheme)
    blocks = [block for p in (forwards, backwards) for block in p["weight_hh_l0"].split(UNITS)]
    for index, block in enumerate(blocks):
        assert not any(torch.equal(block, other) for other in blocks[:index])


# --- whole models ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wiring", WIRINGS)
def test_a_number_draws_everything_but_what_normalises(wiring: str) -> None:
    model = seq2seq(wiring, 0.05)
    norms = [id(p) for module in model.modules() if isinstance(module, nn.LayerNorm) for p in module.parameters()]
    kept = 0
    for name, parameter in model.named_parameters():
        if id(parameter) in norms:
            kept += 1
            assert set(parameter.tolist()) <= {0.0, 1.0}, name
        elif name.endswith("attention.gain"):
            kept += 1
            assert torch.equal(parameter, torch.full((2,), 4**-0.5)), name  # 1 / sqrt(width of a head)
        elif name.endswith("attention.bias") or "bias_hh" in name:
            assert not parameter.any(), name
        else:
            assert 0 < parameter.abs().max() <= 0.05, name
            assert parameter.min() < 0 < parameter.max(), name
    assert bool(kept) == (wiring != "gnmt")


@pytest.mark.parametrize("wiring", WIRINGS)
def test_the_decoders_recurrences_are_orthogonal_too(wiring: str) -> None:
    model = seq2seq(wiring, "orthogonal")
    kernels = [m for m in model.decoder.modules() if isinstance(m, nn.RNNBase | nn.RNNCellBase)]
    assert len(kernels) == 2
    for kernel in kernels:
        [weight] = [value for name, value in kernel.named_parameters() if name.startswith("weight_hh")]
        for block in weight.split(8):
            torch.testing.assert_close(block @ block.T, torch.eye(8), atol=1e-5, rtol=0)


@pytest.mark.parametrize("wiring", WIRINGS)
def test_uniform_changes_the_recurrences_input_weights_and_nothing_else(wiring: str) -> None:
    usual, uniform = (dict(seq2seq(wiring, init).named_parameters()) for init in ("orthogonal", "uniform"))
    for name, parameter in usual.items():
        if "weight_ih" in name:
            bound = (len(parameter) // GATES["lstm"]) ** -0.5
            assert uniform[name].abs().max() <= bound < parameter.abs().max(), name
        elif "weight_hh" not in name:
            assert torch.equal(uniform[name], parameter), name


@pytest.mark.parametrize("init", ["orthogonal", "uniform", 0.1])
def test_a_seed_is_a_model(init: Initialisation) -> None:
    one, same, other = (tiny.model(tiny.model_config(f"init={init}"), seed=seed) for seed in (4, 4, 5))
    for first, second in zip(one.parameters(), same.parameters(), strict=True):
        assert torch.equal(first, second)
    assert not torch.equal(one.output, other.output)


@pytest.mark.parametrize(("init", "spread"), [("orthogonal", 1.0), ("uniform", 1.0), (0.1, 0.1 / math.sqrt(3))])
def test_words_enter_with_unit_variance_or_as_published(init: Initialisation, spread: float) -> None:
    """Scaled by sqrt(E) the published weights would saturate the first layer's gates before training begins."""
    model = tiny.model(tiny.model_config("embedding=1024", f"init={init}"), vocabulary=200)
    seen: list[Tensor] = []
    model.encoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model.encode(torch.arange(4, 200)[None], torch.tensor([196]))
    assert seen[0].std().item() == pytest.approx(spread, rel=0.02)
