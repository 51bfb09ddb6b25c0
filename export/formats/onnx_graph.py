"""The network as an ONNX graph, written for the lowest latency in onnxruntime.

No form of a recurrence is the fastest at every batch. There are three: ONNX's recurrent operator,
the time steps written out, and a Scan. `build` chooses by the number of time steps; if two forms
are left, the graph holds both, and an If chooses by the batch when it runs.

Where lengths vary, a batch is read up to the end of its longest sequence, so that a call takes as
long as that; no steps are written out. The operator computes batches in which all sequences are as
long: for others it has an input, `sequence_lens`, that some engines ignore. The Scan computes any:
at each step a sequence that has ended keeps its state, by a selection, since NaN in its padding
would come through any product. A sequence is reversed from its own end.

All operators are of the standard domain. The recurrent ones have their default activations only:
some engines do not load an RNN operator with another activation, and one computes tanh instead and
says nothing (see docs/engines.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from export.formats.onnx_nodes import ACTIVATIONS, SINGLE, Graph
from export.formats.tf_function import MOST_UNROLLED
from export.network import INPUT, LENGTHS, OUTPUT, Layer, Network, Recurrence
from export.signatures import Tensor, classify
from rnn_tf.model.cells import CELLS, Cell

# That of opset 17, which runtimes of 2024 load: see docs/engines.md.
IR_VERSION = 8

# Up to this batch the operator, which is one node, is faster than the written-out steps, whose
# products are larger. Measured with 28 steps and 32 units, one thread, onnxruntime 1.32.
MOST_IN_OPERATOR: dict[Cell, int] = {"simple_rnn": 8, "lstm": 48, "gru": 20}
# Up to this many numbers (batch times units) a single-node activation (`SINGLE`), which onnxruntime
# fuses into the product before it, is faster than the several nodes of `ACTIVATIONS`. Measured
# likewise, with 32 and 128 units, on digits and on noise.
MOST_IN_SINGLE = 128
# The default activations of each operator: that of the content, that of the gates.
OPERATOR_ACTIVATIONS: dict[Cell, tuple[str, str]] = {
    "simple_rnn": ("tanh", "linear"),
    "lstm": ("tanh", "sigmoid"),
    "gru": ("tanh", "sigmoid"),
}
# Activations that onnxruntime fuses into the product before them and computes fast. With one of
# them a written-out step of simple_rnn is as fast as the operator's at any batch.
FUSED = ("leaky_relu", "linear", "relu", "sigmoid", "softsign", "tanh")

# (gate, name of its activation) -> the name of its value
Gate = Callable[[str, str], str]


@dataclass(frozen=True)
class Lengths:
    """The names of what a graph knows of the lengths in a batch, int64."""

    each: str  # (batch,), from 1 on
    longest: str  # (1,); of an empty batch it is 1
    shortest: str  # (1,)


# Adds the layers to a graph and gives the name of the final states, (batch, width).
Form = Callable[[Graph, Network, Lengths | None], str]


def build(network: Network, opset: int) -> onnx.ModelProto:
    """The model, stateless, with the inputs and outputs of `signatures.classify`; any batch."""
    graph, signature = Graph(ACTIVATIONS), classify(network.spec)
    state = recurrence(graph, network)
    dense = graph.constant("dense_kernel", network.dense_kernel)
    logits = graph.add("Gemm", state, dense, graph.constant("dense_bias", network.dense_bias))
    graph.nodes.append(helper.make_node("Softmax", [logits], [OUTPUT], axis=-1))
    whole = helper.make_graph(
        graph.nodes,
        network.cell,
        list(map(_end, signature.inputs)),
        list(map(_end, signature.outputs)),
        graph.initializers(),
    )
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(whole, opset_imports=opsets, ir_version=IR_VERSION)


def recurrence(graph: Graph, network: Network) -> str:
    """The final states of the last layer, `(batch, width)`, in the form that is fastest."""
    lengths = _lengths(graph, network.spec.longest) if network.spec.varies else None
    many = unrolled if lengths is None and network.spec.longest <= MOST_UNROLLED else scan
    if _has_operator(network) and not (_is_fused(network) and many is unrolled):
        few, activations = operator, ACTIVATIONS
        most = MOST_IN_OPERATOR[network.cell]
    elif SINGLE.keys() & _activations(network) and network.units <= MOST_IN_SINGLE:
        few, activations = many, {**ACTIVATIONS, **SINGLE}
        most = MOST_IN_SINGLE // network.units
    else:
        return many(graph, network, lengths)
    batch = graph.add("Shape", INPUT, start=0, end=1)
    low, high = graph.constant("one", [1]), graph.constant("few", [most])
    # From 1 to few. Not an empty batch: onnxruntime's LSTM and GRU end the process with it.
    is_few = graph.add("Equal", batch, graph.add("Clip", batch, low, high))
    if lengths is not None and few is operator:
        as_long = graph.add("Equal", lengths.shortest, lengths.longest)
        is_few = graph.add("And", is_few, as_long)
    branches = {
        "then_branch": _branch(graph.inner("then", activations), few, network, lengths),
        "else_branch": _branch(graph.inner("else"), many, network, lengths),
    }
    return graph.add("If", is_few, **branches)


def _branch(graph: Graph, form: Form, network: Network, lengths: Lengths | None) -> onnx.GraphProto:
    state = _inner_value(form(graph, network, lengths), network.layers[-1].width)
    return helper.make_graph(graph.nodes, graph.prefix, [], [state], graph.initializers())


def _lengths(graph: Graph, longest: int) -> Lengths:
    """The input `lengths`, brought to 1 and up to `longest` whatever it holds."""
    ends = graph.constant("least", 1), graph.constant("most", longest)
    each = graph.add("Clip", graph.add("Cast", LENGTHS, to=TensorProto.INT64), *ends)
    # An empty batch has no largest length: an end is added to those that there are.
    with_least, with_most = (
        graph.add("Concat", each, graph.constant(f"{name}_too", [value]), axis=0)
        for name, value in (("least", 1), ("most", longest))
    )
    return Lengths(each, graph.add("ReduceMax", with_least), graph.add("ReduceMin", with_most))


def _by_time(graph: Graph, lengths: Lengths | None) -> str:
    """The input as `(timesteps, batch, features)`, up to the end of the longest sequence."""
    frames = INPUT
    if lengths is not None:
        begin, time = graph.constant("begin", [0]), graph.constant("time_of_input", [1])
        frames = graph.add("Slice", frames, begin, lengths.longest, time)
    return graph.add("Transpose", frames, perm=[1, 0, 2])


def _valid(graph: Graph, lengths: Lengths) -> str:
    """Which steps belong to a sequence, and are no padding: bool `(timesteps, batch, 1)`."""
    end = graph.add("Squeeze", lengths.longest)
    steps = graph.add("Range", graph.constant("from_0", 0), end, graph.constant("by_1", 1))
    by_time = graph.add("Reshape", steps, graph.constant("as_time", [-1, 1, 1]))
    each = graph.add("Reshape", lengths.each, graph.constant("as_batch", [1, -1, 1]))
    return graph.add("Less", by_time, each)


def _activations(network: Network) -> set[str]:
    directions = (each for layer in network.layers for each in layer.directions)
    return {name for each in directions for name in (each.activation, each.recurrent_activation)}


def _has_operator(network: Network) -> bool:
    """Whether ONNX's operator computes every layer with its default activations."""
    return all(
        (each.activation, each.recurrent_activation) == OPERATOR_ACTIVATIONS[each.cell]
        for layer in network.layers
        for each in layer.directions
    )


