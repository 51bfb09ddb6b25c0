"""Answers at every step in PyTorch: the training of Keras, its scores too."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recordings import phases

from rnn_tf import Run, TrainConfig, build_model
from rnn_tf.data import SequenceData
from rnn_tf.model.cells import Cell
from rnn_tf.training.keras import backend as keras_backend
from rnn_tf.training.keras import fit as in_keras
from rnn_tf.training.keras.devices import seed_everything
from rnn_tf.training.recorder import Fitted

torch = pytest.importorskip("torch", reason="PyTorch is the extra `torch`")
pytestmark = pytest.mark.torch

from rnn_tf.training.torch import fit as fit_torch  # noqa: E402 - needs torch
from rnn_tf.training.torch.gradients import ManualGradients  # noqa: E402
from rnn_tf.training.torch.module import from_torch, to_torch  # noqa: E402

# 203 examples in batches of 16: the last batch has 11.
CONFIG = TrainConfig(
    answer="every_step", units=7, epochs=2, batch_size=16, learning_rate=0.01, optimizer="adam",
    dropout=0.0, noise=0.0,
    objective="balanced_accuracy", backend="torch",
)  # fmt: skip


def fitted(config: TrainConfig, data: SequenceData, path: Path) -> Fitted:
    seed_everything(config)
    fit = fit_torch.fit if config.backend == "torch" else in_keras.fit
    return fit(config, data, Run.create(path, config, data.spec))


def weights(found: Fitted) -> np.ndarray:
    return np.concatenate([weight.ravel() for weight in found.model.get_weights()])


@pytest.mark.parametrize(
    ("settings", "by_hand", "varies"),
    [
        ({"cell": "simple_rnn", "activation": "tanh", "class_weights": "balanced"}, True, True),
        ({"cell": "lstm", "bidirectional": True}, False, True),
        ({"cell": "gru", "activation": "elu"}, False, False),
    ],
)
def test_training_is_that_of_keras(
    settings: dict[str, Any], by_hand: bool, varies: bool, tmp_path: Path
) -> None:
    config, data = dataclasses.replace(CONFIG, **settings), phases(varies=varies)
    assert fit_torch.writes_out(config, "float32") == by_hand
    witness = fitted(config, data, tmp_path / "torch")
    keras = fitted(dataclasses.replace(config, backend="keras"), data, tmp_path / "keras")
    # float32 rounding in another order, over 26 updates: 2e-6 seen; weights are near 1.
    np.testing.assert_allclose(weights(witness), weights(keras), atol=2e-5)
    for a, b in zip(witness.history, keras.history, strict=True):
        assert a.keys() == b.keys()
        for name in a.keys() - {"seconds"}:
            assert a[name] == pytest.approx(b[name], rel=3e-4, abs=1e-6), name
    valid = np.asarray(data.valid.step_labels >= 0)
    ours = fit_torch.probabilities(witness.model, data.valid, data.spec)
    theirs = keras_backend.probabilities(witness.model, data.valid, data.spec)
    assert ours.shape == theirs.shape == (*valid.shape, 3)
    np.testing.assert_allclose(ours[valid], theirs[valid], atol=1e-5)


@pytest.mark.parametrize("cell", ["simple_rnn", "gru", "lstm"])
@pytest.mark.parametrize("lengths", [None, (1, 6, 3, 6)])
def test_written_out_gradients_are_those_of_autograd(
    cell: Cell, lengths: tuple[int, ...] | None
) -> None:
    generator = torch.Generator().manual_seed(0)
    config = dataclasses.replace(CONFIG, cell=cell, units=5)
    spec = dataclasses.replace(phases(longest=6).spec)
    module = to_torch(build_model(config, spec))
    assert module.every_step
    for bias in (module.recurrent.bias_ih_l0, module.recurrent.bias_hh_l0, module.dense.bias):
        torch.nn.init.normal_(bias, generator=generator)
    x = torch.randn(4, 6, 2, generator=generator)
    y = torch.randint(-1, 3, (4, 6), generator=generator)
    y[:, 0] = 1
    ends = None if lengths is None else torch.tensor(lengths)
    if ends is not None:
        y[torch.arange(6) >= ends[:, None]] = -1
    weight = torch.tensor([0.5, 1.0, 3.0])
    said = module(x, ends)
    torch.nn.functional.cross_entropy(
        said.flatten(0, 1), y.flatten(), weight, ignore_index=-1
    ).backward()
    expected = {name: p.grad.clone() for name, p in module.named_parameters()}
    gradients = ManualGradients(module, config.cell_activation, 6, 4)
    gradients.x.copy_(x.transpose(0, 1))
    logits = torch.empty(4, 6, 3)
    for parameter in module.parameters():
        parameter.grad.zero_()
    gradients(y, logits, ends, weight)
    torch.testing.assert_close(logits[y >= 0], said[y >= 0])
    for name, parameter in module.named_parameters():
        if cell == "gru" or name != "recurrent.bias_hh_l0":
            torch.testing.assert_close(parameter.grad, expected[name], msg=name)


def test_weights_come_back_the_same() -> None:
    config = dataclasses.replace(CONFIG, cell="gru", layers=2, bidirectional=True)
    model = build_model(config, phases().spec)
    for before, after in zip(model.get_weights(), from_torch(to_torch(model)), strict=True):
        np.testing.assert_array_equal(before, after)
