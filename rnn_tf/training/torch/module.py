"""The same classifier in PyTorch, and weights carried both ways.

Needs the extra `torch`: pip install "rnn-tf[torch]". Nothing imports it unless asked for PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from rnn_tf.config import CELL_BY_LAYER, Cell
from rnn_tf.errors import InputError

try:
    import torch
    from torch import nn
    from torch.nn import functional
except ModuleNotFoundError as error:
    raise InputError("PyTorch is not installed", fix='pip install "rnn-tf[torch]"') from error

if TYPE_CHECKING:
    import keras

# Where the blocks of Keras's columns lie in PyTorch's rows. LSTM has the same order in both: input,
# forget, content, output. GRU has update, reset, content in Keras, and reset first in PyTorch.
ORDER: dict[Cell, list[int]] = {"simple_rnn": [0], "lstm": [0, 1, 2, 3], "gru": [1, 0, 2]}
# PyTorch's own layers, by cell, activation and that of the gates.
LAYERS = {
    ("simple_rnn", "tanh", "linear"): "RNN",
    ("simple_rnn", "relu", "linear"): "RNN",
    ("lstm", "tanh", "sigmoid"): "LSTM",
    ("gru", "tanh", "sigmoid"): "GRU",
}

# Every activation that `build_model` takes, as keras.activations defines it.
ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "celu": functional.celu,
    "elu": functional.elu,
    "exponential": torch.exp,
    "gelu": functional.gelu,
    "hard_shrink": functional.hardshrink,
    "hard_sigmoid": functional.hardsigmoid,
    "hard_silu": functional.hardswish,
    "hard_tanh": functional.hardtanh,
    "leaky_relu": lambda x: functional.leaky_relu(x, 0.2),
    "linear": lambda x: x,
    "log_sigmoid": functional.logsigmoid,
    "mish": functional.mish,
    "relu": functional.relu,
    "relu6": functional.relu6,
    "selu": functional.selu,
    "sigmoid": torch.sigmoid,
    "silu": functional.silu,
    "soft_shrink": functional.softshrink,
    "softplus": functional.softplus,
    "softsign": functional.softsign,
    "sparse_plus": lambda x: torch.where(x < 1, (x + 1).clamp(min=0) ** 2 / 4, x),
    "sparse_sigmoid": lambda x: ((x + 1) / 2).clamp(0, 1),
    "squareplus": lambda x: (x + (x * x + 4).sqrt()) / 2,
    "tanh": torch.tanh,
    "tanh_shrink": functional.tanhshrink,
}


class SequenceClassifier(nn.Module):
    """`nn.RNN`, `nn.LSTM` or `nn.GRU`, its last hidden state, and `nn.Linear`.

    Maps scaled float32 `(batch, timesteps, features)` to logits `(batch, classes)`; their softmax
    is what the Keras model gives.
    """

    def __init__(self, recurrent: nn.Module, units: int, classes: int) -> None:
        super().__init__()
        self.recurrent = recurrent
        self.dense = nn.Linear(units, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states, _ = self.recurrent(x)
        logits: torch.Tensor = self.dense(states[:, -1])
        return logits


class ActivatedRNN(nn.Module):
    """`nn.RNN` with any activation, in a Python loop: PyTorch's own has only tanh and relu.

    Parameters have the names and shapes of `nn.RNN`: weights `(units, features)` and
    `(units, units)`, two biases `(units,)`.
    """

    def __init__(self, features: int, units: int, activation: str) -> None:
        super().__init__()
        self.activation = activation
        self.function = ACTIVATIONS[activation]
        bound = units**-0.5  # as nn.RNN starts
        for name, shape in (
            ("weight_ih_l0", (units, features)),
            ("weight_hh_l0", (units, units)),
            ("bias_ih_l0", (units,)),
            ("bias_hh_l0", (units,)),
        ):
            start = torch.empty(shape).uniform_(-bound, bound)
            self.register_parameter(name, nn.Parameter(start))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """States `(batch, timesteps, units)` and the last one `(1, batch, units)`."""
        bias = self.bias_ih_l0 + self.bias_hh_l0
        inputs = functional.linear(x, self.weight_ih_l0, bias)
        state = self.function(inputs[:, 0])
        states = [state]
        for step in inputs[:, 1:].unbind(1):
            state = self.function(torch.addmm(step, state, self.weight_hh_l0.t()))
            states.append(state)
        return torch.stack(states, 1), state[None]


def to_torch(model: keras.Sequential) -> SequenceClassifier:
    """The PyTorch module of a Keras model from `build_model`, with the same weights, on the CPU.

    Raises `InputError` for a cell or activation that PyTorch cannot have.
    """
    layer, dense = model.layers
    kind, config = type(layer).__name__, layer.get_config()
    if kind not in CELL_BY_LAYER:
        raise InputError(
            f"no PyTorch cell for {kind}", expected=f"one of {', '.join(CELL_BY_LAYER)}"
        )
    features, units = int(layer.cell.kernel.shape[0]), int(config["units"])
    recurrent = _recurrent(kind, features, units, config)
    module = SequenceClassifier(recurrent, units, int(dense.kernel.shape[1]))
    kernel, state_kernel, bias, dense_kernel, dense_bias = map(np.asarray, model.get_weights())
    # GRU has a bias beside each product in both; the other cells have one in Keras and two here.
    bias, state_bias = bias if kind == "GRU" else (bias, np.zeros_like(bias))
    columns = columns_by_gate(CELL_BY_LAYER[kind], units)
    for parameter, value in (
        (recurrent.weight_ih_l0, kernel[:, columns].T),
        (recurrent.weight_hh_l0, state_kernel[:, columns].T),
        (recurrent.bias_ih_l0, bias[columns]),
        (recurrent.bias_hh_l0, state_bias[columns]),
        (module.dense.weight, dense_kernel.T),
        (module.dense.bias, dense_bias),
    ):
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(np.array(value, np.float32)))
    return module


def from_torch(module: SequenceClassifier) -> list[np.ndarray]:
    """The module's weights as `keras.Model.set_weights` takes them, float32.

    `to_torch` and back gives the same bits.
    """
    recurrent = module.recurrent
    kind = {"LSTM": "LSTM", "GRU": "GRU"}.get(type(recurrent).__name__, "SimpleRNN")
    kernel, state_kernel, bias, state_bias, dense_kernel, dense_bias = (
        parameter.detach().cpu().numpy()
        for parameter in (
            recurrent.weight_ih_l0,
            recurrent.weight_hh_l0,
            recurrent.bias_ih_l0,
            recurrent.bias_hh_l0,
            module.dense.weight,
            module.dense.bias,
        )
    )
    # The order of gates is its own inverse.
    columns = columns_by_gate(CELL_BY_LAYER[kind], state_kernel.shape[1])
    both = np.stack([bias, state_bias])[:, columns]
    weights = [
        kernel[columns].T,
        state_kernel[columns].T,
        both if kind == "GRU" else both.sum(axis=0),
        dense_kernel.T,
        dense_bias,
    ]
    return [np.array(weight, np.float32) for weight in weights]


def gate_rows(module: SequenceClassifier) -> torch.Tensor | None:
    """The rows of the recurrent weights in Keras's order of gates; None where it is the same."""
    if not isinstance(module.recurrent, nn.GRU):
        return None
    weight = module.recurrent.weight_hh_l0
    return torch.from_numpy(columns_by_gate("gru", weight.shape[1])).to(weight.device)


