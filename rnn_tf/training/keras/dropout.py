"""Dropout that a compiled epoch draws at little cost.

TensorFlow's generators take ten rounds of multiplications and more for each number, and XLA
compiles them for longer than all the rest of a small layer. Whether a number is dropped need not be
that random: here it follows from a hash of its place, of the layer's seed and of how many masks
were drawn before.
"""

from __future__ import annotations

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
    first, drawn = tf.unstack(tf.cast(seed, tf.uint32))
    places = tf.cast(tf.range(tf.size(like)), tf.uint32)
    numbers = _hash(places + _hash(drawn + _hash(first)))
    kept = numbers >= tf.constant(min(round(rate * 2**32), 2**32 - 1), tf.uint32)
    mask = tf.where(kept, tf.cast(1 / (1 - rate), like.dtype), tf.cast(0, like.dtype))
    return tf.reshape(mask, tf.shape(like))


def _hash(x: tf.Tensor) -> tf.Tensor:
    """uint32 as uint32, each bit of the result depending on all: "lowbias32" of Wellons, 2018,
    "Prospecting for hash functions".
    """
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, tf.constant(shift, tf.uint32)))
        x *= tf.constant(factor, tf.uint32)
    return tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, tf.constant(16, tf.uint32)))
