"""PyTorch: the weights in `model.safetensors`, and the module that computes with them.

Not the `.pt2` of torch.export: PyTorch 2.13 still pickles the example inputs in it, 2.5 the weights
too, and a bundle holds no pickle. Needs the extra `torch`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save
from torch import nn
from torch.nn import functional

from export.network import GATES, Twin
from rnn_tf.config import Cell
from rnn_tf.training.torch.module import (
    ACTIVATIONS,
    LAYERS,
    SequenceClassifier,
    columns_by_gate,
    own_layer,
)

# What PyTorch calls kernel and recurrent kernel, and the bias beside each, in its first layer.
NAMES = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")


def write(twin: Twin, path: Path) -> dict[str, Any]:
    """Write the twin as safetensors; give what the manifest says about it.

    Tensors have the names and shapes of `nn.RNN`, `nn.LSTM` or `nn.GRU` and of `nn.Linear`. They
    are for raw input: its scale is in `recurrent.weight_ih_l0`.
    """
    arrays = tensors(twin)
    path.write_bytes(_in_order(save(arrays, metadata(twin))))
    return {
        "layer": LAYERS.get((twin.cell, twin.activation, twin.recurrent_activation)),
        "recurrent_activation": twin.recurrent_activation,
        "tensors": {name: list(array.shape) for name, array in arrays.items()},
    }


def tensors(twin: Twin) -> dict[str, np.ndarray]:
    """The twin's weights as the `state_dict` of its module, float32."""
    # GRU has a bias beside each product in both; the other cells have one in Keras and two here.
    state_bias = twin.bias[1] if twin.cell == "gru" else np.zeros_like(twin.bias)
    bias = np.stack([twin.input_bias, state_bias])
    columns = columns_by_gate(twin.cell, twin.units)
    found = {
        "recurrent.weight_ih_l0": twin.raw_kernel[:, columns].T,  # (g*u, features)
        "recurrent.weight_hh_l0": twin.recurrent_kernel[:, columns].T,  # (g*u, u)
        "recurrent.bias_ih_l0": bias[0, columns],  # (g*u,)
        "recurrent.bias_hh_l0": bias[1, columns],
        "dense.weight": twin.dense_kernel.T,  # (classes, u)
        "dense.bias": twin.dense_bias,
    }
    # safetensors writes the bytes as they lie, whatever the strides are.
    return {name: np.ascontiguousarray(array) for name, array in found.items()}


def metadata(twin: Twin) -> dict[str, str]:
    """What the file says of itself, labels and specification as JSON."""
    spec = json.loads(twin.spec.to_json())
    return {
        "format": "pt",  # how libraries tell a file that is meant for PyTorch
        "cell": twin.cell,
        "activation": twin.activation,
        "recurrent_activation": twin.recurrent_activation,
        "labels": json.dumps(spec["labels"], ensure_ascii=False),
        "spec": json.dumps(spec),
    }


def _in_order(data: bytes) -> bytes:
    """The same file with sorted metadata: safetensors writes them in another order each time.

    The format: eight bytes with the length of the header, the header in JSON, the tensors.
    """
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of eight
    return len(text).to_bytes(8, "little") + text + data[end:]


def load(path: Path) -> nn.Module:
    """The module of a file that `write` has made, on the CPU: see `module`."""
    with safe_open(path, framework="pt") as file:
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
        return module(found, file.metadata())


def module(weights: Mapping[str, Any], about: Mapping[str, str]) -> nn.Module:
    """What maps raw float32 `sequence` `(batch, timesteps, features)`, any batch, to probabilities.

    Those are float32 `(batch, classes)`. `weights` and `about` are as `tensors` and `metadata` give
    them. PyTorch's own layer is used where it computes with these activations.
    """
    features = weights["recurrent.weight_ih_l0"].shape[1]
    classes, units = weights["dense.weight"].shape
    cell = cast(Cell, about["cell"])
    activations = (about["activation"], about["recurrent_activation"])
    layer = own_layer(cell, *activations, features, units)
    made = (
        OwnLayer(layer, units, classes)
        if layer is not None
        else WrittenOut(cell, features, units, classes, activations)
    )
    made.load_state_dict({name: torch.as_tensor(weight) for name, weight in weights.items()})
    return made.eval()


class OwnLayer(SequenceClassifier):
    """`nn.RNN`, `nn.LSTM` or `nn.GRU`, its last hidden state, `nn.Linear` and a softmax."""

    def forward(self, sequence: torch.Tensor) -> torch.Tensor:
        return torch.softmax(super().forward(sequence), 1)


Function = Callable[[torch.Tensor], torch.Tensor]


class WrittenOut(nn.Module):
    """The same with any activation, time steps in a Python loop. Parameters have the same names."""

    def __init__(
        self, cell: Cell, features: int, units: int, classes: int, activations: tuple[str, str]
    ) -> None:
        super().__init__()
        rows = units * GATES[cell]
        shapes = [(rows, features), (rows, units), (rows,), (rows,)]
        empty = {name: torch.empty(shape) for name, shape in zip(NAMES, shapes, strict=True)}
        self.recurrent = nn.ParameterDict(empty)
        self.dense = nn.Linear(units, classes)
        self.read = {"simple_rnn": _simple_rnn, "lstm": _lstm, "gru": _gru}[cell]
        self.functions = [ACTIVATIONS[name] for name in activations]

    def forward(self, sequence: torch.Tensor) -> torch.Tensor:
        weights = (self.recurrent[name] for name in NAMES)
        state = self.read(sequence, *weights, *self.functions)
        return torch.softmax(self.dense(state), 1)


# The state `(batch, units)` after `x` `(batch, timesteps, features)`: `w` and `b` are the weights
# and bias beside the input, `u` and `c` those beside the state, `f` the activation and `s` that of
# the gates. Formulas are in `export/oracle.py`.
def _simple_rnn(
    x: torch.Tensor, w: torch.Tensor, u: torch.Tensor, b: torch.Tensor, c: torch.Tensor,
    f: Function, s: Function,
) -> torch.Tensor:  # fmt: skip
    u = u.t()  # once: in the loop it would take a sixth of the time
    first, *others = functional.linear(x, w, b + c).unbind(1)
    h = f(first)
    for step in others:
        h = f(torch.addmm(step, h, u))
    return h


def _lstm(
    x: torch.Tensor, w: torch.Tensor, u: torch.Tensor, b: torch.Tensor, c: torch.Tensor,
    f: Function, s: Function,
) -> torch.Tensor:  # fmt: skip
    u = u.t()
    h = memory = x.new_zeros(len(x), len(u))
    for step in functional.linear(x, w, b + c).unbind(1):
        i, forget, g, o = torch.addmm(step, h, u).chunk(4, 1)
        memory = s(forget) * memory + s(i) * f(g)
        h = s(o) * f(memory)
    return h


def _gru(
    x: torch.Tensor, w: torch.Tensor, u: torch.Tensor, b: torch.Tensor, c: torch.Tensor,
    f: Function, s: Function,
) -> torch.Tensor:  # fmt: skip
    u = u.t()
    h = x.new_zeros(len(x), len(u))
    for step in functional.linear(x, w, b).unbind(1):
        xr, xz, xg = step.chunk(3, 1)
        hr, hz, hg = torch.addmm(c, h, u).chunk(3, 1)
        z = s(xz + hz)
        h = z * h + (1 - z) * f(xg + s(xr + hr) * hg)
    return h
