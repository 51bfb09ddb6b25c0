"""Dropout and noise that a compiled epoch draws at little cost.

TensorFlow's generators take ten rounds of multiplications and more for each number, and XLA
compiles them for longer than all the rest of a small layer. What happens to a number need not be
that random: here it follows from a hash of its place, of a seed and of how often it was drawn
before.
"""

from __future__ import annotations

import math
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
        one = dropout_mask(like, rate, cell.seed_generator.next())
        if count is None:
            return one
        return [
            one, *(dropout_mask(like, rate, cell.seed_generator.next()) for _ in range(count - 1))
        ]  # fmt: skip

    cell._create_dropout_mask = masks


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

    By its place in the whole batch, also where replicas share that out: none draws what another
    does, and together they draw what a single process would.
    """
    first, drawn = tf.unstack(tf.cast(seed, tf.uint32))
    places = tf.range(tf.size(like))
    replica, replicas = _place_in_batch()
    if replicas > 1:
        numbers = tf.size(like) // tf.shape(like)[0]  # of an example
        places += numbers * (replica + (replicas - 1) * (places // numbers))
    places = tf.cast(places, tf.uint32)
    return _hash(places + _hash(drawn + _hash(first)))


def _place_in_batch() -> tuple[tf.Tensor | int, int]:
    """Which replica this is, and of how many: of the batch it has the rows `replica::replicas`."""
    context = tf.distribute.get_replica_context()
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
