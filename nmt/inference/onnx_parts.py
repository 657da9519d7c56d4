"""What encoder and decoder are made of, as operations of an ONNX graph: products, cells, normalisation, embedding."""

from __future__ import annotations

import numpy as np
from onnx import numpy_helper

from nmt.inference.onnx_writer import FLOAT, Array, Writer
from nmt.inference.weights import Stored
from nmt.model.config import Cell

_SMALLEST = 1e-30  # the scale of a row of zeros


class Parts:
    """Writes parts of a model; weights have the names of its state dict."""

    def __init__(self, weights: dict[str, Stored], scale: float) -> None:
        """`weights` by name, tied ones under each of their names; embeddings are multiplied by `scale`."""
        self.weights, self.scale = weights, scale
        self.g = Writer()

    def input_gates(self, x: str, cell: Cell, name: str, suffix: str) -> str:
        """W x for `cell`, with the biases that `cell` expects to be in it."""
        product = self.product(x, f"{name}.weight_ih{suffix}")
        bias = self.input_bias(cell, name, suffix)
        return product if bias is None else self.g.op("Add", product, self.g.constant(bias, f"{name}.bias{suffix}"))

    def input_bias(self, cell: Cell, name: str, suffix: str) -> Array | None:
        """What is added to W x; None for the cells whose biases are all added to U h."""
        if not cell.startswith("gru"):
            return None
        bias, hidden = (self.values(f"{name}.bias_{part}{suffix}") for part in ("ih", "hh"))
        if cell == "gru":  # the candidate's is inside the product with the reset gate
            hidden = np.concatenate((hidden[: 2 * len(hidden) // 3], np.zeros(len(hidden) // 3, np.float32)))
        return bias + hidden

    def cell(self, cell: Cell, gates: str, before: tuple[str, ...], name: str, suffix: str) -> tuple[str, ...]:
        """The state after one step of a cell, its output first, from the `gates` of its input."""
        g, h, weight = self.g, before[0], f"{name}.weight_hh{suffix}"
        if not cell.startswith("gru"):
            bias = self.values(f"{name}.bias_ih{suffix}") + self.values(f"{name}.bias_hh{suffix}")
            gates = g.op("Add", gates, self.product(h, weight, bias=bias, bounded=cell != "rnn_relu"))
        if cell == "lstm":
            write, keep, new, read = g.ops("Split", 4, gates, axis=-1, num_outputs=4)
            write, keep, read = (g.op("Sigmoid", gate) for gate in (write, keep, read))
            c = g.op("Add", g.op("Mul", keep, before[1]), g.op("Mul", write, g.op("Tanh", new)))
            return g.op("Mul", read, g.op("Tanh", c)), c
        if cell in ("rnn", "rnn_relu"):
            return (g.op("Tanh" if cell == "rnn" else "Relu", gates),)
        stored = self.weights[weight]
        units = len(stored.values) // 3
        of_reset, of_update, of_candidate = g.ops("Split", 3, gates, axis=-1, num_outputs=3)
        if cell == "gru":
            reset, update, candidate = g.ops("Split", 3, self.product(h, weight, bounded=True), axis=-1, num_outputs=3)
            reset, update = (g.op("Sigmoid", g.op("Add", a, b)) for a, b in ((of_reset, reset), (of_update, update)))
            inner = g.op(
                "Add", candidate, g.constant(self.values(f"{name}.bias_hh{suffix}")[2 * units :], f"{name}.inner")
            )
            candidate = g.op("Tanh", g.op("Add", of_candidate, g.op("Mul", reset, inner)))
        else:  # gru_before
            both = self.product(h, f"{weight}.gates", stored.rows(slice(0, 2 * units)), bounded=True)
            reset, update = g.ops("Split", 2, both, axis=-1, num_outputs=2)
            reset, update = (g.op("Sigmoid", g.op("Add", a, b)) for a, b in ((of_reset, reset), (of_update, update)))
            inner = self.product(
                g.op("Mul", reset, h), f"{weight}.candidate", stored.rows(slice(2 * units, None)), bounded=True
            )
            candidate = g.op("Tanh", g.op("Add", of_candidate, inner))
        return (g.op("Add", candidate, g.op("Mul", update, g.op("Sub", h, candidate))),)

    def feed_forward(self, x: str, name: str) -> str:
        """A `FeedForward` of wiring deep."""
        inner = self.g.op("Relu", self.linear(self.norm(x, f"{name}.norm"), f"{name}.rise"))
        return self.g.op("Add", x, self.linear(inner, f"{name}.fall"))

    def norm(self, x: str, name: str) -> str:
        """Layer normalisation."""
        weight, bias = (self.g.constant(self.values(f"{name}.{part}"), f"{name}.{part}") for part in ("weight", "bias"))
        return self.g.op("LayerNormalization", x, weight, bias, axis=-1, epsilon=1e-5)

    def shortcut(self, x: str, inputs: int, width: int, name: str) -> str:
        """`x` itself, or its projection where the widths differ."""
        return x if inputs == width else self.linear(x, name)

    def linear(self, x: str, name: str) -> str:
        """A `torch.nn.Linear`, with or without a bias."""
        bias = self.values(f"{name}.bias") if f"{name}.bias" in self.weights else None
        return self.product(x, f"{name}.weight", bias=bias)

    def product(
        self, x: str, name: str, stored: Stored | None = None, bias: Array | None = None, bounded: bool = False
    ) -> str:
        """x W^T + b of `x` (..., K) with the matrix (N, K) of a name, in int8 where it is stored so: `x` by the largest of its row, or by 1
        where it is `bounded` by it, as the states of all cells but rectified ones are."""
        g, stored = self.g, stored or self.weights[name]
        added = None if bias is None else g.constant(bias, f"{name}.added")
        if stored.scales is None:
            product = g.op("MatMul", x, g.constant(stored.floats().T, f"{name}.turned"))
            return product if added is None else g.op("Add", product, added)
        step, zero = g.number(1 / 127), g.constant(np.array(128, np.uint8), "zero_point")
        rounded, largest = self.quantised(x, bounded)
        matrix = g.constant(stored.values.T, f"{name}.turned")
        scales = g.constant(stored.scales.astype(np.float32), f"{name}.scales")
        inputs = [rounded, matrix, step, scales, zero]
        if bounded:
            inputs += ["", added] if added is not None else []
            return g.op("MatMulIntegerToFloat", *inputs, domain="com.microsoft")
        product = g.op("Mul", g.op("MatMulIntegerToFloat", *inputs, domain="com.microsoft"), largest)
        return product if added is None else g.op("Add", product, added)

    def quantised(self, x: str, bounded: bool, signed: bool = False) -> tuple[str, str]:
        """`x` (..., K) in uint8 with 128 for zero, or in int8 where it is to be `signed`, in steps of 1/127 of the largest of its row, and
        these (..., 1); of 1, and "", where it is `bounded` by it."""
        g, largest = self.g, ""
        if not bounded:
            largest = g.op("Max", g.op("ReduceMax", g.op("Abs", x), g.ints(-1), keepdims=1), g.number(_SMALLEST))
            x = g.op("Div", x, largest)
        zero = (
            g.constant(np.array(0, np.int8), "signed_zero")
            if signed
            else g.constant(np.array(128, np.uint8), "zero_point")
        )
        return g.op("QuantizeLinear", x, g.number(1 / 127), zero), largest

    def embedded(self, name: str, ids: str) -> str:
        """The rows (..., E) of an embedding for `ids`, scaled."""
        g, stored = self.g, self.weights[name]
        rows = g.op("Gather", g.constant(stored.values, name), ids, axis=0)
        if stored.scales is None:
            return g.op("Mul", g.op("Cast", rows, to=FLOAT), g.number(self.scale))
        scales = g.constant((stored.scales * self.scale).astype(np.float32)[:, None], f"{name}.scales_of_rows")
        return g.op("Mul", g.op("Cast", rows, to=FLOAT), g.op("Gather", scales, ids, axis=0))

    def values(self, name: str) -> Array:
        """A weight in fp32."""
        return self.weights[name].floats()

    def size(self, x: str, axis: int) -> str:
        """The size of `x` along an axis, a number."""
        return self.g.op("Squeeze", self.g.op("Shape", x, start=axis, end=axis + 1))

    def zeros(self, width: int) -> str:
        """Zeros (B, width), a row for each of the `lengths`."""
        shape = self.joined_shape(self.g.op("Shape", "lengths"), self.g.ints(width))
        return self.g.op("ConstantOfShape", shape, value=numpy_helper.from_array(np.zeros(1, np.float32)))

    def joined_shape(self, *parts: str) -> str:
        """One list of numbers out of several."""
        return self.g.op("Concat", *parts, axis=0)
