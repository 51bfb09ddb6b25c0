"""The trained classifier as plain arrays: float32, stateless, normalization inside.

A `Network` is read once from a Keras model of any training precision. Every format is made from it,
and so are the float64 formulas (`export.oracle`) that judge them.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rnn_tf.data.normalize import Normalize
from rnn_tf.data.spec import SequenceSpec
from rnn_tf.errors import InputError
from rnn_tf.model.activations import ACTIVATIONS
from rnn_tf.model.cells import BY_KERAS_LAYER, CELLS, Cell

if TYPE_CHECKING:
    import keras

# What every export calls its inputs and its output. Where lengths vary, they are the second input.
INPUT, LENGTHS, OUTPUT = "sequence", "lengths", "probabilities"
# And a step its inputs and outputs: with these come the states, numbered from 0.
FRAMES, STATE, NEXT_STATE = "frames", "state_{}", "next_state_{}"

# A runtime keeps about so much of a batch when it checks or converts a network, and a small
# multiple of it in all.
BATCH_BYTES = 2**26

# Options of a recurrent layer that change its formula, and the only value that is exported.
OPTIONS = {
    "use_bias": True, "return_state": False, "go_backwards": False, "stateful": False,
    "reset_after": True,
}  # fmt: skip


@dataclass(frozen=True)
class Recurrence:
    """One direction of one recurrent layer, its arrays float32 and in the layout of Keras.

    With u units and g gates (see `rnn_tf.model.cells`):
    """

    cell: Cell
    activation: str  # of the new content, one of `rnn_tf.model.activations`
    recurrent_activation: str  # of the gates; for simple_rnn, which has none, "linear"
    kernel: np.ndarray  # (inputs, g*u)
    recurrent_kernel: np.ndarray  # (u, g*u)
    bias: np.ndarray  # (g*u,); gru: (2, g*u), one beside the input and one beside the state

    @property
    def inputs(self) -> int:
        return int(self.kernel.shape[0])

    @property
    def units(self) -> int:
        return int(self.recurrent_kernel.shape[0])

    @property
    def input_bias(self) -> np.ndarray:
        """`(g*u,)`: what is added to the product of input and kernel."""
        row: np.ndarray = self.bias[0] if self.bias.ndim == 2 else self.bias
        return row

    @functools.cached_property
    def state_bias(self) -> np.ndarray:
        """`(g*u,)`: what is added to the product of state and recurrent kernel; zero but in gru."""
        row: np.ndarray = self.bias[1] if self.bias.ndim == 2 else np.zeros_like(self.bias)
        return row

    def columns(self, gate: str) -> slice:
        """The columns of the kernels that belong to one gate."""
        index = CELLS[self.cell].gates.index(gate)
        return slice(index * self.units, (index + 1) * self.units)

    def with_input(self, kernel: np.ndarray, input_bias: np.ndarray) -> Recurrence:
        """The same with another kernel and another bias beside the input."""
        bias = input_bias if self.bias.ndim == 1 else np.stack([input_bias, self.bias[1]])
        return replace(self, kernel=kernel, bias=bias)

    def for_raw(self, normalize: Normalize) -> Recurrence:
        """The same function of raw input.

        (x * scale + shift) W + b = x (scale W) + (b + shift W)
        """
        kernel = self.kernel.astype(np.float64)
        scale = np.reshape(normalize.scale, (-1, 1))
        shift = np.broadcast_to(normalize.shift, self.inputs)
        return self.with_input(
            (scale * kernel).astype(np.float32),
            (self.input_bias + shift @ kernel).astype(np.float32),
        )


@dataclass(frozen=True)
class Layer:
    """A recurrent layer: one that reads forward, and perhaps one that reads backward beside it.

    What it gives of a time step is the state of the one, then that of the other.
    """

    forward: Recurrence
    backward: Recurrence | None = None

    @property
    def directions(self) -> tuple[Recurrence, ...]:
        return (self.forward,) if self.backward is None else (self.forward, self.backward)

    @property
    def width(self) -> int:
        """How many numbers it gives of a time step."""
        return sum(direction.units for direction in self.directions)

    def each(self, change: Any) -> Layer:
        """The layer with `change`, a function of a recurrence, made to each direction."""
        return Layer(*(change(direction) for direction in self.directions))


@dataclass(frozen=True)
class Network:
    """A trained classifier: recurrent layers, each reading what the one before gives, then softmax.

    Where the answer is at the end, the last layer gives its final states only: that after the last
    time step, and, reading backward, that after the first. Where it is at every step, the softmax
    reads the states of each.
    """

    spec: SequenceSpec
    layers: tuple[Layer, ...]  # for normalized input
    dense_kernel: np.ndarray  # (width of the last layer, classes)
    dense_bias: np.ndarray  # (classes,)

    @property
    def cell(self) -> Cell:
        return self.layers[0].forward.cell

    @property
    def units(self) -> int:
        return self.layers[0].forward.units

    @property
    def activation(self) -> str:
        return self.layers[0].forward.activation

    @property
    def recurrent_activation(self) -> str:
        return self.layers[0].forward.recurrent_activation

    @property
    def bidirectional(self) -> bool:
        return self.layers[0].backward is not None

    @property
    def every_step(self) -> bool:
        """Whether it answers at every step of a sequence, and not at its end."""
        return self.spec.every_step

    @property
    def state_units(self) -> tuple[int, ...]:
        """The units of each state that a step takes and gives: layer by layer, of an LSTM h, c."""
        return tuple(
            direction.units
            for layer in self.layers
            for direction in layer.directions
            for _ in CELLS[direction.cell].states
        )

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """Every array, by a name that says where it belongs."""
        found = {}
        for i, layer in enumerate(self.layers):
            for name, direction in zip(("forward", "backward"), layer.directions, strict=False):
                for array in ("kernel", "recurrent_kernel", "bias"):
                    found[f"layer {i + 1} {name} {array}"] = getattr(direction, array)
        return found | {"dense_kernel": self.dense_kernel, "dense_bias": self.dense_bias}

    @property
    def parameters(self) -> int:
        return sum(array.size for array in self.arrays.values())

    @functools.cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of its formula: two networks with the same one say the same of any input."""
        kinds = [[_kind(each) for each in layer.directions] for layer in self.layers]
        digest = hashlib.sha256(json.dumps([self.spec.to_dict(), kinds]).encode())
        for name, array in self.arrays.items():
            digest.update(f"{name} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array, "<f4").tobytes())
        return digest.hexdigest()

    @property
    def most_at_once(self) -> int:
        """How many examples a runtime may be given at once so that `BATCH_BYTES` hold them."""
        return max(1, self.most_steps // self.spec.longest)

    @property
    def most_steps(self) -> int:
        """How many time steps, of all examples together, `BATCH_BYTES` hold."""
        # A layer's gates at every step, in float32.
        columns = (sum(each.kernel.shape[1] for each in layer.directions) for layer in self.layers)
        widest = max(self.spec.features, self.spec.classes * self.every_step, int(max(columns)))
        return max(1, BATCH_BYTES // (4 * widest))

    @functools.cached_property
    def raw_layers(self) -> tuple[Layer, ...]:
        """The layers for raw input: normalization is folded into the weights of the first."""
        first, *others = self.layers
        return (first.each(lambda each: each.for_raw(self.spec.normalization)), *others)


def read_model(model: keras.Sequential, spec: SequenceSpec) -> Network:
    """Read `Sequential([SimpleRNN | LSTM | GRU, perhaps Bidirectional, ..., Dense(softmax)])`.

    Raises `InputError` for any other layer or option, naming it, and for weights that do not fit
    `spec` or are not finite.
    """
    layers = [layer for layer in model.layers if type(layer).__name__ != "InputLayer"]
    names = [type(layer).__name__ for layer in layers]
    recurrent = (*BY_KERAS_LAYER, "Bidirectional")
    if names[-1:] != ["Dense"] or len(names) < 2 or not set(names[:-1]) <= set(recurrent):
        unsupported = [name for name in names if name not in (*recurrent, "Dense")]
        what = f"unsupported layer: {unsupported[0]}" if unsupported else "unsupported layers"
        raise InputError(
            f"cannot export the model: {what}",
            expected=f"one or more of {', '.join(recurrent)}, then Dense", got=", ".join(names),
        )  # fmt: skip
    *layers, dense = layers
    options = dense.get_config()
    if options["activation"] != "softmax" or not options["use_bias"]:
        raise _unsupported(
            "Dense(activation, use_bias)", "softmax, True",
            f"{options['activation']}, {options['use_bias']}",
        )  # fmt: skip
    dense_kernel, dense_bias = (np.asarray(weight, np.float32) for weight in dense.get_weights())
    network = Network(
        spec=spec,
        layers=tuple(
            _read_layer(layer, every=layer is not layers[-1] or spec.every_step) for layer in layers
        ),
        dense_kernel=dense_kernel,
        dense_bias=dense_bias,
    )
    _check(network)
    return network


def _read_layer(layer: keras.layers.Layer, *, every: bool) -> Layer:
    if type(layer).__name__ != "Bidirectional":
        return Layer(_read_recurrence(layer, {"return_sequences": every}))
    merge = layer.get_config()["merge_mode"]
    if merge != "concat":
        raise _unsupported("Bidirectional(merge_mode)", "concat", merge)
    forward, backward = layer.forward_layer, layer.backward_layer
    return Layer(
        _read_recurrence(forward, {"return_sequences": every}),
        _read_recurrence(backward, {"return_sequences": every, "go_backwards": True}),
    )


def _read_recurrence(layer: keras.layers.RNN, options: Mapping[str, object]) -> Recurrence:
    name, config = type(layer).__name__, layer.get_config()
    if name not in BY_KERAS_LAYER:
        raise _unsupported("Bidirectional", f"one of {', '.join(BY_KERAS_LAYER)}", name)
    for option, value in {**OPTIONS, **options}.items():
        if config.get(option, value) != value:
            raise _unsupported(f"{name}({option})", value, config[option])
    kernel, recurrent_kernel, bias = (np.asarray(each, np.float32) for each in layer.get_weights())
    return Recurrence(
        cell=BY_KERAS_LAYER[name].name,
        activation=config["activation"],
        recurrent_activation=config.get("recurrent_activation", "linear"),
        kernel=kernel,
        recurrent_kernel=recurrent_kernel,
        bias=bias,
    )


def _unsupported(what: str, expected: object, got: object) -> InputError:
    return InputError(f"cannot export the model: {what}", expected=str(expected), got=got)


def _check(network: Network) -> None:
    for layer in network.layers:
        for direction in layer.directions:
            _check_activations(direction)
    kinds = [[_kind(direction) for direction in layer.directions] for layer in network.layers]
    if any(set(kind) != {kinds[0][0]} or len(kind) != len(kinds[0]) for kind in kinds):
        raise InputError(
            "cannot export the model: layers that differ",
            expected="the same cell, units, activations and directions in each",
            got=", then ".join(" and ".join(kind) for kind in kinds),
        )
    shape = (network.layers[0].forward.inputs, network.dense_kernel.shape[1])
    if shape != (network.spec.features, network.spec.classes):
        raise InputError(
            "the model does not fit the specification",
            expected=f"{network.spec.features} features and {network.spec.classes} classes",
            got=f"{shape[0]} and {shape[1]}",
        )
    for name, array in network.arrays.items():
        if not np.isfinite(array).all():
            raise InputError(
                "cannot export the model: weights that are not finite",
                got=f"NaN or infinity in {name}",
                fix="Train it again, with a smaller learning rate.",
            )


def _kind(direction: Recurrence) -> str:
    """`gru(32, tanh, sigmoid)`"""
    activations = f"{direction.activation}, {direction.recurrent_activation}"
    return f"{direction.cell}({direction.units}, {activations})"


def _check_activations(direction: Recurrence) -> None:
    names = [direction.activation]
    if CELLS[direction.cell].recurrent_activation != "linear":
        names.append(direction.recurrent_activation)
    for name in names:
        if not isinstance(name, str) or name not in ACTIVATIONS:
            raise InputError(
                "cannot export the model: unsupported activation",
                expected=f"one of {', '.join(sorted(ACTIVATIONS))}",
                got=repr(name),
            )
