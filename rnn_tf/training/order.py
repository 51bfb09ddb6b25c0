"""The order in which a training meets its examples, whatever computes it."""

from __future__ import annotations

import numpy as np

# Where lengths vary, so many batches share out their examples by length. More would leave less
# padding in a batch, but its examples would be less of a random draw.
WINDOW = 8


def epoch_order(
    examples: int, batch_size: int, seed: int, epoch: int, lengths: np.ndarray | None = None
) -> np.ndarray:
    """The examples of each batch of one epoch, as indices: int32 `(steps, batch_size)`.

    A pure function of its arguments: an epoch's order needs none of the epochs before it, so a
    run that was interrupted goes on with the order it would have had. -1 fills the last batch.
    Given the `lengths` of the examples, `(examples,)`, a batch has sequences of like length, so
    that few wait for the longest; which are in it, and when it comes, is left to chance.
    """
    steps = -(-examples // batch_size)
    order = np.full(steps * batch_size, -1, np.int32)
    random = np.random.default_rng([seed, epoch])
    order[:examples] = random.permutation(examples)
    if lengths is not None:
        # The last batch, if it is not full, stays the last, and as it was drawn.
        full = examples // batch_size
        batches = order[: full * batch_size].reshape(full, batch_size)
        for start in range(0, full, WINDOW):
            window = batches[start : start + WINDOW]
            drawn = window.ravel()
            window[:] = drawn[np.argsort(lengths[drawn], kind="stable")].reshape(window.shape)
        random.shuffle(batches)
    return order.reshape(steps, batch_size)
