"""StackedRNN: the formulas of its cells, ragged batches, what it returns, parity with PyTorch's own stacks, what stands between layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from nmt.errors import ConfigError
from nmt.model.config import StackConfig
from nmt.model.dropout import SharedDropout
from nmt.model.rnn import RecurrentLayer, StackedRNN, reversal

LENGTHS = torch.tensor([5, 1, 7, 3])
STEPS = 7


@pytest.fixture(autouse=True)
def _doubles() -> Iterator[None]:
    """Formulas are compared in float64, where only a wrong formula makes a difference."""
    torch.set_num_threads(1)  # on tensors this small more threads only wait for each other
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def stack(inputs: int, dropout: float = 0.0, **settings: object) -> StackedRNN:
    """A stack with random biases too, so that none of them can be forgotten unseen."""
    made = StackedRNN(StackConfig.model_validate(settings), inputs, dropout, return_grid=True)
    for name, parameter in made.named_parameters():
        if "bias" in name:
            nn.init.normal_(parameter, std=0.3)
    return made


def ragged(width: int) -> Tensor:
    """A batch of four rows of unequal length whose padding is noise: nothing may depend on it."""
    return torch.randn(len(LENGTHS), STEPS, width)


def states(cell: str, p: dict[str, Tensor], xs: list[Tensor]) -> list[Tensor]:
    """H_1 ... H_T of one direction of one layer over its inputs, from the textbook's formulas and nothing else."""
    w, u, b = p["weight_hh"], p["weight_ih"], p["bias_ih"] + p["bias_hh"]
    units = w.shape[1]
    h, c, found = torch.zeros(units), torch.zeros(units), []
    for x in xs:
        parts = (u @ x + w @ h + b).split(units)  # of every gate
        if cell == "rnn":
            h = torch.tanh(parts[0])
        elif cell == "rnn_relu":
            h = torch.clamp(parts[0], min=0.0)
        elif cell == "lstm":
            c = parts[1].sigmoid() * c + parts[0].sigmoid() * parts[2].tanh()
            h = parts[3].sigmoid() * c.tanh()
        else:
            r, z = parts[0].sigmoid(), parts[1].sigmoid()
            un, wn, bi, bh = u[-units:], w[-units:], p["bias_ih"][-units:], p["bias_hh"][-units:]
            inner = r * (wn @ h + bh) if cell == "gru" else wn @ (r * h) + bh
            h = (1 - z) * torch.tanh(un @ x + bi + inner) + z * h
        found.append(h)
    return found


def grid(network: StackedRNN, cells: tuple[str, ...], x: Tensor) -> list[Tensor]:
    """Every H_t^L of one row `x` (T, inputs), cell by cell."""
    below, levels = list(x), []
    for cell, layer in zip(cells, network.layers, strict=True):
        assert isinstance(layer, RecurrentLayer)
        ways = [states(cell, kernel(layer), below)]
        if layer.backwards is not None:
            ways.append(states(cell, kernel(layer, backward=True), below[::-1])[::-1])
        below = [torch.cat(halves) for halves in zip(*ways, strict=True)]
        levels.append(torch.stack(below))
    return levels


def kernel(layer: nn.Module, backward: bool = False) -> dict[str, Tensor]:
    """The parameters of one direction of a layer, named without the suffix of PyTorch's layer number."""
    assert isinstance(layer, RecurrentLayer)
    chosen = layer.backwards if backward else layer.forwards
    assert chosen is not None
    return {name.removesuffix("_l0"): value for name, value in chosen.named_parameters()}


# --- formulas -------------------------------------------------------------------------------------------------------


def test_the_simple_cell_is_its_formula_in_every_layer_at_every_step() -> None:
    network = stack(3, layers=2, hidden=(3, 2), cell="rnn", residual=False)
    x = torch.randn(1, 4, 3)
    output = network(x, torch.tensor([4]))
    below = [x[0, t] for t in range(4)]
    for level, width in enumerate((3, 2)):
        p = kernel(network.layers[level])
        w, u, b = p["weight_hh"], p["weight_ih"], p["bias_hh"] + p["bias_ih"]
        assert (w.shape, u.shape, b.shape) == ((width, width), (width, 3), (width,))
        before, row = torch.zeros(width), []
        for t in range(4):  # H_t^L = tanh(W^L H_{t-1}^L + U^L H_t^{L-1} + B^L)
            before = torch.tanh(w @ before + u @ below[t] + b)
            row.append(before)
            torch.testing.assert_close(output.grid[level][0, t], before)
        below = row
    assert output.grid[0].shape == (1, 4, 3)
    assert output.grid[1].shape == (1, 4, 2)
    assert output.output is output.grid[1]


