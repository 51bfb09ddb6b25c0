"""PyTorch: the weights in `model.safetensors`, and the module that computes with them.

Not the `.pt2` of torch.export: PyTorch 2.13 still pickles the example inputs in it, 2.5 the weights
too, and a bundle holds no pickle. Needs the extra `torch`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save
from torch import nn
from torch.nn import functional

from export.formats import pytorch_readme
from export.formats.format import as_input, file_metadata
from export.markdown import code
from export.network import Network
from rnn_tf.data.spec import SequenceSpec
from rnn_tf.model.cells import CELLS, Cell
from rnn_tf.training.torch.module import ACTIVATIONS, LAYERS, columns_by_gate

# What PyTorch calls kernel and recurrent kernel, and the bias beside each.
NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
Function = Callable[[torch.Tensor], torch.Tensor]


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

    Those are float32 `(batch, classes)`. `weights` and `about` are as `tensors` and
    `written_metadata` give them. PyTorch's own layer is used where it computes with these
    activations.
    """
    features = weights["recurrent.weight_ih_l0"].shape[1]
    units = weights["recurrent.weight_hh_l0"].shape[1]
    forward = [name for name in weights if re.fullmatch(r"recurrent.weight_hh_l\d+", name)]
    made = Probabilities(
        cast(Cell, about["cell"]),
        (about["activation"], about["recurrent_activation"]),
        Sizes(features, units, len(forward), "recurrent.weight_hh_l0_reverse" in weights),
        classes=len(weights["dense.bias"]),
    )
    made.load_state_dict({name: torch.as_tensor(weight) for name, weight in weights.items()})
    return made.eval()


class Sizes(NamedTuple):
    """Of the recurrent part of a module."""

    features: int
    units: int
    layers: int
    bidirectional: bool

    @property
    def width(self) -> int:
        """How many numbers its last layer gives of a time step."""
        return self.units * (2 if self.bidirectional else 1)


class Probabilities(nn.Module):
    """Recurrent layers, the final states of the last, `nn.Linear` and a softmax."""

    def __init__(
        self, cell: Cell, activations: tuple[str, str], sizes: Sizes, classes: int
    ) -> None:
        super().__init__()
        self.sizes = sizes
        own = LAYERS.get((cell, *activations))
        if own is None:
            self.recurrent: nn.Module = Looped(cell, activations, sizes)
        else:
            options = {"nonlinearity": activations[0]} if own == "RNN" else {}
            features, units, layers, both = sizes
            self.recurrent = getattr(nn, own)(
                features, units, layers, bidirectional=both, batch_first=True, **options
            )
        self.dense = nn.Linear(sizes.width, classes)

    def forward(self, sequence: torch.Tensor) -> torch.Tensor:
        states, _ = self.recurrent(sequence)
        units = self.sizes.units
        final = states[:, -1, :units]
        if self.sizes.bidirectional:  # reading backward ends at the first step
            final = torch.cat([final, states[:, 0, units:]], 1)
        return torch.softmax(self.dense(final), 1)


class Looped(nn.Module):
    """`nn.RNN`, `nn.LSTM` or `nn.GRU` with any activation, time steps in a Python loop."""

    def __init__(self, cell: Cell, activations: tuple[str, str], sizes: Sizes) -> None:
        super().__init__()
        self.read = {"simple_rnn": _simple_rnn, "lstm": _lstm, "gru": _gru}[cell]
        self.functions = [ACTIVATIONS[name] for name in activations]
        self.sizes = sizes
        rows = sizes.units * len(CELLS[cell].gates)
        for end, inputs in self._ends():
            shapes = [(rows, inputs), (rows, sizes.units), (rows,), (rows,)]
            for name, shape in zip(NAMES, shapes, strict=True):
                self.register_parameter(name + end, nn.Parameter(torch.empty(shape)))

    def _ends(self) -> Iterator[tuple[str, int]]:
        """How the names of each direction of each layer end, and what it reads."""
        for layer in range(self.sizes.layers):
            inputs = self.sizes.width if layer else self.sizes.features
            yield f"_l{layer}", inputs
            if self.sizes.bidirectional:
                yield f"_l{layer}_reverse", inputs

    def forward(self, states: torch.Tensor) -> tuple[torch.Tensor, None]:
        """The states of the last layer after each step, `(batch, timesteps, width)`."""
        for layer in range(self.sizes.layers):
            found = [self._direction(states, f"_l{layer}")]
            if self.sizes.bidirectional:
                found.append(self._direction(states.flip(1), f"_l{layer}_reverse").flip(1))
            states = torch.cat(found, 2)
        return states, None

    def _direction(self, sequence: torch.Tensor, end: str) -> torch.Tensor:
        weights = (getattr(self, name + end) for name in NAMES)
        return torch.stack(self.read(sequence, *weights, *self.functions), 1)


