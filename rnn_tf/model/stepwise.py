"""The classifier step by step: what it holds and says after each, its state in and out."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from rnn_tf.errors import InputError
from rnn_tf.model.classifier import recurrent_layers


class Stepwise:
    """A classifier from `build_model` that answers after every step, and hands out its state.

    A state is a row of `width` numbers, zeros before the first step: for each layer those of its
    cell (LSTM: h, then c). It has copies of the weights of `model`, and computes in float32
    whatever that was trained in. Raises `InputError` for a model that reads in both directions.
    """

    def __init__(self, model: keras.Sequential) -> None:
        layers = recurrent_layers(model)
        if any(len(directions) > 1 for directions in layers):
            raise InputError(
                "a model that reads in both directions cannot answer step by step: "
                "what it holds of a step depends on the steps that are still to come",
                fix="Train one without --bidirectional.",
            )
        self.cells = _StackedStates([layer.cell for (layer,) in layers])
        self.width: int = sum(self.cells.state_size)
        self._over_time = keras.layers.RNN(self.cells, return_sequences=True, dtype="float32")
        self._softmax = _in_float32(model.layers[-1])

    def states(self, frames: Any, state: Any) -> Any:
        """What it holds after each step: float32 `(batch, steps, width)`.

        `frames` are normalized, float32 `(batch, steps, features)`; `state` `(batch, width)` is
        what it held before them.
        """
        ends = list(itertools.accumulate(self.cells.state_size))
        parts = [state[:, start:end] for start, end in zip([0, *ends], ends, strict=False)]
        return self._over_time(frames, initial_state=parts)

    def probabilities(self, states: Any) -> Any:
        """What it says when it holds `states` `(..., width)`: float32 `(..., classes)`."""
        return self._softmax(states[..., self.output])

    @property
    def output(self) -> slice:
        """The part of a state that the softmax reads: the h of the last layer."""
        sizes = self.cells.sizes[-1]
        start = self.width - sum(sizes)
        return slice(start, start + sizes[0])


def read_along(model: keras.Sequential, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the model holds and would say after each step of scaled `x` `(timesteps, features)`.

    `x` is one sequence, without padding: where lengths vary, as long as it is.
    Returns float32 hidden states `(timesteps, width)`, those that the softmax reads, of the last
    layer, and the probabilities `(timesteps, classes)`. Row t is what the model holds and says of
    the sequence that ends there: of a bidirectional model, the direction that reads backwards
    begins at t. The last row is what it says of the whole sequence. A bidirectional model with an
    answer at every step has read the whole sequence for each: there, both directions have.
    """
    *recurrent, softmax = model.layers
    sequence = keras.ops.convert_to_tensor(x[None], "float32")
    if all(len(directions) == 1 for directions in recurrent_layers(model)):
        stepwise = Stepwise(model)
        states = stepwise.states(sequence, keras.ops.zeros((1, stepwise.width)))[0]
        states = states[:, stepwise.output]
    elif recurrent_layers(model)[-1][0].return_sequences:
        states = _through(recurrent, sequence)[0]
    else:
        ends = range(1, len(x) + 1)
        states = keras.ops.stack([_through(recurrent, sequence[:, :end])[0] for end in ends])
    to_numpy = keras.ops.convert_to_numpy
    return to_numpy(keras.ops.cast(states, "float32")), to_numpy(softmax(states))


def _through(layers: Sequence[keras.Layer], sequence: Any) -> Any:
    for layer in layers:
        sequence = layer(sequence)
    return sequence


class _StackedStates(keras.layers.Layer):
    """Cells on top of each other as one cell, whose output is all of their states side by side."""

    def __init__(self, cells: Sequence[Any]) -> None:
        super().__init__(dtype="float32")
        self.cells = [_in_float32(cell) for cell in cells]
        # For each cell the numbers in each of its states.
        self.sizes = [_listed(cell.state_size) for cell in cells]
        self.state_size = [size for sizes in self.sizes for size in sizes]
        self.output_size = sum(self.state_size)
        self.built = True

    def call(self, frame: Any, states: Sequence[Any], training: bool = False) -> Any:
        before, after = list(states), []
        output = frame
        for cell, sizes in zip(self.cells, self.sizes, strict=True):
            own, before = before[: len(sizes)], before[len(sizes) :]
            output, new = cell(output, own, training=training)
            after += _listed(new)
        return keras.ops.concatenate(after, axis=-1), after


def _in_float32(layer: Any) -> Any:
    """A copy of a cell or of the softmax, of the same weights."""
    copy = type(layer).from_config({**layer.get_config(), "dtype": "float32"})
    copy.build((None, layer.kernel.shape[0]))
    copy.set_weights(layer.get_weights())
    return copy


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]