CELLS = {
    **{cell: (cell,) * 4 for cell in ("rnn", "rnn_relu", "gru", "gru_before", "lstm")},
    "mixed": ("lstm", "gru_before", "rnn_relu", "gru"),
}


@pytest.mark.parametrize("cells", CELLS.values(), ids=CELLS)
@pytest.mark.parametrize("bidirectional", ["none", "first", "all", (False, True, False, True)])
@pytest.mark.parametrize("depth", [1, 4])
def test_the_whole_grid_is_the_formulas_for_every_cell_direction_and_length(
    cells: tuple[str, ...], bidirectional: str | tuple[bool, ...], depth: int
) -> None:
    directions = bidirectional[:depth] if isinstance(bidirectional, tuple) else bidirectional
    shape = {"layers": depth, "hidden": (6, 4, 8, 2)[:depth], "cell": cells[:depth], "bidirectional": directions}
    network = stack(3, residual=False, **shape)
    x = ragged(3)
    computed = network(x, LENGTHS).grid
    assert len(computed) == depth
    for row, length in enumerate(LENGTHS.tolist()):
        for level, expected in enumerate(grid(network, cells[:depth], x[row, :length])):
            torch.testing.assert_close(computed[level][row, :length], expected)


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_three_then_two_units_on_three_inputs_have_the_textbooks_shapes(cell: str) -> None:
    network = stack(3, layers=2, hidden=(3, 2), cell=cell, residual=False)
    gates = {"rnn": 1, "gru": 3, "lstm": 4}[cell]
    for level, (inputs, units) in enumerate(((3, 3), (3, 2))):
        p = kernel(network.layers[level])
        assert p["weight_ih"].shape == (gates * units, inputs)
        assert p["weight_hh"].shape == (gates * units, units)


def test_layers_differ_in_cell_and_width() -> None:
    network = stack(3, layers=3, hidden=(6, 4, 2), cell=("lstm", "gru", "rnn"), bidirectional="first", residual=False)
    output = network(ragged(3), LENGTHS)
    assert [layer.shape for layer in output.grid] == [(4, STEPS, 6), (4, STEPS, 4), (4, STEPS, 2)]
    kinds = [type(layer.forwards) for layer in network.layers]
    assert kinds == [nn.LSTM, nn.GRU, nn.RNN]
    assert [layer.backwards is not None for layer in network.layers] == [True, False, False]


