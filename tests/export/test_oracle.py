"""The formulas are those of Keras: the one place where the two are held against each other."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest
from networks import (
    SPEC,
    STACKS,
    UNITS,
    UNITS_OF_MEASURE,
    changed,
    in_keras,
    random_network,
    raw_input,
    stacked_network,
)

from export import oracle
from export.network import Network, read_model
from rnn_tf.config import TrainConfig
from rnn_tf.errors import InputError
from rnn_tf.model.activations import ACTIVATIONS
from rnn_tf.model.cells import CELLS, Cell
from rnn_tf.model.classifier import build_model
from rnn_tf.model.stepwise import read_along

# Fine where activations bend, and out to where careless formulas overflow or cancel.
FAR = np.logspace(-6, 4, 401)
GRID = np.concatenate([np.linspace(-12, 12, 2001), FAR, -FAR])


@pytest.mark.parametrize("name", ACTIVATIONS)
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
    assert trained == set(ACTIVATIONS)


@pytest.mark.parametrize("activations", [("tanh", "sigmoid"), ("elu", "hard_sigmoid")])
@pytest.mark.parametrize("cell", CELLS)
def test_the_oracle_is_keras_in_float64(cell: Cell, activations: tuple[str, str]) -> None:
    network = random_network(cell, activations[0])
    if cell != "simple_rnn":
        network = changed(network, recurrent_activation=activations[1])
    assert_is_keras_in_float64(network)


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("cell", CELLS)
def test_the_oracle_is_keras_in_float64_in_every_stack(cell: Cell, stack: str) -> None:
    assert_is_keras_in_float64(stacked_network(cell, stack, normalize=UNITS_OF_MEASURE))


def assert_is_keras_in_float64(network: Network) -> None:
    x = raw_input(9, network.spec)
    theirs = np.asarray(in_keras(network, "float64")(oracle.normalized(network, x)))
    ours = oracle.probabilities(network, x)
    assert ours.dtype == theirs.dtype == np.float64
    # float64 rounding: 1e-16 seen. Nothing that float32 has touched could be as close.
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)


def test_what_the_first_layer_reads_is_the_normalized_input() -> None:
    network = random_network("gru", spec=replace(SPEC, normalize=UNITS_OF_MEASURE))
    x = raw_input(2)
    expected = x.astype(np.float64) * [1.0, 0.2, 0.002] + [0.0, -4.0, -202.65]
    np.testing.assert_array_equal(oracle.normalized(network, x), expected)


@pytest.mark.parametrize("stack", STACKS)
def test_many_examples_are_taken_in_blocks(stack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = stacked_network("lstm", stack)
    x = raw_input(23, network.spec)
    whole = oracle.probabilities(network, x)
    # For two examples of the narrowest network here, and for one of the widest.
    monkeypatch.setattr(oracle, "BLOCK_BYTES", 8 * SPEC.longest * UNITS * 2)
    # A product of fewer rows may be added up in another order: 1e-16 seen.
    np.testing.assert_allclose(oracle.probabilities(network, x), whole, rtol=0, atol=1e-15)


@pytest.mark.parametrize("cell", CELLS)
def test_the_states_are_those_of_keras_at_every_step(cell: Cell) -> None:
    model = build_model(TrainConfig.from_dict({"cell": cell, "units": UNITS}), SPEC)
    x = raw_input(1)
    network = read_model(model, SPEC)
    (states,) = oracle.layer_states(network.layers[0], oracle.normalized(network, x))
    expected, _ = read_along(model, x[0] * np.float32(SPEC.normalization.scale[0]))
    assert states.shape == (1, SPEC.longest, UNITS)
    # float32 rounding of states below 1, over 7 steps: 8e-8 seen.
    np.testing.assert_allclose(states[0], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_the_states_of_both_directions_stand_where_the_step_is(cell: Cell) -> None:
    """As Keras puts them side by side: what reads backward has read the last step first."""
    network = random_network(cell, layers=2, bidirectional=True)
    x = oracle.normalized(network, raw_input(3))
    recurrent = in_keras(network, "float64").layers[0]
    states = oracle.layer_states(network.layers[0], x)
    np.testing.assert_allclose(
        np.concatenate(states, axis=2), np.asarray(recurrent(x)), rtol=0, atol=1e-12
    )
    forward, backward = np.split(oracle.final_states(network.layers[0], x), 2, axis=1)
    np.testing.assert_array_equal(forward, states[0][:, -1])
    np.testing.assert_array_equal(backward, states[1][:, 0])


def test_large_logits_neither_overflow_nor_warn() -> None:
    # Exactly: e**-10000 is 0 in float64.
    logits = np.array([[1e4, 0.0, -1e4], [5.0, 5.0, -1e300]])
    np.testing.assert_array_equal(oracle.softmax(logits), [[1, 0, 0], [0.5, 0.5, 0]])


@pytest.mark.parametrize("name", sorted(set(ACTIVATIONS) - {"exponential"}))
def test_large_inputs_give_probabilities_and_no_warning(name: str) -> None:
    network = random_network("lstm", name)
    probabilities = oracle.probabilities(network, raw_input(9) * np.float32(1e6))
    # A sum of four float64.
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=0, atol=1e-15)


def test_what_overflows_is_not_a_number_for_the_comparison_to_find() -> None:
    probabilities = oracle.probabilities(random_network("gru", "exponential"), raw_input(9) * 1e4)
    assert probabilities.shape == (9, SPEC.classes)
    assert np.isnan(probabilities).any()
