"""PyTorch: the weights in `model.safetensors`, and the module that computes with them.

Not the `.pt2` of torch.export: PyTorch 2.13 still pickles the example inputs in it, 2.5 the weights
too, and a bundle holds no pickle. Needs the extra `torch`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save
from torch import nn

from export.formats import pytorch_readme
from export.formats.format import as_inputs, file_metadata
from export.markdown import code
from export.network import INPUT, LENGTHS, Network
from rnn_tf.data.spec import SequenceSpec
from rnn_tf.model.cells import Cell
from rnn_tf.training.torch.module import (
    LAYERS,
    SequenceClassifier,
    build_recurrent,
    columns_by_gate,
)


def write(network: Network, path: Path) -> dict[str, Any]:
    """Write the network as safetensors; give what the manifest says about it.

    Tensors have the names and shapes of `nn.RNN`, `nn.LSTM` or `nn.GRU` and of `nn.Linear`. They
    are for raw input: its normalization is in the weights and biases of the first layer.
    """
    arrays = tensors(network)
    path.write_bytes(_in_order(save(arrays, written_metadata(network))))
    first = network.layers[0].forward
    return {
        "layer": LAYERS.get((first.cell, first.activation, first.recurrent_activation)),
        "recurrent_activation": first.recurrent_activation,
        "tensors": {name: list(array.shape) for name, array in arrays.items()},
    }


def tensors(network: Network) -> dict[str, np.ndarray]:
    """The network's weights as the `state_dict` of its module, float32."""
    found: dict[str, np.ndarray] = {}
    for i, layer in enumerate(network.raw_layers):
        for suffix, weights in zip(("", "_reverse"), layer.directions, strict=False):
            columns = columns_by_gate(weights.cell, weights.units)
            of_layer = {
                "weight_ih": weights.kernel[:, columns].T,  # (g*u, inputs)
                "weight_hh": weights.recurrent_kernel[:, columns].T,  # (g*u, u)
                "bias_ih": weights.input_bias[columns],  # (g*u,)
                "bias_hh": weights.state_bias[columns],
            }
            found |= {f"recurrent.{name}_l{i}{suffix}": each for name, each in of_layer.items()}
    found["dense.weight"] = network.dense_kernel.T  # (classes, width)
    found["dense.bias"] = network.dense_bias
    # safetensors writes the bytes as they lie, whatever the strides are.
    return {name: np.ascontiguousarray(array) for name, array in found.items()}


def written_metadata(network: Network) -> dict[str, str]:
    """What the file says of itself."""
    return {
        "format": "pt",  # how libraries tell a file that is meant for PyTorch
        "cell": network.cell,
        "activation": network.activation,
        "recurrent_activation": network.recurrent_activation,
        **file_metadata(network),
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

    Those are float32 `(batch, classes)`, or `(batch, timesteps, classes)` where it answers at every
    step. Where lengths vary, it is given `lengths`, too, int64 `(batch,)` on the CPU. `weights` and
    `about` are as `tensors` and `written_metadata` give them. PyTorch's own layer is used where it
    computes with these activations.
    """
    features = weights["recurrent.weight_ih_l0"].shape[1]
    units = weights["recurrent.weight_hh_l0"].shape[1]
    forward = [name for name in weights if re.fullmatch(r"recurrent.weight_hh_l\d+", name)]
    recurrent = build_recurrent(
        cast(Cell, about["cell"]),
        about["activation"],
        about["recurrent_activation"],
        features,
        units,
        layers=len(forward),
        bidirectional="recurrent.weight_hh_l0_reverse" in weights,
    )
    classes, width = weights["dense.weight"].shape
    every_step = SequenceSpec.from_json(about["spec"]).every_step
    made = Probabilities(recurrent, width, classes, every_step=every_step)
    made.load_state_dict({name: torch.as_tensor(weight) for name, weight in weights.items()})
    return made.eval()


class Probabilities(SequenceClassifier):
    """The classifier of training, and a softmax."""

    def forward(self, sequence: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        return torch.softmax(super().forward(sequence, lengths), -1)


class TorchRuntime:
    """The weights of `model.safetensors` in PyTorch. Without TensorFlow."""

    def __init__(self, path: Path, spec: SequenceSpec, threads: int | None = None) -> None:
        torch.set_num_threads(threads or 1)
        self.module, self.spec, self.path = load(path), spec, path

    def metadata(self) -> Mapping[str, str]:
        with safe_open(self.path, framework="pt") as file:
            return file.metadata() or {}

    def predict(self, x: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
        inputs = as_inputs(x, lengths, self.spec)
        x = inputs[INPUT]
        # PyTorch has no tensors that must not be written to, and warns of such arrays.
        tensors = [torch.from_numpy(x if x.flags.writeable else x.copy())]
        if self.spec.varies:
            tensors.append(torch.tensor(inputs[LENGTHS], dtype=torch.int64))
        with torch.inference_mode():
            result: np.ndarray = self.module(*tensors).numpy()
        return result


def readme(manifest: dict[str, Any]) -> list[str]:
    """The module, from Python."""
    return [
        "## PyTorch\n\n`pip install torch safetensors`. The normalization of raw values is in "
        "the weights of the first layer.\n\n" + code("python", *pytorch_readme.code(manifest))
    ]
