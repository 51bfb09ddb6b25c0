"""The network has the weights of the trained model, and refuses what it could not compute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import keras
import numpy as np
import pytest
from networks import SPEC, UNITS, random_network, raw_input

from export.formats.tf_function import MOST_UNROLLED, inference_function
from export.network import OUTPUT, Network, read_model
from rnn_tf.config import TrainConfig
from rnn_tf.data.normalize import Normalize
from rnn_tf.errors import InputError
from rnn_tf.model.cells import CELLS
from rnn_tf.model.classifier import build_model

PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")


def model_of(cell: str, precision: str = "float32", activation: str = "auto") -> keras.Sequential:
    config = TrainConfig.from_dict({"cell": cell, "units": UNITS, "activation": activation})
    model = build_model(config, SPEC, precision=precision)
    random = np.random.default_rng(0)
    model.set_weights([random.normal(0, 0.3, weight.shape) for weight in model.get_weights()])
    return model


def sequential(*layers: keras.layers.Layer) -> keras.Sequential:
    return keras.Sequential([keras.Input((SPEC.timesteps, SPEC.features)), *layers])


def softmax(**options: object) -> keras.layers.Layer:
    return keras.layers.Dense(SPEC.classes, **{"activation": "softmax", **options})


def answer(network: Network, x: np.ndarray, *, unroll: bool | None = None) -> np.ndarray:
    result: np.ndarray = inference_function(network, unroll=unroll)(x)[OUTPUT].numpy()
    return result


# --- what is read ---
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("cell", CELLS)
def test_the_twin_has_the_weights_of_the_model(cell: str, precision: str) -> None:
    model = model_of(cell, precision)
    network = read_model(model, SPEC)
    arrays = (
        network.kernel, network.recurrent_kernel, network.bias, network.dense_kernel, network.dense_bias
    )  # fmt: skip
    for array, weight in zip(arrays, model.get_weights(), strict=True):
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, weight)
    assert (network.cell, network.units, network.parameters) == (cell, UNITS, model.count_params())
    assert network.spec == SPEC


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("cell", CELLS)
def test_the_twin_computes_in_float32_whatever_the_model_was_trained_in(
    cell: str, precision: str
) -> None:
    x = raw_input(9)
    network = read_model(model_of(cell, precision), SPEC)
    expected = np.asarray(model_of(cell)(x * np.float32(SPEC.normalization.scale[0])))
    # The same float32 operations in another order: 3e-8 seen. In half precision 4e-5 to 1e-3.
    np.testing.assert_allclose(answer(network, x), expected, rtol=0, atol=1e-6)


def test_activations_go_by_their_keras_names() -> None:
    recurrent = keras.layers.LSTM(UNITS, activation="swish", recurrent_activation="hard_sigmoid")
    network = read_model(sequential(recurrent, softmax()), SPEC)
    assert (network.activation, network.recurrent_activation) == ("silu", "hard_sigmoid")
    network = read_model(model_of("simple_rnn", activation="hard_swish"), SPEC)
    assert (network.activation, network.recurrent_activation) == ("hard_silu", "linear")


def test_dropout_is_for_training_only_and_no_obstacle() -> None:
    recurrent = keras.layers.GRU(UNITS, dropout=0.5, recurrent_dropout=0.5)
    assert read_model(sequential(recurrent, softmax()), SPEC).cell == "gru"


def test_the_scale_goes_into_the_kernel() -> None:
    network = random_network("lstm", spec=replace(SPEC, normalize=Normalize((1 / 255,))))
    # One rounding to float32 each: half of 2**-23.
    np.testing.assert_allclose(network.raw_kernel, network.kernel / 255.0, rtol=6e-8)
    assert network.raw_kernel.dtype == np.float32


@pytest.mark.parametrize("cell", CELLS)
def test_the_bias_of_the_input_is_one_row(cell: str) -> None:
    network = read_model(model_of(cell), SPEC)
    assert network.input_bias.shape == (network.kernel.shape[1],)
    np.testing.assert_array_equal(
        network.input_bias, network.bias.reshape(-1)[: len(network.input_bias)]
    )


# --- what is refused ---
def refuse(model: keras.Sequential, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_model(model, SPEC)


def stack(first: str) -> list[keras.layers.Layer]:
    layers = keras.layers
    return {
        "Conv1D": [layers.Conv1D(2, 3), layers.LSTM(UNITS), softmax()],
        "Masking": [layers.Masking(), layers.GRU(UNITS), softmax()],
        "Bidirectional": [layers.Bidirectional(layers.LSTM(UNITS)), softmax()],
        "Dropout": [layers.LSTM(UNITS), layers.Dropout(0.5), softmax()],
    }[first]


@pytest.mark.parametrize("name", ["Conv1D", "Masking", "Bidirectional", "Dropout"])
def test_an_unsupported_layer_is_named(name: str) -> None:
    expected = "expected one of SimpleRNN, LSTM, GRU, then Dense, got"
    refuse(
        sequential(*stack(name)), f"^cannot export the model: unsupported layer: {name}; {expected}"
    )


def test_supported_layers_in_another_order_are_listed() -> None:
    lstm, gru = keras.layers.LSTM(UNITS, return_sequences=True), keras.layers.GRU(UNITS)
    refuse(sequential(lstm, gru, softmax()), r"unsupported layers; .*, got LSTM, GRU, Dense$")
    refuse(sequential(keras.layers.LSTM(UNITS)), r"unsupported layers; .*, got LSTM$")
    refuse(sequential(keras.layers.GRU(UNITS), softmax(), softmax()), r"got GRU, Dense, Dense$")


@pytest.mark.parametrize(
    ("cell", "option", "value"),
    [
        ("SimpleRNN", "return_sequences", True),
        ("LSTM", "go_backwards", True),
        ("GRU", "stateful", True),
        ("GRU", "reset_after", False),
        ("SimpleRNN", "use_bias", False),
        ("LSTM", "use_bias", False),
    ],
)
def test_an_option_that_changes_the_formula_is_named(cell: str, option: str, value: bool) -> None:
    recurrent = getattr(keras.layers, cell)(UNITS, **{option: value})
    model = keras.Sequential(
        [keras.Input(batch_shape=(2, SPEC.timesteps, SPEC.features)), recurrent, softmax()]
    )
    refuse(
        model, rf"^cannot export the model: {cell}\({option}\); expected {not value}, got {value}"
    )


@pytest.mark.parametrize(
    ("options", "got"),
    [({"activation": "relu"}, "relu, True"), ({"use_bias": False}, "softmax, False")],
)
def test_the_last_layer_must_be_a_softmax_with_a_bias(options: dict[str, object], got: str) -> None:
    model = sequential(keras.layers.LSTM(UNITS), softmax(**options))
    refuse(model, rf"Dense\(activation, use_bias\); expected softmax, True, got {got}$")


def twice(x: object) -> object:
    return x + x  # type: ignore[operator]


@pytest.mark.parametrize(
    ("make", "got"),
    [
        (lambda: keras.layers.SimpleRNN(UNITS, activation="softmax"), "'softmax'"),
        (lambda: keras.layers.SimpleRNN(UNITS, activation=twice), "twice"),
        (lambda: keras.layers.SimpleRNN(UNITS, activation=keras.layers.PReLU()), "PReLU"),
        (lambda: keras.layers.GRU(UNITS, recurrent_activation="softmax"), "'softmax'"),
    ],
    ids=["known to Keras", "a function", "a layer", "of the gates"],
)
def test_an_activation_that_has_no_formula_is_refused(
    make: Callable[[], keras.layers.Layer], got: str
) -> None:
    message = (
        f"^cannot export the model: unsupported activation; expected one of .*tanh.*, got .*{got}"
    )
    refuse(sequential(make(), softmax()), message)


def test_a_specification_of_other_sizes_is_refused() -> None:
    for spec in (replace(SPEC, features=2), replace(SPEC, labels=("a", "b"))):
        with pytest.raises(InputError, match=r"does not fit .*; expected .* classes, got 3 and 4$"):
            read_model(model_of("gru"), spec)


@pytest.mark.parametrize(
    ("index", "name"),
    list(enumerate(["kernel", "recurrent_kernel", "bias", "dense_kernel", "dense_bias"])),
)
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_weights_that_are_not_finite_are_refused(index: int, name: str, value: float) -> None:
    model = model_of("lstm")
    weights = model.get_weights()
    weights[index].flat[1] = value
    model.set_weights(weights)
    refuse(model, f"weights that are not finite; got NaN or infinity in {name}. Train it again")


# --- the TensorFlow function ---
@pytest.mark.parametrize("cell", CELLS)
def test_unrolled_and_looped_are_the_same_function_at_any_batch(cell: str) -> None:
    network = read_model(model_of(cell), SPEC)
    for batch in (1, 2, 9):
        unrolled, looped = (
            answer(network, raw_input(batch), unroll=unroll) for unroll in (True, False)
        )
        assert unrolled.shape == (batch, SPEC.classes)
        # The same float32 operations, fused in another order: 6e-8 seen.
        np.testing.assert_allclose(unrolled, looped, rtol=0, atol=1e-6)


@pytest.mark.parametrize("unroll", [True, False])
@pytest.mark.parametrize("cell", CELLS)
def test_the_function_has_one_input_and_no_variables(cell: str, unroll: bool) -> None:
    concrete = inference_function(
        read_model(model_of(cell), SPEC), unroll=unroll
    ).get_concrete_function()
    assert concrete.captured_inputs == []
    assert concrete.variables == ()
    (sequence,) = concrete.inputs
    assert sequence.shape.as_list() == [None, SPEC.timesteps, SPEC.features]
    assert concrete.structured_outputs[OUTPUT].shape.as_list() == [None, SPEC.classes]


def loops(timesteps: int, unroll: bool | None = None) -> bool:
    network = random_network("simple_rnn", spec=replace(SPEC, timesteps=timesteps))
    operations = inference_function(network, unroll=unroll).get_concrete_function().graph
    return any("While" in operation.type for operation in operations.get_operations())


def test_long_sequences_are_a_loop_and_short_ones_are_not() -> None:
    assert not loops(MOST_UNROLLED)
    assert loops(MOST_UNROLLED + 1)
    assert not loops(MOST_UNROLLED + 1, unroll=True)
    assert loops(2, unroll=False)
