"""Answers at every step: the training of plain Keras with `return_sequences=True`."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from killed import killed_after
from recordings import phases

from rnn_tf import Run, TrainConfig, build_model, train
from rnn_tf.data import SequenceData
from rnn_tf.errors import InputError
from rnn_tf.model.cells import Cell
from rnn_tf.scores import StepScores, score_split
from rnn_tf.startup import xla_flags
from rnn_tf.train import summary
from rnn_tf.training.keras.backend import probabilities
from rnn_tf.training.keras.devices import seed_everything
from rnn_tf.training.keras.fit import fit
from rnn_tf.training.keras.kept_models import KEPT
from rnn_tf.training.keras.optimizer import build_optimizer
from rnn_tf.training.order import epoch_order
from rnn_tf.training.recorder import Fitted

# 203 examples in batches of 16: the last batch has 11.
CONFIG = TrainConfig(
    answer="every_step",
    units=7,
    epochs=2,
    batch_size=16,
    learning_rate=0.01,
    optimizer="adam",
    dropout=0.0,
    noise=0.0,
)

# What marks padding for Keras's own mask.
PADDING = -99.0


def fitted(config: TrainConfig, data: SequenceData, path: Path, **options: Any) -> Fitted:
    seed_everything(config)
    data = data.answering("every_step")
    return fit(config, data, Run.create(path, config, data.spec), **options)


def weights(model: keras.Model) -> np.ndarray:
    return np.concatenate([weight.ravel() for weight in model.get_weights()])


def plain_keras(config: TrainConfig, data: SequenceData) -> keras.Sequential:
    """Plain `fit` of Keras, in our order of examples, its loss weighed by step."""
    seed_everything(config)
    data = data.answering("every_step")
    split, spec, config = data.train, data.spec, config.resolved(data.spec, len(data.train.y))
    model = build_model(config, spec)
    assert all(layer.return_sequences for layer in model.layers[:-1])
    plain = keras.Sequential([keras.layers.Masking(PADDING), *model.layers])
    examples = len(split.x)
    plain.compile(
        build_optimizer(config, config.updates_an_epoch(examples) * config.epochs_for(examples)),
        keras.losses.SparseCategoricalCrossentropy(reduction="mean_with_sample_weight"),
    )
    x, y = spec.normalization(split.x), split.step_labels
    if split.lengths is not None:
        x[~np.asarray(split.valid)] = PADDING
    for epoch in range(config.epochs_for(examples)):
        order = epoch_order(examples, 16, config.seed, epoch, split.lengths)
        rows = order[order >= 0]
        weight = (y[rows] >= 0).astype(np.float32)
        plain.fit(
            x[rows], np.maximum(y[rows], 0), sample_weight=weight, batch_size=16, shuffle=False,
            verbose=0,
        )  # fmt: skip
    return model


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cell", "layers", "bidirectional", "fused", "whole_loops", "varies"),
    [
        ("simple_rnn", 2, True, True, True, True), ("simple_rnn", 1, False, True, False, False),
        ("simple_rnn", 1, False, False, False, True), ("gru", 1, False, True, True, False),
    ],
)  # fmt: skip
def test_training_is_that_of_plain_keras(
    cell: Cell,
    layers: int,
    bidirectional: bool,
    fused: bool,
    whole_loops: bool,
    varies: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = dataclasses.replace(
        CONFIG, cell=cell, layers=layers, bidirectional=bidirectional, fused=fused
    )
    data = phases(varies=varies)
    monkeypatch.setattr(xla_flags, "are_in_effect", lambda: whole_loops)
    ours = fitted(config, data, tmp_path / "run")
    theirs = plain_keras(config, data)
    # float32 rounding in another order, over 26 updates: 2e-6 seen; weights are near 1.
    np.testing.assert_allclose(weights(ours.model), weights(theirs), atol=2e-5)


# --- scores ---
def test_scores_of_an_epoch_are_those_of_its_model(tmp_path: Path) -> None:
    """Where there is one step too."""
    config = dataclasses.replace(CONFIG, objective="balanced_accuracy")
    data = phases(longest=1, varies=False)
    found = fitted(config, data, tmp_path)
    best = found.history[found.best_epoch - 1]
    scores = score_split(probabilities(found.model, data.valid, data.spec), data.valid)
    assert isinstance(scores, StepScores)
    # Keras counts in float32.
    for name in ("accuracy", "balanced_accuracy", "last_step_accuracy", "sequence_accuracy"):
        assert best[f"val_{name}"] == pytest.approx(scores.summary()[name], abs=1e-6), name
    assert best["val_loss"] == pytest.approx(scores.loss, rel=1e-4)


def test_every_step_learns_the_label_of_its_sequence(varying: SequenceData, tmp_path: Path) -> None:
    """Which only the last steps say: the last is right more often than all."""
    config = dataclasses.replace(CONFIG, optimizer="soap", epochs=20)
    run = train(config, tmp_path / "run", data=varying, progress=False)
    assert run.spec.every_step
    test, valid = run.metrics["test"], run.metrics["valid"]
    assert test["last_step_accuracy"] > 0.9 > test["accuracy"] > 1 / 3
    assert "sequence_accuracy" not in test
    assert (test["sequences"], test["examples"]) == (50, int(varying.test.lengths.sum()))  # type: ignore[union-attr]
    lines = summary(run).splitlines()
    assert lines[:2] == [
        f"accuracy    {test['accuracy']:.2%} test, {valid['accuracy']:.2%} validation",
        f"last step   {test['last_step_accuracy']:.2%} test, "
        f"{valid['last_step_accuracy']:.2%} validation",
    ]


def test_a_run_says_how_many_sequences_are_without_an_error(every_step_run: Run) -> None:
    test, valid = every_step_run.metrics["test"], every_step_run.metrics["valid"]
    best = every_step_run.history[every_step_run.metrics["best_epoch"] - 1]
    for name in ("accuracy", "last_step_accuracy", "sequence_accuracy"):
        # Keras counts in float32.
        assert best[f"val_{name}"] == pytest.approx(valid[name], abs=1e-6), name
    assert 0 < test["sequence_accuracy"] < test["accuracy"] <= 1
    line = summary(every_step_run).splitlines()[2]
    assert re.fullmatch(r"sequences   [0-9.]+% test, [0-9.]+% validation without an error", line)
    assert every_step_run.load_model().output_shape == (None, 9, 3)


# --- the other ways to train ---
def test_mixed_precision_answers_in_float32(labelled_steps: SequenceData, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, cell="gru", epochs=6)
    found = fitted(config, labelled_steps, tmp_path, precision="mixed_bfloat16")
    assert found.history[-1]["loss"] < 0.8 * found.history[0]["loss"]
    recurrent, softmax = found.model.layers
    assert (recurrent.dtype_policy.name, softmax.dtype_policy.name) == ("mixed_bfloat16", "float32")


@pytest.mark.slow
def test_devices_train_alike(labelled_steps: SequenceData, tmp_path: Path) -> None:
    """MirroredStrategy over one CPU device: the code that several GPUs would run."""
    config = dataclasses.replace(CONFIG, epochs=1)
    alone = fitted(config, labelled_steps, tmp_path / "alone", kept=KEPT)
    mirrored = tf.distribute.MirroredStrategy(["CPU:0"])
    found = fitted(config, labelled_steps, tmp_path / "mirrored", strategy=mirrored)
    np.testing.assert_allclose(weights(alone.model), weights(found.model), atol=2e-5)


def test_a_broken_run_ends_with_the_same_bits(labelled_steps: SequenceData, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, epochs=3, class_weights="balanced")
    unbroken = fitted(config, labelled_steps, tmp_path / "unbroken", kept=KEPT)
    run = Run.create(tmp_path / "broken", config, labelled_steps.spec)
    seed_everything(config)
    with killed_after(2):
        fit(config, labelled_steps, run, kept=KEPT)
    resumed = fit(config, labelled_steps, run, kept=KEPT)
    np.testing.assert_array_equal(weights(resumed.model), weights(unbroken.model))


def test_labels_by_step_are_refused_before_anything_is_written(
    labelled_steps: SequenceData, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"train has a label for each step.* --answer every_step"):
        train(TrainConfig(), tmp_path / "run", data=labelled_steps)
    assert not (tmp_path / "run").exists()
