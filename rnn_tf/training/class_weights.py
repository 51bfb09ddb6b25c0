"""What an answer counts in the loss, by its class, whatever computes it."""

from __future__ import annotations

import numpy as np

from rnn_tf.config import ClassWeights


def class_weights(choice: ClassWeights, y: np.ndarray, classes: int) -> np.ndarray | None:
    """The weight of each class in the loss, float32 `(classes,)`; None where all count the same.

    `balanced`: n / (k * examples of the class), k the classes that have examples, after King and
    Zeng, "Logistic Regression in Rare Events Data" (2001), as scikit-learn has it. The mean over
    the training labels `y`, `(n,)` or `(n, timesteps)`, is 1. A class without examples weighs
    nothing, nor does a step without a label, which is below 0.
    """
    if choice == "none":
        return None
    counts = np.bincount(y[y >= 0], minlength=classes)
    found = counts > 0
    weights = counts.sum() / (found.sum() * np.maximum(counts, 1)) * found
    return np.asarray(weights, np.float32)
