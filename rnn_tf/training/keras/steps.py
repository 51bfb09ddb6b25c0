"""The steps of the cells, with the products of all time steps at once, and their gradients.

In a step of a large layer, most of the time goes into products of matrices. Only that of the
state must wait for the step before. Here the loop over time is left with it alone: the inputs of
all steps meet their kernel in one product before the loop, and the gradients of the weights are one
product each after the loop back (Appleyard, Kocisky and Blunsom 2016, "Optimizing performance of
recurrent neural networks on GPUs"). What the way back needs of a step, its slopes, is computed for
all steps at once too: what is left for each is a few multiplications, and the product.

XLA runs the operations of a loop one after the other where a step has no more than eight, and hands
each to a pool of threads where it has more, which takes longer than most of them do. So the gates
of a step are one array, `(examples, gates, units)`, and a sigmoid is taken from a tanh, as
0.5 + 0.5 tanh(x / 2), which makes them all one function.
"""

from __future__ import annotations

import abc
from collections.abc import Callable

import keras
import tensorflow as tf

from rnn_tf.model.cells import BY_KERAS_LAYER, Cell

Tensors = list[tf.Tensor]
# The slope of an activation where it has a value, from the value.
SLOPES: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "elu": lambda value: tf.minimum(value, 0) + 1,
    "relu": tf.sign,
    "sigmoid": lambda value: value * (1 - value),
    "tanh": lambda value: 1 - value * value,
}


