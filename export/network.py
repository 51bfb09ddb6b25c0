"""The inference twin of a trained model: float32, stateless, preprocessing inside.

A `Twin` is the trained classifier as plain arrays, read once from a Keras model of any training
precision. Every export is made from it, and so is the float64 oracle that they are held against.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rnn_tf.config import CELL_BY_LAYER, Cell
from rnn_tf.data.spec import SequenceSpec
from rnn_tf.errors import InputError

if TYPE_CHECKING:
    import keras

# What every export calls its input and output.
INPUT, OUTPUT = "sequence", "probabilities"

# Blocks of the kernels' columns: one for each gate, and one for the new content.
GATES: dict[Cell, int] = {"simple_rnn": 1, "lstm": 4, "gru": 3}

# Options of a recurrent layer that change its formula, and the only value that is exported.
OPTIONS = {
    "use_bias": True, "return_sequences": False, "return_state": False, "go_backwards": False,
    "stateful": False, "reset_after": True,
}  # fmt: skip


@dataclass(frozen=True)
class Twin:
    """A trained classifier as float32 arrays, in the layout of Keras.

    With u units and g gates (simple_rnn 1; lstm 4: input, forget, content, output; gru 3: update,
    reset, content):
    """

    cell: Cell
    activation: str  # of the new content, a name of keras.activations
    recurrent_activation: str  # of the gates; for simple_rnn, which has none, "linear"
    kernel: np.ndarray  # (features, g*u), for scaled input
    recurrent_kernel: np.ndarray  # (u, g*u)
    bias: np.ndarray  # (g*u,); gru: (2, g*u), one beside the input and one beside the state
    dense_kernel: np.ndarray  # (u, classes)
    dense_bias: np.ndarray  # (classes,)
    spec: SequenceSpec

    @property
    def units(self) -> int:
        return int(self.recurrent_kernel.shape[0])

    @property
    def parameters(self) -> int:
        arrays = (
            self.kernel, self.recurrent_kernel, self.bias, self.dense_kernel, self.dense_bias
        )  # fmt: skip
        return sum(array.size for array in arrays)

    @functools.cached_property
    def raw_kernel(self) -> np.ndarray:
        """`kernel` for raw input: (x * scale + shift) W + b = x (scale W) + (b + shift W)."""
        scale = np.reshape(self.spec.normalization.scale, (-1, 1))
        raw: np.ndarray = (self.kernel.astype(np.float64) * scale).astype(np.float32)
        return raw

    @property
    def input_bias(self) -> np.ndarray:
        """`(g*u,)`: what is added to the product of raw input and `raw_kernel`."""
        row = self.bias[0] if self.cell == "gru" else self.bias
        shift = np.broadcast_to(self.spec.normalization.shift, self.spec.features)
        bias: np.ndarray = (row + shift @ self.kernel.astype(np.float64)).astype(np.float32)
        return bias


def read_model(model: keras.Sequential, spec: SequenceSpec) -> Twin:
    """Read the twin of `Sequential([SimpleRNN | LSTM | GRU, Dense(softmax)])`.

    Raises `InputError` for any other layer or option, naming it, and for weights that do not fit
    `spec` or are not finite.
    """
    layers = [layer for layer in model.layers if type(layer).__name__ != "InputLayer"]
    names = [type(layer).__name__ for layer in layers]
    known = f"one of {', '.join(CELL_BY_LAYER)}, then Dense"
    if len(names) != 2 or names[0] not in CELL_BY_LAYER or names[1] != "Dense":
        unsupported = [name for name in names if name not in (*CELL_BY_LAYER, "Dense")]
        what = f"unsupported layer: {unsupported[0]}" if unsupported else "unsupported layers"
        raise InputError(f"cannot export the model: {what}", expected=known, got=", ".join(names))
    recurrent, dense = layers[0].get_config(), layers[1].get_config()
    for option, value in OPTIONS.items():
        if recurrent.get(option, value) != value:
            raise _unsupported(f"{names[0]}({option})", value, recurrent[option])
    if dense["activation"] != "softmax" or not dense["use_bias"]:
        raise _unsupported(
            "Dense(activation, use_bias)", "softmax, True",
            f"{dense['activation']}, {dense['use_bias']}",
        )  # fmt: skip
    kernel, recurrent_kernel, bias, dense_kernel, dense_bias = (
        np.asarray(weight, np.float32) for weight in model.get_weights()
    )
    twin = Twin(
        cell=CELL_BY_LAYER[names[0]],
        activation=recurrent["activation"],
        recurrent_activation=recurrent.get("recurrent_activation", "linear"),
        kernel=kernel,
        recurrent_kernel=recurrent_kernel,
        bias=bias,
        dense_kernel=dense_kernel,
        dense_bias=dense_bias,
        spec=spec,
    )
    _check(twin)
    return twin


def _unsupported(what: str, expected: object, got: object) -> InputError:
    return InputError(f"cannot export the model: {what}", expected=str(expected), got=got)


def _check(twin: Twin) -> None:
    from export.oracle import ACTIVATIONS

    for name in (twin.activation, twin.recurrent_activation):
        if not isinstance(name, str) or name not in ACTIVATIONS:
            raise InputError(
                "cannot export the model: unsupported activation",
                expected=f"one of {', '.join(sorted(ACTIVATIONS))}",
                got=repr(name),
            )
    shape = (twin.kernel.shape[0], twin.dense_kernel.shape[1])
    if shape != (twin.spec.features, twin.spec.classes):
        raise InputError(
            "the model does not fit the specification",
            expected=f"{twin.spec.features} features and {twin.spec.classes} classes",
            got=f"{shape[0]} and {shape[1]}",
        )
    for name in ("kernel", "recurrent_kernel", "bias", "dense_kernel", "dense_bias"):
        if not np.isfinite(getattr(twin, name)).all():
            raise InputError(
                "cannot export the model: weights that are not finite",
                got=f"NaN or infinity in {name}",
                fix="Train it again, with a smaller learning rate.",
            )
