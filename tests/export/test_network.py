"""The network has the weights of the trained model, and refuses what it could not compute."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import keras
import numpy as np
import pytest
from networks import (
    FAR_FROM_ZERO,
    SPEC,
    STACKS,
    UNITS,
    UNITS_OF_MEASURE,
    in_keras,
    of_length,
    random_network,
    raw_input,
    stacked_network,
)

from export import oracle
from export.formats.tf_function import MOST_UNROLLED, STEPS_A_TURN, inference_function
from export.network import OUTPUT, Network, read_model
from rnn_tf.config import TrainConfig
from rnn_tf.data.normalize import Normalize
from rnn_tf.errors import InputError
from rnn_tf.model.cells import CELLS, Cell
from rnn_tf.model.classifier import build_model

PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")


def model_of(cell: str, precision: str = "float32", activation: str = "auto") -> keras.Sequential:
    config = TrainConfig.from_dict({"cell": cell, "units": UNITS, "activation": activation})
    model = build_model(config, SPEC, precision=precision)
    random = np.random.default_rng(0)
    model.set_weights([random.normal(0, 0.3, weight.shape) for weight in model.get_weights()])
    return model


def sequential(*layers: keras.layers.Layer) -> keras.Sequential:
    return keras.Sequential([keras.Input((SPEC.longest, SPEC.features)), *layers])


def softmax(**options: object) -> keras.layers.Layer:
    return keras.layers.Dense(SPEC.classes, **{"activation": "softmax", **options})


def answer(network: Network, x: np.ndarray, *, unroll: bool | None = None) -> np.ndarray:
    result: np.ndarray = inference_function(network, unroll=unroll)(x)[OUTPUT].numpy()
    return result


# --- what is read ---
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("cell", CELLS)
def test_the_network_has_the_weights_of_the_model(cell: Cell, precision: str) -> None:
    model = model_of(cell, precision)
    network = read_model(model, SPEC)
    for array, weight in zip(network.arrays.values(), model.get_weights(), strict=True):
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, weight)
    assert (network.cell, network.units, network.parameters) == (cell, UNITS, model.count_params())
    assert network.spec == SPEC
    assert (len(network.layers), network.bidirectional) == (1, False)


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("cell", CELLS)
def test_every_layer_and_direction_is_read_into_its_place(cell: Cell, stack: str) -> None:
    network = stacked_network(cell, stack)
    model = in_keras(network)
    found = read_model(model, network.spec)
    assert list(found.arrays) == list(network.arrays)
    for name, array in network.arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array)
    assert [layer.width for layer in found.layers] == [layer.width for layer in network.layers]
    assert found.bidirectional == network.bidirectional
    assert found.activation == network.activation
    assert found.parameters == model.count_params()
    # Keras names both directions alike, so that only what they compute tells them apart.
    x = raw_input(9, network.spec)
    expected = np.asarray(model(network.spec.normalization(x)))
    # float32 rounding: 1e-7 seen.
    np.testing.assert_allclose(oracle.probabilities(found, x), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("cell", CELLS)
def test_the_network_computes_in_float32_whatever_the_model_was_trained_in(
    cell: Cell, precision: str
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
    raw, trained = network.raw_layers[0].forward, network.layers[0].forward
    # One rounding to float32 each: half of 2**-23.
    np.testing.assert_allclose(raw.kernel, trained.kernel / 255.0, rtol=6e-8)
    assert raw.kernel.dtype == np.float32
    np.testing.assert_array_equal(raw.bias, trained.bias)


@pytest.mark.parametrize("cell", CELLS)
def test_scale_and_shift_go_into_the_first_layer_both_ways_and_no_other(cell: Cell) -> None:
    network = stacked_network(cell, "3 layers both ways", normalize=UNITS_OF_MEASURE)
    scale, shift = np.array([1.0, 0.2, 0.002]), np.array([0.0, -4.0, -202.65])
    first, *others = network.raw_layers
    assert others == list(network.layers[1:])
    for raw, trained in zip(first.directions, network.layers[0].directions, strict=True):
        kernel = trained.kernel.astype(np.float64)
        # One rounding to float32 each: half of 2**-23.
        np.testing.assert_allclose(raw.kernel, scale[:, None] * kernel, rtol=6e-8)
        np.testing.assert_allclose(raw.input_bias, trained.input_bias + shift @ kernel, rtol=6e-8)
        assert (raw.kernel.dtype, raw.bias.dtype) == (np.float32, np.float32)
        # What stands beside the state reads no input.
        np.testing.assert_array_equal(raw.state_bias, trained.state_bias)
        np.testing.assert_array_equal(raw.recurrent_kernel, trained.recurrent_kernel)


@pytest.mark.parametrize("cell", CELLS)
def test_the_bias_of_the_input_is_one_row(cell: Cell) -> None:
    weights = read_model(model_of(cell), SPEC).layers[0].forward
    assert weights.input_bias.shape == (weights.kernel.shape[1],)
    np.testing.assert_array_equal(
        weights.input_bias, weights.bias.reshape(-1)[: len(weights.input_bias)]
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
        "TimeDistributed": [layers.TimeDistributed(layers.Dense(2)), layers.GRU(UNITS), softmax()],
        "Dropout": [layers.LSTM(UNITS), layers.Dropout(0.5), softmax()],
    }[first]


@pytest.mark.parametrize("name", ["Conv1D", "Masking", "TimeDistributed", "Dropout"])
def test_an_unsupported_layer_is_named(name: str) -> None:
    expected = "expected one or more of SimpleRNN, LSTM, GRU, Bidirectional, then Dense, got"
    refuse(
        sequential(*stack(name)), f"^cannot export the model: unsupported layer: {name}; {expected}"
    )


def test_supported_layers_in_another_order_are_listed() -> None:
    dense = keras.layers.Dense(4)
    refuse(sequential(dense, keras.layers.GRU(UNITS), softmax()), r"got Dense, GRU, Dense$")
    refuse(sequential(keras.layers.LSTM(UNITS)), r"unsupported layers; .*, got LSTM$")
    refuse(sequential(keras.layers.GRU(UNITS), softmax(), softmax()), r"got GRU, Dense, Dense$")
    refuse(sequential(softmax()), r"unsupported layers; .*, got Dense$")


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
        [keras.Input(batch_shape=(2, SPEC.longest, SPEC.features)), recurrent, softmax()]
    )
    refuse(
        model, rf"^cannot export the model: {cell}\({option}\); expected {not value}, got {value}"
    )


def test_every_layer_but_the_last_gives_its_state_after_each_step() -> None:
    """Keras would refuse to call it, but reads it."""
    first = keras.layers.GRU(UNITS, return_sequences=True)
    last = keras.layers.LSTM(UNITS, return_sequences=True)
    refuse(
        sequential(first, last, softmax()),
        r"^cannot export the model: LSTM\(return_sequences\); expected False, got True$",
    )


def bidirectional(
    forward: keras.layers.Layer, backward: keras.layers.Layer | None = None, **options: object
) -> keras.layers.Layer:
    return keras.layers.Bidirectional(forward, backward_layer=backward, **options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        *(
            (
                lambda merge=merge: bidirectional(keras.layers.GRU(UNITS), merge_mode=merge),
                rf"Bidirectional\(merge_mode\); expected concat, got {merge}",
            )
            for merge in ("sum", "mul", "ave")
        ),
        (
            lambda: bidirectional(
                keras.layers.GRU(UNITS, go_backwards=True), keras.layers.GRU(UNITS)
            ),
            r"GRU\(go_backwards\); expected False, got True",
        ),
        (
            lambda: bidirectional(keras.layers.LSTM(UNITS, use_bias=False)),
            r"LSTM\(use_bias\); expected True, got False",
        ),
        (
            lambda: bidirectional(
                keras.layers.GRU(UNITS),
                keras.layers.GRU(UNITS, go_backwards=True, reset_after=False),
            ),
            r"GRU\(reset_after\); expected True, got False",
        ),
        (
            lambda: bidirectional(keras.layers.SimpleRNN(UNITS, return_sequences=True)),
            r"SimpleRNN\(return_sequences\); expected False, got True",
        ),
        (
            lambda: bidirectional(
                keras.layers.RNN([keras.layers.GRUCell(UNITS), keras.layers.GRUCell(UNITS)])
            ),
            r"Bidirectional; expected one of SimpleRNN, LSTM, GRU, got RNN",
        ),
    ],
    ids=["sum", "mul", "ave", "turned round", "no bias", "reset", "every step", "of cells"],
)
def test_an_option_of_bidirectional_that_changes_the_formula_is_named(
    make: Callable[[], keras.layers.Layer], message: str
) -> None:
    refuse(sequential(make(), softmax()), rf"^cannot export the model: {message}$")


@pytest.mark.parametrize(
    ("make", "got"),
    [
        (
            lambda: [keras.layers.LSTM(5, return_sequences=True), keras.layers.GRU(5)],
            "lstm(5, tanh, sigmoid), then gru(5, tanh, sigmoid)",
        ),
        (
            lambda: [keras.layers.SimpleRNN(6, return_sequences=True), keras.layers.SimpleRNN(5)],
            "simple_rnn(6, tanh, linear), then simple_rnn(5, tanh, linear)",
        ),
        (
            lambda: [keras.layers.GRU(5, return_sequences=True), keras.layers.GRU(5, "relu")],
            "gru(5, tanh, sigmoid), then gru(5, relu, sigmoid)",
        ),
        (
            lambda: [
                bidirectional(keras.layers.GRU(5, return_sequences=True)), keras.layers.GRU(5),
            ],
            "gru(5, tanh, sigmoid) and gru(5, tanh, sigmoid), then gru(5, tanh, sigmoid)",
        ),
        (
            lambda: [
                bidirectional(keras.layers.GRU(5), keras.layers.LSTM(5, go_backwards=True)),
            ],
            "gru(5, tanh, sigmoid) and lstm(5, tanh, sigmoid)",
        ),
    ],
    ids=["cells", "units", "activations", "directions", "both ways"],
)  # fmt: skip
def test_layers_that_differ_are_listed(
    make: Callable[[], list[keras.layers.Layer]], got: str
) -> None:
    expected = "expected the same cell, units, activations and directions in each, got "
    refuse(
        sequential(*make(), softmax()),
        f"^cannot export the model: layers that differ; {expected}{re.escape(got)}$",
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


@pytest.mark.parametrize("name", random_network("lstm", layers=2, bidirectional=True).arrays)
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_weights_that_are_not_finite_are_refused(name: str, value: float) -> None:
    network = random_network("lstm", layers=2, bidirectional=True)
    network.arrays[name].flat[1] = value
    refuse(
        in_keras(network),
        f"weights that are not finite; got NaN or infinity in {name}. Train it again",
    )


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
    assert sequence.shape.as_list() == [None, SPEC.longest, SPEC.features]
    assert concrete.structured_outputs[OUTPUT].shape.as_list() == [None, SPEC.classes]


# Around a turn of the loop, around two of them, and around what is written out by itself.
AROUND_A_TURN = [turns * STEPS_A_TURN + more for turns in (1, 2) for more in (-1, 0, 1)]


@pytest.mark.parametrize(
    ("cell", "stack", "timesteps"),
    [
        *(("simple_rnn", "2 layers", timesteps) for timesteps in (1, 2, *AROUND_A_TURN, 97)),
        ("lstm", "2 layers", 65),
        ("gru", "2 layers", 65),
        ("simple_rnn", "3 layers both ways", 97),
        ("lstm", "both ways", 65),
        ("gru", "both ways", 65),
    ],
)
def test_a_loop_reads_stacks_of_any_length_as_the_oracle_does(
    cell: Cell, stack: str, timesteps: int
) -> None:
    network = stacked_network(cell, stack, timesteps)
    looped = inference_function(network, unroll=False)
    for batch in (1, 9):
        x = raw_input(batch, network.spec)
        found = looped(x)[OUTPUT].numpy()
        # float32 rounding, as everywhere.
        np.testing.assert_allclose(found, oracle.probabilities(network, x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("unroll", [True, False])
def test_normalization_may_stay_outside_the_weights(unroll: bool) -> None:
    network = stacked_network("gru", "2 layers", normalize=UNITS_OF_MEASURE)
    function = inference_function(network, unroll=unroll, fold=False)
    x = raw_input(9, network.spec)
    np.testing.assert_allclose(
        function(x)[OUTPUT].numpy(), oracle.probabilities(network, x), rtol=0, atol=FAR_FROM_ZERO
    )


def loops(timesteps: int, unroll: bool | None = None) -> bool:
    network = random_network("simple_rnn", spec=of_length(timesteps))
    operations = inference_function(network, unroll=unroll).get_concrete_function().graph
    return any("While" in operation.type for operation in operations.get_operations())


def test_long_sequences_are_a_loop_and_short_ones_are_not() -> None:
    assert not loops(MOST_UNROLLED)
    assert loops(MOST_UNROLLED + 1)
    assert not loops(MOST_UNROLLED + 1, unroll=True)
    assert loops(2, unroll=False)
