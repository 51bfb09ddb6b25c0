"""A batch shared out between the cores: each computes the gradients of its own examples.

The steps of a layer wait for each other, and each has little to do. Sharing out the products of
each between cores costs a fork and a join a product, as long as the half of it that is saved. A
batch is shared out once for all its steps, and the cores meet when they have gone all the way back.

A program of XLA hands its operations to several threads where more than a few can be done, and to
wake a thread takes as long as many of them. Where loops are compiled whole, a program here is a
loop of one round, and so one function, which stays on its core.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from rnn_tf.training.keras.chance import Share, count_drawn, drawn_for
from rnn_tf.training.keras.training_model import TrainingSequential

Tensors = list[tf.Tensor]
# (batches, which of them, first example, *more, how many examples) -> what is computed of these
OfExamples = Callable[..., Tensors]


def shared_step(
    model: TrainingSequential,
    count: int,
    normalize: Callable[[Any], Any] = lambda x: x,
    *,
    whole: bool = False,
) -> Callable[[Any, tf.Tensor], None]:
    """A training step of Keras whose batch is shared out in `count` shares.

    It takes `(x, y, weight)` of some batches, each `(batches, batch_size, ...)`, x before
    `normalize`, and the number of the one to train. It is to be called in a function of TensorFlow
    that XLA does not compile: there the programs of the shares run side by side. But for rounding,
    it gives the same weights as the step of Keras, also where dropout or noise is drawn. `whole`:
    XLA compiles loops whole in this process.
    """
    drawn = {}  # of a share, and so of the batch

    def gradients(examples: Any, first: tf.Tensor, answers: int) -> Tensors:
        x, y, weight = examples
        share = Share(first)
        with drawn_for(share):
            found = model.gradients_of_part(normalize(x), y, weight, answers=answers)
        drawn.update(share.drawn)
        return list(found)

    def update(labels: Any, *found: Tensors) -> Tensors:
        y, weight = labels
        logits, *parts = zip(*found, strict=True)
        sums = [tf.add_n(each) for each in parts]
        model.update(y, weight, tf.concat(logits, 0), sums, answers=weight.shape.num_elements())
        count_drawn(drawn)
        return []

    program = _one_function if whole else _program
    find, make = program(gradients), program(update)

    def step(batches: Any, i: tf.Tensor) -> None:
        examples, *answers_each = batches[-1].shape[1:]
        answers = math.prod([examples, *answers_each])
        found = [
            find(batches, i, first, first, answers, size=size)
            for first, size in _shares(examples, count)
        ]
        make(batches[1:], i, tf.constant(0), *found, size=examples)

    return step


def _program(compute: Callable[..., Tensors]) -> OfExamples:
    """A program of XLA, given the examples."""
    compiled = tf.function(compute, jit_compile=True, autograph=False)

    def run(batches: Any, i: tf.Tensor, first: tf.Tensor, *more: Any, size: int) -> Tensors:
        found: Tensors = compiled(_examples(batches, i, first, size), *more)
        return found

    return run


def _one_function(compute: Callable[..., Tensors]) -> OfExamples:
    """A program of XLA that is one function, and takes the examples out itself."""

    def once(batches: Any, i: tf.Tensor, first: tf.Tensor, *more: Any, size: int) -> Tensors:
        def of(i: tf.Tensor) -> Tensors:
            return compute(_examples(batches, i, first, size), *more)

        traced = tf.function(of, autograph=False).get_concrete_function(i)
        nothing = [tf.zeros(each.shape, each.dtype) for each in traced.structured_outputs]
        # A loop of one round. It stays one, as XLA does not know of which.
        _, *found = tf.while_loop(
            lambda n, *_: n <= i, lambda n, *_: (n + 1, *traced(n)), (i, *nothing)
        )
        return list(found)

    compiled: OfExamples = tf.function(once, jit_compile=True, autograph=False)
    return compiled


def _examples(batches: Any, i: tf.Tensor, first: tf.Tensor, size: int) -> Any:
    """`size` examples of batch `i`."""

    def part(each: tf.Tensor) -> tf.Tensor:
        shape = each.shape[2:]
        return tf.slice(each[i], [first, *(0 for _ in shape)], [size, *shape])

    return tf.nest.map_structure(part, batches)


def _shares(examples: int, count: int) -> list[tuple[tf.Tensor, int]]:
    """The first example of each share of a batch, int32 `()`, and its size: nearly the same.

    A tensor, so that one program serves all shares of a size.
    """
    ends = [examples * (i + 1) // count for i in range(count)]
    return [(tf.constant(a), b - a) for a, b in zip([0, *ends[:-1]], ends, strict=True)]
