"""The order in which a training meets its examples, whatever computes it."""

from __future__ import annotations

import numpy as np


def epoch_order(examples: int, batch_size: int, seed: int, epoch: int) -> np.ndarray:
    """The examples of each batch of one epoch, as indices: int32 `(steps, batch_size)`.

    A pure function of its arguments: an epoch's order needs none of the epochs before it, so a
    run that was interrupted goes on with the order it would have had. -1 fills the last batch.
    """
    steps = -(-examples // batch_size)
    order = np.full(steps * batch_size, -1, np.int32)
    order[:examples] = np.random.default_rng([seed, epoch]).permutation(examples)
    return order.reshape(steps, batch_size)
