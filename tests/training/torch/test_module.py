"""The same model in PyTorch: weights carried both ways, and what cannot be carried."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import keras
import numpy as np
import pytest

from export import oracle
from export.network import read_model
from rnn_tf import Run, TrainConfig, build_model
from rnn_tf.data import SequenceData, SequenceSpec
from rnn_tf.errors import InputError
from rnn_tf.model import activations
from rnn_tf.model.cells import CELLS, Cell

torch = pytest.importorskip("torch", reason="PyTorch is the extra `torch`")
pytestmark = pytest.mark.torch

from rnn_tf.training.torch.module import (  # noqa: E402 - needs torch
    ACTIVATIONS,
    Recurrent,
    build_recurrent,
    from_torch,
    to_torch,
)

# No two sizes alike: a transposed matrix does not fit.
SPEC = SequenceSpec(timesteps=7, features=3, labels=("a", "b", "c", "d"))


SHAPES = pytest.mark.parametrize(
    ("layers", "bidirectional"), [(1, False), (1, True), (2, False), (3, True)]
)


def random_model(
    cell: Cell,
    activation: str = "auto",
    units: int = 5,
    layers: int = 1,
    bidirectional: bool = False,
) -> keras.Sequential:
    """A model whose biases are random too."""
    config = TrainConfig(
        cell=cell, activation=activation, units=units, layers=layers, bidirectional=bidirectional
    )
    model = build_model(config, SPEC)
    random = np.random.default_rng(0)
    model.set_weights([random.normal(0, 0.4, w.shape) for w in model.get_weights()])
    return model


def logits(model: keras.Sequential, x: np.ndarray) -> np.ndarray:
    """What the Keras model's softmax is made of."""
    state = x
    for layer in model.layers[:-1]:
        state = layer(state)
    kernel, bias = model.layers[-1].get_weights()
    result: np.ndarray = keras.ops.convert_to_numpy(state) @ kernel + bias
    return result


@pytest.mark.parametrize("cell", ["simple_rnn", "lstm", "gru"])
@pytest.mark.parametrize("activation", ["tanh", "elu"])
@SHAPES
def test_logits_are_those_of_keras(
    cell: Cell, activation: str, layers: int, bidirectional: bool
) -> None:
    model = random_model(cell, activation, layers=layers, bidirectional=bidirectional)
    x = np.random.default_rng(1).normal(size=(50, 7, 3)).astype(np.float32)
    with torch.inference_mode():
        found = to_torch(model)(torch.from_numpy(x)).numpy()
    # float32 rounding over 7 steps: 1e-6 seen.
    np.testing.assert_allclose(found, logits(model, x), atol=1e-5)


@pytest.mark.parametrize("cell", ["simple_rnn", "lstm", "gru"])
@SHAPES
def test_weights_come_back_bit_for_bit(cell: Cell, layers: int, bidirectional: bool) -> None:
    model = random_model(cell, units=6, layers=layers, bidirectional=bidirectional)
    for weight, back in zip(model.get_weights(), from_torch(to_torch(model)), strict=True):
        np.testing.assert_array_equal(weight, back)


