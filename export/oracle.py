"""The classifier written from its formulas, in float64 NumPy: what every format is held against.

Nothing here is shared with an exporter, a converter or a runtime, so that an agreement means
something.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from export.network import Layer, Network, Recurrence
from rnn_tf.model.cells import CELLS, Cell

Activation = Callable[[np.ndarray], np.ndarray]
# What a step hands to the next, `(n, units)` each: h, and for an LSTM c.
State = tuple[np.ndarray, ...]

# A layer's first direction reads from the first step on, the second from the last one back.
ORDERS = (1, -1)
# About as much memory is taken for the states of a layer.
BLOCK_BYTES = 2**26

# Klambauer et al., "Self-Normalizing Neural Networks", 2017.
SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772
_erf = np.frompyfunc(math.erf, 1, 1)


def sigmoid(x: np.ndarray) -> np.ndarray:
    small = np.exp(-np.abs(x))  # in 0..1, so that nothing overflows
    result: np.ndarray = np.where(x >= 0, 1.0, small) / (1.0 + small)
    return result


def elu(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def gelu(x: np.ndarray) -> np.ndarray:
    """Hendrycks and Gimpel, 2016: x P(X <= x) for a standard normal X."""
    result: np.ndarray = 0.5 * x * (1.0 + np.asarray(_erf(x / math.sqrt(2)), np.float64))
    return result


def softplus(x: np.ndarray) -> np.ndarray:
    result: np.ndarray = np.logaddexp(0.0, x)
    return result


def squareplus(x: np.ndarray) -> np.ndarray:
    """Barron, 2021: (x + sqrt(x^2 + 4)) / 2, without the cancellation for negative x."""
    root = np.hypot(x, 2.0)
    result: np.ndarray = np.where(x > 0, (x + root) / 2, 2.0 / (root - np.minimum(x, 0)))
    return result


def sparse_plus(x: np.ndarray) -> np.ndarray:
    return np.where(x < 1, np.square(np.maximum(x + 1, 0)) / 4, x)


# Every activation that `build_model` takes, as keras.activations documents it.
ACTIVATIONS: dict[str, Activation] = {
    "celu": elu,
    "elu": elu,
    "exponential": np.exp,
    "gelu": gelu,
    "hard_shrink": lambda x: np.where(np.abs(x) > 0.5, x, 0.0),
    "hard_sigmoid": lambda x: np.clip((x + 3) / 6, 0, 1),
    "hard_silu": lambda x: x * np.clip((x + 3) / 6, 0, 1),
    "hard_tanh": lambda x: np.clip(x, -1, 1),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.2 * x),
    "linear": lambda x: x,
    "log_sigmoid": lambda x: -softplus(-x),
    "mish": lambda x: x * np.tanh(softplus(x)),
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "selu": lambda x: SELU_SCALE * np.where(x > 0, x, SELU_ALPHA * np.expm1(np.minimum(x, 0))),
    "sigmoid": sigmoid,
    "silu": lambda x: x * sigmoid(x),
    "soft_shrink": lambda x: np.sign(x) * np.maximum(np.abs(x) - 0.5, 0),
    "softplus": softplus,
    "softsign": lambda x: x / (1 + np.abs(x)),
    "sparse_plus": sparse_plus,
    "sparse_sigmoid": lambda x: np.clip((x + 1) / 2, 0, 1),
    "squareplus": squareplus,
    "tanh": np.tanh,
    "tanh_shrink": lambda x: x - np.tanh(x),
}


def probabilities(network: Network, x: np.ndarray) -> np.ndarray:
    """What the model says of raw `x` `(n, timesteps, features)`: float64 `(n, classes)`.

    y = softmax(h W_y + b_y), h the final states of the last layer.
    """
    examples = max(1, BLOCK_BYTES // (8 * x.shape[1] * _widest(network)))
    blocks = [x[start : start + examples] for start in range(0, len(x), examples)]
    return np.concatenate([_probabilities(network, block) for block in blocks])


def _probabilities(network: Network, x: np.ndarray) -> np.ndarray:
    *before, last = network.layers
    with _no_warnings():
        frames = normalized(network, x)
        for layer in before:
            frames = np.concatenate(layer_states(layer, frames), axis=2)
        logits = final_states(last, frames) @ network.dense_kernel.astype(np.float64)
        return softmax(logits + network.dense_bias)


def normalized(network: Network, x: np.ndarray) -> np.ndarray:
    """Raw `x` as the first layer reads it: x * scale + shift, float64."""
    normalize = network.spec.normalization
    result: np.ndarray = x.astype(np.float64) * normalize.scale + normalize.shift
    return result


def final_states(layer: Layer, frames: np.ndarray) -> np.ndarray:
    """The states of each direction after its last step, side by side: `(n, width)`."""
    found = []
    for direction, order in zip(layer.directions, ORDERS, strict=False):
        *_, (_, state) = read(direction, frames, order)
        found.append(state)
    return np.concatenate(found, axis=1)


def layer_states(layer: Layer, frames: np.ndarray) -> list[np.ndarray]:
    """The state of each direction after each step, where the step is: `(n, timesteps, units)`.

    Of `frames` `(n, timesteps, inputs)`, float64.
    """
    found = []
    for direction, order in zip(layer.directions, ORDERS, strict=False):
        states = np.empty((*frames.shape[:2], direction.units))
        for t, state in read(direction, frames, order):
            states[:, t] = state
        found.append(states)
    return found


def read(weights: Recurrence, frames: np.ndarray, order: int) -> Iterator[tuple[int, np.ndarray]]:
    """Each step, in the order in which it is read, and h `(n, units)` after it."""
    state = zeros(weights, len(frames))
    for t in range(frames.shape[1])[::order]:
        state = step(weights, frames[:, t], state)
        yield t, state[0]


def zeros(weights: Recurrence, examples: int) -> State:
    """The state before the first step."""
    return (np.zeros((examples, weights.units)),) * len(CELLS[weights.cell].states)


def step(weights: Recurrence, frame: np.ndarray, state: State) -> State:
    """The state after reading `frame` `(n, inputs)` in `state`, float64 `(n, units)` each."""
    with _no_warnings():
        return STEPS[weights.cell](weights, frame, *state)


def _widest(network: Network) -> int:
    return max(network.spec.features, *(layer.width for layer in network.layers))


def _no_warnings() -> np.errstate:
    """What overflows becomes infinite or NaN, which the comparison looks for."""
    return np.errstate(over="ignore", invalid="ignore")


def softmax(logits: np.ndarray) -> np.ndarray:
    """Along the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares: np.ndarray = powers / powers.sum(axis=-1, keepdims=True)
    return shares


