"""Small classifiers with random weights, for the tests of what is made from them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from export.formats.tf_function import MOST_UNROLLED
from export.network import Layer, Network, Recurrence
from rnn_tf.data.normalize import Normalize
from rnn_tf.data.spec import SequenceSpec, valid_steps
from rnn_tf.model.cells import CELLS, Cell

if TYPE_CHECKING:
    import keras

# No two sizes alike, so that no transposition goes unnoticed; labels of all kinds.
SPEC = SequenceSpec(
    timesteps=7, features=3, labels=("läuft", "歩く", 'a\n"b"', ""), normalize=Normalize((0.25,))
)


def of_length(timesteps: int) -> SequenceSpec:
    """The same for sequences of another length."""
    return replace(SPEC, timesteps=timesteps, longest=timesteps)


LONG = of_length(70)
# The same for sequences of any length up to these.
VARYING, LONG_VARYING = (replace(each, timesteps=None) for each in (SPEC, LONG))
# Features of different size: g, degrees, and a pressure far from zero.
UNITS_OF_MEASURE = Normalize((1.0, 0.2, 0.002), (0.0, -4.0, -202.65), "standard")
# How near an answer to them is in float32, where 202.65 has 2e-5 of rounding: 1e-6 seen.
FAR_FROM_ZERO = 1e-5
UNITS = 5
# Options of `random_network`, by what they make: each has what the ones before do not.
STACKS: dict[str, dict[str, Any]] = {
    "2 layers": {"layers": 2},
    "both ways": {"bidirectional": True, "activation": "elu"},
    "3 layers both ways": {"layers": 3, "bidirectional": True},
}
# On both sides of the length from which on files have loops.
LENGTHS = (MOST_UNROLLED, MOST_UNROLLED + 1)


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


def stacked_network(
    cell: Cell,
    stack: str,
    timesteps: int = SPEC.longest,
    normalize: Normalize | None = SPEC.normalize,
) -> Network:
    """One of `STACKS`."""
    spec = replace(of_length(timesteps), normalize=normalize)
    return random_network(cell, spec=spec, **STACKS[stack])


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


def with_array(network: Network, name: str, array: np.ndarray) -> Network:
    """The network with another array in the place of one, named as in `Network.arrays`."""
    *where, field = name.split(" ")
    change: dict[str, Any] = {field: array}
    if not where:
        return replace(network, **change)
    _, number, direction = where
    return changed(network, int(number) - 1, direction == "backward", **change)


def in_keras(network: Network, dtype: str = "float32") -> keras.Sequential:
    """The network as the Keras model, for normalized input, that it could have been read from."""
    import keras

    spec, last = network.spec, network.layers[-1]
    model = keras.Sequential([keras.Input((spec.longest, spec.features), dtype=dtype)])
    for layer in network.layers:
        weights = layer.forward
        every = layer is not last or network.every_step
        options = {"activation": weights.activation, "return_sequences": every}
        if weights.cell != "simple_rnn":
            options["recurrent_activation"] = weights.recurrent_activation
        kind = getattr(keras.layers, CELLS[weights.cell].keras_layer)
        recurrent = kind(weights.units, dtype=dtype, **options)
        if layer.backward is not None:
            recurrent = keras.layers.Bidirectional(recurrent, dtype=dtype)
        model.add(recurrent)
    model.add(keras.layers.Dense(spec.classes, activation="softmax", dtype=dtype))
    model.set_weights(list(network.arrays.values()))
    return model


def raw_input(examples: int, spec: SequenceSpec = SPEC) -> np.ndarray:
    """Raw float32 `(examples, timesteps, features)` that is around 1 when normalized."""
    shape = (examples, spec.longest, spec.features)
    values = np.random.default_rng(1).normal(size=shape)
    normalize = spec.normalization
    return ((values - normalize.shift) / normalize.scale).astype(np.float32)


def some_lengths(examples: int, spec: SequenceSpec) -> np.ndarray:
    """Lengths for so many sequences, int32: 1, the longest, and what is between."""
    lengths = np.random.default_rng(2).integers(1, spec.longest, examples, np.int32, endpoint=True)
    lengths[:2] = (1, spec.longest)[:examples]
    return lengths


def with_padding(x: np.ndarray, lengths: np.ndarray, padding: float | np.ndarray) -> np.ndarray:
    """The sequences with something else after their ends."""
    valid = valid_steps(lengths, x.shape[1])[:, :, None]
    return np.where(valid, x, padding).astype(np.float32)


def trained_like(
    cell: Cell,
    activation: str,
    timesteps: int,
    normalize: Normalize | None = SPEC.normalize,
    units: int = 8,
) -> Network:
    """Weights like trained ones: they neither lose a state at once nor let it grow for ever."""
    spec = replace(of_length(timesteps), normalize=normalize)
    network, random = random_network(cell, activation, spec, units=units), np.random.default_rng(5)
    gates = len(CELLS[cell].gates)
    turns = [np.linalg.qr(random.normal(size=(units, units)))[0] for _ in range(gates)]
    kernel = random.normal(0, spec.features**-0.5, (spec.features, gates * units))
    if (cell, activation) == (
        "simple_rnn",
        "elu",
    ):  # unbounded above: as it begins, an identity, and a little lost
        turns = [0.97 * np.eye(units) for _ in range(gates)]
        kernel *= 0.1
    if (cell, activation) == ("lstm", "elu"):  # its sum c has no bound either
        turns = [turn / 2 for turn in turns]
    bias = network.layers[0].forward.bias / 10
    # States of gated cells are smaller.
    size = 1 if cell == "simple_rnn" else 3
    dense_kernel = random.normal(0, size * units**-0.5, network.dense_kernel.shape)
    return replace(
        changed(
            network,
            kernel=kernel.astype(np.float32),
            recurrent_kernel=np.concatenate(turns, axis=1).astype(np.float32),
            bias=bias,
        ),
        dense_kernel=dense_kernel.astype(np.float32),
    )


def perturbed(network: Network, name: str, by: float = 1e-3) -> Network:
    """The network with one weight, in the middle of an array, changed."""
    array = network.arrays[name].copy()
    array.flat[array.size // 2] += by
    return with_array(network, name, array)


def swapped(network: Network) -> Network:
    """The network with its first two gates taken for each other: i and f of LSTM, z and r of GRU.

    Those of its first direction.
    """
    weights = network.layers[0].forward
    gates, u = len(CELLS[network.cell].gates), network.units
    order = np.arange(gates * u).reshape(gates, u)[[1, 0, *range(2, gates)]].ravel()
    names = ("kernel", "recurrent_kernel", "bias")
    return changed(network, **{name: getattr(weights, name)[..., order] for name in names})


def unscaled(network: Network) -> Network:
    return replace(network, spec=replace(network.spec, normalize=None))


def mutants(network: Network) -> dict[str, Network]:
    """Other functions that are near: what an exporter may get wrong."""
    found = {name: perturbed(network, name) for name in network.arrays}
    if network.cell != "simple_rnn":
        found["swapped gates"] = swapped(network)
    return found | {"no scale": unscaled(network)}