def _is_fused(network: Network) -> bool:
    """Whether each written-out step is one fused product, and so as fast as the operator."""
    (first, *others) = network.layers
    simple = first.forward.cell == "simple_rnn" and first.forward.activation in FUSED
    return simple and not others and first.backward is None


def operator(graph: Graph, network: Network, lengths: Lengths | None) -> str:
    """Each layer as one RNN, LSTM or GRU node; of a batch in which all sequences are as long."""
    frames = _by_time(graph, lengths)
    for i, layer in enumerate(network.raw_layers):
        kind = CELLS[layer.forward.cell]
        weights = [_operator_weights(each) for each in layer.directions]
        names = [f"{name}_{i}" for name in ("kernel", "recurrent", "bias")]
        arrays = [np.stack(each) for each in zip(*weights, strict=True)]
        states, final = graph.add_several(
            kind.onnx_operator,
            frames,
            *map(graph.constant, names, arrays),
            outputs=2,
            hidden_size=layer.forward.units,
            **({"direction": "bidirectional"} if layer.backward is not None else {}),
            **({"linear_before_reset": 1} if layer.forward.cell == "gru" else {}),
        )
        last = i + 1 == len(network.layers)
        graph.nodes[-1].output[0 if last else 1] = ""  # nobody asks for the other one
        # (timesteps, directions, batch, units) of all states, without timesteps of the final ones
        if layer.backward is None:
            axis = graph.constant(f"direction_{int(not last)}", [0 if last else 1])
            frames = graph.add("Squeeze", final if last else states, axis)
            continue
        width = graph.constant(f"width_{i}", [*([] if last else [0]), -1, layer.width])
        turned = (
            graph.add("Transpose", final, perm=[1, 0, 2])
            if last
            else (graph.add("Transpose", states, perm=[0, 2, 1, 3]))
        )
        frames = graph.add("Reshape", turned, width)
    return frames


