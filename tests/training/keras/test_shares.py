"""A batch shared out between cores gives the weights of a batch trained as a whole."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from rnn_tf import Run, TrainConfig
from rnn_tf.data import SequenceData
from rnn_tf.startup import forms
from rnn_tf.training.keras import fit as in_keras
from rnn_tf.training.keras.devices import seed_everything
from rnn_tf.training.keras.fit import fit
from rnn_tf.training.keras.kept_models import KeptModels
from rnn_tf.training.keras.shares import shared_step
from rnn_tf.training.recorder import Fitted

# 203 training examples in batches of 96: of the shares of the last, which has 11, most are empty.
CONFIG = TrainConfig(
    units=7, epochs=3, batch_size=96, learning_rate=0.01, optimizer="adam", dropout=0.0, noise=0.0
)


@pytest.fixture(autouse=True)
def three_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(forms.FORM, "shared")
    monkeypatch.setattr(forms, "cores", lambda: 3)


def fitted(config: TrainConfig, data: SequenceData, path: Path, **options: Any) -> Fitted:
    seed_everything(config)
    return fit(config, data, Run.create(path, config, data.spec), **options)


def assert_same(one: Fitted, other: Fitted, tolerance: float = 5e-5) -> None:
    for a, b in zip(one.model.get_weights(), other.model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=tolerance)
    for a, b in zip(one.history, other.history, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
        assert a["accuracy"] == pytest.approx(b["accuracy"])
        assert a["val_loss"] == pytest.approx(b["val_loss"], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "settings", "form"),
    [
        ("small", {"cell": "lstm", "clip_norm": 1.0, "class_weights": "balanced"}, "shared"),
        ("small", {"cell": "simple_rnn", "activation": "tanh"}, "both"),
        ("labelled_steps", {"cell": "gru", "units": 20}, "both"),
    ],
)
def test_the_weights_are_those_of_whole_batches(
    data: str,
    settings: dict[str, Any],
    form: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of Keras's own layers, batch after batch."""
    monkeypatch.setenv(forms.FORM, form)
    examples = request.getfixturevalue(data)
    config = dataclasses.replace(CONFIG, **settings)
    counts = []

    def counted(model: keras.Sequential, count: int, *normalize: Any, whole: bool) -> Any:
        counts.append((count, whole))
        return shared_step(model, count, *normalize, whole=whole)

    monkeypatch.setattr(in_keras, "shared_step", counted)
    shared = fitted(config, examples, tmp_path / "shared")
    assert counts
    assert set(counts) == {(3, form == "both")}
    monkeypatch.setattr(in_keras, "loop_over_time", lambda *_, **__: None)
    plain = fitted(dataclasses.replace(config, fused=False), examples, tmp_path / "plain")
    # float32 rounding in another order, over 9 updates: as in test_fit.py.
    assert_same(shared, plain)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bits_and_half_precision_nearly(
    small: SequenceData, tmp_path: Path
) -> None:
    config, kept = dataclasses.replace(CONFIG, cell="gru", epochs=2), KeptModels()
    one, other = (fitted(config, small, tmp_path / name, kept=kept) for name in ("one", "other"))
    assert_same(one, other, tolerance=0)
    half = fitted(config, small, tmp_path / "half", precision="mixed_float16")
    # float16 has 11 bits; the loss is about 1.
    assert half.history[-1]["loss"] == pytest.approx(one.history[-1]["loss"], rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "form"),
    [
        ({"cell": "lstm", "recurrent_dropout": 0.3}, "both"),
        ({"cell": "gru", "layers": 2}, "shared"),
    ],
)
def test_chance_is_that_of_the_whole_batch(
    settings: dict[str, Any],
    form: str,
    small: SequenceData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And another for each batch: the seeds go on."""
    monkeypatch.setenv(forms.FORM, form)
    config = dataclasses.replace(CONFIG, dropout=0.3, noise=0.2, **settings)
    shared = fitted(config, small, tmp_path / "shared")
    monkeypatch.setattr(forms, "cores", lambda: 1)
    whole = fitted(config, small, tmp_path / "whole")
    assert_same(shared, whole)
    once = dataclasses.replace(config, dropout=0.0, noise=0.0, recurrent_dropout=0.0)
    without = fitted(once, small, tmp_path / "without")
    weights = zip(whole.model.get_weights(), without.model.get_weights(), strict=True)
    assert max(float(np.abs(a - b).max()) for a, b in weights) > 1e-2
