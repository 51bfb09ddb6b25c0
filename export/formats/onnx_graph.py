"""The network as an ONNX graph, written for the lowest latency in onnxruntime.

No form of a recurrence is the fastest at every batch. There are three: ONNX's recurrent operator,
the time steps written out, and a Scan. `build` chooses by the number of time steps; if two forms
are left, the graph holds both, and an If chooses by the batch when it runs.

`build_step` makes the graph of a step, whose states come in and go out. One frame, what a stream
mostly is asked, is written out; for more than one there are the operator and the Scan.

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
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import TensorProto, helper

from export.formats.onnx_nodes import ACTIVATIONS, SINGLE, Graph
from export.formats.tf_function import MOST_UNROLLED
from export.network import (
    FRAMES,
    INPUT,
    LENGTHS,
    NEXT_STATE,
    OUTPUT,
    STATE,
    Layer,
    Network,
    Recurrence,
)  # fmt: skip
from export.signatures import Signature, Tensor, classify
from export.signatures import step as step_signature
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


@dataclass(frozen=True)
class Sequences:
    """What the layers are to read, and in which states: the names of the values in a graph."""

    frames: str  # (batch, timesteps, features)
    every: bool  # the states after every step are asked for, not only the final ones
    timesteps: int | None = None  # where the graph may count on it
    lengths: Lengths | None = None
    # (batch, units) each, layer by layer; none where the first step finds zeros.
    states: tuple[str, ...] = ()

    def states_of(self, index: int, weights: Recurrence) -> list[str]:
        """The states before the first step of a layer; without any, none."""
        count = len(CELLS[weights.cell].states)
        return list(self.states[index * count : (index + 1) * count])


@dataclass(frozen=True)
class Read:
    """What the layers have made of sequences: the names of the values."""

    # Of the last layer: (batch, width) after the last step, or (timesteps, batch, width) of all.
    top: str
    states: tuple[str, ...] = ()  # those of all layers after the last step, if states were given

    @property
    def names(self) -> list[str]:
        return [self.top, *self.states]


# Adds the layers to a graph.
Form = Callable[[Graph, Network, Sequences], Read]


def build(network: Network, opset: int) -> onnx.ModelProto:
    """The model, stateless, with the inputs and outputs of `signatures.classify`; any batch."""
    graph, spec = Graph(ACTIVATIONS), network.spec
    lengths = _lengths(graph, spec.longest) if spec.varies else None
    sequences = Sequences(INPUT, network.every_step, spec.longest, lengths)
    answer = _answer_by_time if network.every_step else _answer
    answer(graph, network, recurrence(graph, network, sequences).top)
    graph.name_outputs(OUTPUT)
    return _model(graph, network, classify(spec), opset)


def build_step(network: Network, opset: int) -> onnx.ModelProto:
    """The step of a network that reads forward: see `signatures.step`; any batch, any frames."""
    graph, units = Graph(ACTIVATIONS), network.state_units
    before = tuple(STATE.format(i) for i in range(len(units)))
    sequences = Sequences(FRAMES, every=True, states=before)
    # A single frame is mostly that of few sessions.
    one, many = graph.inner("one", {**ACTIVATIONS, **SINGLE}), graph.inner("many")
    read = unrolled(one, network, replace(sequences, every=False, timesteps=1))
    # Time comes before the softmax: onnxruntime copies what a last Unsqueeze is given.
    logits = one.add("Unsqueeze", _logits(one, network, read.top), one.constant("time", [1]))
    of_one = Read(one.add("Softmax", logits, axis=-1), read.states)
    read = recurrence(many, network, sequences)
    of_many = Read(_answer_by_time(many, network, read.top), read.states)
    steps = graph.add("Shape", FRAMES, start=1, end=2)
    shapes = [(None, network.spec.classes), *((each,) for each in units)]
    graph.add_several(
        "If", graph.add("Equal", steps, graph.constant("one", [1])), outputs=len(shapes),
        then_branch=_branch(one, of_one, shapes), else_branch=_branch(many, of_many, shapes),
    )  # fmt: skip
    graph.name_outputs(OUTPUT, *(NEXT_STATE.format(i) for i in range(len(units))))
    return _model(graph, network, step_signature(network.spec, units), opset)


def _answer(graph: Graph, network: Network, states: str) -> str:
    """The softmax of `states` `(batch, width)`."""
    return graph.add("Softmax", _logits(graph, network, states), axis=-1)


def _logits(graph: Graph, network: Network, states: str) -> str:
    """What the softmax of `states` `(batch, width)` is taken of."""
    dense = graph.constant("dense_kernel", network.dense_kernel)
    return graph.add("Gemm", states, dense, graph.constant("dense_bias", network.dense_bias))


def _answer_by_time(graph: Graph, network: Network, states: str) -> str:
    """The softmax of `states` `(timesteps, batch, width)`, the batch first."""
    dense = graph.constant("dense_kernel", network.dense_kernel)
    products = graph.add("MatMul", states, dense)
    logits = graph.add("Add", products, graph.constant("dense_bias", network.dense_bias))
    return graph.add("Transpose", graph.add("Softmax", logits, axis=-1), perm=[1, 0, 2])


def _model(graph: Graph, network: Network, signature: Signature, opset: int) -> onnx.ModelProto:
    whole = helper.make_graph(
        graph.nodes,
        network.cell,
        list(map(_end, signature.inputs)),
        list(map(_end, signature.outputs)),
        graph.initializers(),
    )
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(whole, opset_imports=opsets, ir_version=IR_VERSION)


def recurrence(graph: Graph, network: Network, sequences: Sequences) -> Read:
    """Add the layers in the form that is fastest."""
    lengths, timesteps = sequences.lengths, sequences.timesteps
    straight = lengths is None and timesteps is not None and timesteps <= MOST_UNROLLED
    many = unrolled if straight else scan
    if _has_operator(network) and not (_is_fused(network) and many is unrolled):
        few, activations = operator, ACTIVATIONS
        most = MOST_IN_OPERATOR[network.cell]
    elif SINGLE.keys() & _activations(network) and network.units <= MOST_IN_SINGLE:
        few, activations = many, {**ACTIVATIONS, **SINGLE}
        most = MOST_IN_SINGLE // network.units
    else:
        return many(graph, network, sequences)
    batch = graph.add("Shape", sequences.frames, start=0, end=1)
    low, high = graph.constant("one", [1]), graph.constant("few", [most])
    # From 1 to few. Not an empty batch: onnxruntime's LSTM and GRU end the process with it.
    is_few = graph.add("Equal", batch, graph.add("Clip", batch, low, high))
    if lengths is not None and few is operator:
        # Where every step is answered, nothing is cut, and the operator would read the padding.
        whole = graph.constant("whole", [timesteps or 0]) if sequences.every else lengths.longest
        as_long = graph.add("Equal", lengths.shortest, whole)
        is_few = graph.add("And", is_few, as_long)
    shapes = [
        (*[None] * sequences.every, network.layers[-1].width),
        *((units,) for units in network.state_units if sequences.states),
    ]
    branches = {}
    for name, form, own in (("then", few, activations), ("else", many, graph.activations)):
        inside = graph.inner(name, own)
        read = form(inside, network, sequences)
        branches[f"{name}_branch"] = _branch(inside, read, shapes)
    top, *states = graph.add_several("If", is_few, outputs=len(shapes), **branches)
    return Read(top, tuple(states))


def _branch(graph: Graph, read: Read, shapes: list[tuple[int | None, ...]]) -> onnx.GraphProto:
    """`graph` as a branch of an If that gives what was `read` in it; `shapes` are after batch."""
    outputs = [_inner_value(name, *shape) for name, shape in zip(read.names, shapes, strict=True)]
    return helper.make_graph(graph.nodes, graph.prefix, [], outputs, graph.initializers())


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


def _by_time(graph: Graph, sequences: Sequences) -> str:
    """The input as `(timesteps, batch, features)`, up to the end of the longest sequence.

    Whole where every step is to be answered: there are as many answers as steps.
    """
    frames = sequences.frames
    if sequences.lengths is not None and not sequences.every:
        begin, time = graph.constant("begin", [0]), graph.constant("time_of_input", [1])
        frames = graph.add("Slice", frames, begin, sequences.lengths.longest, time)
    return graph.add("Transpose", frames, perm=[1, 0, 2])


def _valid(graph: Graph, lengths: Lengths, sequences: Sequences) -> str:
    """Which steps belong to a sequence, and are no padding: bool `(timesteps, batch, 1)`."""
    if sequences.every:
        end = graph.constant("all_steps", sequences.timesteps or 0)
    else:
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


def operator(graph: Graph, network: Network, sequences: Sequences) -> Read:
    """Each layer as one RNN, LSTM or GRU node; of a batch in which all sequences are as long."""
    frames = _by_time(graph, sequences)
    after: list[str] = []
    for i, layer in enumerate(network.raw_layers):
        kind = CELLS[layer.forward.cell]
        before = sequences.states_of(i, layer.forward)
        given = [graph.add("Unsqueeze", state, graph.constant("only", [0])) for state in before]
        weights = [_operator_weights(each) for each in layer.directions]
        names = [f"{name}_{i}" for name in ("kernel", "recurrent", "bias")]
        arrays = [np.stack(each) for each in zip(*weights, strict=True)]
        states, *final = graph.add_several(
            kind.onnx_operator,
            frames,
            *map(graph.constant, names, arrays),
            *(["", *given] if given else []),
            outputs=1 + max(1, len(given)),
            hidden_size=layer.forward.units,
            **({"direction": "bidirectional"} if layer.backward is not None else {}),
            **({"linear_before_reset": 1} if layer.forward.cell == "gru" else {}),
        )
        last = i + 1 == len(network.layers) and not sequences.every
        if not given:  # nobody asks for the other one
            graph.nodes[-1].output[0 if last else 1] = ""
        if given:
            only = graph.constant("only", [0])
            after += [graph.add("Squeeze", each, only) for each in final]
        # (timesteps, directions, batch, units) of all states, without timesteps of the final ones
        if layer.backward is None:
            axis = graph.constant(f"direction_{int(not last)}", [0 if last else 1])
            frames = graph.add("Squeeze", final[0] if last else states, axis)
            continue
        width = graph.constant(f"width_{i}", [*([] if last else [0]), -1, layer.width])
        turned = (
            graph.add("Transpose", final[0], perm=[1, 0, 2])
            if last
            else (graph.add("Transpose", states, perm=[0, 2, 1, 3]))
        )
        frames = graph.add("Reshape", turned, width)
    return Read(frames, tuple(after))


def _operator_weights(weights: Recurrence) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Kernel `(g*u, inputs)`, recurrent kernel `(g*u, u)` and bias `(2*g*u,)` as ONNX has them."""
    kind = CELLS[weights.cell]
    columns = kind.columns(kind.onnx_gates, weights.units)
    bias = np.concatenate([weights.input_bias[columns], weights.state_bias[columns]])
    return weights.kernel[:, columns].T, weights.recurrent_kernel[:, columns].T, bias


