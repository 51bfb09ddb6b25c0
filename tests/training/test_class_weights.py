"""What an example counts by its class: as scikit-learn counts, and the same in every training."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from extras import WITH_TORCH
from sklearn.utils.class_weight import compute_class_weight

from rnn_tf import Run, TrainConfig, build_model, train
from rnn_tf.data import SequenceData
from rnn_tf.training.backend import choose_backend
from rnn_tf.training.class_weights import class_weights
from rnn_tf.training.keras.devices import seed_everything
from rnn_tf.training.keras.optimizer import build_optimizer
from rnn_tf.training.order import epoch_order
from rnn_tf.training.recorder import Fitted

# 203 examples in batches of 16: the last batch has 11, or fewer where some are taken out.
CONFIG = TrainConfig(
    units=7, epochs=2, batch_size=16, learning_rate=0.01, optimizer="adam",
    dropout=0.0, noise=0.0,
    class_weights="balanced", objective="balanced_accuracy",
)  # fmt: skip


@pytest.fixture(scope="module")
def skewed(small: SequenceData) -> SequenceData:
    """The waves with most of those that rise, and some of those that fall, taken out."""
    kept = np.ones(len(small.train.y), bool)
    for c, most in ((2, 8), (0, 30)):
        kept[np.flatnonzero(small.train.y == c)[most:]] = False
    return dataclasses.replace(small, train=small.train.take(kept))


def fitted(config: TrainConfig, data: SequenceData, path: Path) -> Fitted:
    seed_everything(config)
    return choose_backend(config.backend).fit(Run.create(path, config, data.spec), data, [])


def weights(found: Fitted) -> np.ndarray:
    return np.concatenate([weight.ravel() for weight in found.model.get_weights()])


def test_balanced_is_what_scikit_learn_says() -> None:
    y = np.array([0] * 70 + [1] * 25 + [3] * 5)
    found = class_weights("balanced", y, 5)
    assert found is not None
    assert found.dtype == np.float32
    expected = compute_class_weight("balanced", classes=np.unique(y), y=y)
    # Rounded to float32 once.
    np.testing.assert_allclose(found[[0, 1, 3]], expected, rtol=1e-7)
    assert found[[2, 4]].tolist() == [0, 0]  # no example
    assert found[y].mean() == pytest.approx(1)
    assert class_weights("none", y, 5) is None


@pytest.mark.parametrize(
    "other",
    [
        {"fused": False},
        pytest.param({"backend": "torch"}, marks=pytest.mark.torch),
        # Gradients by autograd, as those of gated cells always are.
        pytest.param({"backend": "torch", "fused": False}, marks=pytest.mark.torch),
    ],
)
def test_all_trainings_weigh_alike(
    other: dict[str, Any], skewed: SequenceData, tmp_path: Path
) -> None:
    fused = fitted(CONFIG, skewed, tmp_path / "fused")
    found = fitted(dataclasses.replace(CONFIG, **other), skewed, tmp_path / "other")
    # float32 rounding in another order, over 20 updates, as for a training without weights.
    np.testing.assert_allclose(weights(found), weights(fused), atol=5e-5)
    assert found.best_epoch == fused.best_epoch
    for a, b in zip(found.history, fused.history, strict=True):
        assert list(a) == list(b)
        for name in ("loss", "val_loss", "balanced_accuracy", "val_balanced_accuracy"):
            assert a[name] == pytest.approx(b[name], rel=3e-4)
    without = fitted(dataclasses.replace(CONFIG, class_weights="none"), skewed, tmp_path / "none")
    assert np.abs(weights(without) - weights(fused)).max() > 1e-2  # they do count


def test_the_loss_is_the_weighted_mean_of_a_batch(skewed: SequenceData, tmp_path: Path) -> None:
    """One epoch, batch by batch, by Keras on its own: its class_weight, on each whole batch."""
    config = dataclasses.replace(CONFIG, epochs=1).resolved(skewed.spec, 203)
    found = fitted(config, skewed, tmp_path / "run")
    seed_everything(config)
    model = build_model(config, skewed.spec)
    steps = config.updates_an_epoch(len(skewed.train.y))
    model.compile(
        build_optimizer(config, steps),
        keras.losses.SparseCategoricalCrossentropy(reduction="mean_with_sample_weight"),
    )
    by_class = class_weights("balanced", skewed.train.y, skewed.spec.classes)
    assert by_class is not None
    for rows in epoch_order(len(skewed.train.y), 16, config.seed, 0):
        x, y, *_ = skewed.train.take(rows[rows >= 0])
        model.train_on_batch(x, y, sample_weight=by_class[y])
    # float32 rounding in another order, over 10 updates.
    for a, b in zip(found.model.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=5e-5)


@pytest.mark.parametrize("backend", ["keras", *(["torch"] if WITH_TORCH else [])])
@pytest.mark.parametrize("fused", [True, False])
def test_the_history_counts_each_example_once(
    backend: Any, fused: bool, skewed: SequenceData, tmp_path: Path
) -> None:
    """A model that learns nothing: its scores are those that `Scores` gives, without weights."""
    config = dataclasses.replace(
        CONFIG, epochs=1, learning_rate=1e-12, warmup=0.0, backend=backend, fused=fused
    )
    run = train(config, tmp_path / "run", data=skewed, progress=False)
    (record,) = run.history
    for split, prefix in (("train", ""), ("valid", "val_")):
        for name in ("accuracy", "balanced_accuracy", "loss"):
            # Means of float32 numbers.
            assert record[prefix + name] == pytest.approx(run.metrics[split][name], rel=1e-5)
    assert record["balanced_accuracy"] != pytest.approx(record["accuracy"], rel=1e-3)
