"""Training in PyTorch: the training of Keras, by other arithmetic and other gradients."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rnn_tf import Run, TrainConfig
from rnn_tf import fit as in_keras
from rnn_tf.data import SequenceData
from rnn_tf.record import Fitted
from rnn_tf.runtime import seed_everything

torch = pytest.importorskip("torch", reason="PyTorch is the extra `torch`")

from rnn_tf import fit_torch  # noqa: E402 - needs torch

# 203 examples in batches of 16: the last batch has 11.
CONFIG = TrainConfig(units=7, epochs=3, batch_size=16, learning_rate=0.01, backend="torch")


def fitted(config: TrainConfig, data: SequenceData, path: Path, **options: Any) -> Fitted:
    seed_everything(config)
    fit = fit_torch.fit if config.backend == "torch" else in_keras.fit
    return fit(config, data, Run.create(path, config, data.spec), **options)


def weights(found: Fitted) -> np.ndarray:
    return np.concatenate([weight.ravel() for weight in found.model.get_weights()])


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "soap"])
@pytest.mark.parametrize("cell", ["simple_rnn", "lstm", "gru"])
def test_it_is_the_training_of_keras(
    cell: str, optimizer: str, small: SequenceData, tmp_path: Path
) -> None:
    config = dataclasses.replace(CONFIG, cell=cell, optimizer=optimizer)
    witness = fitted(config, small, tmp_path / "torch")
    keras = fitted(dataclasses.replace(config, backend="keras"), small, tmp_path / "keras")
    print(np.abs(weights(witness) - weights(keras)).max(), np.abs(weights(keras)).max())
    for a, b in zip(witness.history, keras.history, strict=True):
        print(a)
        print(b)
