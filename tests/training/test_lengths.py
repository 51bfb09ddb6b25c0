"""The default settings train at any length, with every cell."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rnn_tf import TrainConfig, train
from rnn_tf.data import SequenceData, SequenceSpec, Split

TRAIN, TEST = 400, 200
Examples = tuple[np.ndarray, np.ndarray]


def mean_of_noise(timesteps: int, random: np.random.Generator) -> Examples:
    """Is the mean above zero? To be summed up over all time steps of noise around +-0.3."""
    shift = np.where(random.random(TRAIN + TEST) < 0.5, 0.3, -0.3)
    x = random.normal(size=(len(shift), timesteps)) + shift[:, None]
    return x, (x.mean(axis=1) > 0).astype(int)


def frequency(timesteps: int, random: np.random.Generator) -> Examples:
    """Two, four or six waves over the length, from any phase, with some noise."""
    y = random.integers(0, 3, TRAIN + TEST)
    time = np.linspace(0, 2 * np.pi, timesteps)
    phase = random.uniform(0, 2 * np.pi, (len(y), 1))
    x = np.sin((2 + 2 * y[:, None]) * time + phase)
    return x + random.normal(0, 0.1, x.shape), y


def early_word(timesteps: int, random: np.random.Generator) -> Examples:
    """The class is said in the first tenth, and noise follows: to be kept over nine tenths."""
    y = random.integers(0, 2, TRAIN + TEST)
    x = random.normal(0, 0.5, (len(y), timesteps))
    x[:, : timesteps // 10] += np.where(y == 1, 1, -1)[:, None]
    return x, y


def data_of(task: Callable[..., Examples], timesteps: int) -> SequenceData:
    x, y = task(timesteps, np.random.default_rng(0))
    split = Split(x[..., None].astype(np.float32), y.astype(np.int32))
    cuts = (slice(TRAIN), slice(TRAIN, TRAIN + TEST // 2), slice(TRAIN + TEST // 2, None))
    spec = SequenceSpec(timesteps, 1, tuple(map(str, range(y.max() + 1))))
    return SequenceData(spec, *(split.take(cut) for cut in cuts))


def check(config: TrainConfig, data: SequenceData, path: Path, least: float) -> None:
    """Warnings are errors here, so a loss that diverges for an epoch fails as well."""
    run = train(config, path, data=data, progress=False)
    guessing = math.log(data.spec.classes)
    assert max(epoch["loss"] for epoch in run.history) < 10 * guessing
    assert run.history[-1]["loss"] < guessing / 2
    assert run.metrics["test"]["accuracy"] >= least


@pytest.mark.slow
@pytest.mark.parametrize(
    ("timesteps", "task", "epochs", "least"),
    [
        (20, mean_of_noise, "auto", 0.85), (100, frequency, "auto", 0.85),
        (1000, early_word, 20, 0.9),
    ],
)  # fmt: skip
def test_the_default_trains_at_every_length(
    task: Callable[..., Examples], timesteps: int, epochs: Any, least: float, tmp_path: Path
) -> None:
    check(TrainConfig(epochs=epochs), data_of(task, timesteps), tmp_path / "run", least)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cell", "timesteps", "task"),
    [
        ("lstm", 50, frequency), ("gru", 200, early_word),
    ],
)  # fmt: skip
def test_gated_cells_train_at_every_length(
    task: Callable[..., Examples], timesteps: int, cell: str, tmp_path: Path
) -> None:
    config = TrainConfig.from_dict({"cell": cell, "epochs": 40})
    check(config, data_of(task, timesteps), tmp_path / "run", least=0.9)
