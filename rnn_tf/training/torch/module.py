"""The same classifier in PyTorch, and weights carried both ways.

Needs the extra `torch`: pip install "rnn-tf[torch]". Nothing imports it unless asked for PyTorch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rnn_tf.errors import InputError
from rnn_tf.model.cells import BY_KERAS_LAYER, CELLS, Cell, CellKind

try:
    import torch
    from torch import nn
    from torch.nn import functional
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
except ModuleNotFoundError as error:
    raise InputError("PyTorch is not installed", fix='pip install "rnn-tf[torch]"') from error

if TYPE_CHECKING:
    import keras

# PyTorch's own layers, by cell, activation and that of the gates.
LAYERS = {
    ("simple_rnn", "tanh", "linear"): "RNN",
    ("simple_rnn", "relu", "linear"): "RNN",
    ("lstm", "tanh", "sigmoid"): "LSTM",
    ("gru", "tanh", "sigmoid"): "GRU",
}

Function = Callable[[torch.Tensor], torch.Tensor]
States = tuple[torch.Tensor, ...]

# Those of `rnn_tf.model.activations`, as keras.activations defines them.
ACTIVATIONS: dict[str, Function] = {
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
    """Recurrent layers, the last state of each direction of the last one, and `nn.Linear`.

    Maps scaled float32 `(batch, timesteps, features)` to logits `(batch, classes)`; their softmax
    is what the Keras model gives. With `every_step`, the state of every step is read, and the
    logits are `(batch, timesteps, classes)`. With `lengths`, int64 `(batch,)`, sequences are
    right-padded, and what is beyond the end of one is not read; what is said there means
    nothing. `recurrent` is `nn.RNN`, `nn.LSTM`, `nn.GRU` or `Recurrent`, all of which have the same
    parameters; `width` is the size of the state that `dense` reads.
    """

    def __init__(
        self, recurrent: nn.Module, width: int, classes: int, *, every_step: bool = False
    ) -> None:
        super().__init__()
        self.recurrent = recurrent
        self.dense = nn.Linear(width, classes)
        self.every_step = every_step

    def states(
        self,
        x: torch.Tensor,
        masks: Sequence[torch.Tensor] | None = None,
        lengths: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """What `dense` reads: `(batch, width)`, or with `every_step` `(batch, timesteps, width)`.

        `masks` are those of `Recurrent`. With `lengths`, int64 `(batch,)`, sequences are
        right-padded, and what is beyond the end of one is not read.
        """
        recurrent = self.recurrent
        if isinstance(recurrent, Recurrent):
            every, last = recurrent(x, masks, lengths)
        else:
            if masks is not None:
                (mask,) = masks  # PyTorch's own layers can be given those of one direction only
                x = x * mask[:, None]
            every, last = self._read(x, lengths)
        if self.every_step:
            states: torch.Tensor = every
            return states
        if isinstance(last, tuple):  # that of an LSTM has two parts
            last = last[0]
        return torch.cat((last[-2], last[-1]), 1) if recurrent.bidirectional else last[-1]

    def _read(self, x: torch.Tensor, lengths: torch.Tensor | None) -> tuple[torch.Tensor, Any]:
        """The states of PyTorch's own layer, and the last ones as it gives them."""
        recurrent = self.recurrent
        if lengths is None:
            every, last = recurrent(x)
        elif recurrent.bidirectional:
            packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
            every, last = recurrent(packed)
            every, _ = pad_packed_sequence(every, batch_first=True, total_length=x.shape[1])
        else:
            # What comes after the end of a sequence does not reach back to it.
            every, _ = recurrent(x.masked_fill(~has_steps(x, lengths), 0))  # whatever it holds
            rows = torch.arange(len(lengths), device=x.device)
            last = every[rows, lengths.to(x.device) - 1][None]
        return every, last

    def forward(self, x: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        logits: torch.Tensor = self.dense(self.states(x, lengths=lengths))
        return logits


class Recurrent(nn.Module):
    """`nn.RNN`, `nn.LSTM` or `nn.GRU` with any activations, in a Python loop over time.

    Parameters have the names, shapes and order of PyTorch's own, with g gates and u units:
    `weight_ih_l0` `(g*u, features)`, `weight_hh_l0` `(g*u, u)`, `bias_ih_l0` and `bias_hh_l0`
    `(g*u,)`, the same with `_reverse` for the other direction, and so on for `l1`, ... Layers
    above the first read the states of both directions side by side.
    """

    def __init__(
        self,
        cell: Cell,
        features: int,
        units: int,
        *,
        activation: str,
        recurrent_activation: str,
        layers: int = 1,
        bidirectional: bool = False,
    ) -> None:
        super().__init__()
        self.cell = cell
        self.input_size, self.hidden_size = features, units
        self.num_layers, self.bidirectional = layers, bidirectional
        self.activation, self.recurrent_activation = activation, recurrent_activation
        self.functions = (ACTIVATIONS[activation], ACTIVATIONS[recurrent_activation])
        rows, bound = len(CELLS[cell].gates) * units, units**-0.5  # PyTorch's own start so too
        for name in direction_names(layers, bidirectional):
            of_first = name.startswith("l0")
            inputs = features if of_first else units * (1 + bidirectional)
            for kind, shape in (
                ("weight_ih", (rows, inputs)),
                ("weight_hh", (rows, units)),
                ("bias_ih", (rows,)),
                ("bias_hh", (rows,)),
            ):
                start = torch.empty(shape).uniform_(-bound, bound)
                self.register_parameter(f"{kind}_{name}", nn.Parameter(start))

    def forward(
        self,
        x: torch.Tensor,
        masks: Sequence[torch.Tensor] | None = None,
        lengths: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The states of the last layer, and the last state of each direction of each layer.

        `x` is `(batch, timesteps, features)`, the states are `(batch, timesteps, units)`, those of
        two directions side by side, the last ones `(directions, batch, units)`. Of `masks`, one
        for each direction, `(batch, inputs of the layer)`, each is multiplied with what its
        direction reads at every time step. Of each sequence the first `lengths` steps are read,
        `(batch,)`, without `lengths` all; at the others a state stays as it is.
        """
        has_step = None
        if lengths is not None:
            has_step = has_steps(x, lengths)
            x = x.masked_fill(~has_step, 0)  # whatever the padding holds
        last = []
        every = 1 + self.bidirectional
        names = direction_names(self.num_layers, self.bidirectional)
        for start in range(0, len(names), every):
            found = []
            for i in range(start, start + every):
                read = x if masks is None else x * masks[i][:, None]
                states = self._read(read, names[i], has_step)
                last.append(states[-1])
                found.append(torch.stack(states[:: -1 if i > start else 1], 1))
            x = torch.cat(found, 2) if len(found) > 1 else found[0]
        return x, torch.stack(last)

    def _read(
        self, x: torch.Tensor, name: str, has_step: torch.Tensor | None
    ) -> list[torch.Tensor]:
        """The hidden states of one direction, in the order of reading.

        `has_step`, `(batch, timesteps, 1)`, says which steps a sequence has; None: all.
        """
        weight, state_weight, bias, state_bias = (
            getattr(self, f"{kind}_{name}")
            for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        if self.cell != "gru":  # only its reset gate comes between the two
            bias, state_bias = bias + state_bias, None
        # The inputs of all time steps at once: they wait for no state.
        frames = functional.linear(x, weight, bias).unbind(1)
        turned = state_weight.t()  # once: in the loop it would take a sixth of the time
        step = STEPS[self.cell]
        state = frames[0].new_zeros(x.shape[0], self.hidden_size)
        states: States = (state,) * len(CELLS[self.cell].states)
        found = []
        order = -1 if name.endswith("_reverse") else 1
        present = [None] * len(frames) if has_step is None else has_step.unbind(1)
        for frame, there in zip(frames[::order], present[::order], strict=True):
            after = step(frame, states, turned, state_bias, *self.functions)
            if there is not None:
                after = tuple(map(functools.partial(torch.where, there), after, states))
            states = after
            found.append(states[0])
        return found


def has_steps(x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Which steps of `x` `(batch, timesteps, features)` a sequence has: `(batch, timesteps, 1)`."""
    steps = torch.arange(x.shape[1], device=x.device)
    return (steps < lengths.to(x.device)[:, None])[..., None]


# A step gives the next states, each `(batch, units)`. `x` is the product of the frame and its
# weights, with the biases; `u` are the weights of the state, turned; `f` is the activation and `s`
# that of the gates.
def _simple_rnn(
    x: torch.Tensor, states: States, u: torch.Tensor, _: None, f: Function, s: Function
) -> States:
    """H' = f(x + h u), the network of Elman, 1990."""
    return (f(torch.addmm(x, states[0], u)),)


def _lstm(
    x: torch.Tensor, states: States, u: torch.Tensor, _: None, f: Function, s: Function
) -> States:
    """i, f, o = s(x + h u) and g = f(x + h u); c' = f * c + i * g; h' = o * f(c').

    Hochreiter and Schmidhuber, 1997, with the forget gate of Gers et al., 2000.
    """
    h, c = states
    i, forget, g, o = torch.addmm(x, h, u).chunk(4, 1)
    c = s(forget) * c + s(i) * f(g)
    return s(o) * f(c), c


def _gru(
    x: torch.Tensor, states: States, u: torch.Tensor, bias: torch.Tensor, f: Function, s: Function
) -> States:
    """r, z = s(x + h u + bias); g = f(x + r * (h u + bias)); h' = z * h + (1 - z) * g.

    Cho et al., 2014, with the reset gate after the product, as in cuDNN.
    """
    (h,) = states
    xr, xz, xg = x.chunk(3, 1)
    hr, hz, hg = torch.addmm(bias, h, u).chunk(3, 1)
    z = s(xz + hz)
    return (z * h + (1 - z) * f(xg + s(xr + hr) * hg),)


STEPS: dict[Cell, Callable[..., States]] = {"simple_rnn": _simple_rnn, "lstm": _lstm, "gru": _gru}


def direction_names(layers: int, bidirectional: bool) -> list[str]:
    """How PyTorch's parameters end, for each direction of each layer, in its order and Keras's."""
    ends = ("", "_reverse") if bidirectional else ("",)
    return [f"l{layer}{end}" for layer in range(layers) for end in ends]


def to_torch(model: keras.Sequential, *, dropout: bool = False) -> SequenceClassifier:
    """The PyTorch module of a Keras model from `build_model`, with the same weights, on the CPU.

    With `dropout` it takes a mask for each direction. Raises `InputError` for layers that no
    PyTorch module has.
    """
    from rnn_tf.model.classifier import directions  # and with it Keras: a module needs none

    layers = [directions(layer) for layer in model.layers[:-1]]
    kind, config = _one_kind([layer for pair in layers for layer in pair])
    first, dense = layers[0], model.layers[-1]
    features, units = int(first[0].cell.kernel.shape[0]), int(config["units"])
    # A simple cell has no gates.
    activations = (config["activation"], config.get("recurrent_activation", "linear"))
    recurrent = build_recurrent(
        kind.name, *activations, features, units,
        layers=len(layers), bidirectional=len(first) > 1, dropout=dropout,
    )  # fmt: skip
    module = SequenceClassifier(
        recurrent, units * len(first), int(dense.kernel.shape[1]),
        every_step=layers[-1][0].return_sequences,
    )  # fmt: skip
    columns = columns_by_gate(kind.name, units)
    weights = iter(model.get_weights())
    values: dict[str, np.ndarray] = {}
    for name in direction_names(len(layers), len(first) > 1):
        kernel, state_kernel, bias = (np.asarray(next(weights)) for _ in range(3))
        # GRU has a bias beside each product in both; the others have one in Keras and two here.
        bias, state_bias = bias if kind.biases == 2 else (bias, np.zeros_like(bias))
        values |= {
            f"recurrent.weight_ih_{name}": kernel[:, columns].T,
            f"recurrent.weight_hh_{name}": state_kernel[:, columns].T,
            f"recurrent.bias_ih_{name}": bias[columns],
            f"recurrent.bias_hh_{name}": state_bias[columns],
        }
    values |= {"dense.weight": next(weights).T, "dense.bias": next(weights)}
    module.load_state_dict(
        {name: torch.from_numpy(np.array(value, np.float32)) for name, value in values.items()}
    )
    return module


def _one_kind(layers: list[keras.layers.RNN]) -> tuple[CellKind, dict[str, Any]]:
    """The kind of the cells of all directions, and the settings of the first."""
    for layer in layers:
        if type(layer).__name__ not in BY_KERAS_LAYER:
            raise InputError(
                f"no PyTorch cell for {type(layer).__name__}",
                expected=f"one of {', '.join(BY_KERAS_LAYER)}",
            )
    names = ("units", "activation", "recurrent_activation")
    configs = [layer.get_config() for layer in layers]
    found = {
        (type(layer).__name__, *map(config.get, names))
        for layer, config in zip(layers, configs, strict=True)
    }
    if len(found) > 1:
        raise InputError(
            "no PyTorch module for layers that differ",
            expected="the same cell, units and activations in all recurrent layers",
            got="; ".join(sorted(" ".join(map(str, each)) for each in found)),
        )
    return BY_KERAS_LAYER[type(layers[0]).__name__], configs[0]


def from_torch(module: SequenceClassifier) -> list[np.ndarray]:
    """The module's weights as `keras.Model.set_weights` takes them, float32.

    `to_torch` and back gives the same bits.
    """
    recurrent = module.recurrent
    kind = kind_of(recurrent)
    state = {name: value.cpu().numpy() for name, value in module.state_dict().items()}
    # The order of gates is its own inverse.
    columns = columns_by_gate(kind.name, recurrent.hidden_size)
    weights = []
    for name in direction_names(recurrent.num_layers, recurrent.bidirectional):
        kernel, state_kernel, bias, state_bias = (
            state[f"recurrent.{what}_{name}"][columns]
            for what in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        both = np.stack([bias, state_bias])
        weights += [kernel.T, state_kernel.T, both if kind.biases == 2 else both.sum(axis=0)]
    weights += [state["dense.weight"].T, state["dense.bias"]]
    return [np.array(weight, np.float32) for weight in weights]


def kind_of(recurrent: nn.Module) -> CellKind:
    """The kind of cell in `nn.RNN`, `nn.LSTM`, `nn.GRU` or `Recurrent`."""
    if isinstance(recurrent, Recurrent):
        return CELLS[recurrent.cell]
    return next(kind for kind in CELLS.values() if kind.torch_layer == type(recurrent).__name__)


def gate_rows(module: SequenceClassifier) -> torch.Tensor | None:
    """The rows of the recurrent weights in Keras's order of gates; None where it is the same."""
    kind, weight = kind_of(module.recurrent), module.recurrent.weight_hh_l0
    if kind.gates == kind.torch_gates:
        return None
    return torch.tensor(columns_by_gate(kind.name, weight.shape[1]), device=weight.device)


def columns_by_gate(cell: Cell, units: int) -> list[int]:
    """The columns of a Keras kernel in PyTorch's order of gates, or the other way round."""
    return CELLS[cell].columns(CELLS[cell].torch_gates, units)


def own_layer(
    cell: str,
    activation: str,
    gates: str,
    features: int,
    units: int,
    *,
    layers: int = 1,
    bidirectional: bool = False,
) -> nn.Module | None:
    """`nn.RNN`, `nn.LSTM` or `nn.GRU`, if one computes with these activations."""
    layer = LAYERS.get((cell, activation, gates))
    if layer is None:
        return None
    options = {"nonlinearity": activation} if layer == "RNN" else {}
    made: nn.Module = getattr(nn, layer)(
        features, units, num_layers=layers, bidirectional=bidirectional, batch_first=True, **options
    )
    return made


def build_recurrent(
    cell: Cell,
    activation: str,
    gates: str,
    features: int,
    units: int,
    *,
    layers: int = 1,
    bidirectional: bool = False,
    dropout: bool = False,
) -> nn.Module:
    """PyTorch's own layer where it computes the same, and `Recurrent` elsewhere.

    With `dropout`, of the inputs of each direction as in Keras, PyTorch's own will do only for one:
    it drops what is between layers, another part at each time step.
    """
    shape: dict[str, Any] = {"layers": layers, "bidirectional": bidirectional}
    several = layers > 1 or bidirectional
    own = own_layer(cell, activation, gates, features, units, **shape)
    if own is not None and not (dropout and several):
        return own
    return Recurrent(
        cell, features, units, activation=activation, recurrent_activation=gates, **shape
    )
