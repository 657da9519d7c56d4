"""Writing ONNX graphs: an operation takes the names of values and gives the name of its result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT64, UINT8 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.UINT8
_OPSETS = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]

Array = NDArray[Any]


@dataclass(frozen=True)
class Graph:
    """A serialised graph, and the names of its inputs and outputs in order."""

    model: bytes
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass
class Writer:
    """A graph being written: operations take names of values and return the name of their result."""

    scope: str = ""  # before the names of its values
    constants: dict[str, onnx.TensorProto] = field(default_factory=dict)  # those of a loop's body are its surroundings'
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    _count: int = 0

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """One operation with one result."""
        return self.ops(kind, 1, *inputs, domain=domain, **attributes)[0]

    def ops(self, kind: str, results: int, *inputs: str, domain: str = "", **attributes: Any) -> list[str]:
        """One operation with so many results."""
        self._count += 1
        outputs = [f"{self.scope}{kind}_{self._count}_{number}" for number in range(results)]
        self.nodes.append(helper.make_node(kind, inputs, outputs, domain=domain, **attributes))
        return outputs

    def constant(self, value: Array, name: str = "") -> str:
        """A constant; one of a name is kept once."""
        name = name or f"constant_{len(self.constants)}"
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def ints(self, *values: int) -> str:
        """A constant list of whole numbers."""
        return self.constant(np.array(values, np.int64), "ints_" + "_".join(map(str, values)))

    def number(self, value: float) -> str:
        """A constant number."""
        return self.constant(np.array(value, np.float32), f"number_{value!r}")

    def finished(self, inputs: Sequence[tuple[str, int, Sequence[int | str]]], outputs: dict[str, str]) -> Graph:
        """The whole, with inputs of (name, type, shape) and outputs by the names that they are to have."""
        names = {value: name for name, value in outputs.items()}
        for node in self.nodes:
            for values in (node.input, node.output):
                values[:] = [names.get(value, value) for value in values]
        infos = [helper.make_tensor_value_info(name, kind, list(shape)) for name, kind, shape in inputs]
        results = [onnx.ValueInfoProto(name=name) for name in outputs]
        graph = helper.make_graph(self.nodes, "strata", infos, results, list(self.constants.values()))
        model = helper.make_model(graph, opset_imports=_OPSETS, ir_version=10)
        return Graph(model.SerializeToString(), tuple(info.name for info in infos), tuple(outputs))


def product_graph(matrix: Array) -> Graph:
    """The product of `x` (M, K) in uint8 with the matrix (K, N) in int8, in whole numbers."""
    g = Writer()
    product = g.op("MatMulInteger", "x", g.constant(matrix))
    return g.finished([("x", UINT8, ("M", len(matrix)))], {"product": product})
