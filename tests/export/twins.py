"""Small classifiers with random weights, for the tests of what is made from them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from export.network import GATES, Twin
from rnn_tf.config import Cell
from rnn_tf.data.normalize import Normalize
from rnn_tf.data.spec import SequenceSpec

# No two sizes alike, so that no transposition goes unnoticed; labels of all kinds.
SPEC = SequenceSpec(
    timesteps=7, features=3, labels=("läuft", "歩く", 'a\n"b"', ""), normalize=Normalize((0.25,))
)
LONG = replace(SPEC, timesteps=70)
UNITS = 5


def random_twin(
    cell: Cell, activation: str = "tanh", spec: SequenceSpec = SPEC, *, units: int = UNITS
) -> Twin:
    """A twin whose weights, biases among them, are all of one size, and every gate half open."""
    random = np.random.default_rng(0)
    columns = GATES[cell] * units
    # So that states stay below 10: these two would grow without end with larger weights.
    size = 0.1 if activation in ("exponential", "log_sigmoid") else 0.3

    def array(*shape: int) -> np.ndarray:
        return random.normal(0, size, shape).astype(np.float32)

    return Twin(
        cell=cell,
        activation=activation,
        recurrent_activation="linear" if cell == "simple_rnn" else "sigmoid",
        kernel=array(spec.features, columns),
        recurrent_kernel=array(units, columns),
        bias=array(2, columns) if cell == "gru" else array(columns),
        dense_kernel=array(units, spec.classes),
        dense_bias=array(spec.classes),
        spec=spec,
    )


def one_number_twin(activation: str, slope: float) -> Twin:
    """A number `x` in, softmax of `(slope * activation(x), 0)` out: the activation laid bare."""
    one, zero = np.ones((1, 1), np.float32), np.zeros(1, np.float32)
    return Twin(
        cell="simple_rnn",
        activation=activation,
        recurrent_activation="linear",
        kernel=one,
        recurrent_kernel=one,
        bias=zero,
        dense_kernel=np.array([[slope, 0]], np.float32),
        dense_bias=np.zeros(2, np.float32),
        spec=SequenceSpec(timesteps=1, features=1, labels=("up", "down")),
    )


def raw_input(examples: int, spec: SequenceSpec = SPEC) -> np.ndarray:
    """Raw float32 `(examples, timesteps, features)` that is around 1 when scaled."""
    shape = (examples, spec.timesteps, spec.features)
    values = np.random.default_rng(1).normal(size=shape) / spec.normalization.scale[0]
    return values.astype(np.float32)
