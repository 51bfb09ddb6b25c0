"""A model that listens: each answer is that of the formulas, wherever chunks and resets fall."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
from networks import SPEC, in_keras, random_network, raw_input

from export import oracle
from export.network import Network
from rnn_tf import TrainConfig
from rnn_tf.errors import InputError
from rnn_tf.model.cells import CELLS, Cell
from rnn_tf.model.classifier import build_model
from rnn_tf.model.stepwise import Stepwise
from rnn_tf.streams import listener
from rnn_tf.streams.listener import Listener
from rnn_tf.streams.stream import NO_ANSWER

STEPS = 90
# Pieces of 1, 2, 36, 50 and 1 steps: some shorter than a chunk, some longer, none its multiple.
RESETS = np.array([0, 1, 3, 39, 89])


def by_formula(network: Network, frames: np.ndarray, resets: np.ndarray) -> np.ndarray:
    """Probabilities `(steps, classes)` after each raw frame, in float64, a piece at a time."""
    rows = []
    for piece in np.split(frames, resets[1:]):
        states = oracle.normalized(network, piece[None])
        for layer in network.layers:
            (states,) = oracle.layer_states(layer, states)
        rows.append(oracle.softmax(states[0] @ network.dense_kernel + network.dense_bias))
    return np.concatenate(rows)


@pytest.mark.parametrize(("cell", "layers"), [("simple_rnn", 1), ("lstm", 2), ("gru", 2)])
def test_each_answer_is_that_of_the_formulas(
    cell: Cell, layers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two pieces at a time, 16 steps of each.
    numbers = SPEC.features + layers * 5 * len(CELLS[cell].states) + SPEC.classes
    monkeypatch.setattr(listener, "NUMBERS_AT_ONCE", 2 * 16 * numbers)
    network = random_network(cell, layers=layers)
    network = dataclasses.replace(network, dense_kernel=20 * network.dense_kernel)
    frames = raw_input(STEPS).reshape(-1, SPEC.features)[:STEPS]
    model = in_keras(network)
    found = Listener(model, SPEC.normalization).listen(frames, RESETS)
    expected = by_formula(network, frames, RESETS)
    assert len(set(found.labels.tolist())) > 2
    np.testing.assert_array_equal(found.labels, expected.argmax(axis=1))
    # float32 over 50 steps: 2e-6 seen.
    np.testing.assert_allclose(found.confidence, expected.max(axis=1), atol=2e-5)
    # A state that is not set to zero, or at another step, is something else.
    for other in (RESETS[:-2], RESETS + np.array([0, 0, 0, 1, 0])):
        wrong = by_formula(network, frames, other).max(axis=1)
        assert np.abs(found.confidence - wrong).max() > 1e-2


def test_a_state_that_overflows_is_no_answer() -> None:
    model = keras.Sequential(
        [
            keras.Input((3, 1)),
            keras.layers.SimpleRNN(
                1, activation="linear", kernel_initializer="ones", recurrent_initializer="ones"
            ),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )
    model.layers[0].set_weights([np.ones((1, 1)), np.full((1, 1), 10.0), np.zeros(1)])
    model.layers[1].set_weights([np.array([[1.0, -1.0]]), np.zeros(2)])
    found = Listener(model, SPEC.normalization).listen(np.ones((60, 1), np.float32), np.array([0]))
    # 10^38 is a float32, 10^39 is none; once lost, it stays so.
    lost = found.labels == NO_ANSWER
    assert (~lost[:38]).all()
    assert lost[40:].all()
    assert (found.confidence[lost] == 0).all()
    assert np.isinf(found.largest[lost]).all()
    np.testing.assert_allclose(found.largest[:3], [0.25, 2.75, 27.75])


def test_what_a_state_is_made_of() -> None:
    model = in_keras(random_network("lstm", layers=2))
    stepwise = Stepwise(model)
    assert stepwise.width == 20  # h and c of 5 units each, of two layers
    assert stepwise.output == slice(10, 15)  # the h of the second
    frames = raw_input(2).reshape(1, -1, SPEC.features)[:, : SPEC.longest]
    states = stepwise.states(frames, np.zeros((1, 20), np.float32))
    assert states.shape == (1, SPEC.longest, 20)
    # The rest of it, from what it held after three steps.
    rest = stepwise.states(frames[:, 3:], states[:, 2])
    np.testing.assert_allclose(rest, states[:, 3:], atol=1e-6)
    np.testing.assert_allclose(stepwise.probabilities(states)[:, -1], model(frames), atol=1e-6)


def test_what_was_trained_in_half_precision_is_asked_in_float32() -> None:
    config = TrainConfig(units=4)
    half = build_model(config, SPEC, precision="mixed_float16")
    full = build_model(config, SPEC)
    full.set_weights(half.get_weights())
    frames, zero = raw_input(2), np.zeros((2, 4), np.float32)
    of_half, of_full = (np.asarray(Stepwise(each).states(frames, zero)) for each in (half, full))
    assert of_half.dtype == np.float32
    np.testing.assert_array_equal(of_half, of_full)


def test_a_model_that_reads_both_ways_is_refused() -> None:
    model = in_keras(random_network("gru", bidirectional=True))
    with pytest.raises(InputError, match=r"both directions cannot answer step by step.*without --"):
        Listener(model, SPEC.normalization)
