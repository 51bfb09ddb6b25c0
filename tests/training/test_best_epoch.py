"""Which epoch is kept: what validation cannot tell apart, and what it can."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rnn_tf import TrainConfig
from rnn_tf.data.spec import UNLABELLED, Split
from rnn_tf.training.best_epoch import best_epoch, effective_examples, highest_epoch, lower_bound


def history(*right: float) -> list[dict[str, Any]]:
    """Epochs with these validation accuracies; the loss rises from one to the next."""
    return [
        {"epoch": epoch, "val_accuracy": share, "val_loss": float(epoch)}
        for epoch, share in enumerate(right, 1)
    ]


@pytest.mark.parametrize(
    ("right", "examples", "bound"),
    # 4 / (4 + 1.96**2); 1 / (1 + 1.96**2); Brown, Cai and DasGupta (2001) give the formula.
    [(4, 4, 0.51010), (1, 1, 0.20654), (0, 9, 0.0), (9, 10, 0.59585), (4938, 5000, 0.98414)],
)
def test_the_bound_is_that_of_wilsons_interval(right: int, examples: int, bound: float) -> None:
    assert lower_bound(right / examples, examples) == pytest.approx(bound, abs=1e-5)
    # It is the share from which the one seen is 1.96 standard errors away.
    error = (bound * (1 - bound) / examples) ** 0.5
    assert right / examples - bound == pytest.approx(1.96 * error, abs=2e-5)


def test_of_epochs_that_few_examples_cannot_tell_apart_the_last_is_kept() -> None:
    epochs = history(0.5, 27 / 27, 20 / 27, 24 / 27)
    assert highest_epoch(epochs, "accuracy") == 2
    assert best_epoch(epochs, TrainConfig(), 27) == 4
    # 23 of 27 are too few, and so are 24 of 27 where there are ten times as many.
    assert best_epoch([*epochs, *history(0, 0, 0, 0, 23 / 27)[4:]], TrainConfig(), 27) == 4
    assert best_epoch(epochs, TrainConfig(), 270) == 2


def test_float32_shares_are_compared_as_the_fractions_that_they_are() -> None:
    assert best_epoch(history(0.9, 0.9 - 1e-7), TrainConfig(), 10**15) == 2
    assert best_epoch(history(1 + 1e-7, 1.0), TrainConfig(), 10**15) == 2


@pytest.mark.parametrize("change", [{"schedule": "constant"}, {"objective": "loss"}])
def test_the_highest_is_kept_where_nothing_speaks_for_a_later_one(change: dict[str, Any]) -> None:
    # The loss rises, so that its best is the first.
    best = 1 if "objective" in change else 2
    assert best_epoch(history(0.5, 1.0, 26 / 27), TrainConfig(**change), 27) == best


def test_balanced_accuracy_is_as_uncertain_as_its_rarest_class_makes_it() -> None:
    rare = Split(np.zeros((100, 3, 1), np.float32), np.repeat([0, 1], [96, 4]).astype(np.int32))
    assert effective_examples(rare, "accuracy") == 100
    assert effective_examples(rare, "balanced_accuracy") == pytest.approx(4 / (1 / 96 + 1 / 4))
    # The spread of both over many draws, each example right with the same chance.
    right = np.random.default_rng(1).random((20_000, 100)) < 0.8
    balanced = (right[:, :96].mean(1) + right[:, 96:].mean(1)) / 2
    assert 0.8 * 0.2 / effective_examples(rare, "balanced_accuracy") == pytest.approx(
        balanced.var(), rel=0.05
    )


def test_the_steps_of_a_sequence_count_once() -> None:
    labels = np.array([[0, 0, 1], [1, 1, UNLABELLED], [UNLABELLED] * 3], np.int32)
    steps = Split(np.zeros((3, 3, 1), np.float32), labels)
    assert effective_examples(steps, "accuracy") == 2
