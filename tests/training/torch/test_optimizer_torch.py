"""Optimizers in PyTorch, against those of Keras: the same gradients, the same weights."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest

import rnn_tf.training.keras.soap
from rnn_tf import TrainConfig, build_model
from rnn_tf.data import SequenceSpec
from rnn_tf.training.keras.optimizer import build_optimizer

torch = pytest.importorskip("torch", reason="PyTorch is the extra `torch`")
pytestmark = pytest.mark.torch

from rnn_tf.training.torch.module import SequenceClassifier, from_torch, to_torch  # noqa: E402
from rnn_tf.training.torch.optimizer import Updates  # noqa: E402 - needs torch

STEPS = 15
# Clipping that sometimes clips: norms of these gradients are about 7.
CONFIG = TrainConfig(learning_rate=0.05, weight_decay=0.1, clip_norm=7.0, units=2)
# SOAP's matrices are square with these: a gradient then leaves no direction to rounding alone.
SQUARE = {"lstm": 5, "gru": 2}  # features: 8x8 and 6x6; softmax of 3 classes: 3x3


def trained_in_keras(model: keras.Sequential, config: TrainConfig) -> list[np.ndarray]:
    optimizer = build_optimizer(config, STEPS)
    random = np.random.default_rng(0)
    for _ in range(STEPS):
        grads = [
            keras.ops.convert_to_tensor(random.normal(size=v.shape).astype(np.float32))
            for v in model.trainable_variables
        ]
        optimizer.apply(grads, model.trainable_variables)
    result: list[np.ndarray] = model.get_weights()
    return result


def trained_in_torch(model: keras.Sequential, config: TrainConfig) -> list[np.ndarray]:
    module = to_torch(model)
    module.recurrent.bias_hh_l0.requires_grad_(config.cell == "gru")
    updates = Updates(config, module, STEPS)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    random = np.random.default_rng(0)
    for step in range(STEPS):
        grads = [random.normal(size=v.shape).astype(np.float32) for v in model.get_weights()]
        put_gradients(module, grads, model)
        updates.step(step, scaler)
    return from_torch(module)


def put_gradients(
    module: SequenceClassifier, grads: list[np.ndarray], model: keras.Sequential
) -> None:
    """Gradients travel as weights do, through a Keras model of the same shapes."""
    carrier = keras.models.clone_model(model)
    carrier.set_weights(grads)
    for parameter, grad in zip(module.parameters(), to_torch(carrier).parameters(), strict=True):
        parameter.grad = grad.detach().clone() if parameter.requires_grad else None


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize(
    "change",
    [
        {"optimizer": "adam"},
        {"optimizer": "adamw", "schedule": "linear"},
        {"optimizer": "adamw", "clip_norm": 0.0, "schedule": "constant", "warmup": 0.0},
        {"optimizer": "soap"},
        {"optimizer": "soap", "clip_norm": 0.0, "weight_decay": 0.0},
    ],
)
def test_steps_are_those_of_keras(
    change: dict[str, object], cell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Some steps with a new basis and some without.
    monkeypatch.setattr(rnn_tf.training.keras.soap, "EARLY_STEPS", 4)
    config = dataclasses.replace(CONFIG, cell=cell, **change)  # type: ignore[arg-type]
    spec = SequenceSpec(timesteps=4, features=SQUARE[cell], labels=("a", "b", "c"))
    model = build_model(config, spec)
    found = trained_in_torch(model, config)
    expected = trained_in_keras(model, config)
    for actual, weight in zip(found, expected, strict=True):
        # 15 steps of at most 0.05 in float32, whose rounding a basis multiplies.
        np.testing.assert_allclose(actual, weight, atol=2e-5)


def test_neither_takes_a_giant_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a limit that every step exceeds, as only a turning basis makes them: they stay equal."""
    monkeypatch.setattr(rnn_tf.training.keras.soap, "LONGEST", 0.1)
    config = dataclasses.replace(CONFIG, cell="lstm", optimizer="soap", clip_norm=0.0)
    spec = SequenceSpec(timesteps=4, features=SQUARE["lstm"], labels=("a", "b", "c"))
    model = build_model(config, spec)
    found = trained_in_torch(model, config)
    for actual, weight in zip(found, trained_in_keras(model, config), strict=True):
        np.testing.assert_allclose(actual, weight, atol=2e-5)
