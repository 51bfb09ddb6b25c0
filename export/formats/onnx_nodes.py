"""Nodes of an ONNX graph as it grows, and every activation as standard operators.

`ACTIVATIONS` has the form that is fastest for many sequences. Where onnxruntime does not vectorise
an operator (Elu, Softplus), that is several operators which it does; `SINGLE` has the one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

# Adds an activation of `x` to a graph and gives the name of its output.
Activation = Callable[["Graph", str], str]


@dataclass
class Graph:
    """Nodes and constants of a graph as it grows; names are unique by `prefix`."""

    activations: Mapping[str, Activation]
    prefix: str = ""
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)

    def inner(self, prefix: str, activations: Mapping[str, Activation] | None = None) -> Graph:
        """An empty graph for the inside of a node, by default with the same activations.

        It gets constants of its own: onnxruntime takes longer to use a value from outside.
        """
        return Graph(activations or self.activations, f"{self.prefix}{prefix}_")

    def constant(self, name: str, value: np.ndarray | float | list[int]) -> str:
        """Keep `value` once under `name`; integers become int64, the rest float32."""
        array = np.asarray(value)
        kind = np.int64 if array.dtype.kind in "iu" else np.float32
        self.constants.setdefault(self.prefix + name, np.array(array, kind, order="C"))
        return self.prefix + name

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Append a node; return the name of its output."""
        return self.add_several(operator, *inputs, outputs=1, **attributes)[0]

    def add_several(
        self, operator: str, *inputs: str, outputs: int, **attributes: Any
    ) -> list[str]:
        """Append a node of several outputs; return their names."""
        names = [f"{self.prefix}{operator}_{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(operator, list(inputs), names, **attributes))
        return names

    def activate(self, activation: str, x: str) -> str:
        """Append an activation of `x`; return the name of its output."""
        return self.activations[activation](self, x)

    def name_outputs(self, *names: str) -> None:
        """Give the outputs of the last node the names by which the graph gives them."""
        self.nodes[-1].output[:] = names

    def initializers(self) -> list[onnx.TensorProto]:
        return [numpy_helper.from_array(value, name) for name, value in self.constants.items()]


def _unary(operator: str, **attributes: Any) -> Activation:
    return lambda graph, x: graph.add(operator, x, **attributes)


def _clip(low: float, high: float) -> Activation:
    def clip(graph: Graph, x: str) -> str:
        return graph.add(
            "Clip", x, graph.constant(f"f{low}", low), graph.constant(f"f{high}", high)
        )

    return clip


def _gelu(graph: Graph, x: str) -> str:
    """X (1 + erf(x / sqrt 2)) / 2, in the form that onnxruntime fuses."""
    root = graph.add("Div", x, graph.constant("root2", 2**0.5))
    one_more = graph.add("Add", graph.add("Erf", root), graph.constant("f1.0", 1.0))
    return graph.add("Mul", graph.add("Mul", x, one_more), graph.constant("f0.5", 0.5))


def _elu(graph: Graph, x: str) -> str:
    """max(x, min(e^x, 1) - 1): for batches faster than Elu, whose exponential is not vectorised."""
    one = graph.constant("f1.0", 1.0)
    exponential = graph.add("Clip", graph.add("Exp", x), "", one)
    return graph.add("Max", x, graph.add("Sub", exponential, one))


def _silu(graph: Graph, x: str) -> str:
    return graph.add("Mul", x, graph.add("Sigmoid", x))


def _softplus(graph: Graph, x: str) -> str:
    """relu(x) - log sigmoid(|x|): Softplus itself is not vectorised in onnxruntime."""
    rest = graph.add("Log", graph.add("Sigmoid", graph.add("Abs", x)))
    return graph.add("Sub", graph.add("Relu", x), rest)


def _mish(graph: Graph, x: str) -> str:
    """X tanh(log(1 + e^x)) = x n / (n + 2), where n = e^x (e^x + 2); from 20 on, that is x."""
    low, two = graph.add("Clip", x, "", graph.constant("f20.0", 20.0)), graph.constant("f2.0", 2.0)
    power = graph.add("Exp", low)
    n = graph.add("Mul", power, graph.add("Add", power, two))
    return graph.add("Mul", x, graph.add("Div", n, graph.add("Add", n, two)))


def _log_sigmoid(graph: Graph, x: str) -> str:
    return graph.add("Neg", _softplus(graph, graph.add("Neg", x)))


def _tanh_shrink(graph: Graph, x: str) -> str:
    return graph.add("Sub", x, graph.add("Tanh", x))


def _squareplus(graph: Graph, x: str) -> str:
    """(x + sqrt(x^2 + 4)) / 2; below zero as 2 / (sqrt(x^2 + 4) - x), where nothing cancels."""
    square = graph.add("Add", graph.add("Mul", x, x), graph.constant("f4.0", 4.0))
    total = graph.add("Add", graph.add("Abs", x), graph.add("Sqrt", square))
    above = graph.add("Mul", total, graph.constant("f0.5", 0.5))
    below = graph.add("Div", graph.constant("f2.0", 2.0), total)
    return graph.add("Where", graph.add("Greater", x, graph.constant("f0.0", 0.0)), above, below)


def _sparse_plus(graph: Graph, x: str) -> str:
    """((clip(x, -1, 1) + 1) / 2)^2 + relu(x - 1)."""
    half = graph.add("HardSigmoid", x, alpha=0.5, beta=0.5)
    rest = graph.add("Relu", graph.add("Sub", x, graph.constant("f1.0", 1.0)))
    return graph.add("Add", graph.add("Mul", half, half), rest)


ACTIVATIONS: dict[str, Activation] = {
    "celu": _elu,
    "elu": _elu,
    "exponential": _unary("Exp"),
    "gelu": _gelu,
    "hard_shrink": _unary("Shrink", lambd=0.5, bias=0.0),
    "hard_sigmoid": _unary("HardSigmoid", alpha=1 / 6, beta=0.5),
    "hard_silu": _unary("HardSwish"),
    "hard_tanh": _clip(-1.0, 1.0),
    "leaky_relu": _unary("LeakyRelu", alpha=0.2),
    "linear": lambda graph, x: x,
    "log_sigmoid": _log_sigmoid,
    "mish": _mish,
    "relu": _unary("Relu"),
    "relu6": _clip(0.0, 6.0),
    "selu": _unary("Selu"),
    "sigmoid": _unary("Sigmoid"),
    "silu": _silu,
    "soft_shrink": _unary("Shrink", lambd=0.5, bias=0.5),
    "softplus": _softplus,
    "softsign": _unary("Softsign"),
    "sparse_plus": _sparse_plus,
    "sparse_sigmoid": _unary("HardSigmoid", alpha=0.5, beta=0.5),
    "squareplus": _squareplus,
    "tanh": _unary("Tanh"),
    "tanh_shrink": _tanh_shrink,
}
# The single operator, which onnxruntime computes number by number but fuses into the product
# before it: faster for few sequences.
SINGLE: dict[str, Activation] = {
    "celu": _unary("Elu"),
    "elu": _unary("Elu"),
    "softplus": _unary("Softplus"),
}