# The states `(batch, units)` after each step of `x` `(batch, timesteps, inputs)`: `w` and `b` are
# the weights and bias beside the input, `u` and `c` those beside the state, `f` the activation and
# `s` that of the gates. Formulas are in `export/oracle.py`.
def _simple_rnn(
    x: torch.Tensor, w: torch.Tensor, u: torch.Tensor, b: torch.Tensor, c: torch.Tensor,
    f: Function, s: Function,
) -> list[torch.Tensor]:  # fmt: skip
    u = u.t()  # once: in the loop it would take a sixth of the time
    first, *others = functional.linear(x, w, b + c).unbind(1)
    states = [f(first)]
    for step in others:
        states.append(f(torch.addmm(step, states[-1], u)))
    return states


def _lstm(
    x: torch.Tensor, w: torch.Tensor, u: torch.Tensor, b: torch.Tensor, c: torch.Tensor,
    f: Function, s: Function,
) -> list[torch.Tensor]:  # fmt: skip
    u, states = u.t(), []
    h = memory = x.new_zeros(len(x), len(u))
    for step in functional.linear(x, w, b + c).unbind(1):
        i, forget, g, o = torch.addmm(step, h, u).chunk(4, 1)
        memory = s(forget) * memory + s(i) * f(g)
        h = s(o) * f(memory)
        states.append(h)
    return states


def _gru(
    x: torch.Tensor, w: torch.Tensor, u: torch.Tensor, b: torch.Tensor, c: torch.Tensor,
    f: Function, s: Function,
) -> list[torch.Tensor]:  # fmt: skip
    u, states = u.t(), []
    h = x.new_zeros(len(x), len(u))
    for step in functional.linear(x, w, b).unbind(1):
        xr, xz, xg = step.chunk(3, 1)
        hr, hz, hg = torch.addmm(c, h, u).chunk(3, 1)
        z = s(xz + hz)
        h = z * h + (1 - z) * f(xg + s(xr + hr) * hg)
        states.append(h)
    return states


class TorchRuntime:
    """The weights of `model.safetensors` in PyTorch. Without TensorFlow."""

    def __init__(self, path: Path, spec: SequenceSpec, threads: int | None = None) -> None:
        torch.set_num_threads(threads or 1)
        self.module, self.spec, self.path = load(path), spec, path

    def metadata(self) -> Mapping[str, str]:
        with safe_open(self.path, framework="pt") as file:
            return file.metadata() or {}

    def predict(self, x: np.ndarray) -> np.ndarray:
        x = as_input(x, self.spec)
        # PyTorch has no tensors that must not be written to, and warns of such arrays.
        x = x if x.flags.writeable else x.copy()
        with torch.inference_mode():
            result: np.ndarray = self.module(torch.from_numpy(x)).numpy()
        return result


def readme(manifest: dict[str, Any]) -> list[str]:
    """The module, from Python."""
    return [
        "## PyTorch\n\n`pip install torch safetensors`. The normalization of raw values is in "
        "the weights of the first layer.\n\n" + code("python", *pytorch_readme.code(manifest))
    ]
