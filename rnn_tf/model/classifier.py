"""The classifier: one recurrent layer and a softmax. Pure Keras 3, on any of its backends."""

from __future__ import annotations

import keras
import numpy as np

from rnn_tf.config import TrainConfig
from rnn_tf.data.spec import SequenceSpec
from rnn_tf.errors import InputError
from rnn_tf.model.activations import ACTIVATIONS, ALIASES
from rnn_tf.model.cells import CELLS, Cell


def build_model(
    config: TrainConfig, spec: SequenceSpec, *, precision: str = "float32", unroll: bool = False
) -> keras.Sequential:
    """Build `Sequential([cell(units), Dense(classes, softmax)])`, weights initialised.

    The model maps float32 `(batch, timesteps, features)`, already scaled, to float32
    probabilities `(batch, classes)`. `precision` is the Keras dtype policy of the recurrent
    layer; the softmax is float32 whatever it is, so that small probabilities survive. `unroll`
    writes the time steps out: faster to run under a compiler, slower to build, same weights.

    Raises `InputError` for an activation or initializer that Keras does not have.
    """
    recurrent = keras_layer(config.cell)(
        config.units,
        activation=_activation(config.cell_activation),
        recurrent_initializer=_initializer(config.cell_initializer),
        dropout=config.dropout,
        recurrent_dropout=config.recurrent_dropout,
        unroll=unroll,
        dtype=precision,
        name="recurrent",
    )
    softmax = keras.layers.Dense(
        spec.classes, activation="softmax", dtype="float32", name="probabilities"
    )
    shape = (spec.timesteps, spec.features)
    return keras.Sequential([keras.Input(shape, name="sequence"), recurrent, softmax])


def keras_layer(cell: Cell) -> type[keras.layers.RNN]:
    """The recurrent layer that Keras has for a cell."""
    layer: type[keras.layers.RNN] = getattr(keras.layers, CELLS[cell].keras_layer)
    return layer


def read_along(model: keras.Sequential, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the model holds and would say after each step of scaled `x` `(timesteps, features)`.

    Returns the hidden states `(timesteps, units)` and the probabilities `(timesteps, classes)`,
    both float32. The last row of the probabilities is what the model says of the sequence.
    """
    recurrent, softmax = model.layers
    each_step = type(recurrent).from_config(
        {**recurrent.get_config(), "return_sequences": True, "name": "each_step"}
    )
    sequence = keras.ops.convert_to_tensor(x[None], "float32")
    each_step.build(sequence.shape)
    each_step.set_weights(recurrent.get_weights())
    states = each_step(sequence)
    to_numpy = keras.ops.convert_to_numpy
    return to_numpy(keras.ops.cast(states[0], "float32")), to_numpy(softmax(states)[0])


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
