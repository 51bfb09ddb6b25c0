"""Scores that Keras lacks, counted inside the compiled program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops


class BalancedAccuracy(keras.metrics.Metric):
    """The mean recall of the classes that have examples, as `Scores.balanced_accuracy`."""

    def __init__(self, classes: int, name: str = "balanced_accuracy", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.classes = classes
        # float32 counts to 2**24 without an error: answers of one class in one epoch.
        self.seen, self.right = (
            self.add_variable((classes,), initializer="zeros", name=each)
            for each in ("seen", "right")
        )

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Count class indices `y_true` `(n,)`, said `y_pred` `(n, classes)`, by `sample_weight`.

        Where every step is answered, all have one more axis, timesteps.
        """
        y_true = ops.cast(ops.reshape(y_true, (-1,)), "int32")
        said = ops.reshape(ops.argmax(y_pred, axis=-1), (-1,))
        right = ops.cast(ops.equal(said, y_true), self.dtype)
        weight = ops.one_hot(y_true, self.classes, dtype=self.dtype)
        if sample_weight is not None:
            weight *= ops.reshape(ops.cast(sample_weight, self.dtype), (-1, 1))
        self.seen.assign_add(ops.sum(weight, axis=0))
        self.right.assign_add(ops.sum(weight * right[:, None], axis=0))

    def result(self) -> Any:
        recall = self.right / ops.maximum(self.seen, 1.0)
        classes = ops.sum(ops.cast(self.seen > 0, self.dtype))
        return ops.sum(recall) / ops.maximum(classes, 1.0)


class SequenceMean(keras.metrics.Metric):
    """The share of sequences of which `is_right` is true, of those that have a label at some step.

    `is_right(right, labelled)` says so of each, bool `(n,)`, from which of its steps are right and
    which have a label, both bool `(n, timesteps)`.
    """

    def __init__(self, is_right: Callable[[Any, Any], Any], name: str, **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.is_right = is_right
        self.seen, self.right = (
            self.add_variable((), initializer="zeros", name=each) for each in ("seen", "right")
        )

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Count class indices `y_true` `(n, timesteps)`, said `y_pred` `(n, timesteps, classes)`.

        A step whose `sample_weight` `(n, timesteps)` is 0 has no label.
        """
        right = ops.equal(ops.argmax(y_pred, axis=-1), ops.cast(y_true, "int32"))
        if sample_weight is None:
            labelled = ops.ones_like(right)
        else:
            labelled = ops.broadcast_to(sample_weight > 0, ops.shape(right))
        seen = ops.any(labelled, axis=1)
        counted = ops.logical_and(seen, self.is_right(right, labelled))
        self.seen.assign_add(ops.sum(ops.cast(seen, self.dtype)))
        self.right.assign_add(ops.sum(ops.cast(counted, self.dtype)))

    def result(self) -> Any:
        return self.right / ops.maximum(self.seen, 1.0)


def last_is_right(right: Any, labelled: Any) -> Any:
    """Whether the last step that has a label is right."""
    steps = ops.arange(1, right.shape[1] + 1)
    place = ops.where(labelled, steps, 0)
    is_last = ops.equal(place, ops.max(place, axis=1, keepdims=True))
    return ops.any(ops.logical_and(ops.logical_and(is_last, labelled), right), axis=1)


def all_are_right(right: Any, labelled: Any) -> Any:
    """Whether every step that has a label is right."""
    return ops.all(ops.logical_or(right, ops.logical_not(labelled)), axis=1)
