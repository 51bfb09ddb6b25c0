"""One step in every format: what the oracle says after each frame, however the frames come."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
from networks import (
    FAR_FROM_ZERO,
    SPEC,
    UNITS_OF_MEASURE,
    changed,
    random_network,
    raw_input,
)
from onnx.reference import ReferenceEvaluator

from export import oracle, signatures
from export.formats import onnx_graph
from export.formats.format import (
    NEWEST_OPSET,
    OLDEST_OPSET,
    OPSET,
    CheckedStep,
    Options,
    StepRuntime,
)  # fmt: skip
from export.formats.onnx import MOST_BOUND, OnnxStep, write_step
from export.formats.registry import FORMATS
from export.formats.tflite import LiteStep
from export.network import Network
from export.runtimes import open_step_file
from export.signatures import STEP, state_units
from rnn_tf.errors import InputError
from rnn_tf.model.activations import ACTIVATIONS
from rnn_tf.model.cells import CELLS, Cell

# float32 rounding of these small networks: 1.2e-7 seen; int8 and float16 as in test_tflite.py.
ROUNDING = 1e-6
LIMITS = {"tflite_int8": 3e-3, "tflite_float16": 5e-4}
# One frame, what is left of an operator's batch, and more than one.
CHUNKS = (1, 3, 1, 2)
# The inputs of a graph in their order, and its outputs.
Ask = Callable[[list[np.ndarray]], list[np.ndarray]]


def zeros(network: Network, sessions: int) -> list[np.ndarray]:
    return [np.zeros((sessions, units), np.float32) for units in network.state_units]


def pushed(runtime: StepRuntime, network: Network, x: np.ndarray) -> np.ndarray:
    """What a step says of each frame of `x`, in `CHUNKS`."""
    states, start, found = zeros(network, len(x)), 0, []
    for steps in CHUNKS:
        answer, states = runtime.step(x[:, start : start + steps], states)
        found.append(answer)
        start += steps
    assert start == x.shape[1]
    return np.concatenate(found, axis=1)


def built(name: str, network: Network, folder: Path) -> StepRuntime:
    """The step of a format, really written, in its real runtime."""
    step = FORMATS[name].step
    assert step is not None
    path = folder / step.file
    options = Options(raw_input(300, network.spec))
    (step.write or FORMATS[name].write)(network, path, options)
    return open_step_file(name, path, network.spec)


class InOnnxruntime(CheckedStep):
    """A graph in onnxruntime, without a file."""

    def __init__(self, network: Network, opset: int = OPSET) -> None:
        model = onnx_graph.build_step(network, opset)
        onnx.checker.check_model(model, full_check=True)
        self.session = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        self.units, self.spec = network.state_units, network.spec

    def run(
        self, frames: np.ndarray, states: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        names = [each.name for each in self.session.get_inputs()]
        answer, *after = self.session.run(None, dict(zip(names, [frames, *states], strict=True)))
        return answer, after

    def metadata(self) -> dict[str, str]:
        return {}


# --- values ---
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_onnx_of_every_activation(cell: Cell, layers: int) -> None:
    x = raw_input(60)  # above the batch up to which the operator is used
    for activation in ACTIVATIONS:
        network = random_network(cell, activation, layers=layers)
        exact, runtime = oracle.probabilities_by_step(network, x), InOnnxruntime(network)
        for sessions in (1, 60):
            got = pushed(runtime, network, x[:sessions])
            off = np.abs(got - exact[:sessions]).max()
            assert off <= ROUNDING, (activation, sessions)


@pytest.mark.parametrize("opset", [OLDEST_OPSET, NEWEST_OPSET])
def test_onnx_of_every_opset(opset: int) -> None:
    network = changed(random_network("gru", "elu"), recurrent_activation="hard_sigmoid")
    x = raw_input(5)
    got = pushed(InOnnxruntime(network, opset), network, x)
    np.testing.assert_allclose(got, oracle.probabilities_by_step(network, x), rtol=0, atol=ROUNDING)


@pytest.mark.parametrize(
    ("name", "cell", "activation", "layers"),
    [
        ("onnx", "lstm", "tanh", 2),
        ("tflite", "simple_rnn", "elu", 1),
        ("tflite", "lstm", "tanh", 2),
        ("tflite", "gru", "squareplus", 2),
        ("tflite_int8", "lstm", "tanh", 2),
        ("tflite_int8", "gru", "elu", 1),
        ("tflite_float16", "simple_rnn", "elu", 2),
        ("saved_model", "simple_rnn", "elu", 2),
        ("saved_model", "lstm", "tanh", 2),
        ("saved_model", "gru", "mish", 1),
    ],
)
def test_every_format_says_what_the_oracle_says_after_each_frame(
    name: str, cell: Cell, activation: str, layers: int, tmp_path: Path
) -> None:
    network = random_network(cell, activation, layers=layers)
    runtime, x = built(name, network, tmp_path), raw_input(9)
    exact = oracle.probabilities_by_step(network, x)
    for sessions in (1, 7, 9, 2):
        got = pushed(runtime, network, x[:sessions])
        assert (got.shape, got.dtype) == ((sessions, *exact.shape[1:]), np.float32)
        limit = LIMITS.get(name, ROUNDING)
        np.testing.assert_allclose(got, exact[:sessions], rtol=0, atol=limit)
    # What it says last is what the whole sequence is.
    np.testing.assert_array_equal(exact[:, -1], oracle.probabilities(network, x))
    assert runtime.units == network.state_units


@pytest.mark.parametrize("name", ["onnx", "tflite"])
def test_the_normalization_is_inside(name: str, tmp_path: Path) -> None:
    network = random_network("gru", spec=replace(SPEC, normalize=UNITS_OF_MEASURE))
    x = raw_input(9, network.spec)
    got = pushed(built(name, network, tmp_path), network, x)
    exact = oracle.probabilities_by_step(network, x)
    np.testing.assert_allclose(got, exact, rtol=0, atol=FAR_FROM_ZERO)


def test_a_model_that_answers_at_every_step_says_the_same_frame_by_frame(tmp_path: Path) -> None:
    network = random_network("lstm", spec=replace(SPEC, answer="every_step"))
    x = raw_input(9, network.spec)
    whole = oracle.probabilities(network, x)
    np.testing.assert_array_equal(whole, oracle.probabilities_by_step(network, x))
    got = pushed(built("tflite", network, tmp_path), network, x)
    np.testing.assert_allclose(got, whole, rtol=0, atol=ROUNDING)


def in_openvino(model: onnx.ModelProto) -> Ask:
    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(model.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    return lambda given: [np.array(each) for each in compiled(given).values()]


def in_reference_evaluator(model: onnx.ModelProto) -> Ask:
    evaluator, names = ReferenceEvaluator(model), [each.name for each in model.graph.input]
    return lambda given: list(evaluator.run(None, dict(zip(names, given, strict=True))))


ENGINES = {"openvino": in_openvino, "reference": in_reference_evaluator}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("cell", "activation", "layers"),
    [("simple_rnn", "elu", 1), ("lstm", "tanh", 2), ("gru", "tanh", 1), ("gru", "gelu", 2)],
)
def test_other_engines_read_the_same_graph(
    engine: str, cell: Cell, activation: str, layers: int
) -> None:
    network = random_network(cell, activation, layers=layers)
    model, x = onnx_graph.build_step(network, OPSET), raw_input(60)
    exact = oracle.probabilities_by_step(network, x)
    ask = ENGINES[engine](model)
    for sessions in (1, 60):
        states, start = zeros(network, sessions), 0
        for steps in CHUNKS:
            given = [x[:sessions, start : start + steps], *states]
            said, *states = ask(given)
            expected = exact[:sessions, start : start + steps]
            np.testing.assert_allclose(said, expected, rtol=0, atol=ROUNDING)
            start += steps


def test_time_for_a_frame_does_not_grow_with_the_stream() -> None:
    """The graph of a step does not know how many frames there were, and a file keeps nothing."""
    for cell in CELLS:
        short, long = (
            onnx_graph.build_step(random_network(cell, spec=spec), OPSET)
            for spec in (SPEC, replace(SPEC, timesteps=1000, longest=1000))
        )
        assert short.SerializeToString() == long.SerializeToString()


# --- what a file says of itself ---
@pytest.mark.parametrize("name", ["onnx", "tflite", "saved_model"])
def test_names_shapes_and_pairs_are_in_the_file(name: str, tmp_path: Path) -> None:
    network = random_network("lstm", layers=2)
    metadata = built(name, network, tmp_path).metadata()
    (step,) = [each for each in json.loads(metadata["signatures"]) if each["name"] == STEP]
    steps = 1 if name == "tflite" else "steps"
    assert [(each["name"], each["axes"]) for each in step["inputs"]] == [
        ("frames", ["batch", steps, 3]), *((f"state_{i}", ["batch", 5]) for i in range(4)),
    ]  # fmt: skip
    assert [(each["name"], each["axes"]) for each in step["outputs"]] == [
        ("probabilities", ["batch", steps, 4]),
        *((f"next_state_{i}", ["batch", 5]) for i in range(4)),
    ]
    assert step["states"] == [[f"state_{i}", f"next_state_{i}"] for i in range(4)]
    assert json.loads(metadata["model"]) == network.fingerprint


def test_the_graph_has_the_inputs_and_outputs_that_it_says() -> None:
    network = random_network("lstm")
    graph = onnx_graph.build_step(network, OPSET).graph
    signature = signatures.of(network)[STEP]
    for ends, tensors in ((graph.input, signature.inputs), (graph.output, signature.outputs)):
        assert [each.name for each in ends] == [each.name for each in tensors]
        for end, tensor in zip(ends, tensors, strict=True):
            axes = [d.dim_param or d.dim_value for d in end.type.tensor_type.shape.dim]
            assert tuple(axes) == tensor.axes


def test_a_tflite_step_keeps_nothing_and_needs_builtin_operators_only(tmp_path: Path) -> None:
    """`_save` refuses others; here is what is left of a whole sequence: one product a matrix."""
    network = random_network("lstm", layers=2)
    step = FORMATS["tflite"].step
    assert step is not None
    assert step.write is not None
    details = step.write(network, tmp_path / step.file, Options(raw_input(1)))
    assert details["operators"]["FULLY_CONNECTED"] == 2 * 2 + 1


@pytest.mark.parametrize("written", ["", "[]", '[{"name": "classify"}]', '[{"name": "step"}]'])
def test_a_file_without_a_step_is_named(written: str) -> None:
    with pytest.raises(InputError, match="the file has no step"):
        state_units(written)


def test_two_networks_have_one_fingerprint_only_if_they_are_the_same_function() -> None:
    network = random_network("gru")
    assert network.fingerprint == random_network("gru").fingerprint
    kernel = network.layers[0].forward.kernel.copy()
    kernel[0, 0] = np.nextafter(kernel[0, 0], 1)
    others = [
        changed(network, kernel=kernel),
        changed(network, activation="elu"),
        replace(network, spec=replace(SPEC, normalize=None)),
    ]
    assert len({each.fingerprint for each in (network, *others)}) == 4


# --- bad input ---
@pytest.fixture(scope="module")
def stepper(tmp_path_factory: pytest.TempPathFactory) -> StepRuntime:
    folder = tmp_path_factory.mktemp("step")
    write_step(random_network("lstm"), folder / "step.onnx")
    return open_step_file("onnx", folder / "step.onnx", SPEC)


FRAME = np.zeros((2, 1, 3), np.float32)
STATES = [np.zeros((2, 5), np.float32)] * 2


@pytest.mark.parametrize(
    ("frames", "states", "what"),
    [
        (FRAME[:, :, :2], STATES, r"frames do not fit the model; expected shape \(batch, steps, 3"),
        (FRAME[:, 0], STATES, r"frames do not fit the model; .*got shape \(2, 3\)"),
        (FRAME[:, :0], STATES, r"one step at least, got shape \(2, 0, 3\)"),
        (FRAME[:0], STATES, r"one step at least, got shape \(0, 1, 3\)"),
        (FRAME.astype(str), STATES, r"the frames are not numbers; expected float32, got <U"),
        (FRAME + np.nan, STATES, "a frame is not finite; got NaN or infinity"),
        (FRAME.astype(float) + 1e39, STATES, "a frame is not finite; got NaN or infinity"),
        (FRAME, STATES[:1], "the states do not fit the model; expected 2 of them, got 1"),
        (FRAME, [STATES[0], STATES[0][:1]],
         r"state_1 does not fit the model; expected shape \(2, 5\), got shape \(1, 5\)"),
        (FRAME, [STATES[0][:, :4], STATES[0]], r"state_0 does not fit .* got shape \(2, 4\)"),
        (FRAME, [STATES[0].astype(np.float64), STATES[0]],
         "state_0 does not fit the model; expected a float32 array, got float64"),
        (FRAME, [STATES[0], [[0.0] * 5] * 2], "expected a float32 array, got list"),
        (FRAME, [STATES[0] + np.nan, STATES[0]], "state_0 is not finite; got NaN or infinity"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(
    frames: np.ndarray, states: list[np.ndarray], what: str, stepper: StepRuntime
) -> None:
    with pytest.raises(InputError, match=what):
        stepper.step(frames, states)


def test_integers_are_frames_too(stepper: StepRuntime) -> None:
    whole = np.arange(6).reshape(2, 1, 3)
    for kind in (np.uint8, np.int64, np.float64):
        got, _ = stepper.step(whole.astype(kind), STATES)
        expected, _ = stepper.step(whole.astype(np.float32), STATES)
        np.testing.assert_array_equal(got, expected)


def test_streams_of_any_number_are_run_by_a_bounded_number_of_sessions(tmp_path: Path) -> None:
    write_step(random_network("lstm"), tmp_path / "step.onnx")
    stepper = OnnxStep(tmp_path / "step.onnx", SPEC)
    random = np.random.default_rng(3)
    for count in range(1, MOST_BOUND + 4):
        frames = random.normal(size=(count, 1, 3)).astype(np.float32)
        states = [random.normal(size=(count, 5)).astype(np.float32) for _ in range(2)]
        got, after = stepper.bind(count)(frames, states)
        expected, expected_after = stepper.run(frames, states)
        np.testing.assert_allclose(got, expected, atol=1e-6)
        np.testing.assert_allclose(after, expected_after, atol=1e-6)
    assert len(stepper.of_one_frame) == MOST_BOUND


def test_threads_may_share_a_tflite_step(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    network, x = random_network("gru"), raw_input(16)
    runtime = built("tflite", network, tmp_path)
    assert isinstance(runtime, LiteStep)
    exact = oracle.probabilities_by_step(network, x)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: pushed(runtime, network, x[i : i + 1 + i % 2]), range(15)))
    for i, got in enumerate(found):
        np.testing.assert_allclose(got, exact[i : i + 1 + i % 2], rtol=0, atol=ROUNDING)
