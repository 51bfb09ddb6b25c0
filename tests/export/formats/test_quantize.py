"""Rounding to int8 spends its error where the data does not see it, whatever the data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from networks import (
    STACKS,
    UNITS_OF_MEASURE,
    changed,
    of_length,
    random_network,
    raw_input,
    stacked_network,
    with_array,
)

from export import oracle
from export.formats.quantize import LARGEST, Rounded, round_to_int8
from export.network import Network
from rnn_tf.data.normalize import Normalize
from rnn_tf.data.spec import SequenceSpec
from rnn_tf.model.cells import CELLS, Cell

DIGITS = tuple("0123456789")
ROWS = SequenceSpec(timesteps=28, features=28, labels=DIGITS, normalize=Normalize((1 / 255,)))
UNITS = 32


def trained_like(cell: Cell, activation: str, **stack: Any) -> Network:
    """Weights of the size that training gives them: no sum of many grows with their number."""
    network = random_network(cell, activation, ROWS, units=UNITS, **stack)
    for name, array in network.arrays.items():
        # Dense too: it is where final states of both directions are added up.
        if name.endswith("kernel") and (name != "dense_kernel" or stack):
            network = with_array(network, name, array * np.float32((3 / len(array)) ** 0.5))
    return network


def waves(examples: int, seed: int) -> np.ndarray:
    """Raw sequences whose neighbouring numbers are alike, as those of pictures and sensors are."""
    random = np.random.default_rng(seed)
    a, b, c = random.uniform(0, 6, (3, examples, 1, 1))
    time, place = np.linspace(0, 3, 28)[None, :, None], np.linspace(0, 3, 28)[None, None]
    noise = random.normal(0, 0.1, (examples, 28, 28))
    values: np.ndarray = np.sin(a * time + b * place + c) + noise
    return (values / ROWS.normalization.scale[0]).astype(np.float32)


def kernels(network: Network) -> dict[str, np.ndarray]:
    """Every matrix, in the order in which they are rounded."""
    return {name: array for name, array in network.arrays.items() if name.endswith("kernel")}


def to_nearest(network: Network, matrices: list[Rounded]) -> Network:
    """The network with every weight rounded to the nearest multiple of the same scales."""
    for (name, original), rounded in zip(kernels(network).items(), matrices, strict=True):
        nearest = np.rint(original / rounded.scale).astype(np.float32) * rounded.scale
        network = with_array(network, name, nearest)
    return network


def mean_difference(network: Network, other: Network, x: np.ndarray) -> float:
    difference = oracle.probabilities(network, x) - oracle.probabilities(other, x)
    return float(np.abs(difference).mean())


@pytest.mark.parametrize(
    ("cell", "activation"), [("simple_rnn", "relu"), ("lstm", "tanh"), ("gru", "relu")]
)
def test_calibrated_rounding_beats_rounding_to_nearest(cell: Cell, activation: str) -> None:
    network = trained_like(cell, activation)
    calibration = waves(200, seed=0)
    rounded, matrices = round_to_int8(network, calibration)
    nearest = to_nearest(network, matrices)
    for x in (calibration, waves(200, seed=1)):
        # A quarter to two fifths seen, also on data that it was not calibrated on.
        error = mean_difference(network, rounded, x)
        assert 0 < error < 0.6 * mean_difference(network, nearest, x)


@pytest.mark.parametrize(
    ("cell", "stack"),
    [("simple_rnn", "3 layers both ways"), ("lstm", "2 layers"), ("gru", "both ways")],
)
def test_so_it_does_in_every_layer_and_direction(cell: Cell, stack: str) -> None:
    network = trained_like(cell, **{"activation": "tanh", **STACKS[stack]})
    calibration, other = waves(200, seed=0), waves(200, seed=1)
    rounded, matrices = round_to_int8(network, calibration)
    nearest = to_nearest(network, matrices)
    error = mean_difference(network, rounded, other)
    assert 0 < error < 0.6 * mean_difference(network, nearest, other)


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("cell", CELLS)
def test_features_of_different_size_keep_their_bits(cell: Cell, stack: str) -> None:
    """A pressure in Pa has weights of a thousandth: a scale for all would round them to zero."""
    network = stacked_network(cell, stack, normalize=UNITS_OF_MEASURE)
    rounded, _ = round_to_int8(network, raw_input(200, network.spec))
    alike = stacked_network(cell, stack)
    same, _ = round_to_int8(alike, raw_input(200, alike.spec))
    x = raw_input(100, network.spec)
    error = mean_difference(network, rounded, x)
    # The very bits of features that are alike, but for float32 rounding of the raw input.
    assert error == pytest.approx(mean_difference(alike, same, raw_input(100)), rel=0.1)


@pytest.mark.parametrize("cell", CELLS)
def test_the_rounded_network_computes_with_the_matrices(cell: Cell) -> None:
    assert_computes_with_matrices(random_network(cell), random_network(cell))


@pytest.mark.parametrize("stack", STACKS)
def test_so_it_does_in_a_stack(stack: str) -> None:
    assert_computes_with_matrices(stacked_network("gru", stack), stacked_network("gru", stack))


def assert_computes_with_matrices(network: Network, same: Network) -> None:
    rounded, matrices = round_to_int8(network, raw_input(100))
    # Of normalized input, as before.
    assert rounded.spec == network.spec
    for (name, array), matrix in zip(kernels(rounded).items(), matrices, strict=True):
        original = network.arrays[name]
        np.testing.assert_array_equal(array, matrix.matrix)
        np.testing.assert_array_equal(array, matrix.values * matrix.scale[None])
        assert (matrix.values.dtype, matrix.scale.dtype) == (np.int8, np.float32)
        assert matrix.values.shape == original.shape
        assert matrix.scale.shape == original.shape[1:]
        # The whole range of int8 but -128, which has no counterpart above zero.
        assert 120 < np.abs(matrix.values.astype(int)).max() <= LARGEST
    for name, array in network.arrays.items():
        assert (rounded.arrays[name].shape, rounded.arrays[name].dtype) == (array.shape, np.float32)
        # What was trained is not touched.
        np.testing.assert_array_equal(array, same.arrays[name])
    assert rounded.parameters == network.parameters


@pytest.mark.parametrize("cell", CELLS)
def test_the_bias_takes_up_what_rounding_leaves(cell: Cell) -> None:
    """On average over the data, the logits are then those of the model."""
    network = trained_like(cell, "tanh")
    x = waves(200, seed=0)
    rounded, matrices = round_to_int8(network, x)
    without = to_nearest(network, matrices)  # with the biases of the network

    def mean_logits(other: Network) -> np.ndarray:
        states = oracle.final_states(other.layers[0], oracle.normalized(other, x))
        result: np.ndarray = (states @ other.dense_kernel + other.dense_bias).mean(axis=0)
        return result

    kept, lost = (np.abs(mean_logits(each) - mean_logits(network)) for each in (rounded, without))
    # A seventh or less seen: the states that the bias was fitted to are those before rounding.
    assert kept.mean() < 0.5 * lost.mean()


@pytest.mark.parametrize("cell", CELLS)
def test_a_feature_that_is_always_zero_does_no_harm(cell: Cell) -> None:
    network = random_network(cell)
    x = raw_input(100)
    x[:, :, 1] = 0
    rounded, _ = round_to_int8(network, x)
    # As with any data, of 8 bits: 9e-5 seen.
    assert mean_difference(network, rounded, x) < 5e-4
    assert np.isfinite(rounded.layers[0].forward.kernel).all()


@pytest.mark.parametrize("cell", CELLS)
def test_data_that_are_all_zero_do_no_harm(cell: Cell) -> None:
    network = random_network(cell)
    rounded, matrices = round_to_int8(network, np.zeros_like(raw_input(100)))
    # Nothing is known of the inputs to come, so that these are rounded to the nearest.
    np.testing.assert_allclose(
        matrices[0].matrix,
        network.layers[0].forward.kernel,
        rtol=0,
        atol=float(matrices[0].scale.max()) * 0.51,
    )
    # As with any data, of 8 bits: 2e-4 seen.
    assert mean_difference(network, rounded, raw_input(100)) < 1e-3


@pytest.mark.parametrize("timesteps", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_a_state_that_is_always_zero_does_no_harm(cell: Cell, timesteps: int) -> None:
    """It is before the first step, and of relu if every unit is dead."""
    spec = of_length(timesteps)
    for shift in (0, -100):
        network = random_network(cell, "relu", spec)
        network = changed(network, bias=network.layers[0].forward.bias + np.float32(shift))
        x = raw_input(100, spec)
        rounded, _ = round_to_int8(network, x)
        assert mean_difference(network, rounded, x) < 1e-3


@pytest.mark.parametrize("cell", CELLS)
def test_a_column_of_zeros_stays_zero(cell: Cell) -> None:
    network = random_network(cell)
    network.dense_kernel[:, 2] = 0
    rounded, (_, _, dense) = round_to_int8(network, raw_input(100))
    assert not dense.values[:, 2].any()
    assert (dense.scale > 0).all()
    assert rounded.dense_bias[2] == network.dense_bias[2]


def test_more_data_than_it_looks_at_changes_nothing() -> None:
    network = random_network("gru", spec=of_length(10))
    x = raw_input(2_500, network.spec)
    some, all_of_it = (round_to_int8(network, each)[1] for each in (x[:2_000], x))
    for matrix, same in zip(some, all_of_it, strict=True):
        np.testing.assert_array_equal(matrix.values, same.values)
