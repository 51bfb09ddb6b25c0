"""What is counted in training does not depend on the programs that an epoch is made of."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from rnn_tf.training.keras.replicas import ReplicatedSequential
from rnn_tf.training.keras.shares import shared_step
from rnn_tf.training.keras.training_model import TrainingSequential, logits_of


def as_a_whole(layers: list[keras.Layer]) -> tuple[TrainingSequential, Any]:
    model = TrainingSequential(layers)
    return model, lambda x, y, weight: model.train_on_batch(x, y, sample_weight=weight)


def in_shares(layers: list[keras.Layer]) -> tuple[TrainingSequential, Any]:
    model = TrainingSequential(layers)
    step = tf.function(shared_step(model, 2), autograph=False)
    return model, lambda *batch: step([tf.constant(each)[None] for each in batch], 0)


def in_replicas(layers: list[keras.Layer]) -> tuple[TrainingSequential, Any]:
    model = ReplicatedSequential(layers, steps=1, validation_steps=1)
    return model, lambda *batch: tf.function(model.train_step, autograph=False)(batch)


@pytest.mark.parametrize("form", [as_a_whole, in_shares, in_replicas])
def test_a_large_loss_is_shown_as_it_is(form: Any) -> None:
    """Also where the true class has a probability below 1e-7, a loss of 16.1."""
    random = np.random.default_rng(0)
    x, y = random.normal(size=(64, 4, 2)).astype(np.float32), random.integers(0, 3, 64)
    dense = keras.layers.Dense(3, activation="softmax")
    model, step = form([keras.Input((4, 2)), keras.layers.Flatten(), dense])
    score = keras.metrics.SparseCategoricalCrossentropy(name="crossentropy")
    loss = "sparse_categorical_crossentropy"
    model.compile(keras.optimizers.SGD(0.0), loss, weighted_metrics=[score])
    kernel = 20 * random.normal(size=(8, 3)).astype(np.float32)
    dense.set_weights([kernel, np.zeros(3, np.float32)])
    logits = x.reshape(64, 8).astype(np.float64) @ kernel
    losses = np.logaddexp.reduce(logits, axis=1) - logits[np.arange(64), y]
    assert losses.max() > 50
    step(x, tf.constant(y, tf.int32), tf.ones(64))
    assert float(model.get_metrics_result()["crossentropy"]) == pytest.approx(
        losses.mean(), rel=1e-5
    )


def test_only_a_softmax_has_logits() -> None:
    with pytest.raises(ValueError, match="expected answers of a softmax, got those of Relu"):
        tf.function(lambda x: logits_of(tf.nn.relu(x)))(tf.ones(3))
