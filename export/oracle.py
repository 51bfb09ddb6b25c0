"""The classifier written from its formulas, in float64 NumPy: what every format is held against.

Nothing here is shared with an exporter, a converter or a runtime, so that an agreement means
something.

The formulas say what is computed, an `Arithmetic` says in which numbers: float64, or another that
a check brings (`export.check.rounding`).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np

from export.network import Layer, Network, Recurrence
from rnn_tf.model.cells import CELLS, Cell

Activation = Callable[[np.ndarray], np.ndarray]
# What a step hands to the next, `(n, units)` each: h, and for an LSTM c.
State = tuple[np.ndarray, ...]

# A layer's first direction reads from the first step on, the second from the last one back.
ORDERS = (1, -1)
# About as much memory is taken for the frames that a layer reads, and for the states it gives ...
BLOCK_BYTES = 2**27
# ... and for one time step of them: it stays in a core's second cache, where NumPy is several times
# as fast.
STEP_BYTES = 2**17
# The product of input and kernel is made of so many time steps at once: it waits for no state.
STEPS_AT_ONCE = 32

# Klambauer et al., "Self-Normalizing Neural Networks", 2017.
SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772
_erf = np.frompyfunc(math.erf, 1, 1)


def sigmoid(x: np.ndarray) -> np.ndarray:
    small = np.exp(-np.abs(x))  # in 0..1, so that nothing overflows
    result: np.ndarray = np.where(x >= 0, 1.0, small) / (1.0 + small)
    return result


def elu(x: np.ndarray) -> np.ndarray:
    result: np.ndarray = np.maximum(x, 0) + np.expm1(np.minimum(x, 0))
    return result


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
# Of these an operation or two, which round once, make the value.
LINEAR_PIECES = (
    "hard_shrink", "hard_sigmoid", "hard_tanh", "leaky_relu", "linear", "relu", "relu6",
    "soft_shrink", "sparse_sigmoid",
)  # fmt: skip


class Arithmetic(Protocol):
    """The numbers that the formulas are computed in."""

    @property
    def dtype(self) -> type[np.floating]: ...

    def product(self, x: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
        """`x @ kernel + bias`, of `x` `(..., inputs)`."""

    def rounded(self, values: np.ndarray) -> np.ndarray:
        """What these numbers make of the exact result of one operation, `(..., n, columns)`."""

    def approximated(self, function: str, values: np.ndarray) -> np.ndarray:
        """What they make of the values of a function that is not one operation, as exp or tanh."""


class Float64:
    """As exact as NumPy has it."""

    dtype = np.float64

    def product(self, x: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
        result: np.ndarray = x @ kernel.astype(np.float64) + bias
        return result

    def rounded(self, values: np.ndarray) -> np.ndarray:
        return values

    def approximated(self, function: str, values: np.ndarray) -> np.ndarray:
        return values


FLOAT64 = Float64()
# What overflows becomes infinite or NaN, which the comparison looks for.
_silently = np.errstate(over="ignore", invalid="ignore")


def probabilities(network: Network, x: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
    """What the model says of raw `x` `(n, timesteps, features)`: float64 `(n, classes)`.

    y = softmax(h W_y + b_y), h the final states of the last layer. Where it answers at every step,
    the states after each, and `(n, timesteps, classes)`. Of a sequence only the first `lengths`
    steps exist, `(n,)`; all without it. What is said of the others is 0.
    """
    return _in_blocks(network, x, lengths, every=network.every_step)


def probabilities_by_step(network: Network, x: np.ndarray) -> np.ndarray:
    """What a model that reads forward says after each step of raw `x`, however it was trained.

    Of `(n, timesteps, features)` it gives float64 `(n, timesteps, classes)`.
    """
    return _in_blocks(network, x, None, every=True)


def _in_blocks(
    network: Network, x: np.ndarray, lengths: np.ndarray | None, *, every: bool
) -> np.ndarray:
    classes = network.spec.classes
    found = np.zeros((*x.shape[: 2 if every else 1], classes))
    for rows, steps in of_one_length(lengths, *x.shape[:2]):
        widest = max(network.spec.features, classes * every, *_widths(network.layers))
        examples = max(1, min(STEP_BYTES, BLOCK_BYTES // steps) // (8 * widest))
        for start in range(0, len(rows), examples):
            block = rows[start : start + examples]
            frames = normalized(network, x[block, :steps])
            answers = classified(network, network.layers, frames, every=every)
            if every:
                found[block, :steps] = answers
            else:
                found[block] = answers
    return found


def of_one_length(
    lengths: np.ndarray | None, examples: int, longest: int
) -> Iterator[tuple[np.ndarray, int]]:
    """The indices of the examples of each length, and that length; of all without `lengths`.

    They can be computed together: no example is part of what another is.
    """
    if lengths is None:
        yield np.arange(examples), longest
        return
    for steps in np.unique(lengths).tolist():
        yield np.flatnonzero(lengths == steps), steps


@_silently
def classified(
    network: Network,
    layers: Sequence[Layer],
    frames: np.ndarray,
    arithmetic: Arithmetic = FLOAT64,
    *,
    every: bool = False,
) -> np.ndarray:
    """The probabilities `(n, classes)` of `frames` `(n, timesteps, features)`, read by `layers`.

    With `every` those after each step, `(n, timesteps, classes)`.
    """
    *before, last = layers
    for layer in before:
        frames = np.concatenate(layer_states(layer, frames, arithmetic), axis=2)
    if every:
        state = np.concatenate(layer_states(last, frames, arithmetic), axis=2)
    else:
        state = final_states(last, frames, arithmetic)
    logits = arithmetic.product(state, network.dense_kernel, network.dense_bias)
    return softmax(logits, arithmetic)


def normalized(network: Network, x: np.ndarray, arithmetic: Arithmetic = FLOAT64) -> np.ndarray:
    """Raw `x` as the first layer reads it: x * scale + shift."""
    normalize = network.spec.normalization
    scale, shift = (np.array(each, arithmetic.dtype) for each in (normalize.scale, normalize.shift))
    scaled = arithmetic.rounded(x.astype(arithmetic.dtype) * scale)
    return arithmetic.rounded(scaled + shift) if shift.any() else scaled


@_silently
def final_states(layer: Layer, frames: np.ndarray, arithmetic: Arithmetic = FLOAT64) -> np.ndarray:
    """The states of each direction after its last step, side by side: `(n, width)`."""
    found = []
    for direction, order in zip(layer.directions, ORDERS, strict=False):
        ((final, *_),) = deque(read(direction, frames[:, ::order], arithmetic), maxlen=1)
        found.append(final)
    return np.concatenate(found, axis=1)


@_silently
def layer_states(
    layer: Layer, frames: np.ndarray, arithmetic: Arithmetic = FLOAT64
) -> list[np.ndarray]:
    """The state of each direction after each step, where the step is: `(n, timesteps, units)`.

    Of `frames` `(n, timesteps, inputs)`.
    """
    found = []
    for direction, order in zip(layer.directions, ORDERS, strict=False):
        states = np.empty((*frames.shape[:2], direction.units), arithmetic.dtype)
        in_order = states[:, ::order]
        for t, (state, *_) in enumerate(read(direction, frames[:, ::order], arithmetic)):
            in_order[:, t] = state
        found.append(states)
    return found


@_silently
def continued(
    network: Network,
    layers: Sequence[Layer],
    frames: np.ndarray,
    states: Sequence[State] | None = None,
    arithmetic: Arithmetic = FLOAT64,
) -> tuple[np.ndarray, list[State]]:
    """The probabilities after each of the next `frames`, and each layer's state after the last.

    `(n, timesteps, classes)` of `(n, timesteps, features)`, read forward by `layers`; `states` are
    those of each layer before them, without which a sequence begins.
    """
    after = []
    for i, layer in enumerate(layers):
        found = np.empty((*frames.shape[:2], layer.width), arithmetic.dtype)
        before = None if states is None else states[i]
        for t, state in enumerate(read(layer.forward, frames, arithmetic, before)):
            found[:, t] = state[0]
        after.append(state)
        frames = found
    logits = arithmetic.product(frames, network.dense_kernel, network.dense_bias)
    return softmax(logits, arithmetic), after


def read(
    weights: Recurrence,
    frames: np.ndarray,
    arithmetic: Arithmetic = FLOAT64,
    state: State | None = None,
) -> Iterator[State]:
    """The state after each step of `frames` `(n, timesteps, inputs)`, one by one.

    The first is read in `state`, without it in zeros. The caller silences what NumPy says of
    overflow: doing so for each step would take as long as a small step does.
    """
    state = zeros(weights, len(frames), arithmetic) if state is None else state
    for start in range(0, frames.shape[1], STEPS_AT_ONCE):
        by_time = frames[:, start : start + STEPS_AT_ONCE].swapaxes(0, 1)
        for row in _input(weights, np.ascontiguousarray(by_time), arithmetic):
            state = STEPS[weights.cell](weights, arithmetic, row, *state)
            yield state


def zeros(weights: Recurrence, examples: int, arithmetic: Arithmetic = FLOAT64) -> State:
    """The state before the first step."""
    zero = np.zeros((examples, weights.units), arithmetic.dtype)
    return (zero,) * len(CELLS[weights.cell].states)


@_silently
def step(
    weights: Recurrence, frame: np.ndarray, state: State, arithmetic: Arithmetic = FLOAT64
) -> State:
    """The state after reading `frame` `(n, inputs)` in `state`, `(n, units)` each."""
    row = _input(weights, frame, arithmetic)
    return STEPS[weights.cell](weights, arithmetic, row, *state)


def _widths(layers: Sequence[Layer]) -> list[int]:
    return [layer.width for layer in layers]


def softmax(logits: np.ndarray, arithmetic: Arithmetic = FLOAT64) -> np.ndarray:
    """Along the last axis."""
    powers = np.exp(arithmetic.rounded(logits - logits.max(axis=-1, keepdims=True)))
    powers = arithmetic.approximated("exponential", powers)
    return arithmetic.rounded(powers / powers.sum(axis=-1, keepdims=True))


# The cells: from x W + b_x, `(n, g*u)`, and the state before a step, the state after it.


def simple_rnn(weights: Recurrence, a: Arithmetic, xw: np.ndarray, h: np.ndarray) -> State:
    """h' = f(x W + h U + b), the network of Elman, 1990."""
    f = _function(weights.activation, a)
    return (f(a.rounded(xw + _state(weights, h, a))),)


