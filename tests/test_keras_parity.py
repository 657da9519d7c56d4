"""Parity with an independent implementation: stacked Keras layers that hold the same weights give the same outputs.

In float32, for Keras on PyTorch multiplies matrices in nothing finer. On a CPU it runs each of these layers as its own loop over time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nmt.model.config import StackConfig
from nmt.model.rnn import RecurrentLayer, StackedRNN

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras with NumPy 2

INPUTS, STEPS = 3, 6
WIDTHS = (6, 4, 8, 2)
LENGTHS = torch.tensor([4, 1, 6, 3])
FULL = torch.tensor([6, 6, 6, 6])
GATES = {"gru": (1, 0, 2), "gru_before": (1, 0, 2)}  # Keras has update, reset, candidate; the LSTM's order is the same


@pytest.fixture(scope="module")
def keras(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Keras on PyTorch, which it chooses when it is imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_BACKEND", "torch")
        patch.setenv("KERAS_HOME", str(tmp_path_factory.mktemp("keras")))
        import keras

        assert keras.backend.backend() == "torch"
        with keras.device("cpu"):
            yield keras


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def weights(cell: str, kernel: nn.Module, biases: int) -> list[NDArray[np.float32]]:
    """One direction's parameters as Keras stores them: kernels transposed, gates in its order, `biases` rows of bias."""
    found = {name.removesuffix("_l0"): value.detach() for name, value in kernel.named_parameters()}
    units = found["weight_hh"].shape[1]
    if cell in GATES:
        rows = torch.cat([torch.arange(gate * units, (gate + 1) * units) for gate in GATES[cell]])
        found = {name: value[rows] for name, value in found.items()}
    both = torch.stack((found["bias_ih"], found["bias_hh"]))
    bias = both if biases == 2 else both.sum(0)
    return [value.numpy() for value in (found["weight_ih"].T, found["weight_hh"].T, bias)]


def layer(keras: Any, cell: str, ours: nn.Module, sequences: bool) -> Any:
    """The Keras layer, built and holding the weights of one of our layers."""
    assert isinstance(ours, RecurrentLayer)
    units = ours.forwards.hidden_size
    if cell == "lstm":
        made = keras.layers.LSTM(units, return_sequences=sequences)
    elif cell.startswith("gru"):
        made = keras.layers.GRU(units, reset_after=cell == "gru", return_sequences=sequences)
    else:
        made = keras.layers.SimpleRNN(
            units, activation="relu" if cell == "rnn_relu" else "tanh", return_sequences=sequences
        )
    values = weights(cell, ours.forwards, 2 if cell == "gru" else 1)
    if ours.backwards is not None:
        made = keras.layers.Bidirectional(made)
        values += weights(cell, ours.backwards, 2 if cell == "gru" else 1)
    made.build((None, STEPS, ours.forwards.input_size))
    assert [value.shape for value in made.get_weights()] == [value.shape for value in values]
    made.set_weights(values)
    return made


def both(
    keras: Any, cells: tuple[str, ...], bidirectional: bool, sequences: bool, lengths: Tensor, one_bias: bool = False
) -> tuple[Tensor, Tensor]:
    """Outputs of our stack and of Keras's layers, one upon the other, for the same weights and a batch whose padding is noise."""
    depth = len(cells)
    config = StackConfig.model_validate(
        {
            "layers": depth,
            "hidden": WIDTHS[:depth],
            "cell": cells,
            "bidirectional": "all" if bidirectional else "none",
            "residual": False,
        }
    )
    network = StackedRNN(config, INPUTS, return_sequences=sequences)
    for name, parameter in network.named_parameters():
        if "bias" in name:
            nn.init.normal_(parameter, std=0.0 if one_bias and "bias_hh" in name else 0.3)
    x = torch.randn(len(lengths), STEPS, INPUTS)
    mask = torch.arange(STEPS) < lengths[:, None]
    value = x
    with torch.no_grad():
        for index, ours in enumerate(network.layers):
            theirs = layer(keras, cells[index], ours, sequences or index < depth - 1)
            value = theirs(value, mask=None if mask.all() else mask)
        return network(x, lengths).output, value


CELLS = ("rnn", "rnn_relu", "gru", "gru_before", "lstm")


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_stacked_layers_give_the_same_sequences(keras: Any, cell: str, depth: int, bidirectional: bool) -> None:
    ours, theirs = both(keras, (cell,) * depth, bidirectional, True, FULL)
    assert ours.shape == (4, STEPS, WIDTHS[depth - 1])
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("lengths", [FULL, LENGTHS], ids=["full", "ragged"])
def test_stacked_layers_give_the_same_last_state(keras: Any, cell: str, bidirectional: bool, lengths: Tensor) -> None:
    ours, theirs = both(keras, (cell,) * 3, bidirectional, False, lengths)
    assert ours.shape == (4, WIDTHS[2])
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_ragged_batch_is_what_keras_makes_of_its_mask(keras: Any, cell: str, bidirectional: bool) -> None:
    ours, theirs = both(keras, (cell,) * 3, bidirectional, True, LENGTHS)
    real = torch.arange(STEPS) < LENGTHS[:, None]
    torch.testing.assert_close(ours[real], theirs[real])


@pytest.mark.parametrize("bidirectional", [False, True])
def test_layers_of_different_cells_agree(keras: Any, bidirectional: bool) -> None:
    torch.testing.assert_close(*both(keras, ("lstm", "gru", "rnn", "gru_before"), bidirectional, True, FULL))


@pytest.mark.parametrize("cell", ["gru", "gru_before"])
def test_a_gru_with_one_bias_agrees_in_both_conventions(keras: Any, cell: str) -> None:
    torch.testing.assert_close(*both(keras, (cell,) * 2, False, True, FULL, one_bias=True))


def test_the_two_gru_conventions_are_different_cells(keras: Any) -> None:
    """So neither can stand in for the other, not even with one bias."""
    torch.manual_seed(1)
    after, _ = both(keras, ("gru",) * 2, False, True, FULL, one_bias=True)
    torch.manual_seed(1)
    before, _ = both(keras, ("gru_before",) * 2, False, True, FULL, one_bias=True)
    assert (after - before).abs().max() > 1e-3
