"""A trial on sequences of different lengths is as any other."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from rnn_tf import Run, TrainConfig, train
from rnn_tf.config import Backend
from rnn_tf.data import SequenceData
from rnn_tf.training.backend import choose_backend
from rnn_tf.training.keras import fit
from tuning.trial import train_trial, without_test

CONFIG = TrainConfig(cell="gru", units=5, epochs=2, batch_size=16)


@pytest.mark.parametrize("name", ["keras", pytest.param("torch", marks=pytest.mark.torch)])
def test_a_trial_is_trained_as_a_run_is(
    name: Backend, varying: SequenceData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = fit.CompiledModels()
    monkeypatch.setattr("rnn_tf.training.keras.backend.KEPT", kept)
    config = dataclasses.replace(CONFIG, backend=name)
    backend = choose_backend(name, warn=False)
    data = without_test(varying).normalized(None)
    for seed in (1, 2):
        of_seed = dataclasses.replace(config, seed=seed)
        path = tmp_path / f"trial_{seed}"
        found = train_trial(of_seed, data, path, backend)
        run = train(of_seed, tmp_path / f"run_{seed}", data=varying, progress=False)
        # Keras counts in float32.
        assert found["val_accuracy"] == pytest.approx(run.metrics["valid"]["accuracy"])
        trial = Run.open(path).load_model()
        for one, other in zip(trial.get_weights(), run.load_model().get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)
    assert len(kept._models) == (1 if name == "keras" else 0)
