"""The classifier: recurrent layers and a softmax. Pure Keras 3, on any of its backends."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from rnn_tf.config import SHORT, TrainConfig
from rnn_tf.data.spec import SequenceSpec
from rnn_tf.errors import InputError
from rnn_tf.model.activations import ACTIVATIONS, ALIASES, BOUNDED
from rnn_tf.model.cells import CELLS, Cell


def build_model(
    config: TrainConfig, spec: SequenceSpec, *, precision: str = "float32", unroll: bool = False
) -> keras.Sequential:
    """Build `Sequential([recurrent layers..., Dense(classes, softmax)])`, weights initialised.

    The model maps float32 `(batch, timesteps, features)`, already normalized, to float32
    probabilities `(batch, classes)`, or `(batch, timesteps, classes)` where `spec` wants an answer
    at every step. All recurrent layers but the last give their states at every time step, and then
    the last does too; a bidirectional one gives those of both directions side by side. `precision`
    is the Keras dtype policy of the recurrent layers; the softmax is float32 whatever it is, so
    that small probabilities survive. `unroll` writes the time steps out: faster to run under a
    compiler, slower to build, same weights.

    Raises `InputError` for an activation or initializer that Keras does not have.
    """
    recurrent = [
        _recurrent(
            config,
            number,
            every=number < config.layers or spec.every_step,
            precision=precision,
            unroll=unroll,
        )
        for number in range(1, config.layers + 1)
    ]
    softmax = keras.layers.Dense(
        spec.classes, activation="softmax", dtype="float32", name="probabilities"
    )
    shape = (spec.longest, spec.features)
    model = keras.Sequential([keras.Input(shape, name="sequence"), *recurrent, softmax])
    if config.cell_initializer == "identity" and config.cell_activation not in BOUNDED:
        # A layer starts as the sum of what it reads. Of what is a sum already, it takes the mean.
        for layer in recurrent[1:]:
            for direction in directions(layer):
                kernel = direction.cell.kernel
                kernel.assign(kernel / spec.longest)
    if spec.longest > SHORT:
        for layer in recurrent:
            for direction in directions(layer):
                _start_for_length(direction, config.cell, spec.longest)
        # The sum over a long sequence starts as large an answer as that over a short one.
        softmax.kernel.assign(softmax.kernel * config.share_of_a_step(spec))
    return model


def _recurrent(
    config: TrainConfig, number: int, *, every: bool, precision: str, unroll: bool
) -> keras.Layer:
    """Build the recurrent layer with that number, counted from 1; `every`: with all its states."""
    name = "recurrent" if number == 1 else f"recurrent_{number}"
    layer = keras_layer(config.cell)(
        config.units,
        activation=_activation(config.cell_activation),
        recurrent_initializer=_initializer(config.cell_initializer),
        # What is not resolved is not for training, and nothing is dropped elsewhere.
        dropout=0.0 if config.dropout == "auto" else config.dropout,
        recurrent_dropout=config.recurrent_dropout,
        return_sequences=every,
        unroll=unroll,
        dtype=precision,
        name=name,
    )
    if not config.bidirectional:
        return layer
    return keras.layers.Bidirectional(layer, merge_mode="concat", dtype=precision, name=name)


def _start_for_length(layer: keras.layers.RNN, cell: Cell, timesteps: int) -> None:
    """Have the units of a gated cell keep their state for 1 to `timesteps` steps at the start.

    A gate with the bias b keeps about 1 + exp(b) steps (Tallec and Ollivier, "Can recurrent neural
    networks warp time?", 2018, who draw exp(b) evenly up to the length). Here b is spread evenly,
    and so as many units keep 10 to 100 steps as 100 to 1,000 (the log-uniform spread of Gu et al.,
    "Improving the gating mechanism of recurrent neural networks", 2020).
    """
    kind = CELLS[cell]
    if kind.keeps is None:
        return
    units = layer.units
    bias = keras.ops.convert_to_numpy(layer.cell.bias).copy()  # ([rows,] gates * units)
    start = kind.gates.index(kind.keeps) * units
    # Of two rows only the sum counts.
    row = bias if bias.ndim == 1 else bias[0]
    row[start : start + units] += np.linspace(0, np.log(timesteps), units)
    layer.cell.bias.assign(bias)


class MaskedSequential(keras.Sequential):
    """The classifier for sequences of any length: asked for `(sequences, lengths)`.

    Made of the layers of one from `build_model`, which it shares. `sequences` are normalized and
    right-padded, `(batch, timesteps, features)`, `lengths` int32 `(batch,)`; they reach the layers
    as a mask. Also takes sequences alone.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if isinstance(inputs, (tuple, list)):
            inputs, lengths = inputs
            mask = keras.ops.less(keras.ops.arange(inputs.shape[1]), lengths[:, None])
        return super().call(inputs, training=training, mask=mask)


def recurrent_layers(model: keras.Sequential) -> list[list[keras.layers.RNN]]:
    """The recurrent layers of a model from `build_model`, for each the layer of each direction.

    Of two directions the first is the one that reads forwards.
    """
    return [directions(layer) for layer in model.layers[:-1]]


def directions(layer: keras.Layer) -> list[keras.layers.RNN]:
    """The layers of a recurrent layer's directions: itself, or the two of a bidirectional one."""
    if isinstance(layer, keras.layers.Bidirectional):
        return [layer.forward_layer, layer.backward_layer]
    return [layer]


def keras_layer(cell: Cell) -> type[keras.layers.RNN]:
    """The recurrent layer that Keras has for a cell."""
    layer: type[keras.layers.RNN] = getattr(keras.layers, CELLS[cell].keras_layer)
    return layer


def _activation(name: str) -> str:
    known = sorted((*ACTIVATIONS, *ALIASES))
    if name not in known:
        raise InputError(f"unknown activation {name!r}", expected=f"one of {', '.join(known)}")
    return name


def _initializer(name: str) -> keras.initializers.Initializer:
    # Keras's only registered name for it is that of the class.
    name = {"identity": "Identity"}.get(name, name)
    try:
        return keras.initializers.get(name)
    except ValueError as error:
        raise InputError(
            f"unknown recurrent_initializer {name!r}",
            expected="a name of keras.initializers, such as orthogonal, identity, glorot_uniform",
        ) from error