def unrolled(graph: Graph, network: Network, sequences: Sequences) -> Read:
    """Every step as nodes of its own; not where lengths vary."""
    frames = _split_steps(graph, network, sequences)
    final: list[str] = []
    for i, layer in enumerate(network.raw_layers):
        # The first simple layer reads what is projected already.
        projected = i == 0 and _projects_all(layer, sequences)
        found = []
        for name, direction in _named(i, layer):
            order = -1 if direction is layer.backward else 1
            states = sequences.states_of(i, direction)
            after = []
            for frame in frames[::order]:
                states = step(graph, name, direction, frame, states, projected=projected)
                after.append(states[0])
            found.append(after[::order])
            final += states
        if i + 1 == len(network.layers) and not sequences.every:
            top = _joined(graph, [found[0][-1], *(each[0] for each in found[1:])])
            return Read(top, tuple(final[: len(sequences.states)]))
        frames = [_joined(graph, list(each)) for each in zip(*found, strict=True)]
    time = graph.constant("time_first", [0])
    by_time = [graph.add("Unsqueeze", frame, time) for frame in frames]
    top = by_time[0] if len(by_time) == 1 else graph.add("Concat", *by_time, axis=0)
    return Read(top, tuple(final[: len(sequences.states)]))


def _projects_all(first: Layer, sequences: Sequences) -> bool:
    """Whether one product for all steps is worth it.

    Gated cells would write four times the input to memory.
    """
    simple = first.forward.cell == "simple_rnn" and first.backward is None
    return simple and sequences.timesteps != 1


