"""The network as a `tf.function`: what SavedModel, TFLite and tf2onnx are made from."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from export.network import INPUT, OUTPUT, Twin
from rnn_tf.config import Cell

if TYPE_CHECKING:
    import tensorflow as tf

# Up to this many time steps a graph has them written out: converters and runtimes optimise
# straight lines. Beyond, the graph itself would be what is slow to convert and load.
MOST_UNROLLED = 64


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