@pytest.mark.parametrize("cell", ["simple_rnn", "lstm", "gru"])
@SHAPES
def test_a_module_that_pytorch_has_started_gives_its_logits_in_keras(
    cell: Cell, layers: int, bidirectional: bool
) -> None:
    torch.manual_seed(0)
    shape: dict[str, Any] = {"layers": layers, "bidirectional": bidirectional}
    module = to_torch(random_model(cell, "tanh", **shape))
    for parameter in module.parameters():
        torch.nn.init.uniform_(parameter, -0.5, 0.5)  # both biases are used
    model = random_model(cell, "tanh", **shape)
    model.set_weights(from_torch(module))
    x = np.random.default_rng(1).normal(size=(50, 7, 3)).astype(np.float32)
    with torch.inference_mode():
        expected = module(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(logits(model, x), expected, atol=1e-5)


def test_the_real_model_agrees_on_the_whole_test_split(run: Run, mnist: SequenceData) -> None:
    model = run.load_model()
    x = mnist.test.x.astype(np.float32) * np.float32(mnist.spec.normalization.scale[0])
    with torch.inference_mode():
        found = torch.softmax(to_torch(model)(torch.from_numpy(x)), 1).numpy()
    # Logits reach 30 after one epoch, where a float32 has 2e-6; probabilities differ by less.
    np.testing.assert_allclose(found, model.predict(x, batch_size=5000, verbose=0), atol=1e-5)


def test_the_real_model_s_logits_agree_where_rounding_does_not_count(
    run: Run, mnist: SequenceData
) -> None:
    """In float32 two orders of adding differ by some 2e-5 in logits of 30."""
    model = run.load_model()
    network = read_model(model, mnist.spec)
    state = oracle.final_states(network.layers[0], oracle.normalized(network, mnist.test.x))
    expected = state @ network.dense_kernel.astype(np.float64) + network.dense_bias
    x = torch.from_numpy(mnist.test.x).double() * mnist.spec.normalization.scale[0]
    with torch.inference_mode():
        found = to_torch(model).double()(x).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_an_activation_is_that_of_keras(name: str) -> None:
    x = np.linspace(-8, 8, 1001, dtype=np.float32)
    expected = keras.ops.convert_to_numpy(keras.activations.get(name)(x))
    # A few units in the last place of values up to 8 (exponential: 3,000).
    np.testing.assert_allclose(ACTIVATIONS[name](torch.from_numpy(x)), expected, 1e-5, 2e-6)


def test_there_is_every_activation_that_a_model_can_have() -> None:
    assert set(ACTIVATIONS) == set(activations.ACTIVATIONS)
    for name in ACTIVATIONS:
        build_model(TrainConfig(activation=name), SPEC)


@pytest.mark.parametrize("cell", ["simple_rnn", "lstm", "gru"])
@SHAPES
def test_the_loop_over_time_computes_as_pytorch_does(
    cell: Cell, layers: int, bidirectional: bool
) -> None:
    shape: dict[str, Any] = {"layers": layers, "bidirectional": bidirectional}
    gates = CELLS[cell].recurrent_activation
    own = build_recurrent(cell, "tanh", gates, 3, 5, **shape)
    assert type(own) is getattr(torch.nn, CELLS[cell].torch_layer)
    loop = Recurrent(cell, 3, 5, activation="tanh", recurrent_activation=gates, **shape)
    assert list(loop.state_dict()) == list(own.state_dict())
    loop.load_state_dict(own.state_dict())
    x = torch.randn(11, 7, 3, generator=torch.Generator().manual_seed(0))
    (states, last), (own_states, own_last) = loop(x), own(x)
    own_last = own_last[0] if cell == "lstm" else own_last
    # float32 rounding: 1e-7 seen.
    torch.testing.assert_close(states, own_states, rtol=0, atol=2e-6)
    torch.testing.assert_close(last, own_last, rtol=0, atol=2e-6)


def test_pytorchs_own_layers_are_used_where_they_compute_the_same() -> None:
    assert type(to_torch(random_model("gru", layers=2)).recurrent) is torch.nn.GRU
    assert type(to_torch(random_model("gru"), dropout=True).recurrent) is torch.nn.GRU
    # PyTorch's dropout between layers is not that of Keras.
    assert type(to_torch(random_model("gru", layers=2), dropout=True).recurrent) is Recurrent
    assert type(to_torch(random_model("lstm", "relu")).recurrent) is Recurrent


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([keras.layers.Flatten()], "no PyTorch cell for Flatten; expected one of SimpleRNN"),
        (
            [keras.layers.GRU(4, return_sequences=True), keras.layers.LSTM(4)],
            "no PyTorch module for layers that differ; expected the same cell",
        ),
        (
            [keras.layers.GRU(4, return_sequences=True), keras.layers.GRU(5)],
            "no PyTorch module for layers that differ; expected the same cell",
        ),
    ],
)
def test_what_pytorch_does_not_have_is_said(layers: list[keras.Layer], message: str) -> None:
    model = keras.Sequential([keras.Input((7, 3)), *layers, keras.layers.Dense(4)])
    with pytest.raises(InputError, match=message):
        to_torch(model)


def test_without_pytorch_it_is_said_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "rnn_tf.training.torch.module")
    with pytest.raises(InputError, match=r"PyTorch is not installed\. pip install .*torch"):
        importlib.import_module("rnn_tf.training.torch.module")