def columns_by_gate(cell: Cell, units: int) -> np.ndarray:
    """The columns of a Keras kernel in PyTorch's order of gates, or the other way round."""
    return np.concatenate([np.arange(units) + gate * units for gate in ORDER[cell]])


def own_layer(
    cell: str, activation: str, gates: str, features: int, units: int
) -> nn.Module | None:
    """`nn.RNN`, `nn.LSTM` or `nn.GRU`, if one computes with these activations."""
    layer = LAYERS.get((cell, activation, gates))
    if layer is None:
        return None
    options = {"nonlinearity": activation} if layer == "RNN" else {}
    made: nn.Module = getattr(nn, layer)(features, units, batch_first=True, **options)
    return made


def _recurrent(kind: str, features: int, units: int, config: dict[str, Any]) -> nn.Module:
    cell, activation = CELL_BY_LAYER[kind], str(config["activation"])
    # A simple cell has no gates.
    gates = config.get("recurrent_activation", "linear")
    layer = own_layer(cell, activation, gates, features, units)
    if layer is not None:
        return layer
    if cell == "simple_rnn":
        return ActivatedRNN(features, units, activation)
    if gates != "sigmoid":
        raise InputError(
            f"no PyTorch {kind} with other gates",
            expected="recurrent_activation sigmoid",
            got=gates,
        )
    raise InputError(f"no PyTorch {kind} with this activation", expected="tanh", got=activation)
