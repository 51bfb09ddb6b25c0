"""Where lengths vary, every format answers for each sequence, whatever is after or beside it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from networks import (
    LONG_VARYING,
    SPEC,
    STACKS,
    UNITS_OF_MEASURE,
    VARYING,
    in_keras,
    random_network,
    raw_input,
    some_lengths,
    with_padding,
)
from oracle_runtime import OracleRuntime

from export import oracle
from export.formats import onnx_graph
from export.formats.format import NEWEST_OPSET, OLDEST_OPSET, OPSET, Options, Runtime, as_inputs
from export.formats.onnx import by_tf2onnx
from export.formats.onnx_graph import MOST_IN_OPERATOR
from export.formats.quantize import round_to_int8
from export.formats.registry import FORMATS, file_of
from export.network import INPUT, LENGTHS, OUTPUT, Network
from export.runtimes import open_file
from export.signatures import classify, step
from rnn_tf.data.spec import SequenceSpec
from rnn_tf.errors import InputError
from rnn_tf.model.activations import ACTIVATIONS
from rnn_tf.model.cells import CELLS, Cell

# float32 rounding of these small networks, as in test_onnx.py. Quantized formats are only held to
# be the same function as themselves, whatever the padding is, and near the oracle.
ROUNDING = 1e-6
NEAR = {"tflite_int8": 2e-2, "tflite_float16": 2e-3}
EXAMPLES, BATCHES = 30, (1, 2, 7, 20)
STACK: dict[str, dict[str, Any]] = {"1 layer": {}, **STACKS}
SPECS = {"short": VARYING, "long": LONG_VARYING}
with_torch = pytest.param("torch", marks=pytest.mark.torch)


def alone(network: Network, x: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """What the formulas say of each sequence at its own length: the definition."""
    each = [x[i : i + 1, :steps] for i, steps in enumerate(lengths)]
    return np.concatenate([oracle.probabilities(network, one) for one in each])


def paddings(x: np.ndarray) -> dict[str, float | np.ndarray]:
    noise = np.random.default_rng(7).permutation(x)
    return {"zeros": 0.0, "noise": noise, "infinity": np.inf, "-infinity": -np.inf, "NaN": np.nan}


def make(name: str, network: Network, folder: Path) -> Runtime:
    """A format, or Keras itself, in its real runtime."""
    path, spec = folder / file_of(name), network.spec
    if name == "keras":
        in_keras(network).save(path)
    elif name == "onnx":  # without the converter that it is checked against
        onnx.save(onnx_graph.build(network, OPSET), path)
    else:
        options = Options(raw_input(200, spec), some_lengths(200, spec))
        FORMATS[name].write(network, path, options)
    return open_file(name, path, spec)


def assert_each_is_answered(runtime: Runtime, network: Network, near: float = ROUNDING) -> None:
    """Every sequence, alone and in company, before every padding."""
    x, lengths = raw_input(EXAMPLES, network.spec), some_lengths(EXAMPLES, network.spec)
    exact = alone(network, x, lengths)
    random = np.random.default_rng(5)
    first = runtime.predict(with_padding(x, lengths, 0.0), lengths)
    assert (first.shape, first.dtype) == (exact.shape, np.float32)
    np.testing.assert_allclose(first, exact, rtol=0, atol=near)
    for name, padding in paddings(x).items():
        padded = with_padding(x, lengths, padding)
        for batch in BATCHES:
            rows = random.permutation(EXAMPLES)
            for part in np.array_split(rows, EXAMPLES // batch):
                got = runtime.predict(padded[part], lengths[part])
                np.testing.assert_allclose(got, first[part], rtol=0, atol=ROUNDING, err_msg=name)


# --- the definition, and Keras ---
@pytest.mark.parametrize("stack", STACK)
@pytest.mark.parametrize("cell", CELLS)
def test_the_oracle_is_each_sequence_alone(cell: Cell, stack: str) -> None:
    network = random_network(cell, spec=VARYING, **STACK[stack])
    x, lengths = raw_input(EXAMPLES, VARYING), some_lengths(EXAMPLES, VARYING)
    assert {1, VARYING.longest} < set(lengths.tolist())
    exact = alone(network, x, lengths)
    for padding in paddings(x).values():
        padded = with_padding(x, lengths, padding)
        # A product of more rows may be added up in another order.
        np.testing.assert_allclose(
            oracle.probabilities(network, padded, lengths), exact, rtol=0, atol=1e-15
        )


@pytest.mark.parametrize("stack", STACK)
@pytest.mark.parametrize("cell", CELLS)
def test_the_oracle_is_keras_with_a_mask_in_float64(cell: Cell, stack: str) -> None:
    spec = replace(VARYING, normalize=UNITS_OF_MEASURE)
    network = random_network(cell, spec=spec, **STACK[stack])
    x, lengths = raw_input(EXAMPLES, spec), some_lengths(EXAMPLES, spec)
    *recurrent, dense = in_keras(network, "float64").layers
    mask = np.arange(spec.longest) < lengths[:, None]
    states = oracle.normalized(network, x)
    for layer in recurrent:
        states = layer(states, mask=mask)
    theirs = np.asarray(dense(states))
    np.testing.assert_allclose(
        oracle.probabilities(network, x, lengths), theirs, rtol=0, atol=1e-12
    )


# --- every format ---
@pytest.mark.parametrize(
    ("stack", "length"),
    [
        ("1 layer", "short"), ("1 layer", "long"), ("2 layers", "short"), ("both ways", "long"),
        ("3 layers both ways", "short"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("cell", CELLS)
def test_onnx_answers_each(cell: Cell, stack: str, length: str, tmp_path: Path) -> None:
    network = random_network(cell, spec=SPECS[length], **STACK[stack])
    assert_each_is_answered(make("onnx", network, tmp_path), network)


@pytest.mark.torch
@pytest.mark.parametrize(
    ("cell", "stack"),
    [("simple_rnn", "1 layer"), ("lstm", "both ways"), ("gru", "3 layers both ways")],
)
def test_pytorch_answers_each(cell: Cell, stack: str, tmp_path: Path) -> None:
    network = random_network(cell, spec=VARYING, **STACK[stack])
    assert_each_is_answered(make("torch", network, tmp_path), network)


@pytest.mark.parametrize(
    ("name", "cell", "stack", "length"),
    [
        ("tflite", "simple_rnn", "both ways", "long"),
        ("tflite", "lstm", "1 layer", "long"),
        ("tflite", "gru", "2 layers", "short"),
        ("saved_model", "simple_rnn", "3 layers both ways", "short"),
        ("saved_model", "lstm", "1 layer", "short"),
        ("saved_model", "gru", "1 layer", "long"),
    ],
)
def test_what_is_made_from_the_function_answers_each(
    name: str, cell: Cell, stack: str, length: str, tmp_path: Path
) -> None:
    network = random_network(cell, spec=SPECS[length], **STACK[stack])
    assert_each_is_answered(make(name, network, tmp_path), network)


@pytest.mark.parametrize(
    ("name", "cell", "stack", "length"),
    [
        ("keras", "simple_rnn", "1 layer", "long"),
        ("keras", "lstm", "2 layers", "short"),
        ("keras", "gru", "both ways", "short"),
        ("tflite_int8", "simple_rnn", "1 layer", "long"),
        ("tflite_int8", "gru", "both ways", "short"),
        ("tflite_float16", "lstm", "2 layers", "short"),
    ],
)
def test_so_do_keras_and_what_is_quantized(
    name: str, cell: Cell, stack: str, length: str, tmp_path: Path
) -> None:
    network = random_network(cell, spec=SPECS[length], **STACK[stack])
    runtime = make(name, network, tmp_path)
    assert_each_is_answered(runtime, network, NEAR.get(name, ROUNDING))


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("tflite", ("simple_rnn",)),
        ("onnx", CELLS),
        pytest.param("torch", CELLS, marks=pytest.mark.torch),
    ],
)
@pytest.mark.parametrize("activation", ["linear", "mish"])
def test_any_activation_will_do(
    name: str, cells: Iterable[Cell], activation: str, tmp_path: Path
) -> None:
    """Some grow without a bound, at padding too."""
    spec = replace(VARYING, longest=4)
    for cell in cells:
        network = random_network(cell, activation, spec, bidirectional=True)
        assert_each_is_answered(make(name, network, tmp_path), network)


@pytest.mark.parametrize("name", ["onnx", "tflite", "tflite_int8"])
def test_features_may_be_of_different_size(name: str, tmp_path: Path) -> None:
    spec = replace(VARYING, normalize=UNITS_OF_MEASURE)
    network = random_network("gru", spec=spec, **STACKS["both ways"])
    x, lengths = raw_input(20, spec), some_lengths(20, spec)
    runtime = make(name, network, tmp_path)
    got = runtime.predict(with_padding(x, lengths, np.nan), lengths)
    np.testing.assert_allclose(got, alone(network, x, lengths), rtol=0, atol=NEAR.get(name, 1e-5))


@pytest.mark.parametrize("name", ["saved_model", "tflite", "onnx", with_torch])
def test_one_step_is_the_shortest_model(name: str, tmp_path: Path) -> None:
    network = random_network("lstm", spec=replace(VARYING, longest=1), bidirectional=True)
    x, lengths = raw_input(3, network.spec), np.ones(3, np.int64)
    got = make(name, network, tmp_path).predict(x, lengths)
    np.testing.assert_allclose(got, alone(network, x, lengths), rtol=0, atol=ROUNDING)


# --- ONNX ---
def nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    inner = [
        node
        for outer in graph.node
        for attribute in outer.attribute
        if attribute.type == onnx.AttributeProto.GRAPH
        for node in nodes(attribute.g)
    ]
    return [*graph.node, *inner]


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize("cell", CELLS)
def test_the_operator_reads_no_lengths(cell: Cell, spec: SequenceSpec) -> None:
    """Engines are known that ignore them: it is asked for sequences that are as long only."""
    model = onnx_graph.build(random_network(cell, "tanh", spec, bidirectional=True), OPSET)
    (operator,) = [node for node in nodes(model.graph) if node.op_type in ("RNN", "LSTM", "GRU")]
    assert len(operator.input) <= 4
    assert {"Scan", "If"} < {node.op_type for node in nodes(model.graph)}


@pytest.mark.parametrize(
    ("cell", "activation"), [("simple_rnn", "elu"), ("lstm", "tanh"), ("gru", "tanh")]
)
def test_sequences_that_are_as_long_are_answered_together(
    cell: Cell, activation: str, tmp_path: Path
) -> None:
    """By the operator, of any length; one that is shorter sends all of them to the Scan."""
    network = random_network(cell, activation, VARYING, layers=2, bidirectional=True)
    runtime = make("onnx", network, tmp_path)
    few = MOST_IN_OPERATOR[cell]
    for batch in (1, few, few + 1):
        x = raw_input(batch, VARYING)
        for steps in (1, 4, VARYING.longest):
            lengths = np.full(batch, steps)
            for last in (steps, 1):
                lengths[-1] = last
                got = runtime.predict(with_padding(x, lengths, np.nan), lengths)
                np.testing.assert_allclose(got, alone(network, x, lengths), rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_in_onnx(activation: str) -> None:
    for cell in CELLS:
        network = random_network(cell, activation, VARYING)
        x, lengths = raw_input(EXAMPLES, VARYING), some_lengths(EXAMPLES, VARYING)
        given = {INPUT: with_padding(x, lengths, np.nan), LENGTHS: lengths}
        got = session(onnx_graph.build(network, OPSET)).run([OUTPUT], given)[0]
        np.testing.assert_allclose(got, alone(network, x, lengths), rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("opset", [OLDEST_OPSET, 18, NEWEST_OPSET])
def test_every_opset(opset: int) -> None:
    for cell in CELLS:
        network = random_network(cell, "tanh", VARYING, layers=2, bidirectional=True)
        model = onnx_graph.build(network, opset)
        onnx.checker.check_model(model, full_check=True)
        x, lengths = raw_input(EXAMPLES, VARYING), some_lengths(EXAMPLES, VARYING)
        got = session(model).run([OUTPUT], {INPUT: x, LENGTHS: lengths})[0]
        np.testing.assert_allclose(got, alone(network, x, lengths), rtol=0, atol=ROUNDING)


def test_a_graph_is_as_large_for_any_length() -> None:
    sizes = [
        onnx_graph.build(random_network("gru", spec=replace(VARYING, longest=n)), OPSET).ByteSize()
        for n in (2, 10_000)
    ]
    assert sizes[1] - sizes[0] < 32


@pytest.mark.parametrize("activation", ["tanh", "elu", "gelu"])
@pytest.mark.parametrize("cell", CELLS)
def test_an_empty_batch_is_answered_with_nothing(cell: Cell, activation: str) -> None:
    for spec in SPECS.values():
        network = random_network(cell, activation, spec, bidirectional=True)
        empty = {
            INPUT: np.zeros((0, spec.longest, spec.features), np.float32),
            LENGTHS: np.zeros(0, np.int32),
        }
        (answer,) = session(onnx_graph.build(network, OPSET)).run([OUTPUT], empty)
        assert answer.shape == (0, spec.classes)


@pytest.mark.parametrize(
    ("cell", "stack", "length"),
    [
        ("simple_rnn", "1 layer", "short"),
        ("gru", "1 layer", "long"),
        ("lstm", "both ways", "short"),
    ],
)
def test_tf2onnx_makes_the_same_function(cell: Cell, stack: str, length: str) -> None:
    """Of padding that is finite: it makes a product of every selection."""
    network = random_network(cell, spec=SPECS[length], **STACK[stack])
    x, lengths = raw_input(EXAMPLES, network.spec), some_lengths(EXAMPLES, network.spec)
    given = {INPUT: x, LENGTHS: lengths}
    got = session(by_tf2onnx(network)).run([OUTPUT], given)[0]
    np.testing.assert_allclose(got, alone(network, x, lengths), rtol=0, atol=ROUNDING)


def test_an_onnx_file_is_written_beside_that_of_tf2onnx(tmp_path: Path) -> None:
    network = random_network("lstm", spec=VARYING, bidirectional=True)
    x, lengths = raw_input(50, VARYING), some_lengths(50, VARYING)
    path = tmp_path / "model.onnx"
    options = Options(with_padding(x, lengths, 0.0), lengths)
    details = FORMATS["onnx"].write(network, path, options)
    assert details["max_difference_from_tf2onnx"] <= details["limit"] <= 1e-5
    loaded = session(onnx.load(path))
    ends = [(each.name, each.type, each.shape) for each in loaded.get_inputs()]
    assert ends == [
        ("sequence", "tensor(float)", ["batch", 7, 3]), ("lengths", "tensor(int32)", ["batch"]),
    ]  # fmt: skip
    (signature,) = json.loads(loaded.get_modelmeta().custom_metadata_map["signatures"])
    assert signature == classify(VARYING).to_dict()
    assert SequenceSpec.from_json(loaded.get_modelmeta().custom_metadata_map["spec"]) == VARYING


# --- lengths that no caller of ours lets through ---
@pytest.mark.parametrize(
    ("name", "length"),
    [("saved_model", "short"), ("tflite", "long"), ("onnx", "short"), ("onnx", "long")],
)
def test_lengths_beyond_the_ends_are_the_ends(name: str, length: str, tmp_path: Path) -> None:
    """A file that somebody calls without checking neither ends the process nor reads elsewhere."""
    spec = SPECS[length]
    network = random_network("gru", spec=spec, bidirectional=True)
    runtime: Any = make(name, network, tmp_path)
    x = raw_input(4, spec)
    lengths = np.array([0, -5, spec.longest + 1, 2**31 - 1], np.int32)
    if name == "saved_model":
        import tensorflow as tf

        answer = runtime.call(sequence=tf.constant(x), lengths=tf.constant(lengths))[OUTPUT].numpy()
    elif name == "tflite":
        runner = runtime.interpreter.get_signature_runner("serving_default")
        answer = runner(sequence=x, lengths=lengths)[OUTPUT]
    else:
        (answer,) = runtime.session.run([OUTPUT], {INPUT: x, LENGTHS: lengths})
    exact = alone(network, x, np.clip(lengths, 1, spec.longest))
    np.testing.assert_allclose(answer, exact, rtol=0, atol=ROUNDING)


# --- what is said of it ---
def test_the_signature_has_a_second_input() -> None:
    sequence, lengths = classify(VARYING).inputs
    assert sequence == classify(SPEC).inputs[0]
    assert (lengths.name, lengths.dtype, lengths.axes) == ("lengths", "int32", ("batch",))
    assert "1 to 7" in lengths.about
    assert len(classify(SPEC).inputs) == 1


def test_each_file_has_the_inputs_of_the_signature(tmp_path: Path) -> None:
    network = random_network("simple_rnn", spec=VARYING)
    saved: Any = make("saved_model", network, tmp_path)
    _, inputs = saved.call.structured_input_signature
    assert {name: (spec.dtype.name, spec.shape.as_list()) for name, spec in inputs.items()} == {
        "sequence": ("float32", [None, 7, 3]), "lengths": ("int32", [None]),
    }  # fmt: skip
    lite: Any = make("tflite", network, tmp_path)
    assert lite.interpreter.get_signature_list() == {
        "serving_default": {"inputs": ["lengths", "sequence"], "outputs": ["probabilities"]}
    }
    asked = classify(VARYING).to_dict(), step(VARYING, [network.units]).to_dict()
    for runtime, signatures in ((saved, asked), (lite, asked[:1])):
        assert json.loads(runtime.metadata()["signatures"]) == list(signatures)


def test_the_warm_up_of_serving_has_lengths(tmp_path: Path) -> None:
    import tensorflow as tf
    from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

    saved: Any = make("saved_model", random_network("gru", spec=VARYING), tmp_path)
    folder = tmp_path / "saved_model" / "1" / "assets.extra"
    (record,) = tf.data.TFRecordDataset(
        str(folder / "tf_serving_warmup_requests")
    ).as_numpy_iterator()
    request = PredictionLog.FromString(record).predict_log.request
    given = {name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()}
    assert given["lengths"].dtype == tf.int32
    assert saved.call(**given)[OUTPUT].shape == (1, VARYING.classes)


# --- int8 is calibrated on the steps that are there ---
@pytest.mark.parametrize("stack", ["1 layer", "3 layers both ways"])
@pytest.mark.parametrize("cell", CELLS)
def test_padding_does_not_change_the_rounding(cell: Cell, stack: str) -> None:
    network = random_network(cell, spec=VARYING, **STACK[stack])
    x, lengths = raw_input(200, VARYING), some_lengths(200, VARYING)
    answers = []
    for padding in (0.0, np.nan):
        rounded, _ = round_to_int8(network, with_padding(x, lengths, padding), lengths)
        answers.append(oracle.probabilities(rounded, x, lengths))
    np.testing.assert_array_equal(answers[0], answers[1])
    padded, _ = round_to_int8(network, with_padding(x, lengths, 0.0), np.full(200, 7))
    assert np.abs(oracle.probabilities(padded, x, lengths) - answers[0]).max() > 1e-5


def test_sequences_of_one_length_are_rounded_as_those_of_a_fixed_one() -> None:
    fixed, varying = (random_network("gru", spec=spec) for spec in (SPEC, VARYING))
    x = raw_input(100)
    ours, theirs = round_to_int8(varying, x, np.full(100, 7)), round_to_int8(fixed, x)
    for mine, other in zip(ours[1], theirs[1], strict=True):
        np.testing.assert_array_equal(mine.values, other.values)


# --- the input ---
X, N = raw_input(4, VARYING), np.array([1, 7, 3, 2], np.int32)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64", "uint64"])
def test_any_whole_numbers_are_taken(dtype: str) -> None:
    given = as_inputs(X, N.astype(dtype), VARYING)
    assert list(given) == ["sequence", "lengths"]
    assert given["sequence"] is X
    assert given["lengths"].dtype == np.int32
    np.testing.assert_array_equal(given["lengths"], N)
    np.testing.assert_array_equal(as_inputs(X, N.tolist(), VARYING)["lengths"], N)


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        (None, "the model needs lengths; expected the length of each of 4 sequences, got none"),
        (N[:3], "the lengths do not fit the input; expected whole numbers of shape (4,), got int32 "
         "of shape (3,)"),
        (N[:, None], "the lengths do not fit the input; expected whole numbers of shape (4,), got "
         "int32 of shape (4, 1)"),
        (7, "the lengths do not fit the input; expected whole numbers of shape (4,), got int64 of "
         "shape ()"),
        (N.astype(float), "the lengths do not fit the input; expected whole numbers of shape (4,), "
         "got float64 of shape (4,)"),
        (N > 1, "the lengths do not fit the input; expected whole numbers of shape (4,), got bool "
         "of shape (4,)"),
        (["1", "2", "3", "4"], "the lengths do not fit the input; expected whole numbers of shape "
         "(4,), got <U1 of shape (4,)"),
        ([1, 0, 3, 2], "the lengths do not fit the model; expected 1 to 7, got 0 for sequence 1"),
        ([1, 7, 3, 8], "the lengths do not fit the model; expected 1 to 7, got 8 for sequence 3"),
        ([-1, 7, 3, 8], "the lengths do not fit the model; expected 1 to 7, got -1 for sequence 0"),
    ],
    ids=str,
)  # fmt: skip
def test_other_lengths_are_refused(lengths: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        as_inputs(X, lengths, VARYING)
    assert str(caught.value) == message


def test_lengths_of_a_model_of_one_length_are_refused() -> None:
    message = r"^the model takes no lengths; expected none: every sequence has 7 steps, got \(4,\)$"
    with pytest.raises(InputError, match=message):
        as_inputs(X, N, SPEC)
    assert list(as_inputs(X, None, SPEC)) == ["sequence"]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_may_stand_in_the_padding_only(value: float) -> None:
    for i, steps in enumerate(N):
        for t in range(VARYING.longest):
            x = X.copy()
            x[i, t, 2] = value
            if t >= steps:
                np.testing.assert_array_equal(as_inputs(x, N, VARYING)["sequence"], x)
            else:
                with pytest.raises(InputError, match=r"^the input is not finite; got NaN or"):
                    as_inputs(x, N, VARYING)


@pytest.mark.parametrize(
    "name", [name if name != "torch" else with_torch for name in ("keras", *FORMATS)]
)
def test_every_runtime_asks_for_lengths(name: str, tmp_path: Path) -> None:
    runtime = make(name, random_network("gru", spec=VARYING), tmp_path)
    with pytest.raises(InputError, match=r"^the model needs lengths; expected"):
        runtime.predict(X)
    with pytest.raises(InputError, match=r"^the lengths do not fit the model; expected 1 to 7"):
        runtime.predict(X, N + 1)


def test_the_runtime_of_the_oracle_takes_them_too() -> None:
    network = random_network("gru", spec=VARYING)
    got = OracleRuntime(network).predict(with_padding(X, N, np.nan), N)
    np.testing.assert_allclose(got, alone(network, X, N), rtol=0, atol=1e-15)


# --- time ---
@pytest.mark.parametrize("name", ["saved_model", "tflite", "onnx"])
def test_a_short_sequence_takes_less_time_than_a_long_one(name: str, tmp_path: Path) -> None:
    """Of 2,000 steps 20 are read: a hundredth of the work, and less than a quarter of the time."""
    spec = replace(VARYING, longest=2000)
    network = random_network("lstm", "elu", spec)
    runtime, x = make(name, network, tmp_path), raw_input(1, spec)

    def seconds(length: int) -> float:
        found = []
        for _ in range(5):
            began = time.perf_counter()
            runtime.predict(x, np.array([length]))
            found.append(time.perf_counter() - began)
        return min(found)

    seconds(2000)
    assert seconds(20) < seconds(2000) / 4
