"""A batch shared out between the cores: each computes the gradients of its own examples.

The steps of a layer wait for each other, and each has little to do. Sharing out the products of
each between cores costs a fork and a join a product, as long as the half of it that is saved. A
batch is shared out once for all its steps, and the cores meet when they have gone all the way back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from rnn_tf.training.keras.training_model import TrainingSequential


def shared_step(model: TrainingSequential, count: int) -> Callable[[tuple[Any, ...]], None]:
    """A training step of Keras whose batch is shared out in `count` shares.

    It takes `(x, y, weight)`, and is to be called in a function of TensorFlow that XLA does not
    compile: there the programs of the shares run side by side. But for rounding, it gives the same
    weights as the step of Keras. Where dropout or noise is drawn, the shares would draw the same.
    """

    def update(
        y: tf.Tensor, weight: tf.Tensor, found: list[tuple[tf.Tensor, ...]], *, answers: int
    ) -> None:
        logits, *parts = zip(*found, strict=True)
        sums = [tf.add_n(each) for each in parts]
        model.update(y, weight, tf.concat(logits, 0), sums, answers=answers)

    compiled_gradients, compiled_update = (
        tf.function(each, jit_compile=True, autograph=False)
        for each in (model.gradients_of_part, update)
    )

    def step(batch: tuple[Any, tf.Tensor, tf.Tensor]) -> None:
        _, y, weight = batch
        answers = weight.shape.num_elements()
        found = [compiled_gradients(*share, answers=answers) for share in _shared_out(batch, count)]
        compiled_update(y, weight, found, answers=answers)

    return step


def _shared_out(batch: Any, count: int) -> list[Any]:
    """The examples of a batch in shares of nearly the same size."""
    examples = batch[-1].shape[0]
    ends = [examples * (i + 1) // count for i in range(count)]
    starts = [0, *ends[:-1]]
    return [
        tf.nest.map_structure(lambda each, a=a, b=b: each[a:b], batch)
        for a, b in zip(starts, ends, strict=True)
    ]
