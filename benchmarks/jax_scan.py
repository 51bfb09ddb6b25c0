"""What a JAX user writes for speed: an epoch as one `lax.scan` under `jit`. Prints JSON.

The tutorial's model, its start and Adam, by hand.
"""

from __future__ import annotations

import json
import sys
import time
from typing import NamedTuple

import jax
import numpy as np
from jax import Array, lax
from jax import numpy as jnp
from jax.nn import initializers

from rnn_tf.data import load

BATCH, UNITS, CLASSES = 64, 32, 10
RATE, BETA_1, BETA_2, EPSILON = 1e-3, 0.9, 0.999, 1e-7

Weights = dict[str, Array]


class State(NamedTuple):
    """What a weight update starts from: the weights, and Adam's averages after `step` updates."""

    weights: Weights
    mean: Weights
    square: Weights
    step: Array


def start(key: Array, features: int) -> State:
    kernel, recurrent, dense = jax.random.split(key, 3)
    weights = {
        "kernel": initializers.glorot_uniform()(kernel, (features, UNITS)),
        "recurrent": initializers.orthogonal()(recurrent, (UNITS, UNITS)),
        "bias": jnp.zeros(UNITS),
        "dense": initializers.glorot_uniform()(dense, (UNITS, CLASSES)),
        "dense_bias": jnp.zeros(CLASSES),
    }
    zeros = jax.tree.map(jnp.zeros_like, weights)
    return State(weights, zeros, zeros, jnp.zeros((), jnp.int32))


def logits(weights: Weights, x: Array) -> Array:
    """`(batch, classes)` of raw `x` `(batch, timesteps, features)`."""
    steps = jnp.swapaxes(x, 0, 1).astype(jnp.float32) / 255.0
    # All steps' inputs in one product; the loop is left with what depends on the state.
    inputs = steps @ weights["kernel"] + weights["bias"]

    def step(state: Array, now: Array) -> tuple[Array, None]:
        return jnp.tanh(now + state @ weights["recurrent"]), None

    # Written out where it pays: 28 steps are one program.
    last, _ = lax.scan(step, jnp.zeros((x.shape[0], UNITS)), inputs, unroll=x.shape[1])
    return last @ weights["dense"] + weights["dense_bias"]


def loss(weights: Weights, x: Array, y: Array, count: Array) -> Array:
    """Mean cross-entropy of the examples that count: what fills the last batch does not."""
    each = -jnp.take_along_axis(jax.nn.log_softmax(logits(weights, x)), y[:, None], 1)[:, 0]
    return (each * count).sum() / count.sum()


def update(state: State, batch: tuple[Array, Array, Array]) -> tuple[State, None]:
    gradient = jax.grad(loss)(state.weights, *batch)
    step = state.step + 1
    mean = jax.tree.map(lambda m, g: BETA_1 * m + (1 - BETA_1) * g, state.mean, gradient)
    square = jax.tree.map(lambda v, g: BETA_2 * v + (1 - BETA_2) * g * g, state.square, gradient)
    rate = RATE * jnp.sqrt(1 - BETA_2**step) / (1 - BETA_1**step)
    weights = jax.tree.map(
        lambda w, m, v: w - rate * m / (jnp.sqrt(v) + EPSILON), state.weights, mean, square
    )
    return State(weights, mean, square, step), None


def epoch(state: State, x: Array, y: Array, order: Array) -> State:
    """One pass: `order` `(steps, batch)` are indices, -1 fills the last batch."""
    index = jnp.maximum(order, 0)
    state, _ = lax.scan(update, state, (x[index], y[index], (order >= 0).astype(jnp.float32)))
    return state


def accuracy(weights: Weights, x: Array, y: Array) -> Array:
    return (logits(weights, x).argmax(1) == y).mean()


def shuffled(examples: int, random: np.random.Generator) -> np.ndarray:
    order = np.full(-(-examples // BATCH) * BATCH, -1, np.int32)
    order[:examples] = random.permutation(examples)
    return order.reshape(-1, BATCH)


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
