"""What a JAX user writes for speed: an epoch as one `lax.scan` under `jit`. Prints JSON.

The tutorial's model, its start and Adam, by hand; `benchmarks.shapes` trains other cells and sizes.
"""

from __future__ import annotations

import functools
import json
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax import Array, lax
from jax import numpy as jnp
from jax.nn import initializers, sigmoid

from rnn_tf.data import load

BATCH, UNITS, CLASSES = 64, 32, 10
RATE, BETA_1, BETA_2, EPSILON = 1e-3, 0.9, 0.999, 1e-7
# So many steps of a scan are written out one after the other, which pays up to about here.
UNROLLED = 28

Weights = dict[str, Array]
# The state of a cell and what the input adds to its gates, to the next state; h is its first array.
Cell = Callable[[Weights, tuple[Array, ...], Array], tuple[Array, ...]]


class State(NamedTuple):
    """What a weight update starts from: the weights, and Adam's averages after `step` updates."""

    weights: Weights
    mean: Weights
    square: Weights
    step: Array


def simple_rnn(weights: Weights, state: tuple[Array, ...], now: Array) -> tuple[Array, ...]:
    return (jnp.tanh(now + state[0] @ weights["recurrent"]),)


def lstm(weights: Weights, state: tuple[Array, ...], now: Array) -> tuple[Array, ...]:
    h, c = state
    i, f, content, o = jnp.split(now + h @ weights["recurrent"], 4, axis=1)
    c = sigmoid(f) * c + sigmoid(i) * jnp.tanh(content)
    return sigmoid(o) * jnp.tanh(c), c


def gru(weights: Weights, state: tuple[Array, ...], now: Array) -> tuple[Array, ...]:
    """The form of Keras and PyTorch: the reset gate after the product, which has its own bias."""
    (h,) = state
    z, r, content = jnp.split(now, 3, axis=1)
    of_h = jnp.split(h @ weights["recurrent"] + weights["recurrent_bias"], 3, axis=1)
    z, r = sigmoid(z + of_h[0]), sigmoid(r + of_h[1])
    return (z * h + (1 - z) * jnp.tanh(content + r * of_h[2]),)


CELLS: dict[str, Cell] = {"simple_rnn": simple_rnn, "lstm": lstm, "gru": gru}
# Products of the state in a step, and arrays of the state.
GATES, STATES = {"simple_rnn": 1, "lstm": 4, "gru": 3}, {"simple_rnn": 1, "lstm": 2, "gru": 1}


def start(key: Array, features: int, units: int = UNITS, cell: str = "simple_rnn") -> State:
    kernel, recurrent, dense = jax.random.split(key, 3)
    wide = GATES[cell] * units
    weights = {
        "kernel": initializers.glorot_uniform()(kernel, (features, wide)),
        "recurrent": initializers.orthogonal()(recurrent, (units, wide)),
        "bias": jnp.zeros(wide),
        "dense": initializers.glorot_uniform()(dense, (units, CLASSES)),
        "dense_bias": jnp.zeros(CLASSES),
    }
    if cell == "gru":
        weights["recurrent_bias"] = jnp.zeros(wide)
    zeros = jax.tree.map(jnp.zeros_like, weights)
    return State(weights, zeros, zeros, jnp.zeros((), jnp.int32))


def logits(weights: Weights, x: Array, cell: str = "simple_rnn") -> Array:
    """`(batch, classes)` of raw `x` `(batch, timesteps, features)`."""
    steps = jnp.swapaxes(x, 0, 1).astype(jnp.float32) / 255.0
    # All steps' inputs in one product; the loop is left with what depends on the state.
    inputs = steps @ weights["kernel"] + weights["bias"]
    zeros = (jnp.zeros((x.shape[0], weights["dense"].shape[0])),) * STATES[cell]

    def step(state: tuple[Array, ...], now: Array) -> tuple[tuple[Array, ...], None]:
        return CELLS[cell](weights, state, now), None

    last, _ = lax.scan(step, zeros, inputs, unroll=min(UNROLLED, x.shape[1]))
    return last[0] @ weights["dense"] + weights["dense_bias"]


def loss(weights: Weights, x: Array, y: Array, count: Array, cell: str = "simple_rnn") -> Array:
    """Mean cross-entropy of the examples that count: what fills the last batch does not."""
    each = -jnp.take_along_axis(jax.nn.log_softmax(logits(weights, x, cell)), y[:, None], 1)[:, 0]
    return (each * count).sum() / count.sum()


def update(
    state: State, batch: tuple[Array, Array, Array], cell: str = "simple_rnn"
) -> tuple[State, None]:
    gradient = jax.grad(loss)(state.weights, *batch, cell)
    step = state.step + 1
    mean = jax.tree.map(lambda m, g: BETA_1 * m + (1 - BETA_1) * g, state.mean, gradient)
    square = jax.tree.map(lambda v, g: BETA_2 * v + (1 - BETA_2) * g * g, state.square, gradient)
    rate = RATE * jnp.sqrt(1 - BETA_2**step) / (1 - BETA_1**step)
    weights = jax.tree.map(
        lambda w, m, v: w - rate * m / (jnp.sqrt(v) + EPSILON), state.weights, mean, square
    )
    return State(weights, mean, square, step), None


def epoch(state: State, x: Array, y: Array, order: Array, cell: str = "simple_rnn") -> State:
    """One pass: `order` `(steps, batch)` are indices, -1 fills the last batch."""
    index = jnp.maximum(order, 0)
    batches = x[index], y[index], (order >= 0).astype(jnp.float32)
    state, _ = lax.scan(functools.partial(update, cell=cell), state, batches)
    return state


def accuracy(weights: Weights, x: Array, y: Array) -> Array:
    return (logits(weights, x).argmax(1) == y).mean()


def shuffled(examples: int, random: np.random.Generator, batch: int = BATCH) -> np.ndarray:
    order = np.full(-(-examples // batch) * batch, -1, np.int32)
    order[:examples] = random.permutation(examples)
    return order.reshape(-1, batch)


def main(epochs: int) -> None:
    """Train the tutorial's model on MNIST for some epochs."""
    data = load("mnist")
    x, y = jnp.asarray(data.train.x), jnp.asarray(data.train.y)
    state = start(jax.random.key(1), data.spec.features)
    random = np.random.default_rng(1)
    train, score = jax.jit(epoch), jax.jit(accuracy)
    seconds = []
    for _ in range(epochs):
        began = time.perf_counter()
        state = train(state, x, y, shuffled(len(y), random))
        float(score(state.weights, data.valid.x, data.valid.y))  # waits for the result
        seconds.append(time.perf_counter() - began)
    test = float(score(state.weights, data.test.x, data.test.y))
    print(json.dumps({"epochs": seconds, "accuracy": test}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