def lstm(weights: Recurrence, a: Arithmetic, xw: np.ndarray, h: np.ndarray, c: np.ndarray) -> State:
    """Hochreiter and Schmidhuber, 1997, with the forget gate of Gers et al., 2000.

    i, f, o = s(x W + h U + b) and g = f(x W + h U + b), each with its own columns;
    c' = f * c + i * g; h' = o * f(c').
    """
    f, s = _function(weights.activation, a), _function(weights.recurrent_activation, a)
    i, forget, g, o = np.split(a.rounded(xw + _state(weights, h, a)), 4, axis=1)
    c = a.rounded(a.rounded(s(forget) * c) + a.rounded(s(i) * f(g)))
    return a.rounded(s(o) * f(c)), c


def gru(weights: Recurrence, a: Arithmetic, xw: np.ndarray, h: np.ndarray) -> State:
    """Cho et al., 2014, with the reset gate after the product, as in cuDNN and in Keras.

    z, r = s(x W + b_x + h U + b_h); g = f(x W + b_x + r * (h U + b_h)); h' = z * h + (1 - z) * g.
    """
    f, s = _function(weights.activation, a), _function(weights.recurrent_activation, a)
    u = weights.units
    hu = _state(weights, h, a)
    z, r = np.split(s(a.rounded(xw[:, : 2 * u] + hu[:, : 2 * u])), 2, axis=1)
    g = f(a.rounded(xw[:, 2 * u :] + a.rounded(r * hu[:, 2 * u :])))
    return (a.rounded(a.rounded(z * h) + a.rounded((1 - z) * g)),)


STEPS: dict[Cell, Callable[..., State]] = {"simple_rnn": simple_rnn, "lstm": lstm, "gru": gru}


def _function(name: str, arithmetic: Arithmetic) -> Activation:
    function = ACTIVATIONS[name]
    if name in LINEAR_PIECES:
        return function
    return lambda x: arithmetic.approximated(name, function(x))


def _input(weights: Recurrence, x: np.ndarray, arithmetic: Arithmetic) -> np.ndarray:
    """x W + b_x"""
    return arithmetic.product(x, weights.kernel, weights.input_bias)


def _state(weights: Recurrence, h: np.ndarray, arithmetic: Arithmetic) -> np.ndarray:
    """h U + b_h, whose bias is zero where a cell has one bias only"""
    return arithmetic.product(h, weights.recurrent_kernel, weights.state_bias)
