"""Layers made to loop over time give the states and gradients of Keras's own, and compile whole."""

from __future__ import annotations

import gc
import importlib
import re
import weakref
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from rnn_tf.model.cells import Cell
from rnn_tf.model.classifier import keras_layer
from rnn_tf.startup import xla_flags
from rnn_tf.training.keras import layers
from rnn_tf.training.keras.chance import draw_quickly
from rnn_tf.training.keras.layers import fits_at_once, loop_over_time
from rnn_tf.training.keras.steps import SLOPES

# One of each kind of step: gradients written out, and TensorFlow's own of one and of two states.
KINDS = [("simple_rnn", "elu"), ("simple_rnn", "gelu"), ("lstm", "tanh"), ("gru", "relu")]
# And those that have the products of all steps at once.
AT_ONCE = [("simple_rnn", "elu"), ("lstm", "tanh"), ("gru", "tanh")]
BOTH = [*((*kind, False) for kind in KINDS), *((*kind, True) for kind in AT_ONCE)]


def layer(cell: Cell, features: int = 3, **settings: Any) -> keras.layers.RNN:
    keras.utils.set_random_seed(3)
    settings = {"bias_initializer": "glorot_normal", **settings}
    made = keras_layer(cell)(5, **settings)
    made.build((None, None, features))
    return made


def sequences(examples: int, timesteps: int, features: int = 3) -> tf.Tensor:
    random = np.random.default_rng(1)
    return tf.constant(random.normal(size=(examples, timesteps, features)), tf.float32)


def state_and_gradients(
    layer: keras.layers.RNN, *, of_input: bool = False, compiled: bool = True
) -> Any:
    """A function, compiled or not, of sequences, and perhaps of a mask.

    It gives the states, and the gradients of weights and perhaps of the input. Keras's own need
    not be compiled: that takes XLA longer than these few steps take without.
    """

    def compute(x: tf.Tensor, mask: tf.Tensor | None = None) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            state = layer(x, mask=mask, training=True)
            if mask is not None and layer.return_sequences:
                # In the order of reading. What a layer says of padding, nobody looks at.
                read = tf.reverse(mask, [1]) if layer.go_backwards else mask
                state = tf.where(read[..., None], state, 0)
            # Not the plain sum, of which every gradient begins as 1. Each step has its own share.
            timesteps = state.shape[1] if state.shape.rank == 3 else 1
            share = tf.range(1.0, timesteps + 1.0)[:, None] / timesteps**2
            state32 = tf.reshape(tf.cast(state, tf.float32), (x.shape[0], timesteps, -1))
            total = tf.reduce_sum(share * state32**2)
        weights = [variable.value for variable in layer.trainable_variables]
        return [state, *tape.gradient(total, [*weights, *([x] if of_input else [])])]

    return tf.function(compute, jit_compile=True) if compiled else compute


@pytest.mark.parametrize(
    ("cell", "activation", "at_once", "timesteps", "examples"),
    [
        *(("simple_rnn", name, False, 9, 1) for name in SLOPES),
        *((*kind, 9, 1) for kind in BOTH[1:]),
        # One step: a state is made, and none is read.
        *((*kind, 1, 7) for kind in (BOTH[0], BOTH[3], BOTH[5])),
    ],
)
def test_states_and_gradients_are_those_of_keras(
    cell: Cell, activation: str, at_once: bool, timesteps: int, examples: int
) -> None:
    x = sequences(examples, timesteps)
    plain, looped = (layer(cell, activation=activation) for _ in range(2))
    loop_over_time(looped, of_input=False, at_once=at_once)
    expected = state_and_gradients(plain, compiled=False)(x)
    found = state_and_gradients(looped)(x)
    assert len(found) == 4
    for one, other in zip(expected, found, strict=True):
        # float32 rounding: 3e-6 seen, where the largest gradient is about 30.
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("cell", "activation", "at_once", "every", "backwards"),
    [
        # Without a mask, which the tests below have in every way.
        ("simple_rnn", "elu", False, True, True), ("simple_rnn", "gelu", False, False, True),
        ("lstm", "tanh", False, True, False), ("gru", "tanh", True, True, True),
    ],
)  # fmt: skip
def test_every_state_either_direction_and_the_input_have_the_gradients_of_keras(
    cell: Cell, activation: str, at_once: bool, every: bool, backwards: bool
) -> None:
    x = sequences(7, 9)
    plain, looped = (
        layer(cell, activation=activation, go_backwards=backwards, return_sequences=every)
        for _ in range(2)
    )
    loop_over_time(looped, of_input=True, at_once=at_once)
    expected = state_and_gradients(plain, of_input=True, compiled=False)(x)
    found = state_and_gradients(looped, of_input=True)(x)
    assert found[0].shape == ((7, 9, 5) if every else (7, 5))
    assert found[-1].shape == x.shape
    for one, other in zip(expected, found, strict=True):
        # float32 rounding, as above.
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-5)


