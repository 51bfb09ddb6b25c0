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
from rnn_tf.training.keras.kept_models import KeptModels
from tuning.trial import train_trial, without_test

CONFIG = TrainConfig(cell="gru", units=5, epochs=2, batch_size=16)


@pytest.mark.parametrize("name", ["keras", pytest.param("torch", marks=pytest.mark.torch)])
def test_a_trial_is_trained_as_a_run_is(
    name: Backend, varying: SequenceData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = KeptModels()
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


def test_a_trial_of_answers_at_every_step(labelled_steps: SequenceData, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, answer="every_step", epochs=1)
    data = without_test(labelled_steps)
    found = train_trial(config, data, tmp_path / "trial_0", choose_backend("keras", warn=False))
    trial = Run.open(tmp_path / "trial_0")
    assert trial.spec.every_step
    valid = trial.metrics["valid"]
    assert found["val_accuracy"] == valid["accuracy"]
    assert 0 <= valid["sequence_accuracy"] <= valid["last_step_accuracy"] <= 1
    # Finished: it is not trained again.
    assert train_trial(config, data, trial.path, choose_backend("keras", warn=False)) == found
