"""What float32 can promise: how far rounding alone may move an answer.

The formulas of `export.oracle` are computed in float32, and the result of every operation is moved
at random by about as much as another order of its sum, or another approximation of exp or tanh,
would move it: Monte Carlo arithmetic (Parker, 1997). How far such answers are from those in float64
is what rounding comes to for these weights, these inputs and this number of steps. A bound worked
out beforehand would grow with every step, though most models forget an error like anything else
they have read.

Measured with models trained on MNIST by rows and by pixels, ItalyPowerDemand, and the mean of 500
numbers, and with weights like trained ones (all cells, tanh and elu, one layer and two in both
directions, 28 to 500 steps, features from 1 to 100,000): Keras, TFLite, onnxruntime and sums in
three orders in NumPy were off by 0.6 of the limit at most.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from export import oracle
from export.network import Layer, Network
from rnn_tf.data.spec import valid_steps

# The largest relative error of one operation: half the distance from 1 to the next float32.
UNIT = 2.0**-24
# That of a function that is approximated, in units of max(1, |value|): the largest of TensorFlow,
# TFLite and onnxruntime over -12..12, which is 5 (of tanh) or less where nothing is said.
FUNCTION_UNITS, UNITS_OF = 5, {"elu": 2, "celu": 3, "selu": 3, "gelu": 12, "silu": 20}
# The limit is this multiple of the largest move seen, since other runtimes round otherwise, and at
# least what a single function may be off.
MULTIPLE, LEAST = 2, 32 * UNIT
# Draws of each example in each of two ways, and the examples: the hardest, as many as there are
# time steps for.
DRAWS = 4
HARDEST, HARDEST_STEPS, LEAST_HARDEST = 64, 64_000, 4
# A long sequence is computed in blocks of so many steps, and no further than something is promised.
BLOCK_STEPS = 500


def limit(
    network: Network,
    x: np.ndarray,
    exact: np.ndarray,
    found: np.ndarray | None = None,
    lengths: np.ndarray | None = None,
) -> float:
    """How far float32 may be from `exact`, the formulas' answers `(n, classes)` to raw `x`.

    Or to each step of it, `(n, timesteps, classes)`. The hardest examples are tried: those where
    `found`, what some runtime answered, is furthest from `exact`; the first ones without it.
    `lengths`, `(n,)`, are of sequences that vary in it. Infinite where float32 overflows.
    """
    hardest = np.arange(len(x))
    if found is not None:
        with np.errstate(invalid="ignore"):
            off = np.abs(found - exact).max(axis=-1)
        if off.ndim == 2:  # of each sequence; its padding does not count
            valid = True if lengths is None else valid_steps(lengths, x.shape[1])
            off = np.where(valid, off, 0).max(axis=1)
        off = np.nan_to_num(off, nan=np.inf)
        hardest = np.argsort(-off, kind="stable")
    hardest = hardest[: most_tried(network)]
    x, exact = x[hardest], exact[hardest]
    lengths = None if lengths is None else lengths[hardest]
    spreads = [
        _spread(network, x[rows, :steps], exact[rows, :steps] if exact.ndim == 3 else exact[rows])
        for rows, steps in oracle.of_one_length(lengths, *x.shape[:2])
    ]
    return max(LEAST, MULTIPLE * max(spreads))


def most_tried(network: Network) -> int:
    """How many examples `limit` tries, at most."""
    return max(LEAST_HARDEST, min(HARDEST, HARDEST_STEPS // network.spec.longest))


def rounded(network: Network, x: np.ndarray) -> np.ndarray:
    """The answers after each step, `(n, timesteps, classes)`, in one draw of the rounding."""
    arithmetic = RandomlyRounded()
    frames = x.astype(arithmetic.dtype)
    return oracle.classified(network, network.raw_layers, frames, arithmetic, every=True)


def promised(network: Network, x: np.ndarray, most: float) -> tuple[np.ndarray, float]:
    """What the formulas say of one long sequence, as long as float32 keeps within `most` of it.

    Of raw `x`, `(1, timesteps, features)`, it gives `(1, steps, classes)`, and how far float32 may
    be from these answers. What rounding does to a state is handed on: a model that forgets holds
    the difference down for ever, in one that lets a state grow, or is at odds with itself, it
    grows, until nothing is promised any more. Of the steps before that the last quarter is left
    out: another runtime may be there a little earlier.
    """
    arithmetic, found = RandomlyRounded(), []
    limits = np.empty(0)
    states: Sequence[oracle.State] | None = None
    moved: Sequence[oracle.State] | None = None
    for start in range(0, x.shape[1], BLOCK_STEPS):
        block = x[:, start : start + BLOCK_STEPS]
        exact, states = oracle.continued(
            network, network.layers, oracle.normalized(network, block), states
        )
        draws = np.repeat(block.astype(arithmetic.dtype), DRAWS, axis=0)
        answers, moved = oracle.continued(network, network.raw_layers, draws, moved, arithmetic)
        with np.errstate(invalid="ignore"):
            moves = np.nan_to_num(np.abs(answers - exact).max(axis=(0, 2)), nan=np.inf)
        found.append(exact)
        limits = np.maximum.accumulate(np.append(limits, np.maximum(LEAST, MULTIPLE * moves)))
        if not limits[-1] <= most:
            break
    steps = int((limits <= most).sum())
    steps = steps if steps == x.shape[1] else 3 * steps // 4
    return np.concatenate(found, axis=1)[:, :steps], float(limits[max(steps, 1) - 1])


def _spread(network: Network, x: np.ndarray, exact: np.ndarray) -> float:
    """The largest difference from `exact` that rounding has made in any draw."""
    x, exact = np.repeat(x, DRAWS, axis=0), np.repeat(exact, DRAWS, axis=0)
    # As Keras computes, and as the formats do: folding the normalization rounds weights, and
    # the products of raw values may be large.
    arithmetic = RandomlyRounded()
    with np.errstate(over="ignore", invalid="ignore"):
        ways: list[tuple[tuple[Layer, ...], np.ndarray]] = [
            (network.layers, oracle.normalized(network, x, arithmetic)),
            (network.raw_layers, x.astype(arithmetic.dtype)),
        ]
        moves = [
            np.abs(
                oracle.classified(network, layers, frames, arithmetic, every=exact.ndim == 3)
                - exact
            ).max()
            for layers, frames in ways
        ]
    return float(np.nan_to_num(moves, nan=np.inf).max())


class RandomlyRounded:
    """float32, the result of every operation moved at random."""

    dtype = np.float32

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)

    def product(self, x: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
        """Moved in units of the sum of |terms|, however little is left when they cancel.

        n terms in some order can be off by n units of it, and seldom are by more than one (Higham,
        "Accuracy and Stability of Numerical Algorithms", 2002, chapter 4).
        """
        size = np.abs(x) @ np.abs(kernel) + np.abs(bias)
        return self._moved(x @ kernel + bias, size)

    def rounded(self, values: np.ndarray) -> np.ndarray:
        return self._moved(values, np.abs(values))

    def approximated(self, function: str, values: np.ndarray) -> np.ndarray:
        units = UNITS_OF.get(function, FUNCTION_UNITS)
        return self._moved(values, units * np.maximum(1, np.abs(values)))

    def _moved(self, values: np.ndarray, size: np.ndarray) -> np.ndarray:
        """`values`, each off by up to a unit of its `size`."""
        moves = self.random.random(values.shape, np.float32)
        moves *= 2
        moves -= 1
        moves *= np.float32(UNIT) * size
        moves += values
        return moves