# --- sequences of different lengths ---
LENGTHS = (4, 1, 9, 7)  # of sequences padded to 9
# What the padding may hold, and what a model must not be told of the lengths.
PADDINGS = (0.0, 3.0, np.inf, np.nan)
MISTAKES: dict[str, tuple[int, ...]] = {
    "the mask dropped": (9,) * len(LENGTHS),
    "one step too many": tuple(min(length + 1, 9) for length in LENGTHS),
    "one step too few": tuple(max(length - 1, 1) for length in LENGTHS),
}


def masked(lengths: tuple[int, ...], padded_to: int = 9) -> tf.Tensor:
    return tf.sequence_mask(lengths, padded_to)


def padded(lengths: tuple[int, ...], padding: float, padded_to: int = 9) -> tf.Tensor:
    x = sequences(len(lengths), padded_to)
    return tf.where(masked(lengths, padded_to)[..., None], x, padding)


def alone(layer: keras.layers.RNN, x: tf.Tensor, lengths: tuple[int, ...]) -> list[np.ndarray]:
    """The last states of the sequences one by one, cut to their lengths, and the sums of gradients.

    Gradients of weights, of the sum of squares of the last states.
    """
    function = state_and_gradients(layer, compiled=False)
    found = [function(x[i : i + 1, :length]) for i, length in enumerate(lengths)]
    states, *gradients = zip(*found, strict=True)
    return [np.concatenate(states), *(np.sum(each, axis=0) for each in gradients)]


def largest_difference(one: list[np.ndarray], other: list[np.ndarray]) -> float:
    return max(float(np.abs(a - b).max()) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(
    ("cell", "activation", "at_once", "backwards"),
    [
        ("simple_rnn", "elu", False, False), ("simple_rnn", "gelu", False, True),
        ("lstm", "tanh", False, True), ("gru", "relu", False, False),
        ("lstm", "tanh", True, False), ("gru", "tanh", True, True),
        ("simple_rnn", "elu", True, True),
    ],
)  # fmt: skip
def test_each_sequence_is_read_as_if_it_were_alone(
    cell: Cell, activation: str, at_once: bool, backwards: bool
) -> None:
    """At every length, whatever the padding holds; and whoever gets the lengths wrong, differs."""
    read = layer(cell, activation=activation, go_backwards=backwards)
    expected = alone(read, padded(LENGTHS, 0), LENGTHS)
    loop_over_time(read, of_input=False, at_once=at_once)
    function = state_and_gradients(read)
    for padding in PADDINGS:
        found = function(padded(LENGTHS, padding), masked(LENGTHS))
        # float32 rounding of sums in another order, of gradients up to 30: 1e-5 seen.
        assert largest_difference(found, expected) < 1e-4, padding
    for mistake, lengths in MISTAKES.items():
        found = function(padded(LENGTHS, 0), masked(lengths))
        assert largest_difference(found, expected) > 1e-2, mistake


@pytest.mark.parametrize(
    ("cell", "activation", "at_once", "every", "backwards"),
    [
        ("simple_rnn", "elu", False, False, True), ("simple_rnn", "elu", False, True, False),
        ("simple_rnn", "gelu", False, True, True), ("lstm", "tanh", False, True, True),
        ("gru", "relu", False, False, True), ("lstm", "tanh", True, True, True),
        ("gru", "tanh", True, True, False), ("gru", "tanh", True, False, True),
        ("simple_rnn", "elu", True, True, True),
    ],
)  # fmt: skip
def test_a_mask_means_what_it_means_in_keras(
    cell: Cell, activation: str, at_once: bool, every: bool, backwards: bool
) -> None:
    """Where the longest of the batch is shorter than the padding too."""
    plain, looped = (
        layer(cell, activation=activation, go_backwards=backwards, return_sequences=every)
        for _ in range(2)
    )
    loop_over_time(looped, of_input=True, at_once=at_once)
    in_keras = state_and_gradients(plain, of_input=True, compiled=False)
    here = state_and_gradients(looped, of_input=True)
    for lengths in (LENGTHS, (1, 1, 1, 1), (3, 1, 4, 2), (9, 9, 9, 9)):
        x, mask = padded(lengths, 0.5), masked(lengths)
        for one, other in zip(in_keras(x, mask), here(x, mask), strict=True):
            # As above, where there is no mask.
            np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("cell", "rates", "at_once"),
    [
        ("simple_rnn", (0.4, 0.4), False),
        ("gru", (0.4, 0.0), False),
        ("gru", (0.4, 0.4), False),  # a mask for each gate, as an LSTM has
        ("lstm", (0.4, 0.0), True),
    ],
)
def test_dropout_has_the_same_masks_in_every_step_and_on_the_way_back(
    cell: Cell, rates: tuple[float, float], at_once: bool
) -> None:
    x = sequences(7, 9)
    settings: dict[str, Any] = {"dropout": rates[0], "recurrent_dropout": rates[1], "seed": 1}
    plain, looped = (layer(cell, return_sequences=True, **settings) for _ in range(2))
    for each in (plain, looped):
        draw_quickly(each)
    loop_over_time(looped, of_input=True, at_once=at_once)
    expected = state_and_gradients(plain, of_input=True, compiled=False)(x)
    found = state_and_gradients(looped, of_input=True)(x)
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-5)


