"""The classifier: one recurrent layer and a softmax. Pure Keras 3, on any of its backends."""

from __future__ import annotations

import keras
import numpy as np

from rnn_tf.config import SHORT, TrainConfig
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
    model = keras.Sequential([keras.Input(shape, name="sequence"), recurrent, softmax])
    if spec.timesteps > SHORT:
        _start_for_length(recurrent, config.cell, spec.timesteps)
        # The sum over a long sequence starts as large an answer as that over a short one.
        softmax.kernel.assign(softmax.kernel * config.share_of_a_step(spec))
    return model


def _start_for_length(recurrent: keras.layers.RNN, cell: Cell, timesteps: int) -> None:
    """Have the units of a gated cell keep their state for 1 to `timesteps` steps at the start.

    A gate with the bias b keeps about 1 + exp(b) steps (Tallec and Ollivier, "Can recurrent neural
    networks warp time?", 2018, who draw exp(b) evenly up to the length). Here b is spread evenly,
    and so as many units keep 10 to 100 steps as 100 to 1,000 (the log-uniform spread of Gu et al.,
    "Improving the gating mechanism of recurrent neural networks", 2020).
    """
    kind = CELLS[cell]
    if kind.keeps is None:
        return
    units = recurrent.units
    bias = keras.ops.convert_to_numpy(recurrent.cell.bias).copy()  # ([rows,] gates * units)
    start = kind.gates.index(kind.keeps) * units
    # Of two rows only the sum counts.
    row = bias if bias.ndim == 1 else bias[0]
    row[start : start + units] += np.linspace(0, np.log(timesteps), units)
    recurrent.cell.bias.assign(bias)


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