def _split_steps(graph: Graph, network: Network, sequences: Sequences) -> list[str]:
    """Each frame of the input as a value of its own, projected already where that is faster."""
    first, timesteps = network.raw_layers[0], sequences.timesteps or 0
    frames, width = sequences.frames, network.spec.features
    if _projects_all(first, sequences):
        rows = graph.add("Reshape", frames, graph.constant("rows", [-1, width]))
        frames = _project(graph, "layer_0", first.forward, rows, "content")
        width = first.forward.units
    flat = graph.add("Reshape", frames, graph.constant("flat", [-1, timesteps * width]))
    if timesteps == 1:
        return [flat]
    # Widths, since the attribute that only counts them came with opset 18, and is needed there.
    widths = graph.constant("widths", [width] * timesteps)
    return graph.add_several("Split", flat, widths, outputs=timesteps, axis=1)


def scan(graph: Graph, network: Network, sequences: Sequences) -> Read:
    """The steps as the body of a Scan: as small for 1,000 time steps as for 10."""
    frames, lengths = _by_time(graph, sequences), sequences.lengths
    valid = None if lengths is None else _valid(graph, lengths, sequences)
    final: list[str] = []
    for i, layer in enumerate(network.raw_layers):
        every = i + 1 < len(network.layers) or sequences.every
        found = []
        for name, direction in _named(i, layer):
            backward = direction is layer.backward
            read = _reversed(graph, frames, lengths) if backward else frames
            count = len(CELLS[direction.cell].states)
            before = sequences.states_of(i, direction)
            if not before:
                before = [_zeros(graph, sequences.frames, direction.units)] * count
            states = _scan_direction(
                graph, name, direction, read, valid, before,
                timesteps=sequences.timesteps, every=every,
            )  # fmt: skip
            top = states[-1 if every else 0]
            found.append(_reversed(graph, top, lengths) if backward and every else top)
            final += states[:count]
        frames = _joined(graph, found)
    return Read(frames, tuple(final[: len(sequences.states)]))


