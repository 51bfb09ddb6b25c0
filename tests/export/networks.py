"""Small classifiers with random weights, for the tests of what is made from them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from export.network import Layer, Network, Recurrence
from rnn_tf.data.normalize import Normalize
from rnn_tf.data.spec import SequenceSpec
from rnn_tf.model.cells import CELLS, Cell

# No two sizes alike, so that no transposition goes unnoticed; labels of all kinds.
SPEC = SequenceSpec(
    timesteps=7, features=3, labels=("läuft", "歩く", 'a\n"b"', ""), normalize=Normalize((0.25,))
)
LONG = replace(SPEC, timesteps=70)
# Features of different size: g, degrees, and a pressure far from zero.
UNITS_OF_MEASURE = Normalize((1.0, 0.2, 0.002), (0.0, -4.0, -202.65), "standard")
UNITS = 5


def random_network(
    cell: Cell,
    activation: str = "tanh",
    spec: SequenceSpec = SPEC,
    *,
    units: int = UNITS,
    layers: int = 1,
    bidirectional: bool = False,
) -> Network:
    """A network whose weights, biases among them, are all of one size, and every gate half open."""
    random = np.random.default_rng(0)
    # So that states stay below 10: these two would grow without end with larger weights.
    size = 0.1 if activation in ("exponential", "log_sigmoid") else 0.3

    def array(*shape: int) -> np.ndarray:
        return random.normal(0, size, shape).astype(np.float32)

    def recurrence(inputs: int) -> Recurrence:
        columns = len(CELLS[cell].gates) * units
        return Recurrence(
            cell=cell,
            activation=activation,
            recurrent_activation=CELLS[cell].recurrent_activation,
            kernel=array(inputs, columns),
            recurrent_kernel=array(units, columns),
            bias=array(2, columns) if CELLS[cell].biases == 2 else array(columns),
        )

    directions = 2 if bidirectional else 1
    inputs = [spec.features, *[directions * units] * (layers - 1)]
    return Network(
        spec=spec,
        layers=tuple(Layer(*(recurrence(each) for _ in range(directions))) for each in inputs),
        dense_kernel=array(directions * units, spec.classes),
        dense_bias=array(spec.classes),
    )


def one_number_network(activation: str, slope: float) -> Network:
    """A number `x` in, softmax of `(slope * activation(x), 0)` out: the activation laid bare."""
    one, zero = np.ones((1, 1), np.float32), np.zeros(1, np.float32)
    return Network(
        spec=SequenceSpec(timesteps=1, features=1, labels=("up", "down")),
        layers=(Layer(Recurrence("simple_rnn", activation, "linear", one, one, zero)),),
        dense_kernel=np.array([[slope, 0]], np.float32),
        dense_bias=np.zeros(2, np.float32),
    )


def changed(network: Network, layer: int = 0, backward: bool = False, **change: object) -> Network:
    """The network with other arrays in one direction of one layer."""
    layers = list(network.layers)
    name = "backward" if backward else "forward"
    direction = replace(getattr(layers[layer], name), **change)
    layers[layer] = replace(layers[layer], **{name: direction})
    return replace(network, layers=tuple(layers))


def raw_input(examples: int, spec: SequenceSpec = SPEC) -> np.ndarray:
    """Raw float32 `(examples, timesteps, features)` that is around 1 when normalized."""
    shape = (examples, spec.timesteps, spec.features)
    values = np.random.default_rng(1).normal(size=shape)
    normalize = spec.normalization
    return ((values - normalize.shift) / normalize.scale).astype(np.float32)
