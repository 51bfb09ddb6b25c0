"""The inference twin of a trained model: float32, stateless, preprocessing inside.

A `Twin` is the trained classifier as plain arrays, read once from a Keras model of any training
precision. Every export is made from it, and so is the float64 oracle that they are held against.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rnn_tf.config import CELL_BY_LAYER, Cell
from rnn_tf.data.spec import SequenceSpec
from rnn_tf.errors import InputError

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

# What every export calls its input and output.
INPUT, OUTPUT = "sequence", "probabilities"

# Blocks of the kernels' columns: one for each gate, and one for the new content.
GATES: dict[Cell, int] = {"simple_rnn": 1, "lstm": 4, "gru": 3}

# Options of a recurrent layer that change its formula, and the only value that is exported.
OPTIONS = {
    "use_bias": True, "return_sequences": False, "return_state": False, "go_backwards": False,
    "stateful": False, "reset_after": True,
}  # fmt: skip

# Up to this many time steps a graph has them written out: converters and runtimes optimise
# straight lines. Beyond, the graph itself would be what is slow to convert and load.
MOST_UNROLLED = 64


@dataclass(frozen=True)
class Twin:
    """A trained classifier as float32 arrays, in the layout of Keras.

    With u units and g gates (simple_rnn 1; lstm 4: input, forget, content, output; gru 3: update,
    reset, content):
    """

    cell: Cell
    activation: str  # of the new content, a name of keras.activations
    recurrent_activation: str  # of the gates; for simple_rnn, which has none, "linear"
    kernel: np.ndarray  # (features, g*u), for scaled input
    recurrent_kernel: np.ndarray  # (u, g*u)
    bias: np.ndarray  # (g*u,); gru: (2, g*u), one beside the input and one beside the state
    dense_kernel: np.ndarray  # (u, classes)
    dense_bias: np.ndarray  # (classes,)
    spec: SequenceSpec

    @property
    def units(self) -> int:
        return int(self.recurrent_kernel.shape[0])

    @property
    def parameters(self) -> int:
        arrays = (
            self.kernel, self.recurrent_kernel, self.bias, self.dense_kernel, self.dense_bias
        )  # fmt: skip
        return sum(array.size for array in arrays)

    @functools.cached_property
    def raw_kernel(self) -> np.ndarray:
        """`kernel` for raw input: (x * scale) W = x (scale * W), one operation less."""
        return (self.kernel.astype(np.float64) * self.spec.scale).astype(np.float32)

    @property
    def input_bias(self) -> np.ndarray:
        """`(g*u,)`: what is added to the product of input and kernel."""
        row: np.ndarray = self.bias[0] if self.cell == "gru" else self.bias
        return row


def read_model(model: keras.Sequential, spec: SequenceSpec) -> Twin:
    """Read the twin of `Sequential([SimpleRNN | LSTM | GRU, Dense(softmax)])`.

    Raises `InputError` for any other layer or option, naming it, and for weights that do not fit
    `spec` or are not finite.
    """
    layers = [layer for layer in model.layers if type(layer).__name__ != "InputLayer"]
    names = [type(layer).__name__ for layer in layers]
    known = f"one of {', '.join(CELL_BY_LAYER)}, then Dense"
    if len(names) != 2 or names[0] not in CELL_BY_LAYER or names[1] != "Dense":
        unsupported = [name for name in names if name not in (*CELL_BY_LAYER, "Dense")]
        what = f"unsupported layer: {unsupported[0]}" if unsupported else "unsupported layers"
        raise InputError(f"cannot export the model: {what}", expected=known, got=", ".join(names))
    recurrent, dense = layers[0].get_config(), layers[1].get_config()
    for option, value in OPTIONS.items():
        if recurrent.get(option, value) != value:
            raise _unsupported(f"{names[0]}({option})", value, recurrent[option])
    if dense["activation"] != "softmax" or not dense["use_bias"]:
        raise _unsupported(
            "Dense(activation, use_bias)", "softmax, True",
            f"{dense['activation']}, {dense['use_bias']}",
        )  # fmt: skip
    kernel, recurrent_kernel, bias, dense_kernel, dense_bias = (
        np.asarray(weight, np.float32) for weight in model.get_weights()
    )
    twin = Twin(
        cell=CELL_BY_LAYER[names[0]],
        activation=recurrent["activation"],
        recurrent_activation=recurrent.get("recurrent_activation", "linear"),
        kernel=kernel,
        recurrent_kernel=recurrent_kernel,
        bias=bias,
        dense_kernel=dense_kernel,
        dense_bias=dense_bias,
        spec=spec,
    )
    _check(twin)
    return twin


def _unsupported(what: str, expected: object, got: object) -> InputError:
    return InputError(f"cannot export the model: {what}", expected=str(expected), got=got)


def _check(twin: Twin) -> None:
    from export.oracle import ACTIVATIONS

    for name in (twin.activation, twin.recurrent_activation):
        if not isinstance(name, str) or name not in ACTIVATIONS:
            raise InputError(
                "cannot export the model: unsupported activation",
                expected=f"one of {', '.join(sorted(ACTIVATIONS))}",
                got=repr(name),
            )
    shape = (twin.kernel.shape[0], twin.dense_kernel.shape[1])
    if shape != (twin.spec.features, twin.spec.classes):
        raise InputError(
            "the model does not fit the specification",
            expected=f"{twin.spec.features} features and {twin.spec.classes} classes",
            got=f"{shape[0]} and {shape[1]}",
        )
    for name in ("kernel", "recurrent_kernel", "bias", "dense_kernel", "dense_bias"):
        if not np.isfinite(getattr(twin, name)).all():
            raise InputError(
                "cannot export the model: weights that are not finite",
                got=f"NaN or infinity in {name}",
                fix="Train it again, with a smaller learning rate.",
            )


def inference_function(twin: Twin, *, unroll: bool | None = None) -> Any:
    """The twin as a `tf.function`, weights as constants, for SavedModel and the converters.

    It maps raw float32 `sequence` `(batch, timesteps, features)`, any batch, to a dictionary with
    float32 `probabilities` `(batch, classes)`. `unroll` writes the time steps out, by default as
    many as are worth it.
    """
    import tensorflow as tf

    spec = twin.spec
    read = _unrolled if (spec.timesteps <= MOST_UNROLLED if unroll is None else unroll) else _looped

    @tf.function(  # type: ignore[untyped-decorator]
        input_signature=[tf.TensorSpec((None, spec.timesteps, spec.features), tf.float32, INPUT)],
        autograph=False,
    )
    def function(sequence: tf.Tensor) -> dict[str, tf.Tensor]:
        # Here, so that weights are constants of the graph; outside they would be further inputs.
        kernel, bias = tf.constant(twin.raw_kernel), tf.constant(twin.input_bias)
        dense_kernel, dense_bias = tf.constant(twin.dense_kernel), tf.constant(twin.dense_bias)
        step = _STEPS[twin.cell](twin)
        # One product for all time steps: only what needs the state has to wait for it.
        rows = tf.reshape(sequence, (-1, spec.features)) @ kernel + bias
        inputs = tf.reshape(rows, (-1, spec.timesteps, rows.shape[1]))
        state = read(step, inputs, spec.timesteps)
        return {OUTPUT: tf.nn.softmax(state[0] @ dense_kernel + dense_bias, name=OUTPUT)}

    return function


State = tuple["tf.Tensor", ...]
# (input of the step (batch, g*u), state, None for zeros) -> next state, (batch, u) each
Step = Callable[["tf.Tensor", State | None], State]


def _unrolled(step: Step, inputs: tf.Tensor, timesteps: int) -> State:
    """The state after all of `inputs` `(batch, timesteps, g*u)`, each step written out."""
    import tensorflow as tf

    # Unstacked at once: a slice for every step would triple the time in TFLite.
    first, *others = tf.unstack(inputs, num=timesteps, axis=1)
    state = step(first, None)
    for x in others:
        state = step(x, state)
    return state


def _looped(step: Step, inputs: tf.Tensor, timesteps: int) -> State:
    """The same as a loop that needs no list of tensors, which TFLite does not have."""
    import tensorflow as tf

    by_time = tf.transpose(inputs, (1, 0, 2))
    state: State
    _, state = tf.while_loop(
        lambda t, state: t < timesteps,
        lambda t, state: (t + 1, step(tf.gather(by_time, t), state)),
        (tf.constant(1), step(by_time[0], None)),
    )
    return state


def _activation(name: str) -> Callable[[tf.Tensor], tf.Tensor]:
    """An activation of Keras, where needed in a form that TFLite computes well.

    Its converter makes log(1 + e^x) of softplus, which is infinite from 89 on; of squareplus
    nothing would be left below zero by cancellation.
    """
    import keras
    import tensorflow as tf

    def softplus(x: tf.Tensor) -> tf.Tensor:
        return tf.nn.relu(x) + tf.math.log(1.0 + tf.exp(-tf.abs(x)))

    def squareplus(x: tf.Tensor) -> tf.Tensor:
        total = tf.abs(x) + tf.sqrt(x * x + 4.0)
        return tf.where(x > 0, total / 2.0, 2.0 / total)

    def mish(x: tf.Tensor) -> tf.Tensor:
        # x tanh(softplus(x)) in powers of e^-|x|, so that the error of no tanh is multiplied by x.
        power = tf.exp(-tf.abs(x))
        n = tf.where(x > 0, 1.0 + 2.0 * power, power * (power + 2.0))
        return x * n / tf.where(x > 0, n + 2.0 * power * power, n + 2.0)

    stable = {
        "softplus": softplus,
        "log_sigmoid": lambda x: -softplus(-x),
        "mish": mish,
        "squareplus": squareplus,
    }
    function: Callable[[tf.Tensor], tf.Tensor] = stable.get(name) or keras.activations.get(name)
    return function


def _simple_rnn(twin: Twin) -> Step:
    import tensorflow as tf

    f = _activation(twin.activation)
    u = tf.constant(twin.recurrent_kernel)

    def step(x: tf.Tensor, state: State | None) -> State:
        return (f(x if state is None else x + state[0] @ u),)

    return step


def _lstm(twin: Twin) -> Step:
    import tensorflow as tf

    f, s = _activation(twin.activation), _activation(twin.recurrent_activation)
    u = tf.constant(twin.recurrent_kernel)

    def step(x: tf.Tensor, state: State | None) -> State:
        i, forget, g, o = tf.split(x if state is None else x + state[0] @ u, 4, axis=1)
        c = s(i) * f(g) if state is None else s(forget) * state[1] + s(i) * f(g)
        return s(o) * f(c), c

    return step


def _gru(twin: Twin) -> Step:
    import tensorflow as tf

    f, s = _activation(twin.activation), _activation(twin.recurrent_activation)
    u, bias = tf.constant(twin.recurrent_kernel), tf.constant(twin.bias[1])
    gates = 2 * twin.units

    def step(x: tf.Tensor, state: State | None) -> State:
        h = bias if state is None else state[0] @ u + bias
        z, r = tf.split(s(x[:, :gates] + h[..., :gates]), 2, axis=1)
        g = f(x[:, gates:] + r * h[..., gates:])
        return ((1 - z) * g if state is None else z * state[0] + (1 - z) * g,)

    return step


_STEPS: dict[Cell, Callable[[Twin], Step]] = {
    "simple_rnn": _simple_rnn, "lstm": _lstm, "gru": _gru,
}  # fmt: skip