def _scan_direction(
    graph: Graph,
    name: str,
    weights: Recurrence,
    frames: str,
    valid: str | None,
    given: list[str],
    *,
    timesteps: int | None,
    every: bool,
) -> list[str]:
    """The states `(batch, units)` after the last of `frames`, the first read in those `given`.

    With `every`, the last of what it gives is h after each step, `(timesteps, batch, units)`. After
    a step that is not `valid`, a sequence has the state that it had before.
    """
    units, width = weights.units, weights.inputs
    projected = weights.cell == "simple_rnn"
    if projected and valid is None and timesteps is not None:
        rows = graph.add("Reshape", frames, graph.constant(f"{name}_rows", [-1, width]))
        shape = graph.constant(f"{name}_by_time", [timesteps, -1, units])
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
    return graph.add_several(
        "Scan", *given, *scanned,
        outputs=len(outputs), body=one_step, num_scan_inputs=len(scanned),
    )  # fmt: skip


def _reversed(graph: Graph, frames: str, lengths: Lengths | None) -> str:
    """The frames, time first, from the last to the first; where lengths vary, of each sequence.

    Scan has an attribute for this, which ONNX's own reference evaluator does not take.
    """
    if lengths is not None:
        return graph.add("ReverseSequence", frames, lengths.each, time_axis=0, batch_axis=1)
    last, begin = graph.constant("last", [-1]), graph.constant("before_first", [-(2**31)])
    return graph.add("Slice", frames, last, begin, graph.constant("time", [0]), last)


def _zeros(graph: Graph, frames: str, units: int) -> str:
    """The state before the first of `frames`, `(batch, units)`."""
    batch = graph.add("Shape", frames, start=0, end=1)
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


def _inner_value(
    name: str, *shape: int | None, kind: int = TensorProto.FLOAT
) -> onnx.ValueInfoProto:
    """A value inside of a node, of whatever batch it is given.

    Called `batch` there too, it would be at odds with an input that an engine fixes to a number.
    """
    return helper.make_tensor_value_info(name, kind, [None, *shape])
