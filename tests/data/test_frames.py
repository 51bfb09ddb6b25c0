"""Frames from lines of text."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rnn_tf.data.frames import END, read_frames
from rnn_tf.data.spec import SequenceSpec
from rnn_tf.errors import InputError

SPEC = SequenceSpec(4, 2, ("a", "b"))
NAMED = replace(SPEC, feature_names=("ax", "ay"))


def frames(text: str, spec: SequenceSpec = SPEC) -> list[tuple[int, list[float]]]:
    return [
        (number, values.tolist()) for number, values in read_frames(text.split("\n"), spec, "x")
    ]


def test_csv_json_and_spaces_are_the_same_frame() -> None:
    for line in (
        "1,2.5", " 1 , 2.5 ", "1.0,25e-1\r", "[1, 2.5]", "[1.0,2.5]", "1;2,5", "1,0; 2.5",
        "1\t2,5", "1  2.5",
    ):  # fmt: skip
        assert frames(line) == [(1, [1.0, 2.5])]
    assert frames('{"ay": 2.5, "ax": 1}', NAMED) == [(1, [1.0, 2.5])]


def test_an_empty_line_ends_a_sequence() -> None:
    found = list(read_frames(["1,2", "", "3,4"], SPEC, "x"))
    assert [number for number, _ in found] == [1, 2, 3]
    assert [values is END for _, values in found] == [False, True, False]


def test_a_first_line_of_names_is_passed_over() -> None:
    assert frames("ax,ay\n1,2", NAMED) == [(2, [1.0, 2.0])]
    assert frames('"ax", "ay"\n1,2', NAMED) == [(2, [1.0, 2.0])]
    assert frames("time;ay;ax;label\n0;2,5;1;walk", NAMED) == [(2, [1.0, 2.5])]
    with pytest.raises(InputError, match=r"line 2 of x has another number .*expected 3, got 2"):
        frames("time,ay,ax\n1,2", NAMED)
    with pytest.raises(InputError, match="line 1 of x is not numbers"):
        frames("ax,ay\n1,2")
    with pytest.raises(InputError, match="line 2 of x is not numbers"):
        frames("1,2\nax,ay", NAMED)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("1", "is not a frame of the model; expected 2 numbers, got 1"),
        ("1,2,", "is not numbers; expected CSV or JSON, got ''"),
        ("1:2", "got '1:2'"),
        ("inf,1", "is not finite"),
        ("1e400,1", "is not finite"),
        ("[1,2]]", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[true, 1]", "is not numbers; expected a list of them"),
        ("[null, 1]", "is not numbers"),
        (f"[{'9' * 400}, 1]", "is not finite"),
        ('{"ax": 1}', "has other features; expected ax, ay, got ax"),
    ],
)
def test_a_bad_line_is_named(line: str, what: str) -> None:
    with pytest.raises(InputError, match="line 1 of x") as caught:
        frames(line, NAMED)
    assert what in str(caught.value)


def test_values_are_float32() -> None:
    ((_, frame),) = read_frames(["0.1,0.2"], SPEC, "x")
    assert frame.dtype == np.float32
    np.testing.assert_array_equal(frame, np.array([0.1, 0.2], np.float32))
