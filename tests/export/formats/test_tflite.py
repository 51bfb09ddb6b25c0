"""TFLite answers as the oracle does, stateless, in builtin operators, at any batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from networks import (
    FAR_FROM_ZERO,
    LENGTHS,
    LONG,
    SPEC,
    STACKS,
    UNITS_OF_MEASURE,
    changed,
    of_length,
    one_number_network,
    random_network,
    raw_input,
    stacked_network,
)

from export import oracle
from export.formats import tflite
from export.formats.tf_function import MOST_UNROLLED, STEPS_A_TURN
from export.formats.tflite import LiteRuntime
from export.formats.tflite_file import operators, variables
from export.network import Network
from rnn_tf.data.normalize import Normalize
from rnn_tf.data.spec import SequenceSpec
from rnn_tf.errors import CheckFailed
from rnn_tf.model.activations import ACTIVATIONS
from rnn_tf.model.cells import CELLS, Cell

# float32 rounding with states below 10, in all cells and activations: 2e-7 seen. A swapped gate or
# a constant wrong in its third digit gives 1e-5 to 1e-1.
ROUNDING = 1e-6
BATCHES = (1, 2, 7, 64, 1000, 7, 1)
# Steps that are written out are what takes the converter its time.
BRIEF = of_length(3)

WRITERS: dict[str, Callable[[Network, Path], dict[str, Any]]] = {
    "float32": tflite.write,
    "int8": lambda network, path: tflite.write_int8(network, path, raw_input(200, network.spec)),
    "float16": tflite.write_float16,
}


Written = dict[tuple[Cell, str], tuple[Path, dict[str, Any]]]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """By cell and kind: the file of `random_network(cell)`, and what its writer says about it."""
    folder = tmp_path_factory.mktemp("tflite")
    found: Written = {}
    for cell in CELLS:
        for kind, write in WRITERS.items():
            path = folder / f"{cell}-{kind}.tflite"
            found[cell, kind] = path, write(random_network(cell), path)
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.tflite"


def assert_equals_oracle(network: Network, path: Path, x: np.ndarray) -> None:
    got = LiteRuntime(path, network.spec).predict(x)
    np.testing.assert_allclose(got, oracle.probabilities(network, x), rtol=0, atol=ROUNDING)


# --- float32 ---
@pytest.mark.parametrize("spec", [SPEC, LONG], ids=["short", "long"])
@pytest.mark.parametrize("cell", CELLS)
def test_one_interpreter_answers_batches_of_any_size(
    cell: Cell, spec: SequenceSpec, path: Path
) -> None:
    network = random_network(cell, spec=spec)
    tflite.write(network, path)
    assert_answers_any_batch(network, path, ROUNDING)


def assert_answers_any_batch(network: Network, path: Path, limit: float) -> None:
    runtime = LiteRuntime(path, network.spec)
    x = raw_input(max(BATCHES), network.spec)
    exact = oracle.probabilities(network, x)
    for batch in BATCHES:
        got = runtime.predict(x[:batch])
        assert (got.shape, got.dtype) == ((batch, network.spec.classes), np.float32)
        np.testing.assert_allclose(got, exact[:batch], rtol=0, atol=limit)


@pytest.mark.parametrize(
    ("cell", "stack", "timesteps"),
    [
        ("simple_rnn", "3 layers both ways", LENGTHS[1]),
        ("lstm", "2 layers", BRIEF.longest),
        ("gru", "3 layers both ways", BRIEF.longest),
    ],
)
def test_stacks_answer_batches_of_any_size(
    cell: Cell, stack: str, timesteps: int, path: Path
) -> None:
    network = stacked_network(cell, stack, timesteps)
    details = tflite.write(network, path)
    assert ("WHILE" in details["operators"]) == (timesteps > MOST_UNROLLED)
    assert_answers_any_batch(network, path, ROUNDING)


@pytest.mark.parametrize("stack", STACKS)
def test_features_may_be_of_different_size(stack: str, path: Path) -> None:
    network = stacked_network("simple_rnn", stack, normalize=UNITS_OF_MEASURE)
    tflite.write(network, path)
    assert_answers_any_batch(network, path, FAR_FROM_ZERO)


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("cell", CELLS)
def test_the_signature_names_input_and_output(cell: Cell, kind: str, written: Written) -> None:
    path, _ = written[cell, kind]
    interpreter = Interpreter(model_path=str(path))
    assert interpreter.get_signature_list() == {
        "serving_default": {"inputs": ["sequence"], "outputs": ["probabilities"]}
    }
    runner = interpreter.get_signature_runner("serving_default")
    runtime = LiteRuntime(path, SPEC)
    for batch in BATCHES:
        x = raw_input(batch)
        got = runner(sequence=x)["probabilities"]
        # The same kernels, asked in two ways.
        np.testing.assert_array_equal(got, runtime.predict(x))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_converts_and_gives_what_the_oracle_gives(name: str, path: Path) -> None:
    network = random_network("simple_rnn", name, BRIEF)
    tflite.write(network, path)
    assert_equals_oracle(network, path, raw_input(60, BRIEF))


@pytest.mark.parametrize(
    ("cell", "gates"),
    [("lstm", "hard_sigmoid"), ("lstm", "gelu"), ("gru", "sparse_sigmoid"), ("gru", "softsign")],
)
def test_gates_may_have_another_activation_too(cell: Cell, gates: str, path: Path) -> None:
    network = changed(random_network(cell, "elu", BRIEF), recurrent_activation=gates)
    tflite.write(network, path)
    assert_equals_oracle(network, path, raw_input(60, BRIEF))


@pytest.mark.parametrize("name", sorted(set(ACTIVATIONS) - {"exponential"}))
def test_activations_hold_where_float32_ends(name: str, path: Path) -> None:
    """Softplus as the converter writes it is infinite from 89 on."""
    network = one_number_network(name, slope=1e-4)
    tflite.write(network, path)
    x = np.array([89, 100, 1e3, 1e4, -89, -100, -1e3, -1e4, 0], np.float32).reshape(-1, 1, 1)
    assert_equals_oracle(network, path, x)


def test_nothing_cancels_below_zero(path: Path) -> None:
    """Squareplus of -1,000 is 0.001; in float32, the sum of its formula is 0."""
    network = one_number_network("squareplus", slope=1e3)
    tflite.write(network, path)
    assert_equals_oracle(network, path, -np.logspace(0, 3, 20, dtype=np.float32).reshape(-1, 1, 1))


@pytest.mark.parametrize(
    ("cell", "timesteps"),
    [
        *((cell, timesteps) for cell in CELLS for timesteps in (1, 2)),
        ("simple_rnn", MOST_UNROLLED),
        ("simple_rnn", MOST_UNROLLED + 1),
    ],
)
def test_a_single_number_a_single_unit_any_length(cell: Cell, timesteps: int, path: Path) -> None:
    spec = SequenceSpec(timesteps=timesteps, features=1, labels=("a", "b"))
    network = random_network(cell, spec=spec, units=1)
    details = tflite.write(network, path)
    assert_equals_oracle(network, path, raw_input(9, spec))
    assert ("WHILE" in details["operators"]) == (timesteps > MOST_UNROLLED)


# --- rounded weights ---
# 8 bits a weight: 8e-4 seen; and 11 bits: 1e-4 seen.
ROUNDED_WEIGHTS = {"int8": 3e-3, "float16": 5e-4}


@pytest.mark.parametrize(("kind", "limit"), ROUNDED_WEIGHTS.items())
@pytest.mark.parametrize("cell", CELLS)
def test_rounded_weights_change_little_and_something(
    cell: Cell, kind: str, limit: float, written: Written
) -> None:
    runtime = LiteRuntime(written[cell, kind][0], SPEC)
    x = raw_input(1000)
    exact = oracle.probabilities(random_network(cell), x)
    for batch in BATCHES:
        np.testing.assert_allclose(runtime.predict(x[:batch]), exact[:batch], rtol=0, atol=limit)
    assert np.abs(runtime.predict(x) - exact).max() > ROUNDING


@pytest.mark.parametrize(
    ("kind", "cell", "stack", "timesteps"),
    [
        ("int8", "simple_rnn", "3 layers both ways", STEPS_A_TURN + 1),
        ("float16", "lstm", "2 layers", 2 * STEPS_A_TURN + 1),
        ("int8", "gru", "both ways", STEPS_A_TURN - 1),
    ],
)
def test_so_they_do_in_stacks_of_features_of_different_size(
    kind: str, cell: Cell, stack: str, timesteps: int, path: Path
) -> None:
    network = stacked_network(cell, stack, timesteps, UNITS_OF_MEASURE)
    WRITERS[kind](network, path)
    assert_answers_any_batch(network, path, ROUNDED_WEIGHTS[kind])


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_no_activation_is_merged_into_the_weights_by_the_converter(name: str, path: Path) -> None:
    """It would no longer be the matrix that was rounded."""
    network = random_network("simple_rnn", name, BRIEF)
    details = WRITERS["int8"](network, path)
    assert details["operators"]["DEQUANTIZE"] == 3
    x = raw_input(60, BRIEF)
    got = LiteRuntime(path, BRIEF).predict(x)
    # As above, of 8 bits: 1e-3 seen.
    np.testing.assert_allclose(got, oracle.probabilities(network, x), rtol=0, atol=5e-3)


def test_rounded_weights_make_the_file_smaller(tmp_path: Path) -> None:
    rows = SequenceSpec(timesteps=BRIEF.longest, features=28, labels=tuple("0123456789"))
    network = random_network("lstm", spec=rows, units=32)
    sizes = {}
    for kind, write in WRITERS.items():
        write(network, tmp_path / kind)
        sizes[kind] = (tmp_path / kind).stat().st_size
    assert sizes["int8"] < sizes["float16"] < sizes["float32"]
    # A byte or two each, a few numbers for each row, and a few KB of graph and labels.
    assert network.parameters < sizes["int8"] < network.parameters + 11_000
    assert 2 * network.parameters < sizes["float16"] < 2 * network.parameters + 11_000


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_int8_does_not_depend_on_the_unit_of_the_data(scale: float, path: Path) -> None:
    spec = replace(SPEC, normalize=Normalize((scale,)))
    network = random_network("gru", spec=spec)
    WRITERS["int8"](network, path)
    x = raw_input(60, spec)
    got = LiteRuntime(path, spec).predict(x)
    # As above, of 8 bits.
    np.testing.assert_allclose(got, oracle.probabilities(network, x), rtol=0, atol=3e-3)


# --- what a phone has ---
@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("cell", CELLS)
def test_builtin_operators_only_and_no_state(cell: Cell, kind: str, written: Written) -> None:
    path, details = written[cell, kind]
    model = path.read_bytes()
    assert details["operators"] == dict(sorted(operators(model).items()))
    assert ("answers are wrong" in details["not_for"]["TFLite Micro"]) == (kind == "int8")
    assert [name for name in details["operators"] if name.startswith("CUSTOM")] == []
    assert variables(model) == []


def by_keras(layer: keras.layers.Layer) -> bytes:
    """A Keras model as TensorFlow's own converter makes it, operators of TensorFlow allowed."""
    model = keras.Sequential([keras.Input((SPEC.longest, SPEC.features)), layer])
    shape = tf.TensorSpec((1, SPEC.longest, SPEC.features))
    concrete = tf.function(lambda x: model(x)).get_concrete_function(shape)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], model)
    converter.target_spec.supported_ops = [
        tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS,
    ]  # fmt: skip
    converter._experimental_lower_tensor_list_ops = False
    result: bytes = converter.convert()
    return result


def test_a_model_that_needs_operators_of_tensorflow_is_refused(path: Path) -> None:
    model = by_keras(keras.layers.LSTM(4))
    with pytest.raises(
        CheckFailed, match=r"^tflite: operators that are not builtin: .*CUSTOM Flex"
    ):
        tflite._save(model, random_network("lstm"), path)
    assert not path.exists()


def test_weights_that_have_become_uninitialised_variables_are_refused(path: Path) -> None:
    """What TensorFlow's converter makes of a Keras 3 model: it answers NaN."""
    model = by_keras(keras.layers.Dense(4, name="dense"))
    assert variables(model) != []
    with pytest.raises(CheckFailed, match=r"^tflite: state between calls: \w+"):
        tflite._save(model, random_network("lstm"), path)
    assert not path.exists()
