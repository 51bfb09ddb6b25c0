"""Scores that Keras lacks, counted inside the compiled program."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


class BalancedAccuracy(keras.metrics.Metric):
    """The mean recall of the classes that have examples, as `Scores.balanced_accuracy`."""

    def __init__(self, classes: int, name: str = "balanced_accuracy", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.classes = classes
        # float32 counts to 2**24 without an error: examples of one class in one epoch.
        self.seen, self.right = (
            self.add_variable((classes,), initializer="zeros", name=each)
            for each in ("seen", "right")
        )

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Count class indices `y_true` `(n,)`, said `y_pred` `(n, classes)`, by `sample_weight`."""
        y_true = ops.cast(ops.reshape(y_true, (-1,)), "int32")
        right = ops.cast(ops.equal(ops.argmax(y_pred, axis=-1), y_true), self.dtype)
        weight = ops.one_hot(y_true, self.classes, dtype=self.dtype)
        if sample_weight is not None:
            weight *= ops.reshape(ops.cast(sample_weight, self.dtype), (-1, 1))
        self.seen.assign_add(ops.sum(weight, axis=0))
        self.right.assign_add(ops.sum(weight * right[:, None], axis=0))

    def result(self) -> Any:
        recall = self.right / ops.maximum(self.seen, 1.0)
        classes = ops.sum(ops.cast(self.seen > 0, self.dtype))
        return ops.sum(recall) / ops.maximum(classes, 1.0)