# --- ragged batches -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn", "rnn_relu", "gru_before"])
@pytest.mark.parametrize("bidirectional", ["none", "first", "all", (False, True, False)])
def test_a_ragged_batch_equals_each_row_alone(cell: str, bidirectional: str | tuple[bool, ...]) -> None:
    network = stack(3, layers=3, hidden=4, cell=cell, bidirectional=bidirectional, layer_norm=True)
    x = ragged(3)
    together = network(x, LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        alone = network(x[row : row + 1, :length], LENGTHS[row : row + 1])
        for both, one in zip(together.grid, alone.grid, strict=True):
            torch.testing.assert_close(both[row, :length], one[0])


@pytest.mark.parametrize("bidirectional", ["none", "all"])
def test_padding_never_reaches_a_real_step(bidirectional: str) -> None:
    network = stack(3, layers=2, hidden=4, bidirectional=bidirectional)
    x = ragged(3)
    real = torch.arange(STEPS) < LENGTHS[:, None]
    other = torch.where(real[:, :, None], x, 1e6)
    assert torch.equal(network(x, LENGTHS).output[real], network(other, LENGTHS).output[real])


def test_a_bidirectional_layer_sees_both_ways_and_a_forward_layer_only_back() -> None:
    x = torch.randn(1, 5, 3, requires_grad=True)
    for bidirectional, seen in (("none", [1, 1, 1, 0, 0]), ("first", [1, 1, 1, 1, 1])):
        top = stack(3, layers=1, hidden=4, bidirectional=bidirectional)(x, torch.tensor([5])).output
        (gradient,) = torch.autograd.grad(top[0, 2].sum(), x)
        assert (gradient[0].abs().sum(1) > 0).int().tolist() == seen


def test_reversal_is_within_the_length_and_its_own_inverse() -> None:
    positions = reversal(torch.tensor([3, 1, 4]), 4)
    assert positions.tolist() == [[2, 1, 0, 3], [0, 1, 2, 3], [3, 2, 1, 0]]
    assert positions.gather(1, positions).tolist() == [list(range(4))] * 3


# --- what is returned -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cells", CELLS.values(), ids=CELLS)
@pytest.mark.parametrize("bidirectional", ["none", "all"])
def test_without_sequences_each_row_gives_its_last_valid_state(cells: tuple[str, ...], bidirectional: str) -> None:
    torch.manual_seed(3)
    shape = {"layers": 4, "hidden": 4, "cell": cells, "bidirectional": bidirectional}
    network = stack(3, residual=False, **shape)
    network.return_sequences = False
    x = ragged(3)
    last = network(x, LENGTHS).output
    assert last.shape == (4, 4)
    for row, length in enumerate(LENGTHS.tolist()):
        top = grid(network, cells, x[row, :length])[-1]
        # As Keras has it: the forward half after the last token, the backward half after the first, each having read all.
        split = 4 if bidirectional == "none" else 2
        expected = torch.cat((top[length - 1, :split], top[0, split:]))
        torch.testing.assert_close(last[row], expected)


@pytest.mark.parametrize("asked", [True, [True, True, True]])
def test_with_sequences_the_top_layer_gives_every_step(asked: bool | list[bool]) -> None:
    network = StackedRNN(StackConfig(layers=3, hidden=4), 3, return_sequences=asked, return_grid=True)
    output = network(ragged(3), LENGTHS)
    assert output.output.shape == (4, STEPS, 4)
    assert output.output is output.grid[-1]


@pytest.mark.parametrize("asked", [False, [True, True, False]])
def test_only_the_last_layer_may_give_one_state_and_the_grid_stays_whole(asked: bool | list[bool]) -> None:
    network = StackedRNN(StackConfig(layers=3, hidden=4), 3, return_sequences=asked, return_grid=True)
    output = network(ragged(3), LENGTHS)
    assert [level.shape for level in output.grid] == [(4, STEPS, 4)] * 3
    assert torch.equal(output.output, output.grid[-1][torch.arange(4), LENGTHS - 1])


def test_the_grid_is_returned_only_where_it_is_asked_for() -> None:
    assert StackedRNN(StackConfig(layers=3, hidden=4), 3)(ragged(3), LENGTHS).grid == ()


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (
            [True, False, True],
            "False in layer 2 of 3: layer 3 would get one state instead of a sequence, and the vertical",
        ),
        ([False, False, False], "False in layer 1 of 3"),
        ([True, True], "return_sequences lists 2 values for 3 layers"),
        ([], "return_sequences lists 0 values for 3 layers"),
    ],
)
def test_an_inner_layer_without_its_sequence_is_a_config_error(asked: list[bool], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        StackedRNN(StackConfig(layers=3, hidden=4), 3, return_sequences=asked)
    assert "\n" not in str(caught.value)


def test_a_state_taken_from_the_top_trains_every_layer() -> None:
    network = StackedRNN(StackConfig(layers=3, hidden=4, bidirectional="all"), 3, return_sequences=False)
    network(ragged(3), LENGTHS).output.pow(2).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


# --- parity with PyTorch --------------------------------------------------------------------------------------------


NATIVE = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN, "rnn_relu": partial(nn.RNN, nonlinearity="relu")}


@pytest.mark.parametrize(("cell", "reference"), NATIVE.items(), ids=NATIVE)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_a_plain_stack_is_pytorchs_own(
    cell: str, reference: Callable[..., nn.RNNBase], bidirectional: bool, depth: int
) -> None:
    both = "all" if bidirectional else "none"
    network = stack(5, layers=depth, hidden=6, cell=cell, bidirectional=both, residual=False)
    units = 3 if bidirectional else 6
    native = reference(5, units, num_layers=depth, batch_first=True, bidirectional=bidirectional)
    with torch.no_grad():
        for level, layer in enumerate(network.layers):
            for backward in (False, True)[: 1 + bidirectional]:
                for name, value in kernel(layer, backward).items():
                    getattr(native, f"{name}_l{level}{'_reverse' * backward}").copy_(value)
    x = ragged(5)
    packed = pack_padded_sequence(x, LENGTHS, batch_first=True, enforce_sorted=False)
    output, final = native(packed)
    expected = pad_packed_sequence(output, batch_first=True)[0]
    real = torch.arange(STEPS) < LENGTHS[:, None]
    torch.testing.assert_close(network(x, LENGTHS).output[real], expected[real])
    network.return_sequences = False
    last = final[0] if cell == "lstm" else final
    top = torch.cat((last[-2], last[-1]), dim=-1) if bidirectional else last[-1]
    torch.testing.assert_close(network(x, LENGTHS).output, top)


def test_the_state_after_the_last_step_goes_on_where_it_was() -> None:
    for cell, parts in (("lstm", 2), ("gru", 1), ("rnn", 1), ("rnn_relu", 1), ("gru_before", 1)):
        layer = RecurrentLayer(cell, 3, 4)  # type: ignore[arg-type]
        x = torch.randn(2, 6, 3)
        whole, end = layer(x)
        first, state = layer(x[:, :2])
        second, final = layer(x[:, 2:], state=state)
        torch.testing.assert_close(torch.cat((first, second), dim=1), whole)
        assert len(state) == len(end) == parts
        assert all(part.shape == (2, 4) for part in state)
        for part, other in zip(final, end, strict=True):
            torch.testing.assert_close(part, other)


