"""The classifier written from its formulas, in float64 NumPy: what every format is held against.

Nothing here is shared with an exporter, a converter or a runtime, so that an agreement means
something.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator

import numpy as np

from export.network import Twin

Activation = Callable[[np.ndarray], np.ndarray]

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


def probabilities(twin: Twin, x: np.ndarray) -> np.ndarray:
    """What the model says of raw `x` `(n, timesteps, features)`: float64 `(n, classes)`.

    y = softmax(h_T W_y + b_y), with h_t as in `simple_rnn`, `lstm` and `gru` below, h_0 = 0.
    """
    last = deque(states(twin, x), maxlen=1).pop()
    with _no_warnings():
        return softmax(last @ twin.dense_kernel.astype(np.float64) + twin.dense_bias)


def states(twin: Twin, x: np.ndarray) -> Iterator[np.ndarray]:
    """The hidden state after each step of raw `x`: float64 `(n, units)`, `timesteps` times."""
    cells: dict[str, Callable[..., list[np.ndarray]]] = {
        "simple_rnn": simple_rnn, "lstm": lstm, "gru": gru,
    }  # fmt: skip
    step, normalize = cells[twin.cell], twin.spec.normalization
    state = [np.zeros((len(x), twin.units))] * (2 if twin.cell == "lstm" else 1)
    scale, shift = np.array(normalize.scale), np.array(normalize.shift)
    for t in range(x.shape[1]):
        with _no_warnings():
            state = step(twin, x[:, t].astype(np.float64) * scale + shift, *state)
        yield state[0]


def _no_warnings() -> np.errstate:
    """What overflows becomes infinite or NaN, which the comparison looks for."""
    return np.errstate(over="ignore", invalid="ignore")


def softmax(logits: np.ndarray) -> np.ndarray:
    """Along the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares: np.ndarray = powers / powers.sum(axis=-1, keepdims=True)
    return shares


def simple_rnn(twin: Twin, x: np.ndarray, h: np.ndarray) -> list[np.ndarray]:
    """H' = f(x W + h U + b), the network of Elman, 1990."""
    f = ACTIVATIONS[twin.activation]
    return [f(x @ _w(twin) + h @ _u(twin) + twin.bias)]


def lstm(twin: Twin, x: np.ndarray, h: np.ndarray, c: np.ndarray) -> list[np.ndarray]:
    """Hochreiter and Schmidhuber, 1997, with the forget gate of Gers et al., 2000.

    i, f, o = s(x W + h U + b) and g = f(x W + h U + b), each with its own columns;
    c' = f * c + i * g; h' = o * f(c').
    """
    f, s = ACTIVATIONS[twin.activation], ACTIVATIONS[twin.recurrent_activation]
    i, forget, g, o = np.split(x @ _w(twin) + h @ _u(twin) + twin.bias, 4, axis=1)
    c = s(forget) * c + s(i) * f(g)
    return [s(o) * f(c), c]


def gru(twin: Twin, x: np.ndarray, h: np.ndarray) -> list[np.ndarray]:
    """Cho et al., 2014, with the reset gate after the product, as in cuDNN and in Keras.

    z, r = s(x W + b_x + h U + b_h); g = f(x W + b_x + r * (h U + b_h)); h' = z * h + (1 - z) * g.
    """
    f, s = ACTIVATIONS[twin.activation], ACTIVATIONS[twin.recurrent_activation]
    xz, xr, xg = np.split(x @ _w(twin) + twin.bias[0], 3, axis=1)
    hz, hr, hg = np.split(h @ _u(twin) + twin.bias[1], 3, axis=1)
    z, r = s(xz + hz), s(xr + hr)
    return [z * h + (1 - z) * f(xg + r * hg)]


def _w(twin: Twin) -> np.ndarray:
    return twin.kernel.astype(np.float64)


def _u(twin: Twin) -> np.ndarray:
    return twin.recurrent_kernel.astype(np.float64)
