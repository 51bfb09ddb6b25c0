"""The limit lets through what float32 can be honestly, and nothing that is another function."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytest
from networks import (
    SPEC,
    STACKS,
    UNITS_OF_MEASURE,
    changed,
    mutants,
    of_length,
    random_network,
    raw_input,
    trained_like,
)

from export import oracle
from export.check import rounding
from export.check.rounding import LEAST, UNIT, RandomlyRounded, limit, most_tried
from export.network import Network
from rnn_tf.model.activations import ACTIVATIONS
from rnn_tf.model.cells import CELLS, Cell

LENGTHS = [28, 100]


@dataclass(frozen=True)
class Float32:
    """float32 as NumPy has it, products summed in an order of their own."""

    order: Literal["blocks", "forward", "backward"]
    dtype = np.float32

    def product(self, x: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
        if self.order == "blocks":  # as the matrix product of a library
            result: np.ndarray = x @ kernel + bias
            return result
        terms = [x[..., i, None] * kernel[i] for i in range(len(kernel))]
        terms = [*terms, bias] if self.order == "forward" else [bias, *terms[::-1]]
        total = np.zeros((*x.shape[:-1], len(bias)), np.float32)
        for term in terms:
            total += term
        return total

    def rounded(self, values: np.ndarray) -> np.ndarray:
        return values

    def approximated(self, function: str, values: np.ndarray) -> np.ndarray:
        return values


def in_float32(network: Network, x: np.ndarray) -> list[np.ndarray]:
    """Answers of honest runtimes: three orders, normalized before and by the weights."""
    answers = []
    for order in ("blocks", "forward", "backward"):
        float32 = Float32(order)
        normalized = oracle.normalized(network, x, float32)
        for layers, frames in ((network.layers, normalized), (network.raw_layers, x)):
            answers.append(oracle.classified(network, layers, frames, float32))
    return answers


def inputs(network: Network, examples: int = 48) -> dict[str, np.ndarray]:
    """Those whose errors are alike, and those where they may add up, one value for all steps."""
    x = raw_input(examples, network.spec)
    low, high = x.min(axis=(0, 1)), x.max(axis=(0, 1))
    noise = np.random.default_rng(3).uniform(low, high, (12, *x.shape[1:]))
    constant = np.stack([np.broadcast_to(each, x.shape[1:]) for each in np.linspace(low, high, 12)])
    found = {"data": x, "noise": noise, "constant": constant, "zero": 0 * x[:1]}
    return {name: each.astype(np.float32) for name, each in found.items()}


def furthest(answers: np.ndarray, exact: np.ndarray) -> float:
    return float(np.abs(answers - exact).max())


def assert_honest_float32_passes(network: Network) -> None:
    for name, x in inputs(network).items():
        exact, answers = oracle.probabilities(network, x), in_float32(network, x)
        found = limit(network, x, exact, answers[0])
        if found == np.inf:  # float32 cannot hold the states, and that is what it says
            assert not np.isfinite(answers).all()
            continue
        most = max(furthest(each, exact) for each in answers)
        # 0.6 of it seen; and a limit far from what is seen would catch nothing.
        assert most <= found, name
        assert found <= max(LEAST, 100 * most, 40 * LEAST), name


LONG: list[tuple[Cell, str, int]] = [
    ("simple_rnn", "elu", 500), ("lstm", "elu", 500), ("gru", "tanh", 500),
]  # fmt: skip


@pytest.mark.parametrize(
    ("cell", "activation", "timesteps"),
    [*itertools.product(CELLS, ["tanh", "elu"], LENGTHS), *LONG],
)
def test_honest_float32_passes(cell: Cell, activation: str, timesteps: int) -> None:
    assert_honest_float32_passes(trained_like(cell, activation, timesteps))


@pytest.mark.parametrize("timesteps", LENGTHS)
@pytest.mark.parametrize("cell", CELLS)
def test_honest_float32_passes_with_features_of_different_size(cell: Cell, timesteps: int) -> None:
    assert_honest_float32_passes(trained_like(cell, "tanh", timesteps, UNITS_OF_MEASURE))


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("cell", CELLS)
def test_honest_float32_passes_in_stacks(cell: Cell, stack: str) -> None:
    assert_honest_float32_passes(random_network(cell, spec=SPEC, **STACKS[stack]))


@pytest.mark.parametrize("name", sorted(set(ACTIVATIONS) - {"exponential"}))
def test_honest_float32_passes_with_every_activation(name: str) -> None:
    for cell in CELLS:
        assert_honest_float32_passes(random_network(cell, name, of_length(28)))


@pytest.mark.parametrize(
    ("cell", "activation", "timesteps"),
    [*itertools.product(CELLS, ["tanh", "elu"], LENGTHS), *LONG],
)
def test_another_function_does_not_pass(cell: Cell, activation: str, timesteps: int) -> None:
    """One weight of any array changed by a thousandth, two gates swapped, a scale forgotten."""
    network = trained_like(cell, activation, timesteps)
    x = inputs(network)["data"]
    exact = oracle.probabilities(network, x)
    allowed = limit(network, x, exact)
    for name, mutant in mutants(network).items():
        assert furthest(oracle.probabilities(mutant, x), exact) > allowed, name


def test_the_limit_grows_with_what_the_model_makes_of_an_error() -> None:
    """One whose states forget what they have read forgets errors; chaos makes more of them."""
    found = []
    network = random_network("simple_rnn", spec=of_length(100), units=32)
    kernel = network.layers[0].forward.recurrent_kernel
    x = raw_input(20, network.spec)
    for times in (0.5, 1, 1.5):
        other = changed(network, recurrent_kernel=np.float32(times) * kernel)
        found.append(limit(other, x, oracle.probabilities(other, x)))
    assert found[0] == LEAST
    assert found[1] > 2 * found[0]
    assert found[2] > 100 * found[1]


def test_raw_values_far_from_zero_are_in_it() -> None:
    """A pressure of 101,325 with a deviation of 500 has lost two digits before the first step."""
    near, far = (trained_like("gru", "tanh", 28, each) for each in (None, UNITS_OF_MEASURE))
    limits = []
    for network in (near, far):
        x = raw_input(20, network.spec)
        limits.append(limit(network, x, oracle.probabilities(network, x)))
    assert limits[1] > 3 * limits[0]


def test_it_is_the_same_each_time() -> None:
    network = random_network("lstm")
    x = raw_input(100)
    exact = oracle.probabilities(network, x)
    assert limit(network, x, exact) == limit(network, x, exact)


def test_the_hardest_examples_decide() -> None:
    """One example is hard, far behind those that are tried without knowing.

    It adds up large numbers that cancel.
    """
    network = random_network("simple_rnn", "linear", of_length(100))
    eye, zero = np.eye(network.units, dtype=np.float32), np.zeros(network.units, np.float32)
    network = changed(network, recurrent_kernel=eye, bias=zero)
    x = np.zeros((1000, 100, 3), np.float32)
    x[900] = 1e4 * raw_input(1, network.spec)[0]
    x[900, -1] -= x[900].sum(axis=0)
    exact = oracle.probabilities(network, x)
    found = in_float32(network, x)[0]
    assert most_tried(network) < 900
    assert limit(network, x, exact, found) > 10 * limit(network, x, exact)


def test_nothing_is_promised_where_float32_overflows() -> None:
    network = random_network("gru", "exponential")
    x = raw_input(9) * np.float32(1e4)
    assert limit(network, x, oracle.probabilities(network, x)) == np.inf


def test_nor_where_rounding_decides() -> None:
    """Chaos: what two states differ by doubles and doubles."""
    network = random_network("simple_rnn", spec=of_length(200), units=32)
    network = changed(network, recurrent_kernel=3 * network.layers[0].forward.recurrent_kernel)
    x = raw_input(9, network.spec)
    assert limit(network, x, oracle.probabilities(network, x)) > 0.1


def test_a_sum_is_moved_by_a_unit_of_its_terms() -> None:
    x = np.array([[1e4, 1, 1e4]], np.float32)
    kernel = np.array([[1, 1], [1, 1], [-1, 0]], np.float32)
    arithmetic = RandomlyRounded()
    moved = [arithmetic.product(x, kernel, np.zeros(2, np.float32)) for _ in range(200)]
    off = np.abs(np.concatenate(moved) - [[1, 10_001]]).max(axis=0)
    # Both columns have terms of 10,000 or more, though those of the first cancel. A result may be
    # rounded by half of the last digit once more.
    for column, size in enumerate((20_001, 10_001)):
        assert 0.8 * UNIT * size <= off[column] <= 2 * UNIT * size


def test_fewer_examples_are_tried_of_long_sequences() -> None:
    tried = [most_tried(random_network("gru", spec=of_length(t))) for t in (28, 10**4)]
    assert tried == [rounding.HARDEST, rounding.HARDEST_STEPS // 10**4]
