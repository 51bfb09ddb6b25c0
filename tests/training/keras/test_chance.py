"""Masks of dropout: as many zeros as asked for, anywhere, others for each batch. Noise: normal."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from rnn_tf.training.keras.chance import draw_quickly, dropout_mask, normal_noise

LIKE = tf.zeros((400, 50))


def drawn(seed: int, before: int, rate: float = 0.3) -> np.ndarray:
    mask: np.ndarray = dropout_mask(LIKE, rate, tf.constant([seed, before])).numpy()
    return mask


@pytest.mark.parametrize("rate", [0.01, 0.2, 0.5, 0.9])
def test_as_many_are_dropped_as_asked_for_and_the_others_make_up_for_them(rate: float) -> None:
    mask = drawn(1, 0, rate)
    assert (mask.shape, mask.dtype) == ((400, 50), np.float32)
    assert set(np.unique(mask)) == {np.float32(0), np.float32(1 / (1 - rate))}
    # Four standard deviations of 20,000 draws.
    assert abs((mask == 0).mean() - rate) < 4 * np.sqrt(rate * (1 - rate) / mask.size)


def test_no_place_knows_of_another() -> None:
    """Neighbours in a row, in a column, and in masks one after another or of seeds beside it."""
    mask = drawn(1, 0) == 0
    pairs = [(mask[:, 1:], mask[:, :-1]), (mask[1:], mask[:-1])]
    pairs += [(mask, drawn(1, before) == 0) for before in (1, 2, 3, 1000)]
    pairs += [(mask, drawn(seed, 0) == 0) for seed in (0, 2, 3, 2**31 - 1)]
    for one, other in pairs:
        # Of independent ones, 20,000 pairs: a standard deviation of 0.007.
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.03
    # Rows and columns drop as much as each other: none is favoured.
    for axis in (0, 1):
        share = mask.mean(axis=axis)
        expected = np.sqrt(0.3 * 0.7 / mask.shape[axis])
        assert 0.8 * expected < share.std() < 1.2 * expected or len(share) < 100


@pytest.mark.parametrize("compiled", [False, True])
def test_a_layer_draws_anew_for_each_batch_and_the_same_from_the_same_seed(compiled: bool) -> None:
    layer, again = (keras.layers.SimpleRNN(5, dropout=0.5, seed=3) for _ in range(2))
    x = tf.ones((8, 4, 6))
    found = []
    for each in (layer, again):
        each.build(x.shape)
        draw_quickly(each)
        each.set_weights([np.ones_like(weight) * 0.1 for weight in each.get_weights()])
        call = tf.function(lambda each=each: each(x, training=True), jit_compile=compiled)
        found.append([call().numpy() for _ in range(3)])
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[0][0], found[0][1])
    assert not np.array_equal(found[0][1], found[0][2])


def test_a_mask_is_the_same_in_every_program() -> None:
    seed = tf.constant([7, 5])
    compiled = tf.function(lambda: dropout_mask(LIKE, 0.3, seed), jit_compile=True)
    np.testing.assert_array_equal(compiled(), drawn(7, 5))
    half = dropout_mask(tf.zeros((3, 4), tf.float16), 0.5, seed)
    assert (half.dtype, set(np.unique(half))) == (tf.float16, {0, 2})


def test_noise_is_normal() -> None:
    """Its moments, within four standard deviations of 20,000 draws, and how far its tails go."""
    noise = normal_noise(LIKE, tf.constant([1, 0])).numpy()
    assert (noise.shape, noise.dtype) == ((400, 50), np.float32)
    size = noise.size
    assert abs(noise.mean()) < 4 / np.sqrt(size)
    assert abs(noise.var() - 1) < 4 * np.sqrt(2 / size)
    assert abs((noise**3).mean()) < 4 * np.sqrt(15 / size)
    assert abs((noise**4).mean() - 3) < 4 * np.sqrt(96 / size)
    for beyond, share in ((1, 0.3173), (2, 0.0455), (3, 0.0027)):
        found = (np.abs(noise) > beyond).mean()
        assert abs(found - share) < 4 * np.sqrt(share * (1 - share) / size)
    assert np.isfinite(noise).all()


def test_no_number_of_noise_knows_of_another() -> None:
    noise = normal_noise(LIKE, tf.constant([1, 0])).numpy()
    others = [normal_noise(LIKE, tf.constant(seed)).numpy() for seed in ([1, 1], [1, 2], [2, 0])]
    pairs = [(noise[:, 1:], noise[:, :-1]), (noise[1:], noise[:-1])]
    for one, other in [*pairs, *((noise, other) for other in others)]:
        # Of independent ones, 20,000 pairs: a standard deviation of 0.007.
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.03
        assert abs(np.corrcoef(np.abs(one).ravel(), np.abs(other).ravel())[0, 1]) < 0.03
