"""Sequences as a program has them in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rnn_tf.data import Split
from rnn_tf.data.sequences import first_steps, in_one_array, padded
from rnn_tf.errors import InputError


@pytest.mark.parametrize("make", [list, tuple])
def test_sequences_that_are_as_long_become_one_array(make: Any) -> None:
    x = np.arange(24.0).reshape(4, 3, 2)
    np.testing.assert_array_equal(in_one_array(make(x)), x)
    of_objects = np.empty(4, object)
    of_objects[:] = [*x]
    np.testing.assert_array_equal(in_one_array(of_objects), x)


def test_what_is_no_list_stays_as_it_is() -> None:
    for x in (np.zeros((4, 3)), np.zeros((4, 3), object), "text"):
        assert in_one_array(x) is x


def test_sequences_of_different_lengths_stay_a_list() -> None:
    sequences = in_one_array([[1, 2, 3], [4]])
    assert [each.tolist() for each in sequences] == [[[1], [2], [3]], [[4]]]
    x = padded(np.concatenate(sequences), np.array([3, 1]), 4)
    assert x[..., 0].tolist() == [[1, 2, 3, 0], [4, 0, 0, 0]]


@pytest.mark.parametrize(
    ("sequences", "message"),
    [
        ([np.zeros((3, 2)), np.zeros(3)], "bad shape of sequence 1"),
        ([np.zeros((3, 2)), np.zeros((0, 2))], "bad shape of sequence 1"),
        ([np.zeros((3, 2, 1)), np.zeros((2, 2, 1))], "bad shape of sequence 0"),
        (
            [np.zeros((3, 2)), np.zeros((3, 1))],
            r"sequence 1 .* expected \(steps, 2\)",
        ),
    ],
)
def test_sequences_that_do_not_go_together_are_refused(sequences: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        in_one_array(sequences)


def test_the_first_steps_are_those_of_whole_examples() -> None:
    x, y = np.zeros((5, 4, 1), np.float32), np.zeros(5, np.int32)
    assert len(first_steps(Split(x, y), 5).y) == 2
    assert len(first_steps(Split(x, y, np.array([1, 2, 4, 1, 1], np.int32)), 3).y) == 2
    assert len(first_steps(Split(x, y), 1000).y) == 5
