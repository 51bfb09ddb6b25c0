"""The tables of cells and activations say what Keras and PyTorch do."""

from __future__ import annotations

import keras
import pytest

from export import oracle
from rnn_tf.model.activations import ACTIVATIONS, ALIASES
from rnn_tf.model.cells import BY_KERAS_LAYER, CELLS, CellKind

KINDS = pytest.mark.parametrize("kind", CELLS.values(), ids=list(CELLS))

# In keras.activations, but no functions of one number.
OTHERS = {
    "deserialize", "get", "glu", "log_softmax", "serialize", "softmax", "sparsemax", "threshold",
}  # fmt: skip


@KINDS
@pytest.mark.parametrize(("features", "units"), [(1, 1), (3, 7), (28, 32)])
def test_a_layer_has_the_parameters_and_states_that_the_table_says(
    kind: CellKind, features: int, units: int
) -> None:
    layer = getattr(keras.layers, kind.keras_layer)(units)
    layer.build((None, None, features))
    assert layer.count_params() == kind.parameters(features, units)
    assert layer.cell.kernel.shape == (features, len(kind.gates) * units)
    assert layer.cell.bias.shape[:-1] == ((2,) if kind.biases == 2 else ())
    assert len(layer.get_initial_state(1)) == len(kind.states)
    gates = layer.get_config().get("recurrent_activation", "linear")
    assert gates == kind.recurrent_activation


@KINDS
def test_every_dialect_has_the_same_gates_in_its_order(kind: CellKind) -> None:
    for gates in (kind.torch_gates, kind.onnx_gates):
        assert sorted(gates) == sorted(kind.gates)
    twice = kind.columns(kind.torch_gates, 3)
    assert [twice[i] for i in twice] == list(range(3 * len(kind.gates)))
    assert BY_KERAS_LAYER[kind.keras_layer] is kind


def test_columns_are_those_of_the_gates_named() -> None:
    assert CELLS["gru"].columns(("reset", "content"), 2) == [2, 3, 4, 5]


def test_the_activations_are_those_of_keras_that_work_per_number() -> None:
    known = {n for n in vars(keras.activations) if n.islower() and n[0] != "_"} - OTHERS
    assert known == {*ACTIVATIONS, *ALIASES}
    for name in ACTIVATIONS:
        assert keras.activations.get(name).__name__ == name
    for alias, name in ALIASES.items():
        assert keras.activations.get(alias).__name__ == name
    assert set(oracle.ACTIVATIONS) == set(ACTIVATIONS)
