"""Recurrent layers whose gradients XLA can compile whole, loop over time and all.

In a loop that is one function (see `xla_flags`), XLA writes out a product of matrices well only
where the rows of the one meet the columns of the other. TensorFlow's gradients of a product leave
a factor as it lies in memory and have it read the other way round, thirteen times as slowly. Here a
factor is turned first.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

# The slope of an activation where it has a value, from the value.
SLOPES: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "elu": lambda value: tf.minimum(value, 0) + 1,
    "relu": tf.sign,
    "sigmoid": lambda value: value * (1 - value),
    "tanh": lambda value: 1 - value * value,
}
MATMUL_GRADIENT = "RnnTfMatMul"
# What a layer may be asked to do that `simple_rnn` does not.
MORE_THAN_LAST_STATE = ("return_sequences", "return_state", "go_backwards", "stateful")


def loop_over_time(layer: keras.layers.RNN) -> None:
    """Make `layer`, not unrolled, compute the same with gradients that compile well.

    Its variables stay its own. A float32 SimpleRNN without dropout that gives its last state gets
    gradients written out, any other layer those of TensorFlow with the factors turned. The former
    then raises `ValueError` when it is called with a mask or an initial state.
    """
    cell = layer.cell
    activation = getattr(cell.activation, "__name__", "")
    dropout = cell.dropout or cell.recurrent_dropout
    simple = isinstance(layer, keras.layers.SimpleRNN) and layer.compute_dtype == "float32"
    simple = simple and cell.use_bias
    simple = simple and not any(getattr(layer, name) for name in MORE_THAN_LAST_STATE)
    if simple and activation in SLOPES and not dropout:
        # A graph of its own: there the gradients that `simple_rnn` names are looked up.
        traced = tf.function(functools.partial(simple_rnn, activation=activation), autograph=False)

        def call(
            sequence: tf.Tensor, initial_state: Any = None, mask: Any = None, training: bool = False
        ) -> tf.Tensor:
            for name, given in (("initial_state", initial_state), ("mask", mask)):
                if given is not None:
                    raise ValueError(f"a layer made to loop over time takes no {name}")
            variables = (cell.kernel, cell.recurrent_kernel, cell.bias)
            return traced(sequence, *map(tf.convert_to_tensor, variables))

        layer.call = call
    else:
        cell.call = _turning_factors(cell.call)


def simple_rnn(
    sequence: tf.Tensor,
    kernel: tf.Tensor,
    recurrent_kernel: tf.Tensor,
    bias: tf.Tensor,
    activation: str,
) -> tf.Tensor:
    """The last state of `h = activation(x @ kernel + h @ recurrent_kernel + bias)`, h first zero.

    Inside a `tf.function`. All float32: `sequence` `(examples, timesteps, features)`, `kernel`
    `(features, units)`, `recurrent_kernel` `(units, units)`, `bias` `(units,)`; the state is
    `(examples, units)`. `activation` is a key of `SLOPES`. With gradients for the weights, by
    back-propagation through time (Werbos 1990, "Backpropagation through time: what it does and how
    to do it"), and none for the sequence.
    """
    timesteps, units = sequence.shape[1], recurrent_kernel.shape[0]
    activate = keras.activations.get(activation)
    # Time first: a time step is one piece of memory.
    inputs = tf.transpose(sequence, (1, 0, 2))
    nothing = tf.zeros((tf.shape(sequence)[0], units))

    def forward(t: tf.Tensor, state: tf.Tensor, states: tf.TensorArray) -> tuple[Any, ...]:
        state = activate(inputs[t] @ kernel + state @ recurrent_kernel + bias)
        return t + 1, state, states.write(t + 1, state)

    shape = (sequence.shape[0], units)
    kept = tf.TensorArray(tf.float32, timesteps + 1, element_shape=shape).write(0, nothing)
    _, state, kept = tf.while_loop(lambda t, *_: t < timesteps, forward, (0, nothing, kept))
    # What the gradients need passes through an operation of which they are the registered
    # gradients. `tf.custom_gradient` would register them anew, and keep the graph for ever.
    with state.graph.gradient_override_map({"IdentityN": _gradient_name(activation)}):
        state, *_ = tf.identity_n([state, kernel, recurrent_kernel, bias, inputs, kept.stack()])
    return state


def _gradient_name(activation: str) -> str:
    return f"RnnTfSimpleRnn_{activation}"


def _simple_rnn_gradient(
    slope: Callable[[tf.Tensor], tf.Tensor], operation: tf.Operation, of_state: tf.Tensor
) -> list[tf.Tensor | None]:
    """The gradients of what `simple_rnn` passes on, from that of the state `(examples, units)`."""
    _, kernel, recurrent_kernel, _, inputs, states = operation.inputs
    turned_kernel = tf.transpose(recurrent_kernel)

    def backward(t: tf.Tensor, of_state: tf.Tensor, *of_weights: tf.Tensor) -> Any:
        of_sum = of_state * slope(states[t + 1])
        factors = (inputs[t], states[t])
        products = [tf.transpose(factor) @ of_sum for factor in factors]
        # Summed up, the gradients of the sums are that of the bias, example by example.
        more = (*products, of_sum)
        new = [old + add for old, add in zip(of_weights, more, strict=True)]
        return (t - 1, of_sum @ turned_kernel, *new)

    zeros = map(tf.zeros_like, (kernel, recurrent_kernel, of_state))
    first = (inputs.shape[0] - 1, of_state, *zeros)
    *_, of_kernel, of_recurrent, of_bias = tf.while_loop(lambda t, *_: t >= 0, backward, first)
    return [None, of_kernel, of_recurrent, tf.reduce_sum(of_bias, 0), None, None]


def _matmul_gradient(operation: tf.Operation, of_product: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    left, right = operation.inputs
    # No cell of Keras has one; with one, the lines below would be wrong without a word.
    if operation.get_attr("transpose_a") or operation.get_attr("transpose_b"):
        raise NotImplementedError("the gradient of a product of transposed matrices")
    return of_product @ tf.transpose(right), tf.transpose(left) @ of_product


def _register(name: str, gradient: Callable[..., Any]) -> None:
    """Register a gradient once: TensorFlow refuses another, as when a notebook reloads a module."""
    with contextlib.suppress(KeyError):
        tf.RegisterGradient(name)(gradient)


# Functions and slopes are looked up when they are called: they are those of the reloaded module.
_register(MATMUL_GRADIENT, lambda *given: _matmul_gradient(*given))
for _activation in SLOPES:
    _register(
        _gradient_name(_activation),
        lambda operation, of_state, *_, name=_activation: _simple_rnn_gradient(
            SLOPES[name], operation, of_state
        ),
    )


def _turning_factors(call: Callable[..., Any]) -> Callable[..., Any]:
    def turning(inputs: tf.Tensor, *args: Any, **kwargs: Any) -> Any:
        if tf.executing_eagerly():
            return call(inputs, *args, **kwargs)
        with inputs.graph.gradient_override_map({"MatMul": MATMUL_GRADIENT}):
            return call(inputs, *args, **kwargs)

    return turning
