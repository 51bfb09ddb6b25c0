"""Recurrent layers whose gradients XLA can compile whole, loop over time and all.

In a loop that is one function (see `xla_flags`), XLA writes out a product of matrices well only
where the rows of the one meet the columns of the other. TensorFlow's gradients of a product leave
a factor as it lies in memory and have it read the other way round, thirteen times as slowly. Here a
factor is turned first.
"""

from __future__ import annotations

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


def loop_over_time(layer: keras.layers.RNN) -> None:
    """Make `layer`, not unrolled, compute the same with gradients that compile well.

    Its variables stay its own. A float32 SimpleRNN without dropout gets gradients written out,
    any other cell those of TensorFlow with the factors turned.
    """
    cell = layer.cell
    slope = SLOPES.get(getattr(cell.activation, "__name__", ""))
    dropout = cell.dropout or cell.recurrent_dropout
    simple = isinstance(layer, keras.layers.SimpleRNN) and layer.compute_dtype == "float32"
    if simple and slope is not None and not dropout:

        def call(sequence: tf.Tensor, *_: Any, **__: Any) -> tf.Tensor:
            variables = (cell.kernel, cell.recurrent_kernel, cell.bias)
            kernel, recurrent_kernel, bias = map(tf.convert_to_tensor, variables)
            return simple_rnn(sequence, kernel, recurrent_kernel, bias, cell.activation, slope)

        layer.call = call
    else:
        cell.call = _turning_factors(cell.call)


def simple_rnn(
    sequence: tf.Tensor,
    kernel: tf.Tensor,
    recurrent_kernel: tf.Tensor,
    bias: tf.Tensor,
    activation: Callable[[tf.Tensor], tf.Tensor],
    slope: Callable[[tf.Tensor], tf.Tensor],
) -> tf.Tensor:
    """The last state of `h = activation(x @ kernel + h @ recurrent_kernel + bias)`, h first zero.

    All float32: `sequence` `(examples, timesteps, features)`, `kernel` `(features, units)`,
    `recurrent_kernel` `(units, units)`, `bias` `(units,)`; the state is `(examples, units)`. With
    gradients for the weights, by back-propagation through time (Werbos 1990, "Backpropagation
    through time: what it does and how to do it"), and none for the sequence.
    """
    timesteps, units = sequence.shape[1], recurrent_kernel.shape[0]
    # Time first: a time step is one piece of memory.
    inputs = tf.transpose(sequence, (1, 0, 2))
    nothing = tf.zeros((tf.shape(sequence)[0], units))

    def last_state(
        kernel: tf.Tensor, recurrent_kernel: tf.Tensor, bias: tf.Tensor
    ) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, ...]]]:
        def forward(t: tf.Tensor, state: tf.Tensor, states: tf.TensorArray) -> tuple[Any, ...]:
            state = activation(inputs[t] @ kernel + state @ recurrent_kernel + bias)
            return t + 1, state, states.write(t + 1, state)

        shape = (sequence.shape[0], units)
        kept = tf.TensorArray(tf.float32, timesteps + 1, element_shape=shape).write(0, nothing)
        _, state, kept = tf.while_loop(lambda t, *_: t < timesteps, forward, (0, nothing, kept))
        states = kept.stack()

        def gradients(of_state: tf.Tensor) -> tuple[tf.Tensor, ...]:
            turned_kernel = tf.transpose(recurrent_kernel)

            def backward(t: tf.Tensor, of_state: tf.Tensor, *of_weights: tf.Tensor) -> Any:
                of_sum = of_state * slope(states[t + 1])
                factors = (inputs[t], states[t])
                products = [tf.transpose(factor) @ of_sum for factor in factors]
                # Summed up, the gradients of the sums are that of the bias, example by example.
                more = (*products, of_sum)
                new = [old + add for old, add in zip(of_weights, more, strict=True)]
                return (t - 1, of_sum @ turned_kernel, *new)

            zeros = (tf.zeros_like(kernel), tf.zeros_like(recurrent_kernel), nothing)
            first = (timesteps - 1, of_state, *zeros)
            *_, of_kernel, of_recurrent, of_bias = tf.while_loop(
                lambda t, *_: t >= 0, backward, first
            )
            return of_kernel, of_recurrent, tf.reduce_sum(of_bias, 0)

        return state, gradients

    result: tf.Tensor = tf.custom_gradient(last_state)(kernel, recurrent_kernel, bias)
    return result


def _matmul_gradient(operation: tf.Operation, of_product: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    left, right = operation.inputs
    # No cell of Keras has one; with one, the lines below would be wrong without a word.
    if operation.get_attr("transpose_a") or operation.get_attr("transpose_b"):
        raise NotImplementedError("the gradient of a product of transposed matrices")
    return of_product @ tf.transpose(right), tf.transpose(left) @ of_product


tf.RegisterGradient(MATMUL_GRADIENT)(_matmul_gradient)


def _turning_factors(call: Callable[..., Any]) -> Callable[..., Any]:
    def turning(inputs: tf.Tensor, *args: Any, **kwargs: Any) -> Any:
        if tf.executing_eagerly():
            return call(inputs, *args, **kwargs)
        with inputs.graph.gradient_override_map({"MatMul": MATMUL_GRADIENT}):
            return call(inputs, *args, **kwargs)

    return turning
