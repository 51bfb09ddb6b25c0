"""The twin as an ONNX graph, written for the lowest latency in onnxruntime.

No one form of a recurrence is the fastest at every batch, so that there are three: the recurrent
operator of ONNX, the time steps written out, and a Scan. `build` chooses, by the number of time
steps when it writes the graph and by the batch when the graph runs. All operators are of the
standard domain.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from export.formats.onnx_nodes import ACTIVATIONS, Graph
from export.formats.tf_function import MOST_UNROLLED
from export.network import INPUT, OUTPUT, Twin
from rnn_tf.config import Cell

# That of opset 17; onnxruntime 1.19 and 1.20 of 2024 were tried, and 1.32.
IR_VERSION = 8

# The operator of each cell, and the order in which it has the gates, counted as Keras has them.
OPERATORS: dict[Cell, tuple[str, list[int]]] = {
    "simple_rnn": ("RNN", [0]),
    "lstm": ("LSTM", [0, 3, 1, 2]),
    "gru": ("GRU", [0, 1, 2]),
}
# Up to this batch the operator, one node, is faster than many nodes with larger products. Measured
# with 28 steps and 32 units, by python -m export.benchmark.
MOST_IN_OPERATOR: dict[Cell, int] = {"simple_rnn": 8, "lstm": 48, "gru": 20}

# The activations that the operators have: name, alpha and beta, where they take them.
OPERATOR_ACTIVATIONS: dict[str, tuple[str, float | None, float | None]] = {
    "celu": ("Elu", 1.0, None),
    "elu": ("Elu", 1.0, None),
    "hard_sigmoid": ("HardSigmoid", 1 / 6, 0.5),
    "leaky_relu": ("LeakyRelu", 0.2, None),
    "linear": ("Affine", 1.0, 0.0),
    "relu": ("Relu", None, None),
    "sigmoid": ("Sigmoid", None, None),
    "softsign": ("Softsign", None, None),
    "sparse_sigmoid": ("HardSigmoid", 0.5, 0.5),
    "tanh": ("Tanh", None, None),
}
# A single node that onnxruntime fuses into the product before it: written out, a step of
# simple_rnn is then as fast as one of the operator at any batch.
FUSED = ("leaky_relu", "linear", "relu", "sigmoid", "softsign", "tanh")

# (index of the gate, name of its activation) -> the name of its value
Gate = Callable[[int, str], str]


def build(twin: Twin, opset: int) -> onnx.ModelProto:
    """The model, stateless: raw `sequence` in, `probabilities` out, any batch."""
    graph = Graph()
    dense = graph.constant("dense_kernel", twin.dense_kernel)
    state = recurrence(graph, twin)
    logits = graph.add("Gemm", state, dense, graph.constant("dense_bias", twin.dense_bias))
    graph.nodes.append(helper.make_node("Softmax", [logits], [OUTPUT], axis=-1))
    spec = twin.spec
    whole = helper.make_graph(
        graph.nodes,
        twin.cell,
        [_value(INPUT, spec.timesteps, spec.features)],
        [_value(OUTPUT, spec.classes)],
        graph.initializers(),
    )
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(whole, opset_imports=opsets, ir_version=IR_VERSION)


def recurrence(graph: Graph, twin: Twin) -> str:
    """The state after the last step, `(batch, units)`, in the form that is fastest."""
    many = unrolled if twin.spec.timesteps <= MOST_UNROLLED else scan
    names = [twin.activation] + ([] if twin.cell == "simple_rnn" else [twin.recurrent_activation])
    fast = twin.cell == "simple_rnn" and twin.activation in FUSED and many is unrolled
    if fast or not all(name in OPERATOR_ACTIVATIONS for name in names):
        return many(graph, twin)
    batch = graph.add("Shape", INPUT, start=0, end=1)
    low, high = graph.constant("one", 1), graph.constant("few", MOST_IN_OPERATOR[twin.cell])
    # From 1 to few. Not an empty batch: onnxruntime's LSTM and GRU end the process with it.
    few = graph.add("Equal", batch, graph.add("Clip", batch, low, high))
    branches = {}
    for branch, form in (("then", operator), ("else", many)):
        inner = Graph(f"{branch}_")
        state = _value(form(inner, twin), twin.units)
        branches[f"{branch}_branch"] = helper.make_graph(
            inner.nodes, branch, [], [state], inner.initializers()
        )
    return graph.add("If", few, **branches)


def operator(graph: Graph, twin: Twin) -> str:
    """The whole recurrence as one RNN, LSTM or GRU node."""
    kind, gates = OPERATORS[twin.cell]
    columns = np.concatenate([np.arange(twin.units) + gate * twin.units for gate in gates])
    state_bias = twin.bias[1] if twin.cell == "gru" else np.zeros_like(twin.bias)
    gate_names = [] if twin.cell == "simple_rnn" else [twin.recurrent_activation]
    names = [*gate_names, *[twin.activation] * (2 if twin.cell == "lstm" else 1)]
    by_time = graph.add("Transpose", INPUT, perm=[1, 0, 2])
    _, state = graph.add_several(
        kind,
        by_time,
        graph.constant("kernel", twin.raw_kernel[:, columns].T[None]),
        graph.constant("recurrent", twin.recurrent_kernel[:, columns].T[None]),
        graph.constant(
            "bias", np.concatenate([twin.input_bias[columns], state_bias[columns]])[None]
        ),
        outputs=2,
        hidden_size=twin.units,
        **_operator_activations(names),
        **({"linear_before_reset": 1} if twin.cell == "gru" else {}),
    )
    graph.nodes[-1].output[0] = ""  # the states of all steps, which nobody asks for
    return graph.add("Squeeze", state, graph.constant("directions", [0]))


def _operator_activations(names: list[str]) -> dict[str, Any]:
    kinds, alphas, betas = zip(*(OPERATOR_ACTIVATIONS[name] for name in names), strict=True)
    found: dict[str, Any] = {"activations": list(kinds)}
    # Lists of only those that take one, in order.
    for key, values in (("activation_alpha", alphas), ("activation_beta", betas)):
        if any(value is not None for value in values):
            found[key] = [value for value in values if value is not None]
    return found


def unrolled(graph: Graph, twin: Twin) -> str:
    """Every step as nodes of its own."""
    spec = twin.spec
    frames, width = INPUT, spec.features
    if twin.cell == "simple_rnn":
        # One product for all steps. Gated cells would write four times the input to memory.
        rows = graph.add("Reshape", frames, graph.constant("rows", [-1, width]))
        frames, width = _project(graph, twin, rows, 0), twin.units
    flat = graph.add("Reshape", frames, graph.constant("flat", [-1, spec.timesteps * width]))
    steps = [flat]
    if spec.timesteps > 1:
        # Widths, since the attribute that only counts them came with opset 18, and is needed there.
        widths = graph.constant("widths", [width] * spec.timesteps)
        steps = graph.add_several("Split", flat, widths, outputs=spec.timesteps, axis=1)
    states: list[str] = []
    for frame in steps:
        states = _step(graph, twin, frame, states)
    return states[0]


def scan(graph: Graph, twin: Twin) -> str:
    """The steps as the body of a Scan: as small for 1,000 time steps as for 10."""
    spec, units = twin.spec, twin.units
    frames, width = graph.add("Transpose", INPUT, perm=[1, 0, 2]), spec.features
    if twin.cell == "simple_rnn":
        rows = graph.add("Reshape", frames, graph.constant("rows", [-1, width]))
        shape = graph.constant("by_time", [spec.timesteps, -1, units])
        frames, width = graph.add("Reshape", _project(graph, twin, rows, 0), shape), units
    batch = graph.add("Shape", INPUT, start=0, end=1)
    shape = graph.add("Concat", batch, graph.constant("units", [units]), axis=0)
    zeros = graph.add("Expand", graph.constant("zero", np.zeros((1, 1))), shape)

    body = Graph(f"{graph.prefix}step_")
    before = [f"{body.prefix}before_{i}" for i in range(2 if twin.cell == "lstm" else 1)]
    frame = f"{body.prefix}frame"
    after = _step(body, twin, frame, before)
    # Outside the body there is one copy of them, which onnxruntime packs once.
    graph.constants |= body.constants
    one_step = helper.make_graph(
        body.nodes,
        f"{body.prefix}graph",
        [*(_value(name, units) for name in before), _value(frame, width)],
        [_value(name, units) for name in after],
    )
    states = graph.add_several(
        "Scan", *[zeros] * len(before), frames,
        outputs=len(before), body=one_step, num_scan_inputs=1,
    )  # fmt: skip
    return states[0]


def _step(graph: Graph, twin: Twin, frame: str, states: list[str]) -> list[str]:
    """The states after one step; no `states` are zeros, as before the first step.

    The `frame` of simple_rnn is projected already. That of a gated cell is joined to the state,
    so that each gate is one product into which onnxruntime fuses its activation; one product for
    all gates would be no faster, since it must then be split.
    """
    if twin.cell == "simple_rnn":
        if states:
            kernel = graph.constant("recurrent", twin.recurrent_kernel)
            frame = graph.add("Gemm", states[0], kernel, frame)
        return [ACTIVATIONS[twin.activation](graph, frame)]
    joined = graph.add("Concat", frame, states[0], axis=1) if states else ""

    def gate(index: int, activation: str) -> str:
        if not states:
            return ACTIVATIONS[activation](graph, _project(graph, twin, frame, index))
        part = _columns(twin, index)
        both = np.concatenate([twin.raw_kernel[:, part], twin.recurrent_kernel[:, part]])
        kernel = graph.constant(f"joined_{index}", both)
        product = graph.add("Gemm", joined, kernel, _bias(graph, twin, index))
        return ACTIVATIONS[activation](graph, product)

    cell = _lstm if twin.cell == "lstm" else _gru
    return cell(graph, twin, frame, states, gate)


def _lstm(graph: Graph, twin: Twin, frame: str, states: list[str], gate: Gate) -> list[str]:
    gates = twin.recurrent_activation
    content = graph.add("Mul", gate(0, gates), gate(2, twin.activation))
    if states:
        kept = graph.add("Mul", gate(1, gates), states[1])
        content = graph.add("Add", kept, content)
    output = gate(3, gates)
    return [graph.add("Mul", output, ACTIVATIONS[twin.activation](graph, content)), content]


def _gru(graph: Graph, twin: Twin, frame: str, states: list[str], gate: Gate) -> list[str]:
    update, reset = gate(0, twin.recurrent_activation), gate(1, twin.recurrent_activation)
    part = _columns(twin, 2)
    inner = graph.constant("state_bias", twin.bias[1, part])
    if states:
        kernel = graph.constant("recurrent", twin.recurrent_kernel[:, part])
        inner = graph.add("Gemm", states[0], kernel, inner)
    reached = graph.add("Add", _project(graph, twin, frame, 2), graph.add("Mul", reset, inner))
    new = ACTIVATIONS[twin.activation](graph, reached)
    # z h + (1 - z) g = g + z (h - g)
    if not states:
        return [graph.add("Sub", new, graph.add("Mul", update, new))]
    change = graph.add("Mul", update, graph.add("Sub", states[0], new))
    return [graph.add("Add", new, change)]


def _project(graph: Graph, twin: Twin, frame: str, index: int) -> str:
    """The product of `frame` and the kernel of one gate, and its bias."""
    kernel = graph.constant(f"kernel_{index}", twin.raw_kernel[:, _columns(twin, index)])
    return graph.add("Gemm", frame, kernel, _bias(graph, twin, index))


def _bias(graph: Graph, twin: Twin, index: int) -> str:
    bias = twin.input_bias
    if twin.cell == "gru" and index < 2:
        # Update and reset add both biases; the content has its second one reset.
        bias = twin.input_bias + twin.bias[1]
    return graph.constant(f"bias_{index}", bias[_columns(twin, index)])


def _columns(twin: Twin, index: int) -> slice:
    """The columns of the kernels that belong to one gate."""
    return slice(index * twin.units, (index + 1) * twin.units)


def _value(name: str, *shape: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])
