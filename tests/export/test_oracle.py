"""The formulas are those of Keras: the one place where the two are held against each other."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest
from networks import SPEC, UNITS, random_network, raw_input

from export import oracle
from export.network import Network, read_model
from rnn_tf.config import TrainConfig
from rnn_tf.errors import InputError
from rnn_tf.model.cells import CELLS
from rnn_tf.model.classifier import build_model, keras_layer, read_along

# Fine where activations bend, and out to where careless formulas overflow or cancel.
FAR = np.logspace(-6, 4, 401)
GRID = np.concatenate([np.linspace(-12, 12, 2001), FAR, -FAR])


@pytest.mark.parametrize("name", oracle.ACTIVATIONS)
def test_every_activation_is_that_of_keras(name: str) -> None:
    x = GRID[GRID < 700] if name == "exponential" else GRID
    ours = oracle.ACTIVATIONS[name](x)
    theirs = np.asarray(keras.activations.get(name)(keras.ops.convert_to_tensor(x, "float64")))
    # TensorFlow keeps constants of gelu and leaky_relu in float32, and rounding one to it moves it
    # by 2**-25 of itself at most; 5e-9 and 1.5e-8 seen. The others differ by 5e-13.
    np.testing.assert_allclose(ours, theirs, rtol=3e-8, atol=1e-8)


def test_there_is_a_formula_for_exactly_what_can_be_trained() -> None:
    """Of names that mean the same, for the one under which Keras saves it."""
    trained = set()
    for name in vars(keras.activations):
        try:
            model = build_model(TrainConfig(activation=name), SPEC)
        except InputError:
            continue
        trained.add(model.layers[0].get_config()["activation"])
    assert trained == set(oracle.ACTIVATIONS)


def in_float64(network: Network) -> keras.Sequential:
    """The network as a Keras model that computes in float64."""
    options = (
        {}
        if network.cell == "simple_rnn"
        else {"recurrent_activation": network.recurrent_activation}
    )
    model = keras.Sequential(
        [
            keras.Input((SPEC.timesteps, SPEC.features), dtype="float64"),
            keras_layer(network.cell)(
                UNITS, activation=network.activation, dtype="float64", **options
            ),
            keras.layers.Dense(SPEC.classes, activation="softmax", dtype="float64"),
        ]
    )
    model.set_weights(
        [
            network.kernel,
            network.recurrent_kernel,
            network.bias,
            network.dense_kernel,
            network.dense_bias,
        ]
    )
    return model


@pytest.mark.parametrize("activations", [("tanh", "sigmoid"), ("elu", "hard_sigmoid")])
@pytest.mark.parametrize("cell", CELLS)
def test_the_oracle_is_keras_in_float64(cell: str, activations: tuple[str, str]) -> None:
    network = random_network(cell, activations[0])
    if cell != "simple_rnn":
        network = replace(network, recurrent_activation=activations[1])
    x = raw_input(9)
    theirs = np.asarray(in_float64(network)(x.astype(np.float64) * SPEC.normalization.scale[0]))
    ours = oracle.probabilities(network, x)
    assert ours.dtype == theirs.dtype == np.float64
    # float64 rounding: 1e-16 seen. Nothing that float32 has touched could be as close.
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("cell", CELLS)
def test_the_states_are_those_of_keras_at_every_step(cell: str) -> None:
    model = build_model(TrainConfig.from_dict({"cell": cell, "units": UNITS}), SPEC)
    x = raw_input(1)
    states = list(oracle.states(read_model(model, SPEC), x))
    expected, _ = read_along(model, x[0] * np.float32(SPEC.normalization.scale[0]))
    assert len(states) == SPEC.timesteps
    # float32 rounding of states below 1, over 7 steps: 8e-8 seen.
    np.testing.assert_allclose(np.concatenate(states), expected, rtol=0, atol=1e-6)


def test_large_logits_neither_overflow_nor_warn() -> None:
    # Exactly: e**-10000 is 0 in float64.
    logits = np.array([[1e4, 0.0, -1e4], [5.0, 5.0, -1e300]])
    np.testing.assert_array_equal(oracle.softmax(logits), [[1, 0, 0], [0.5, 0.5, 0]])


@pytest.mark.parametrize("name", sorted(set(oracle.ACTIVATIONS) - {"exponential"}))
def test_large_inputs_give_probabilities_and_no_warning(name: str) -> None:
    network = random_network("lstm", name)
    probabilities = oracle.probabilities(network, raw_input(9) * np.float32(1e6))
    # A sum of four float64.
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=0, atol=1e-15)


def test_what_overflows_is_not_a_number_for_the_comparison_to_find() -> None:
    probabilities = oracle.probabilities(random_network("gru", "exponential"), raw_input(9) * 1e4)
    assert probabilities.shape == (9, SPEC.classes)
    assert np.isnan(probabilities).any()