def _operator_weights(weights: Recurrence) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Kernel `(g*u, inputs)`, recurrent kernel `(g*u, u)` and bias `(2*g*u,)` as ONNX has them."""
    kind = CELLS[weights.cell]
    columns = kind.columns(kind.onnx_gates, weights.units)
    bias = np.concatenate([weights.input_bias[columns], weights.state_bias[columns]])
    return weights.kernel[:, columns].T, weights.recurrent_kernel[:, columns].T, bias


def unrolled(graph: Graph, network: Network, lengths: Lengths | None) -> str:
    """Every step as nodes of its own; not where lengths vary."""
    frames = _split_steps(graph, network)
    for i, layer in enumerate(network.raw_layers):
        # The first simple layer reads what is projected already.
        projected = i == 0 and layer.forward.cell == "simple_rnn" and layer.backward is None
        found = []
        for name, direction in _named(i, layer):
            order = -1 if direction is layer.backward else 1
            states: list[str] = []
            after = []
            for frame in frames[::order]:
                states = step(graph, name, direction, frame, states, projected=projected)
                after.append(states[0])
            found.append(after[::order])
        if i + 1 == len(network.layers):
            return _joined(graph, [found[0][-1], *(each[0] for each in found[1:])])
        frames = [_joined(graph, list(each)) for each in zip(*found, strict=True)]
    raise AssertionError("a network has a layer")


def _split_steps(graph: Graph, network: Network) -> list[str]:
    """Each frame of the input as a value of its own, projected already where that is faster."""
    spec, first = network.spec, network.raw_layers[0]
    frames, width = INPUT, spec.features
    if first.forward.cell == "simple_rnn" and first.backward is None:
        # One product for all steps. Gated cells would write four times the input to memory.
        rows = graph.add("Reshape", frames, graph.constant("rows", [-1, width]))
        frames = _project(graph, "layer_0", first.forward, rows, "content")
        width = first.forward.units
    flat = graph.add("Reshape", frames, graph.constant("flat", [-1, spec.longest * width]))
    if spec.longest == 1:
        return [flat]
    # Widths, since the attribute that only counts them came with opset 18, and is needed there.
    widths = graph.constant("widths", [width] * spec.longest)
    return graph.add_several("Split", flat, widths, outputs=spec.longest, axis=1)


def scan(graph: Graph, network: Network, lengths: Lengths | None) -> str:
    """The steps as the body of a Scan: as small for 1,000 time steps as for 10."""
    frames = _by_time(graph, lengths)
    valid = None if lengths is None else _valid(graph, lengths)
    for i, layer in enumerate(network.raw_layers):
        every = i + 1 < len(network.layers)
        found = []
        for name, direction in _named(i, layer):
            backward = direction is layer.backward
            read = _reversed(graph, frames, lengths) if backward else frames
            states = _scan_direction(graph, network, name, direction, read, valid, every=every)
            found.append(_reversed(graph, states, lengths) if backward and every else states)
        frames = _joined(graph, found)
    return frames


def _scan_direction(
    graph: Graph,
    network: Network,
    name: str,
    weights: Recurrence,
    frames: str,
    valid: str | None,
    *,
    every: bool,
) -> str:
    """The final state `(batch, units)`, or with `every` all states `(timesteps, batch, units)`.

    After a step that is not `valid`, a sequence has the state that it had before.
    """
    units, width = weights.units, weights.inputs
    projected = weights.cell == "simple_rnn"
    if projected and valid is None:
        rows = graph.add("Reshape", frames, graph.constant(f"{name}_rows", [-1, width]))
        shape = graph.constant(f"{name}_by_time", [network.spec.longest, -1, units])
        sums = _project(graph, name, weights, rows, "content")
        frames, width = graph.add("Reshape", sums, shape), units
    elif projected:  # the number of time steps is known when it runs
        kernel = graph.constant(f"{name}_kernel", weights.kernel)
        sums = graph.add("MatMul", frames, kernel)
        frames = graph.add("Add", sums, _bias(graph, name, weights, "content"))
        width = units
    body = graph.inner(f"{name}_step")
    before = [f"{body.prefix}before_{state}" for state in CELLS[weights.cell].states]
    frame = f"{body.prefix}frame"
    after = step(body, name, weights, frame, before, projected=projected)
    scanned = {frames: _inner_value(frame, width)}
    if valid is not None:
        is_valid = f"{body.prefix}valid"
        scanned[valid] = _inner_value(is_valid, 1, kind=TensorProto.BOOL)
        after = [body.add("Where", is_valid, *each) for each in zip(after, before, strict=True)]
    outputs = [_inner_value(state, units) for state in after]
    if every:
        # A value leaves a body once: as a state, and as a copy of it.
        outputs.append(_inner_value(body.add("Identity", after[0]), units))
    one_step = helper.make_graph(
        body.nodes,
        f"{body.prefix}graph",
        [*(_inner_value(state, units) for state in before), *scanned.values()],
        outputs,
        body.initializers(),
    )
    found = graph.add_several(
        "Scan", *[_zeros(graph, units)] * len(before), *scanned,
        outputs=len(outputs), body=one_step, num_scan_inputs=len(scanned),
    )  # fmt: skip
    return found[-1] if every else found[0]


def _reversed(graph: Graph, frames: str, lengths: Lengths | None) -> str:
    """The frames, time first, from the last to the first; where lengths vary, of each sequence.

    Scan has an attribute for this, which ONNX's own reference evaluator does not take.
    """
    if lengths is not None:
        return graph.add("ReverseSequence", frames, lengths.each, time_axis=0, batch_axis=1)
    last, begin = graph.constant("last", [-1]), graph.constant("before_first", [-(2**31)])
    return graph.add("Slice", frames, last, begin, graph.constant("time", [0]), last)


def _zeros(graph: Graph, units: int) -> str:
    """The state before the first step, `(batch, units)`."""
    batch = graph.add("Shape", INPUT, start=0, end=1)
    shape = graph.add("Concat", batch, graph.constant(f"units_{units}", [units]), axis=0)
    return graph.add("Expand", graph.constant("zero", np.zeros((1, 1))), shape)


def _named(index: int, layer: Layer) -> list[tuple[str, Recurrence]]:
    """Each direction of a layer, and what its constants are called."""
    names = (f"layer_{index}", f"layer_{index}_backward")
    return list(zip(names, layer.directions, strict=False))


def _joined(graph: Graph, values: list[str]) -> str:
    """Values side by side along their last axis."""
    return values[0] if len(values) == 1 else graph.add("Concat", *values, axis=-1)


def step(
    graph: Graph,
    name: str,
    weights: Recurrence,
    frame: str,
    states: list[str],
    *,
    projected: bool = False,
) -> list[str]:
    """The states after one step; no `states` are zeros, as before the first step.

    `projected` frames are x W + b already. Others are joined to the state, so that each gate is one
    product into which onnxruntime fuses its activation; one product for all gates would be no
    faster, since it must then be split.
    """
    if projected:
        if states:
            kernel = graph.constant(f"{name}_recurrent", weights.recurrent_kernel)
            frame = graph.add("Gemm", states[0], kernel, frame)
        return [graph.activate(weights.activation, frame)]
    joined = graph.add("Concat", frame, states[0], axis=1) if states else ""

    def gate(gate: str, activation: str) -> str:
        if not states:
            value = _project(graph, name, weights, frame, gate)
        else:
            part = weights.columns(gate)
            both = np.concatenate([weights.kernel[:, part], weights.recurrent_kernel[:, part]])
            kernel = graph.constant(f"{name}_joined_{gate}", both)
            value = graph.add("Gemm", joined, kernel, _bias(graph, name, weights, gate))
        return graph.activate(activation, value)

    if weights.cell == "simple_rnn":
        return [gate("content", weights.activation)]
    if weights.cell == "lstm":
        return _lstm(graph, weights, states, gate)
    return _gru(graph, name, weights, frame, states, gate)


def _lstm(graph: Graph, weights: Recurrence, states: list[str], gate: Gate) -> list[str]:
    gates = weights.recurrent_activation
    content = graph.add("Mul", gate("input", gates), gate("content", weights.activation))
    if states:
        kept = graph.add("Mul", gate("forget", gates), states[1])
        content = graph.add("Add", kept, content)
    output = gate("output", gates)
    return [graph.add("Mul", output, graph.activate(weights.activation, content)), content]


def _gru(
    graph: Graph, name: str, weights: Recurrence, frame: str, states: list[str], gate: Gate
) -> list[str]:
    update, reset = (gate(each, weights.recurrent_activation) for each in ("update", "reset"))
    part = weights.columns("content")
    inner = graph.constant(f"{name}_state_bias", weights.state_bias[part])
    if states:
        kernel = graph.constant(f"{name}_recurrent", weights.recurrent_kernel[:, part])
        inner = graph.add("Gemm", states[0], kernel, inner)
    new = graph.add("Add", _project(graph, name, weights, frame, "content"),
                    graph.add("Mul", reset, inner))  # fmt: skip
    new = graph.activate(weights.activation, new)
    # z h + (1 - z) g = g + z (h - g)
    if not states:
        return [graph.add("Sub", new, graph.add("Mul", update, new))]
    change = graph.add("Mul", update, graph.add("Sub", states[0], new))
    return [graph.add("Add", new, change)]


def _project(graph: Graph, name: str, weights: Recurrence, frame: str, gate: str) -> str:
    """The product of `frame` and the kernel of one gate, and its bias."""
    kernel = graph.constant(f"{name}_kernel_{gate}", weights.kernel[:, weights.columns(gate)])
    return graph.add("Gemm", frame, kernel, _bias(graph, name, weights, gate))


def _bias(graph: Graph, name: str, weights: Recurrence, gate: str) -> str:
    bias = weights.input_bias
    if (weights.cell, gate) != ("gru", "content"):
        # Both biases add up; but that beside the state is reset with it in the content of a GRU.
        bias = bias + weights.state_bias
    return graph.constant(f"{name}_bias_{gate}", bias[weights.columns(gate)])


def _end(tensor: Tensor) -> onnx.ValueInfoProto:
    """An input or output of the whole graph."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype))
    return helper.make_tensor_value_info(tensor.name, kind, tensor.axes)


def _inner_value(name: str, *shape: int, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    """A value inside of a node, of whatever batch it is given.

    Called `batch` there too, it would be at odds with an input that an engine fixes to a number.
    """
    return helper.make_tensor_value_info(name, kind, [None, *shape])
