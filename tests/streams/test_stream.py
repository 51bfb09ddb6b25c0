"""A stream holds every step of every sequence once, in order, and silence between them."""

from __future__ import annotations

import numpy as np
import pytest

from rnn_tf.data import Split
from rnn_tf.data.spec import UNLABELLED
from rnn_tf.streams.stream import as_stream, silence

X = np.arange(24, dtype=np.float32).reshape(3, 4, 2)
Y = np.array([2, 0, 1], np.int32)
LENGTHS = np.array([2, 4, 1], np.int32)


def test_sequences_follow_each_other_at_their_own_lengths() -> None:
    stream = as_stream(Split(X, Y, LENGTHS))
    np.testing.assert_array_equal(stream.frames, np.concatenate([X[0, :2], X[1], X[2, :1]]))
    assert stream.labels.tolist() == [2, 2, 0, 0, 0, 0, 1]
    assert stream.begins.tolist() == [0, 2, 6]
    rows = stream.by_sequence(stream.labels, UNLABELLED)
    assert rows.tolist() == [[2, 2, -1, -1], [0, 0, 0, 0], [1, -1, -1, -1]]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_gaps_are_silence_and_have_no_label(dtype: type) -> None:
    split = Split(X.astype(dtype), Y)
    stream = as_stream(split, gap=3, silence=np.array([7, 8], dtype))
    assert stream.frames.dtype == dtype
    assert stream.begins.tolist() == [0, 7, 14]
    assert stream.labels.tolist() == [2] * 4 + [-1] * 3 + [0] * 4 + [-1] * 3 + [1] * 4 + [-1] * 3
    for row, begin in enumerate(stream.begins):
        np.testing.assert_array_equal(stream.frames[begin : begin + 4], X[row])
        assert stream.frames[begin + 4 : begin + 7].tolist() == [[7, 8]] * 3


def test_labels_of_steps_stay_at_their_steps() -> None:
    y = np.array([[0, 1, -1, -1], [-1, 2, 2, 0], [1, -1, -1, -1]], np.int32)
    stream = as_stream(Split(X, y, LENGTHS), gap=1)
    assert stream.labels.tolist() == [0, 1, -1, -1, 2, 2, 0, -1, 1, -1]
    np.testing.assert_array_equal(stream.by_sequence(stream.labels, UNLABELLED), y)


def test_silence_is_the_median_of_what_is_no_padding() -> None:
    x = X.copy()
    x[0, 2:] = np.nan
    x[2, 1:] = 1e9
    valid = np.concatenate([X[0, :2], X[1], X[2, :1]])
    assert silence(Split(x, Y, LENGTHS)).tolist() == np.median(valid, axis=0).tolist()
    digits = np.zeros((1000, 28, 28), np.uint8)
    digits[:, 10:12] = 255
    quiet = silence(Split(digits, np.zeros(1000, np.int32)))
    assert quiet.dtype == np.uint8
    assert not quiet.any()