class Steps(abc.ABC):
    """The steps of a cell over a batch of sequences; made once for each of its passes.

    What a frame and what the state before give the gates are both `(examples, gates, units)`; the
    gradients of the two are the same in all cells but a GRU. Arrays of all steps have a leading
    axis of time.
    """

    # Which of the gates are sigmoids: they are given half of what they are to be taken of.
    sigmoids: tuple[bool, ...]

    def __init__(self, cell: keras.Layer, weights: Tensors) -> None:
        self.kernel, self.recurrent_kernel, self.bias = weights
        self.activation = cell.activation
        self.units = cell.units
        self.gates = len(self.sigmoids)
        self.scale = tf.constant([0.5 if sigmoid else 1.0 for sigmoid in self.sigmoids])[:, None]
        columns = tf.repeat(self.scale[:, 0], self.units)
        self._kernels = [kernel * columns for kernel in (self.kernel, self.recurrent_kernel)]
        self._turned = tf.transpose(self.recurrent_kernel)

    def inputs(self, frames: tf.Tensor) -> tf.Tensor:
        """What `frames`, `(timesteps, examples, features)`, give the gates."""
        timesteps, _, features = frames.shape
        flat = tf.reshape(frames, (-1, features)) @ self._kernels[0]
        given = tf.reshape(flat, (timesteps, -1, self.gates, self.units))
        return given + self.scale * self.input_bias()

    def of_state(self, state: tf.Tensor) -> tf.Tensor:
        """What a state gives the gates."""
        return tf.reshape(state @ self._kernels[1], (-1, self.gates, self.units))

    def to_state(self, of_product: tf.Tensor) -> tf.Tensor:
        """The gradient of a state, from that of what it gives the gates."""
        return tf.reshape(of_product, (-1, self.gates * self.units)) @ self._turned

    def of_weights(
        self, frames: tf.Tensor, befores: tf.Tensor, of_inputs: tf.Tensor, of_products: tf.Tensor
    ) -> Tensors:
        """The gradients of the weights, from those of all steps."""
        flat = [
            tf.reshape(each, (-1, self.gates * self.units)) for each in (of_inputs, of_products)
        ]
        of_kernels = [
            tf.transpose(tf.reshape(factor, (-1, factor.shape[-1]))) @ of_sums
            for factor, of_sums in zip((frames, befores), flat, strict=True)
        ]
        return [*of_kernels, self.of_bias(*(tf.reduce_sum(each, 0) for each in flat))]

    def of_frames(self, of_inputs: tf.Tensor) -> tf.Tensor:
        """The gradient of all frames, from that of what they give the gates."""
        timesteps = of_inputs.shape[0]
        flat = tf.reshape(of_inputs, (-1, self.gates * self.units)) @ tf.transpose(self.kernel)
        return tf.reshape(flat, (timesteps, -1, self.kernel.shape[0]))

    def input_bias(self) -> tf.Tensor:
        """What is added to the inputs of the gates, `(gates, units)`."""
        return tf.reshape(self.bias, (self.gates, self.units))

    def of_bias(self, of_inputs: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
        """The gradient of the bias, from the sums of those of inputs and products."""
        return of_inputs

    @abc.abstractmethod
    def forward(
        self, inputs: tf.Tensor, product: tf.Tensor, states: Tensors
    ) -> tuple[Tensors, Tensors]:
        """The states after a step, and what is kept of it beside the last of them."""

    @abc.abstractmethod
    def read(self, inputs: tf.Tensor, states: tf.Tensor, kept: Tensors) -> tf.Tensor:
        """Take the last states after all steps, and what else was kept, for the way back.

        Gives the first states after all steps, which are what the layer answers.
        """

    @abc.abstractmethod
    def back(self, t: tf.Tensor, of_after: Tensors) -> tuple[tf.Tensor, Tensors, tf.Tensor]:
        """The gradients before step `t`, from those of the states after it.

        First that of what the state before gave the gates; then those of the states before, but
        for what comes to the first by that; then what is kept of them.
        """

    def gradients(self, kept: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Those of what all frames gave the gates, and of what all states gave them."""
        return kept, kept

    def kept(self) -> list[tuple[int, ...]]:
        """The shapes of what is kept of an example in a step forward, beside its last state."""
        return []

    def kept_back(self) -> tuple[int, ...]:
        """The shape of what is kept of an example in a step back."""
        return (self.gates, self.units)


def sigmoid(tanh_of_half: tf.Tensor) -> tf.Tensor:
    """The sigmoid of a number, from the tanh of its half."""
    return 0.5 * tanh_of_half + 0.5


def before(states: tf.Tensor) -> tf.Tensor:
    """What each step begins with, from what each ends with: the one before, at first zeros."""
    return tf.concat([tf.zeros_like(states[:1]), states[:-1]], 0)


class SimpleSteps(Steps):
    """`h' = activation(x W + h U + b)`, of any activation that has a slope in the table."""

    sigmoids = (False,)

    def forward(
        self, inputs: tf.Tensor, product: tf.Tensor, states: Tensors
    ) -> tuple[Tensors, Tensors]:
        return [self.activation(inputs + product)[:, 0]], []

    def read(self, inputs: tf.Tensor, states: tf.Tensor, kept: Tensors) -> tf.Tensor:
        self._slope = SLOPES[self.activation.__name__](states)
        return states

    def back(self, t: tf.Tensor, of_after: Tensors) -> tuple[tf.Tensor, Tensors, tf.Tensor]:
        of_gates = (of_after[0] * self._slope[t])[:, None]
        return of_gates, [tf.zeros_like(of_after[0])], of_gates


class LstmSteps(Steps):
    """The LSTM of Keras with tanh: `c' = f c + i g`, `h' = o tanh(c')`.

    Its gates are input, forget, content g and output.
    """

    sigmoids = (True, True, False, True)

    def forward(
        self, inputs: tf.Tensor, product: tf.Tensor, states: Tensors
    ) -> tuple[Tensors, Tensors]:
        tanhs = tf.tanh(inputs + product)
        i, f, g, o = self._gates(tanhs, axis=1)
        c = f * states[1] + i * g
        return [o * tf.tanh(c), c], [tanhs]

    def read(self, inputs: tf.Tensor, states: tf.Tensor, kept: Tensors) -> tf.Tensor:
        i, f, g, o = self._gates(kept[0], axis=2)
        squashed = tf.tanh(states)
        slopes = [g * i * (1 - i), before(states) * f * (1 - f), i * (1 - g * g),
                  squashed * o * (1 - o)]  # fmt: skip
        self._gate_slopes = tf.stack(slopes, 2)
        self._forget, self._output_slope = f, o * (1 - squashed * squashed)
        return o * squashed

    def back(self, t: tf.Tensor, of_after: Tensors) -> tuple[tf.Tensor, Tensors, tf.Tensor]:
        of_h, of_c = of_after
        of_c += of_h * self._output_slope[t]
        is_output = tf.range(self.gates)[:, None] == 3
        of_gates = tf.where(is_output, of_h[:, None], of_c[:, None]) * self._gate_slopes[t]
        return of_gates, [tf.zeros_like(of_h), of_c * self._forget[t]], of_gates

    def kept(self) -> list[tuple[int, ...]]:
        return [(self.gates, self.units)]

    def _gates(self, tanhs: tf.Tensor, axis: int) -> Tensors:
        i, f, g, o = tf.unstack(tanhs, axis=axis)
        return [sigmoid(i), sigmoid(f), g, sigmoid(o)]


class GruSteps(Steps):
    """The GRU of Keras with `reset_after`: `h' = z h + (1 - z) tanh(x + r (h U + b))`.

    Its gates are update z, reset r and content; the last has a bias of its own for the state.
    """

    sigmoids = (True, True, False)

    def input_bias(self) -> tf.Tensor:
        of_input, of_state = tf.unstack(tf.reshape(self.bias, (2, self.gates, self.units)))
        return of_input + tf.concat([of_state[:2], tf.zeros_like(of_state[2:])], 0)

    def of_bias(self, of_inputs: tf.Tensor, of_products: tf.Tensor) -> tf.Tensor:
        return tf.stack([of_inputs, of_products])

    def forward(
        self, inputs: tf.Tensor, product: tf.Tensor, states: Tensors
    ) -> tuple[Tensors, Tensors]:
        tanhs = tf.tanh(inputs[:, :2] + product[:, :2])
        z, r = (sigmoid(each) for each in tf.unstack(tanhs, axis=1))
        of_state = product[:, 2] + self.bias[1, 2 * self.units :]
        content = tf.tanh(inputs[:, 2] + r * of_state)
        return [z * states[0] + (1 - z) * content], [tanhs, of_state]

    def read(self, inputs: tf.Tensor, states: tf.Tensor, kept: Tensors) -> tf.Tensor:
        tanhs, of_state = kept
        z, r = (sigmoid(each) for each in tf.unstack(tanhs, axis=2))
        content = tf.tanh(inputs[:, :, 2] + r * of_state)
        slope = (1 - z) * (1 - content * content)
        slopes = [
            (before(states) - content) * z * (1 - z),
            slope * of_state * r * (1 - r),
            slope * r,
        ]
        self._gate_slopes, self._content_slope = tf.stack(slopes, 2), slope
        self._update = z
        return states

    def back(self, t: tf.Tensor, of_after: Tensors) -> tuple[tf.Tensor, Tensors, tf.Tensor]:
        of_h = of_after[0]
        return of_h[:, None] * self._gate_slopes[t], [of_h * self._update[t]], of_h

    def gradients(self, kept: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        of_products = kept[:, :, None] * self._gate_slopes
        of_content = (kept * self._content_slope)[:, :, None]
        return tf.concat([of_products[:, :, :2], of_content], 2), of_products

    def kept(self) -> list[tuple[int, ...]]:
        return [(2, self.units), (self.units,)]

    def kept_back(self) -> tuple[int, ...]:
        return (self.units,)


STEPS: dict[Cell, type[Steps]] = {
    "simple_rnn": SimpleSteps,
    "lstm": LstmSteps,
    "gru": GruSteps,
}


def steps_of(layer: keras.layers.RNN) -> type[Steps] | None:
    """The steps of `layer`, if they are those of a cell here: of the usual activations, in float32.

    A mask of the state, or one of the input for each gate, would be one product a gate.
    """
    cell = layer.cell
    written = STEPS[BY_KERAS_LAYER[type(layer).__name__].name]
    activations = [getattr(cell, name, None) for name in ("activation", "recurrent_activation")]
    names = [getattr(each, "__name__", "") for each in activations]
    usual = names[0] in SLOPES if written is SimpleSteps else names == ["tanh", "sigmoid"]
    masks = cell.recurrent_dropout or (cell.dropout and hasattr(cell, "dropout_mask_count"))
    plain = cell.use_bias and getattr(cell, "reset_after", True) and not masks
    return written if usual and plain and layer.compute_dtype == "float32" else None
