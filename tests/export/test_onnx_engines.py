"""An ONNX file says the same in every engine, not only in the one that it is fast in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import openvino
import pytest
from networks import of_length, random_network, raw_input, some_lengths, with_padding
from onnx.reference import ReferenceEvaluator

from export import oracle
from export.formats import onnx_graph
from export.formats.format import NEWEST_OPSET, OLDEST_OPSET, OPSET
from export.network import INPUT, LENGTHS, OUTPUT, Network
from rnn_tf.model.cells import Cell

# float32 rounding of these small networks: 1.2e-7 seen. A misread operator gives 1e-3 to 1.
LIMIT = 1e-6
# Answers the inputs of the graph, in their order.
Classify = Callable[..., np.ndarray]


def in_openvino(model: onnx.ModelProto) -> Classify:
    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(model.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    return lambda *inputs: np.asarray(compiled(list(inputs))[0])


def in_reference_evaluator(model: onnx.ModelProto) -> Classify:
    evaluator = ReferenceEvaluator(model)

    def classify(*inputs: np.ndarray) -> np.ndarray:
        given = dict(zip((INPUT, LENGTHS), inputs, strict=False))
        return np.asarray(evaluator.run([OUTPUT], given)[0])  # type: ignore[index]

    return classify


ENGINES = {"openvino": in_openvino, "reference": in_reference_evaluator}


def check(classify: Classify, network: Network) -> None:
    """One sequence, a few and many: a graph may hold a form for each."""
    x = raw_input(64, network.spec)
    exact = oracle.probabilities(network, x)
    for batch in (1, 7, 64):
        np.testing.assert_allclose(classify(x[:batch]), exact[:batch], rtol=0, atol=LIMIT)


# Every cell; the operator, the steps written out and the Scan; one node for few, many for many.
CASES: list[tuple[Cell, str, int, int, bool]] = [
    ("simple_rnn", "elu", 28, 1, False),  # the default
    ("simple_rnn", "elu", 100, 2, True),
    ("simple_rnn", "tanh", 28, 1, True),
    ("simple_rnn", "tanh", 100, 1, False),
    ("simple_rnn", "gelu", 28, 2, False),
    ("simple_rnn", "gelu", 100, 1, True),
    ("lstm", "tanh", 28, 1, False),
    ("lstm", "tanh", 100, 2, True),
    ("lstm", "gelu", 100, 1, False),
    ("lstm", "elu", 100, 1, True),
    ("gru", "tanh", 28, 1, False),
    ("gru", "tanh", 100, 2, True),
    ("gru", "elu", 28, 1, False),
    ("gru", "gelu", 100, 1, True),
]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("cell", "activation", "timesteps", "layers", "both"), CASES)
def test_every_form_is_the_same_function(
    engine: str, cell: Cell, activation: str, timesteps: int, layers: int, both: bool
) -> None:
    spec = of_length(timesteps)
    network = random_network(cell, activation, spec, layers=layers, bidirectional=both)
    check(ENGINES[engine](onnx_graph.build(network, OPSET)), network)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("cell", "activation", "timesteps", "layers", "both"), CASES)
def test_so_it_is_where_lengths_vary(
    engine: str, cell: Cell, activation: str, timesteps: int, layers: int, both: bool
) -> None:
    """Any padding, in batches of any lengths and of one."""
    spec = replace(of_length(timesteps), timesteps=None)
    network = random_network(cell, activation, spec, layers=layers, bidirectional=both)
    classify = ENGINES[engine](onnx_graph.build(network, OPSET))
    x, lengths = raw_input(20, spec), some_lengths(20, spec)
    exact = oracle.probabilities(network, x, lengths)
    padded = with_padding(x, lengths, np.nan)
    for rows in (slice(0, 1), slice(1, 2), slice(2, 5), slice(20)):
        answer = classify(padded[rows], lengths[rows])
        np.testing.assert_allclose(answer, exact[rows], rtol=0, atol=LIMIT)
    for batch in (3, 20):
        lengths = np.full(batch, timesteps // 2, np.int32)
        answer = classify(with_padding(x[:batch], lengths, np.nan), lengths)
        exact = oracle.probabilities(network, x[:batch], lengths)
        np.testing.assert_allclose(answer, exact, rtol=0, atol=LIMIT)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("opset", [OLDEST_OPSET, NEWEST_OPSET])
@pytest.mark.parametrize("timesteps", [1, 7, 70])
def test_every_opset_is_the_same_function(engine: str, opset: int, timesteps: int) -> None:
    network = random_network("simple_rnn", "elu", of_length(timesteps))
    check(ENGINES[engine](onnx_graph.build(network, opset)), network)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("activation", sorted(oracle.ACTIVATIONS))
def test_every_activation_is_the_same_function(engine: str, activation: str) -> None:
    network = random_network("simple_rnn", activation)
    check(ENGINES[engine](onnx_graph.build(network, OPSET)), network)


def nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Those of a graph and of all graphs inside its nodes."""
    inner = [
        node
        for outer in graph.node
        for attribute in outer.attribute
        if attribute.type == onnx.AttributeProto.GRAPH
        for node in nodes(attribute.g)
    ]
    return [*graph.node, *inner]


@pytest.mark.parametrize("activation", ["tanh", "relu", "elu", "sigmoid", "gelu"])
@pytest.mark.parametrize("cell", ["simple_rnn", "lstm", "gru"])
@pytest.mark.parametrize("timesteps", [7, 70])
def test_a_recurrent_operator_is_used_with_its_default_activations_only(
    cell: Cell, activation: str, timesteps: int
) -> None:
    """With others, one engine known to us computes the default ones and says nothing."""
    network = random_network(cell, activation, of_length(timesteps))
    model = onnx_graph.build(network, OPSET)
    operators = [node for node in nodes(model.graph) if node.op_type in ("RNN", "LSTM", "GRU")]
    assert activation == "tanh" or not operators
    for node in operators:
        assert "activations" not in [attribute.name for attribute in node.attribute]


@pytest.mark.parametrize("cell", ["simple_rnn", "lstm", "gru"])
def test_nothing_inside_is_at_odds_with_a_batch_that_an_engine_fixes(cell: Cell) -> None:
    """Only input and output call the batch by its name."""
    model = onnx_graph.build(random_network(cell, "elu", of_length(70)), OPSET)
    batch = model.graph.input[0].type.tensor_type.shape.dim[0]
    batch.ClearField("dim_param")
    batch.dim_value = 3
    onnx.checker.check_model(model, full_check=True)
    inner = [each for node in nodes(model.graph) for each in node.attribute if each.HasField("g")]
    named = [
        value.name
        for each in inner
        for value in (*each.g.input, *each.g.output)
        if value.type.tensor_type.shape.dim[0].dim_param
    ]
    assert named == []
