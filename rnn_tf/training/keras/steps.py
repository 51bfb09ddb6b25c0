"""The steps of the cells, with the products of all time steps at once, and their gradients.

In a step of a large layer, most of the time goes into products of matrices. Only that of the
state must wait for the step before. Here the loop over time is left with it alone: the inputs of
all steps meet their kernel in one product before the loop, and the gradients of the weights are one
product each after the loop back (Appleyard, Kocisky and Blunsom 2016, "Optimizing performance of
recurrent neural networks on GPUs"). What the way back needs of a step, its slopes, is computed for
all steps at once too: what is left for each is a few multiplications, and the product.

XLA runs the operations of a loop one after the other where a step has no more than eight, and hands
each to a pool of threads where it has more, which takes longer than most of them do. So the gates
of a step are one array, and a sigmoid is taken from a tanh, as 0.5 + 0.5 tanh(x / 2), which makes
them all one function. What a step keeps is written in place of what it has read: less memory
passes through the caches of a core, and fewer arrays are filled with zeros first.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from typing import NamedTuple

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
# (new, old) -> the one that a sequence goes on with
Choose = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


class OfGates(NamedTuple):
    """The gradients, at all steps, of what some gates were given; of many gates, side by side."""

    inputs: tf.Tensor  # by the frames, `(timesteps, examples, n)`
    products: tf.Tensor  # by the states before


class Steps(abc.ABC):
    """The steps of a cell over a batch of sequences; made once for each of its passes.

    Arrays of all steps are `(timesteps, examples, n)`, the gates side by side in n. What a frame
    and what the state before give the gates have the same gradients in all cells but a GRU.
    """

    # Which of the gates are sigmoids: they are given half of what they are to be taken of.
    sigmoids: tuple[bool, ...]

    def __init__(self, cell: keras.Layer, weights: Tensors) -> None:
        self.kernel, self.recurrent_kernel, self.bias = weights
        self.activation = cell.activation
        self.units = cell.units
        self.gates = len(self.sigmoids)
        self.scale = tf.constant([0.5 if sigmoid else 1.0 for sigmoid in self.sigmoids])[:, None]
        self._columns = tf.repeat(self.scale[:, 0], self.units)
        self._kernels = [kernel * self._columns for kernel in (self.kernel, self.recurrent_kernel)]
        self._turned = tf.transpose(self.recurrent_kernel)
        self.input_bias = self._columns * self._bias_of_frames()

    def inputs(self, frames: tf.Tensor) -> Tensors:
        """What `frames`, `(timesteps, examples, features)`, give the gates, but for the bias.

        It is one array, or several of some gates each.
        """
        timesteps, _, features = frames.shape
        flat = tf.reshape(frames, (-1, features))
        return [
            tf.reshape(flat @ kernel, (timesteps, -1, kernel.shape[1]))
            for kernel in tf.split(self._kernels[0], [n * self.units for n in self.together], 1)
        ]

    @property
    def together(self) -> tuple[int, ...]:
        """How many gates each of the arrays of `inputs` has."""
        return (self.gates,)

    def of_state(self, state: tf.Tensor) -> tf.Tensor:
        """What a state gives the gates, `(examples, gates * units)`."""
        return state @ self._kernels[1]

    def to_state(self, of_product: tf.Tensor) -> tf.Tensor:
        """The gradient of a state, from that of what it gives the gates."""
        return tf.reshape(of_product, (-1, self.gates * self.units)) @ self._turned

    def of_weights(
        self, frames: tf.Tensor, befores: tf.Tensor, of_gates: Sequence[OfGates]
    ) -> Tensors:
        """The gradients of the weights, from those of all steps."""
        # A bias is the weight of an input that is always 1.
        ones = tf.ones_like(frames[:, :, :1])
        found = []
        for of_inputs, of_products in of_gates:
            if of_inputs is of_products:
                of_kernel, of_recurrent, of_bias = _over_all_steps(
                    [frames, befores, ones], of_inputs
                )
                found.append([of_kernel, of_recurrent, of_bias, of_bias])
            else:
                of_kernel, of_bias = _over_all_steps([frames, ones], of_inputs)
                of_recurrent, of_state_bias = _over_all_steps([befores, ones], of_products)
                found.append([of_kernel, of_recurrent, of_bias, of_state_bias])
        *of_kernels, of_bias, of_state_bias = (
            tf.concat(each, 1) for each in zip(*found, strict=True)
        )
        return [*of_kernels, self.of_bias(of_bias[0], of_state_bias[0])]

    def of_frames(self, of_gates: Sequence[OfGates]) -> tf.Tensor:
        """The gradient of all frames, from those of all steps."""
        of_inputs = tf.concat([each.inputs for each in of_gates], 2)
        timesteps = of_inputs.shape[0]
        flat = tf.reshape(of_inputs, (-1, self.gates * self.units)) @ tf.transpose(self.kernel)
        return tf.reshape(flat, (timesteps, -1, self.kernel.shape[0]))

    def of_bias(self, of_inputs: tf.Tensor, of_products: tf.Tensor) -> tf.Tensor:
        """The gradient of the bias, from the sums of those of inputs and products."""
        return of_inputs

    def _bias_of_frames(self) -> tf.Tensor:
        """What is added to what the frames give the gates, `(gates * units,)`."""
        return self.bias

    @abc.abstractmethod
    def forward(
        self, inputs: Tensors, product: tf.Tensor, states: Tensors, choose: Choose
    ) -> tuple[Tensors, Tensors, Tensors]:
        """A step: the states after it; what is kept in place of each of its inputs; what else is.

        `product` is what the state before gives the gates; `choose` gives the new state of the
        sequences that have the step, the old one of the others.
        """

    def kept(self) -> tuple[int, ...]:
        """How many numbers of an example there are in what else is kept of a step."""
        return ()

    @abc.abstractmethod
    def read(self, kept: Tensors, more: Tensors) -> tf.Tensor:
        """Take what was kept of all steps, for the way back.

        Gives the first states after all steps, which are what the layer answers.
        """

    @abc.abstractmethod
    def to_keep(self) -> tf.Tensor:
        """An array of all steps, in place of which is written what is kept of the steps back."""

    @abc.abstractmethod
    def back(
        self, t: tf.Tensor, found: tf.Tensor, of_after: Tensors
    ) -> tuple[tf.Tensor, Tensors, tf.Tensor]:
        """The gradients before step `t`, from those of the states after it.

        First that of what the state before gave the gates; then those of the states before, but
        for what comes to the first by that, which is left out where that is all; then what is kept,
        in place of `found`.
        """

    def gradients(self, kept: tf.Tensor) -> list[OfGates]:
        """Those of all gates, in their order, from what was kept."""
        of_all = tf.reshape(kept, (*kept.shape[:2], self.gates * self.units))
        return [OfGates(of_all, of_all)]

    def _by_gate(self, *arrays: tf.Tensor) -> tf.Tensor:
        """Arrays of the units, one for each gate, in one of the gates and the units.

        By choice, not side by side: XLA writes the concatenation of what it computes number by
        number.
        """
        *others, chosen = (each[..., None, :] for each in arrays)
        gate = tf.range(self.gates)[:, None]
        for n, each in reversed(list(enumerate(others))):
            chosen = tf.where(gate == n, each, chosen)
        return chosen


def _over_all_steps(factors: Tensors, of_sums: tf.Tensor) -> Tensors:
    """The sums over all steps and examples of each of the `factors` times `of_sums`.

    One product for all is faster than one for each.
    """
    joined, of_sums = (
        tf.reshape(each, (-1, each.shape[2])) for each in (tf.concat(factors, 2), of_sums)
    )
    found: Tensors = tf.split(tf.transpose(joined) @ of_sums, [each.shape[2] for each in factors])
    return found


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
        self, inputs: Tensors, product: tf.Tensor, states: Tensors, choose: Choose
    ) -> tuple[Tensors, Tensors, Tensors]:
        state = choose(self.activation(inputs[0] + product + self.input_bias), states[0])
        return [state], [state], []

    def read(self, kept: Tensors, more: Tensors) -> tf.Tensor:
        (states,) = kept
        self._slopes = SLOPES[self.activation.__name__](states)
        return states

    def to_keep(self) -> tf.Tensor:
        return self._slopes

    def back(
        self, t: tf.Tensor, found: tf.Tensor, of_after: Tensors
    ) -> tuple[tf.Tensor, Tensors, tf.Tensor]:
        of_gates = of_after[0] * found
        return of_gates, [], of_gates


class LstmSteps(Steps):
    """The LSTM of Keras with tanh: `c' = f c + i g`, `h' = o tanh(c')`.

    Its gates are input, forget, content g and output.
    """

    sigmoids = (True, True, False, True)

    def forward(
        self, inputs: Tensors, product: tf.Tensor, states: Tensors, choose: Choose
    ) -> tuple[Tensors, Tensors, Tensors]:
        tanhs = tf.tanh(inputs[0] + product + self.input_bias)
        i, f, g, o = self._gates(tanhs)
        c = choose(f * states[1] + i * g, states[1])
        return [choose(o * tf.tanh(c), states[0]), c], [tanhs], [c]

    def kept(self) -> tuple[int, ...]:
        return (self.units,)

    def read(self, kept: Tensors, more: Tensors) -> tf.Tensor:
        (tanhs,), (states,) = kept, more
        i, f, g, o = self._gates(tanhs)
        squashed = tf.tanh(states)
        tanhs = tf.reshape(tanhs, (*tanhs.shape[:2], self.gates, self.units))
        own = self.scale * self.scale * (1 - tanhs * tanhs)
        self._slopes = own * self._by_gate(g, before(states), i, squashed)
        self._forget, self._output_slope = f, o * (1 - squashed * squashed)
        return o * squashed

    def to_keep(self) -> tf.Tensor:
        return self._slopes

    def back(
        self, t: tf.Tensor, found: tf.Tensor, of_after: Tensors
    ) -> tuple[tf.Tensor, Tensors, tf.Tensor]:
        of_h, of_c = of_after
        of_c += of_h * self._output_slope[t]
        is_output = tf.range(self.gates)[:, None] == 3
        of_gates = tf.where(is_output, of_h[:, None], of_c[:, None]) * found
        return of_gates, [of_c * self._forget[t]], of_gates

    def _gates(self, tanhs: tf.Tensor) -> Tensors:
        i, f, g, o = tf.split(tanhs, self.gates, axis=-1)
        return [sigmoid(i), sigmoid(f), g, sigmoid(o)]


class GruSteps(Steps):
    """The GRU of Keras with `reset_after`: `h' = z h + (1 - z) tanh(x + r (h U + b))`.

    Its gates are update z, reset r and content; the last has a bias of its own for the state.
    """

    sigmoids = (True, True, False)
    # The content waits for the reset.
    together = (2, 1)

    def _bias_of_frames(self) -> tf.Tensor:
        of_frame, of_state = tf.unstack(self.bias)
        return of_frame + tf.where(tf.range(3 * self.units) < 2 * self.units, of_state, 0)

    def of_bias(self, of_inputs: tf.Tensor, of_products: tf.Tensor) -> tf.Tensor:
        return tf.stack([of_inputs, of_products])

    def forward(
        self, inputs: Tensors, product: tf.Tensor, states: Tensors, choose: Choose
    ) -> tuple[Tensors, Tensors, Tensors]:
        of_gates, of_content = inputs
        two = 2 * self.units
        tanhs = tf.tanh(of_gates + product[:, :two] + self.input_bias[:two])
        z, r = (sigmoid(each) for each in tf.split(tanhs, 2, axis=1))
        of_state = product[:, two:] + self.bias[1, two:]
        content = tf.tanh(of_content + self.input_bias[two:] + r * of_state)
        state = choose(z * states[0] + (1 - z) * content, states[0])
        return [state], [tanhs, content], [state, of_state]

    def kept(self) -> tuple[int, ...]:
        return (self.units, self.units)

    def read(self, kept: Tensors, more: Tensors) -> tf.Tensor:
        (tanhs, content), (states, of_state) = kept, more
        z, r = (sigmoid(each) for each in tf.split(tanhs, 2, axis=2))
        self._update, self._content_slope = z, (1 - z) * (1 - content * content)
        self._slopes = [
            (before(states) - content) * z * (1 - z),
            self._content_slope * of_state * r * (1 - r),
            self._content_slope * r,
        ]
        self._gate_slopes = self._by_gate(*self._slopes)
        return states

    def to_keep(self) -> tf.Tensor:
        return tf.zeros_like(self._update)

    def back(
        self, t: tf.Tensor, found: tf.Tensor, of_after: Tensors
    ) -> tuple[tf.Tensor, Tensors, tf.Tensor]:
        of_h = of_after[0]
        return of_h[:, None] * self._gate_slopes[t], [of_h * self._update[t]], of_h

    def gradients(self, kept: tf.Tensor) -> list[OfGates]:
        of_z, of_r, of_state, of_content = (
            kept * slope for slope in (*self._slopes, self._content_slope)
        )
        return [OfGates(of_z, of_z), OfGates(of_r, of_r), OfGates(of_content, of_state)]


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