def simple_rnn(weights: Recurrence, x: np.ndarray, h: np.ndarray) -> State:
    """h' = f(x W + h U + b), the network of Elman, 1990."""
    f = ACTIVATIONS[weights.activation]
    return (f(_input(weights, x) + _state(weights, h)),)


def lstm(weights: Recurrence, x: np.ndarray, h: np.ndarray, c: np.ndarray) -> State:
    """Hochreiter and Schmidhuber, 1997, with the forget gate of Gers et al., 2000.

    i, f, o = s(x W + h U + b) and g = f(x W + h U + b), each with its own columns;
    c' = f * c + i * g; h' = o * f(c').
    """
    f, s = ACTIVATIONS[weights.activation], ACTIVATIONS[weights.recurrent_activation]
    i, forget, g, o = np.split(_input(weights, x) + _state(weights, h), 4, axis=1)
    c = s(forget) * c + s(i) * f(g)
    return s(o) * f(c), c


def gru(weights: Recurrence, x: np.ndarray, h: np.ndarray) -> State:
    """Cho et al., 2014, with the reset gate after the product, as in cuDNN and in Keras.

    z, r = s(x W + b_x + h U + b_h); g = f(x W + b_x + r * (h U + b_h)); h' = z * h + (1 - z) * g.
    """
    f, s = ACTIVATIONS[weights.activation], ACTIVATIONS[weights.recurrent_activation]
    xz, xr, xg = np.split(_input(weights, x), 3, axis=1)
    hz, hr, hg = np.split(_state(weights, h), 3, axis=1)
    z, r = s(xz + hz), s(xr + hr)
    return (z * h + (1 - z) * f(xg + r * hg),)


STEPS: dict[Cell, Callable[..., State]] = {"simple_rnn": simple_rnn, "lstm": lstm, "gru": gru}


def _input(weights: Recurrence, x: np.ndarray) -> np.ndarray:
    """x W + b_x"""
    product: np.ndarray = x @ weights.kernel.astype(np.float64) + weights.input_bias
    return product


def _state(weights: Recurrence, h: np.ndarray) -> np.ndarray:
    """h U + b_h, whose bias is zero where a cell has one bias only"""
    product: np.ndarray = h @ weights.recurrent_kernel.astype(np.float64) + weights.state_bias
    return product
