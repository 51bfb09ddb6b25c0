"""Dropout and noise that a compiled epoch draws at little cost.

TensorFlow's generators take ten rounds of multiplications and more for each number, and XLA
compiles them for longer than all the rest of a small layer. What happens to a number need not be
that random: here it follows from a hash of its place, of a seed and of how often it was drawn
before.
"""

from __future__ import annotations

import contextlib
import contextvars
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import keras
import tensorflow as tf


def draw_quickly(layer: keras.layers.RNN) -> None:
    """Have a recurrent layer of Keras draw its masks here.

    When it draws, how often, and what it does with a mask stay Keras's; so does the seed, which is
    a variable of the layer, so that a training that goes on draws what it would have drawn.
    """
    cell = layer.cell
    count = getattr(cell, "dropout_mask_count", None)

    def masks(like: tf.Tensor, rate: float) -> Any:
        drawn = [
            dropout_mask(like, rate, next_seed(cell.seed_generator)) for _ in range(count or 1)
        ]
        return drawn[0] if count is None else drawn

    cell._create_dropout_mask = masks


@dataclass
class Share:
    """What is drawn for the examples of a batch from `first` on, int32 `()`.

    `drawn` says how often, by the generators of the seeds. These stay as they are meanwhile: other
    shares draw with the same, and no program may wait for another to write them.
    """

    first: tf.Tensor
    drawn: dict[keras.random.SeedGenerator, int] = field(default_factory=dict)


_share: contextvars.ContextVar[Share | None] = contextvars.ContextVar("share", default=None)


@contextlib.contextmanager
def drawn_for(share: Share) -> Iterator[None]:
    """Draw meanwhile for a share of a batch."""
    token = _share.set(share)
    try:
        yield
    finally:
        _share.reset(token)


def is_for_share() -> bool:
    """Whether what is drawn now is for a share of a batch, and belongs to its program alone."""
    return _share.get() is not None


def next_seed(generator: keras.random.SeedGenerator) -> tf.Tensor:
    """The seed of `generator` for what is drawn next: two whole numbers."""
    share = _share.get()
    if share is None:
        return generator.next()
    before = share.drawn.get(generator, 0)
    share.drawn[generator] = before + 1
    return _later(generator, before)


def _later(generator: keras.random.SeedGenerator, times: int) -> tf.Tensor:
    """The seed after so many more of its own."""
    state = generator.state
    return state.value + tf.constant([0, times], state.dtype)


def count_drawn(drawn: dict[keras.random.SeedGenerator, int]) -> None:
    """Have the generators go on after what was `drawn` for the shares of a batch, for each."""
    for generator, times in drawn.items():
        generator.state.assign(_later(generator, times))


def dropout_mask(like: tf.Tensor, rate: float, seed: tf.Tensor) -> tf.Tensor:
    """0 with the probability `rate`, else 1 / (1 - rate): in shape and dtype of `like`.

    `seed` is two whole numbers, the seed of a layer and the number of masks before, as Keras keeps
    them.
    """
    kept = _numbers(like, seed) >= tf.constant(min(round(rate * 2**32), 2**32 - 1), tf.uint32)
    mask = tf.where(kept, tf.cast(1 / (1 - rate), like.dtype), tf.cast(0, like.dtype))
    return tf.reshape(mask, tf.shape(like))


def normal_noise(like: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Normal numbers of mean 0 and deviation 1, float32 in the shape of `like`.

    `seed` is as for `dropout_mask`. The method is that of Box and Muller, 1958: of a number that
    is drawn evenly follows how far it is from the middle, of another where it is at that distance.
    """
    numbers = _numbers(like, seed)
    distance = tf.sqrt(-2 * tf.math.log(_evenly(numbers)))
    noise = distance * tf.cos(2 * math.pi * _evenly(_hash(numbers + 1)))
    return tf.reshape(noise, tf.shape(like))


def _evenly(numbers: tf.Tensor) -> tf.Tensor:
    """uint32 as float32 between 0 and 1, neither of which it is."""
    # As many bits as float32 holds beside the half.
    bits = tf.cast(tf.bitwise.right_shift(numbers, tf.constant(9, tf.uint32)), tf.float32)
    return (bits + 0.5) * 2**-23


def _numbers(like: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """A random number for each of `like`, `(examples, ...)`: uint32 `(size,)`.

    By its place in the whole batch, also where that is shared out: no share draws what another
    does, and together they draw what is drawn for a batch as a whole.
    """
    first, drawn = tf.unstack(tf.cast(seed, tf.uint32))
    places = tf.range(tf.size(like))
    example, step = _place_in_batch()
    if step > 1 or is_for_share():
        numbers = tf.size(like) // tf.shape(like)[0]  # of an example
        places += numbers * (example + (step - 1) * (places // numbers))
    places = tf.cast(places, tf.uint32)
    return _hash(places + _hash(drawn + _hash(first)))


def _place_in_batch() -> tuple[tf.Tensor | int, int]:
    """Which examples of the batch are computed here: the first, and the step to the next.

    A replica has `replica::replicas`, a share some that follow each other.
    """
    share, context = _share.get(), tf.distribute.get_replica_context()
    if share is not None:
        return share.first, 1
    if context is None:
        return 0, 1
    return context.replica_id_in_sync_group, context.num_replicas_in_sync


def _hash(x: tf.Tensor) -> tf.Tensor:
    """uint32 as uint32, each bit of the result depending on all: "lowbias32" of Wellons, 2018,
    "Prospecting for hash functions".
    """
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, tf.constant(shift, tf.uint32)))
        x *= tf.constant(factor, tf.uint32)
    return tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, tf.constant(16, tf.uint32)))