def test_dropout_and_other_precisions_are_left_to_keras() -> None:
    x = sequences(64, 4)
    dropping = layer("simple_rnn", dropout=0.5, seed=1)
    loop_over_time(dropping, of_input=False)
    assert not np.allclose(dropping(x, training=True), dropping(x, training=False))
    half = layer("simple_rnn", dtype="mixed_float16")
    loop_over_time(half, of_input=False)
    assert state_and_gradients(half)(x)[0].dtype == tf.float16


def test_a_layer_that_loops_keeps_its_variables() -> None:
    looped = layer("simple_rnn")
    before = looped.trainable_variables
    loop_over_time(looped, of_input=False)
    assert [id(v) for v in looped.trainable_variables] == [id(v) for v in before]
    looped.set_weights([np.zeros_like(w) for w in looped.get_weights()])
    np.testing.assert_array_equal(looped(sequences(2, 3)), 0)


@pytest.mark.parametrize(
    ("cell", "settings"),
    [
        ("lstm", {"activation": "elu"}),
        ("gru", {"recurrent_activation": "hard_sigmoid"}),
        ("gru", {"reset_after": False}),
        ("simple_rnn", {"activation": "gelu"}),
        ("lstm", {"use_bias": False}),
        ("lstm", {"recurrent_dropout": 0.5}),
        ("gru", {"dropout": 0.5, "implementation": 1}),
        ("lstm", {"dtype": "mixed_bfloat16"}),
        ("gru", {"stateful": True}),
    ],
)
def test_other_cells_do_not_have_their_products_at_once(
    cell: Cell, settings: dict[str, Any]
) -> None:
    assert fits_at_once(layer(cell), 28, 64)
    keras.utils.set_random_seed(3)
    other = keras_layer(cell)(5, **settings)
    other.build((2, None, 3))
    assert not fits_at_once(other, 28, 64)


def test_products_at_once_are_for_what_fits_into_memory() -> None:
    """Four gates of 5 units in 100,000 steps of 100 sequences are 800 MB each time kept."""
    assert fits_at_once(layer("lstm"), 100_000, 100)
    assert not fits_at_once(layer("lstm"), 100_000, 200)


@pytest.mark.skipif(not xla_flags.are_in_effect(), reason="XLA_FLAGS are set from outside")
@pytest.mark.parametrize(
    ("cell", "activation", "every", "varies"),
    [
        ("simple_rnn", "elu", False, False), ("simple_rnn", "elu", True, True),
        ("simple_rnn", "gelu", True, True), ("lstm", "tanh", False, False),
        ("gru", "tanh", True, True),
    ],
)  # fmt: skip
def test_xla_compiles_the_loops_whole_and_their_products_well(
    cell: Cell, activation: str, every: bool, varies: bool
) -> None:
    """Thirteen times slower is what a product read the other way round would be."""
    looped = layer(cell, activation=activation, return_sequences=every)
    loop_over_time(looped, of_input=every)
    function = state_and_gradients(looped, of_input=every)
    mask = masked((1, 6) * 8, 6) if varies else None
    program = function.experimental_get_compiler_ir(sequences(16, 6), mask)(stage="optimized_hlo")
    assert program.count("xla_cpu_small_call") >= 2, "the loops forward and backward"
    in_loops = [line for line in re.findall(r"= .* dot\(.*", program) if "while" in line]
    assert in_loops
    for product in in_loops:
        assert "lhs_contracting_dims={1}, rhs_contracting_dims={0}" in product


@pytest.mark.parametrize("cell", ["simple_rnn", "gru"])
def test_a_layer_that_loops_refuses_what_it_would_ignore(cell: Cell) -> None:
    looped = layer(cell)
    loop_over_time(looped, of_input=False)
    with pytest.raises(ValueError, match="takes no initial_state"):
        looped(sequences(2, 3), initial_state=[tf.ones((2, 5))])


@pytest.mark.parametrize("more", ["return_sequences", "return_state", "go_backwards"])
def test_a_layer_that_gives_more_than_its_last_state_is_that_of_keras(more: str) -> None:
    x = sequences(2, 3)
    plain, looped = (layer("simple_rnn", **{more: True}) for _ in range(2))
    loop_over_time(looped, of_input=False)
    for one, other in zip(tf.nest.flatten(plain(x)), tf.nest.flatten(looped(x)), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-6, atol=1e-6)


def test_a_notebook_can_load_the_module_again() -> None:
    importlib.reload(layers)
    looped = layer("simple_rnn", activation="elu")
    layers.loop_over_time(looped, of_input=False)
    state_and_gradients(looped)(sequences(2, 3))


def test_nothing_of_a_layer_is_kept_by_what_is_registered() -> None:
    looped = layer("simple_rnn", activation="elu")
    loop_over_time(looped, of_input=False)
    state_and_gradients(looped)(sequences(2, 3))
    gone = weakref.ref(looped)
    del looped
    gc.collect()
    assert gone() is None