# --- initial weights ------------------------------------------------------------------------------------------------


def test_the_forget_gates_bias_is_one_and_every_other_bias_zero() -> None:
    for layer in StackedRNN(StackConfig(layers=2, hidden=6, bidirectional="all"), 5).layers:
        for backward in (False, True):
            p = kernel(layer, backward)
            assert (p["bias_ih"] + p["bias_hh"]).tolist() == [0.0] * 3 + [1.0] * 3 + [0.0] * 6
    for cell in ("gru", "rnn"):
        (layer,) = StackedRNN(StackConfig.model_validate({"layers": 1, "hidden": 4, "cell": cell}), 5).layers
        assert not any(value.any() for name, value in kernel(layer).items() if "bias" in name)


@pytest.mark.parametrize(("cell", "gates"), [("lstm", 4), ("gru", 3), ("rnn", 1)])
def test_recurrent_weights_begin_orthogonal_gate_by_gate(cell: str, gates: int) -> None:
    (layer,) = StackedRNN(StackConfig.model_validate({"layers": 1, "hidden": 6, "cell": cell}), 5).layers
    blocks = kernel(layer)["weight_hh"].chunk(gates)
    assert len(blocks) == gates
    for block in blocks:
        torch.testing.assert_close(block @ block.T, torch.eye(6))


# --- between layers -------------------------------------------------------------------------------------------------


def test_a_residual_layer_adds_its_input() -> None:
    network = stack(5, layers=3, hidden=4)
    assert not any(name.startswith("shortcuts") for name, _ in network.named_parameters())
    x = ragged(5)
    grid = network(x, LENGTHS).grid
    torch.testing.assert_close(grid[0], network.layers[0](x)[0])  # the first layer changes the width and adds nothing
    for level in (1, 2):
        torch.testing.assert_close(grid[level], network.layers[level](grid[level - 1])[0] + grid[level - 1])


def test_a_residual_layer_of_another_width_projects_its_input() -> None:
    network = stack(5, layers=2, hidden=(4, 6))
    shortcut = network.shortcuts[0].weight
    assert shortcut.shape == (6, 4)
    grid = network(ragged(5), LENGTHS).grid
    torch.testing.assert_close(grid[1], network.layers[1](grid[0])[0] + grid[0] @ shortcut.T)


def test_layer_norm_is_on_the_input_of_each_layer_but_the_first() -> None:
    network = stack(5, layers=2, hidden=4, layer_norm=True)
    norm = network.norms[1]
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 2.0, 0.5, 3.0]))
    x = ragged(5)
    grid = network(x, LENGTHS).grid
    torch.testing.assert_close(grid[0], network.layers[0](x)[0])
    centred = grid[0] - grid[0].mean(-1, keepdim=True)
    normed = centred / (centred.pow(2).mean(-1, keepdim=True) + norm.eps).sqrt() * norm.weight + norm.bias
    torch.testing.assert_close(grid[1], network.layers[1](normed)[0] + grid[0])  # the residual is what was not normed


def test_a_stack_of_64_layers_passes_a_gradient_to_its_first() -> None:
    network = stack(4, layers=64, hidden=4)
    network(torch.randn(2, 3, 4), torch.tensor([3, 3])).output.sum().backward()
    gradient = kernel(network.layers[0])["weight_ih"].grad
    assert gradient is not None
    assert 1e-6 < gradient.norm() < 1e6


# --- dropout --------------------------------------------------------------------------------------------------------


def test_a_dropout_mask_is_shared_by_all_steps_and_drawn_for_each_sentence() -> None:
    dropped = SharedDropout(0.4)(torch.ones(200, 9, 50))
    assert torch.equal(dropped, dropped[:, :1].expand(-1, 9, -1))
    masks = dropped[:, 0]  # (200, 50)
    assert set(masks.unique().tolist()) == {0.0, 1 / 0.6}
    assert (masks == 0).double().mean().item() == pytest.approx(0.4, abs=0.02)
    assert len({tuple(row) for row in masks.tolist()}) == 200


def test_dropout_is_on_the_output_of_every_layer_in_training_only() -> None:
    network = stack(3, dropout=0.5, layers=2, hidden=32, residual=False)
    x = torch.randn(1, 5, 3)
    for level in network(x, torch.tensor([5])).grid:
        gone = (level[0] == 0).all(0)
        assert 0 < gone.sum() < 32
        assert torch.equal(level[0] == 0, gone.expand(5, 32))
    network.eval()
    first, second = (network(x, torch.tensor([5])).output for _ in range(2))
    assert torch.equal(first, second)
    assert (first != 0).all()
