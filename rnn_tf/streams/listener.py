"""A model that listens to a stream and answers after each frame."""

from __future__ import annotations

from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

from rnn_tf.data.normalize import Normalize
from rnn_tf.model.stepwise import Stepwise
from rnn_tf.streams.stream import NO_ANSWER, Answers

# A step of a small layer is over before a GPU has been asked for it.
DEVICE = "cpu:0"
# So many numbers, of frames, states and probabilities, are computed in one call.
NUMBERS_AT_ONCE = 2**22
# Steps of one call. XLA takes a second to compile a shape, and what fills the last call is wasted.
FEWEST_STEPS, MOST_STEPS = 16, 4096


class Listener:
    """A model that listens to streams. What it needs is bounded, however long they are.

    Raises `InputError` for a model that reads in both directions.
    """

    def __init__(self, model: keras.Sequential, normalize: Normalize) -> None:
        with keras.device(DEVICE):
            self._model = Stepwise(model)
        self._normalize = normalize
        self._classes = model.output_shape[-1]
        shapes = ([None, None, model.input_shape[-1]], [None, self._model.width])
        # XLA makes one function of the loop over time: a step takes 1 us, in a graph it takes 30.
        self._read = tf.function(
            self._read_chunk, jit_compile=True, input_signature=[tf.TensorSpec(s) for s in shapes]
        )

    def listen(self, frames: np.ndarray, resets: np.ndarray) -> Answers:
        """What it answers after each of the raw `frames` `(steps, features)`.

        Its state is set to zero before each step of `resets`, sorted int64, the first of them 0.
        What lies between two resets is independent of the rest, and is read beside it.
        """
        kinds = (np.int32, np.float32, np.float32)
        found = Answers(*(np.empty(len(frames), kind) for kind in kinds))
        lengths = np.diff(resets, append=len(frames))
        numbers = frames.shape[1] + self._model.width + self._classes
        steps = _power_of_two(int(lengths.mean()), FEWEST_STEPS, MOST_STEPS)
        steps = min(steps, max(1, NUMBERS_AT_ONCE // numbers))
        beside = _power_of_two(len(resets), 1, max(1, NUMBERS_AT_ONCE // (numbers * steps)))
        # Those that end at about the same step are read together.
        order = np.argsort(lengths, kind="stable")
        for start in range(0, len(order), beside):
            pieces = order[start : start + beside]
            chunks = self._chunks(frames, resets[pieces], lengths[pieces], (beside, steps))
            for places, wanted, answers in chunks:
                for values, new in zip(found, answers, strict=True):
                    values[places[wanted]] = new[: len(pieces)][wanted]
        return found

    def _chunks(
        self, frames: np.ndarray, begins: np.ndarray, lengths: np.ndarray, shape: tuple[int, int]
    ) -> Iterator[tuple[np.ndarray, np.ndarray, list[np.ndarray]]]:
        """Read pieces of a stream side by side, so many steps at a time.

        Gives the place of each step in the stream, `(pieces, steps)`, whether it is in its piece,
        and the answers, of shape `shape` whatever is filled up for that.
        """
        beside, steps = shape
        state = np.zeros((beside, self._model.width), np.float32)
        for start in range(0, int(lengths.max()), steps):
            ahead = start + np.arange(steps)
            places = np.minimum(begins[:, None] + ahead, len(frames) - 1)
            chunk = np.zeros((beside, steps, frames.shape[1]), np.float32)
            chunk[: len(begins)] = self._normalize(frames[places])
            with keras.device(DEVICE):
                answers, state = self._read(chunk, state)
            yield places, ahead < lengths[:, None], [each.numpy() for each in answers]

    def _read_chunk(self, frames: tf.Tensor, state: tf.Tensor) -> tuple[Answers, tf.Tensor]:
        """The answers `(beside, steps)` to normalized frames, and the state after the last."""
        states = self._model.states(frames, state)
        rows = self._model.probabilities(states)
        finite = tf.reduce_all(tf.math.is_finite(rows), axis=-1)
        largest = tf.reduce_max(tf.abs(states), axis=-1)
        answers = Answers(
            tf.where(finite, tf.argmax(rows, axis=-1, output_type=tf.int32), NO_ANSWER),
            tf.where(finite, tf.reduce_max(rows, axis=-1), 0.0),
            tf.where(finite, largest, np.inf),
        )
        return answers, states[:, -1]


def _power_of_two(number: int, least: int, most: int) -> int:
    """The power of two that is `number` or the next above it, between these bounds."""
    return min(max(1 << max(number - 1, 0).bit_length(), least), most)
