"""The kinds of recurrent cell: facts only, in the one table that every part reads.

Importing it imports neither TensorFlow nor PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Cell = Literal["simple_rnn", "lstm", "gru"]


@dataclass(frozen=True)
class CellKind:
    """What there is to know of a kind of cell.

    Gates are the blocks of columns of its kernels, each as wide as the cell has units; the block
    of the new content is one of them.
    """

    name: Cell
    gates: tuple[str, ...]  # in the order of Keras
    keeps: str | None  # the gate that keeps the state: open, it is handed on as it is
    states: tuple[str, ...]  # what a step hands to the next; the first is the output
    biases: int  # rows of the bias; of two, one is beside the input and one beside the state
    keras_layer: str  # its name in keras.layers
    torch_layer: str  # its name in torch.nn
    torch_gates: tuple[str, ...]  # the same gates, in the order of PyTorch
    onnx_operator: str
    onnx_gates: tuple[str, ...]  # in the order of the operator
    # What `auto` stands for, and the activation of the gates: a cell without any has "linear".
    activation: str
    recurrent_activation: str
    recurrent_initializer: str

    def parameters(self, inputs: int, units: int) -> int:
        """The number of weights of one direction of one layer that reads `inputs` features."""
        return len(self.gates) * units * (inputs + units + self.biases)

    def columns(self, gates: tuple[str, ...], units: int) -> list[int]:
        """The columns of a Keras kernel in the order of `gates`.

        The orders of `torch_gates` are their own inverse: taken twice, the columns are as they
        were.
        """
        blocks = [self.gates.index(gate) * units for gate in gates]
        return [start + unit for start in blocks for unit in range(units)]


CELLS: dict[Cell, CellKind] = {
    kind.name: kind
    for kind in (
        CellKind(
            name="simple_rnn",
            gates=("content",),
            keeps=None,
            states=("h",),
            biases=1,
            keras_layer="SimpleRNN",
            torch_layer="RNN",
            torch_gates=("content",),
            onnx_operator="RNN",
            onnx_gates=("content",),
            activation="elu",
            recurrent_activation="linear",
            # A state that is kept until something is learned (Le, Jaitly and Hinton, 2015); gated
            # cells keep theirs by their gates.
            recurrent_initializer="identity",
        ),
        CellKind(
            name="lstm",
            gates=("input", "forget", "content", "output"),
            keeps="forget",
            states=("h", "c"),
            biases=1,
            keras_layer="LSTM",
            torch_layer="LSTM",
            torch_gates=("input", "forget", "content", "output"),
            onnx_operator="LSTM",
            onnx_gates=("input", "output", "forget", "content"),
            activation="tanh",
            recurrent_activation="sigmoid",
            recurrent_initializer="orthogonal",
        ),
        CellKind(
            name="gru",
            gates=("update", "reset", "content"),
            keeps="update",
            states=("h",),
            biases=2,
            keras_layer="GRU",
            torch_layer="GRU",
            torch_gates=("reset", "update", "content"),
            onnx_operator="GRU",
            onnx_gates=("update", "reset", "content"),
            activation="tanh",
            recurrent_activation="sigmoid",
            recurrent_initializer="orthogonal",
        ),
    )
}
BY_KERAS_LAYER: dict[str, CellKind] = {kind.keras_layer: kind for kind in CELLS.values()}
