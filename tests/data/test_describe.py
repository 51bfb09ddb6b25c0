"""The first line of a training: what was understood."""

from __future__ import annotations

import dataclasses

import numpy as np

from rnn_tf.data import SequenceData, SequenceSpec, Split, describe


def data(labels: tuple[str, ...], lengths: bool = False, steps: int = 5) -> SequenceData:
    """Two examples of each class in train, and one in valid and in test."""

    def split(each: int) -> Split:
        y = np.repeat(np.arange(len(labels), dtype=np.int32), each)
        x = np.zeros((len(y), steps, 1), np.float32)
        return Split(x, y, np.arange(len(y)) % steps + 1 if lengths else None)

    spec = SequenceSpec(None if lengths else steps, 1, labels, longest=steps)
    return SequenceData(spec, split(2), split(1), split(1))


def test_one_length() -> None:
    assert describe(data(("a", "b"))) == (
        "6 sequences of 5 steps, 1 feature, 2 classes: a (3), b (3); 2 to test"
    )
    assert describe(data(("a", "b"), steps=1)).startswith("6 sequences of 1 step, 1 feature, 2 cl")


def test_many_lengths_are_those_that_there_are() -> None:
    """And not the width of the arrays."""
    found = data(("a", "b", "c"), lengths=True, steps=9)
    assert describe(found).startswith("9 sequences of 1 to 6 steps, 1 feature, 3 classes: a (3), ")


def test_many_classes_and_long_names() -> None:
    labels = ("a\nb" + "c" * 100, *map(str, range(1_999)))
    assert describe(data(labels)) == (
        f"6,000 sequences of 5 steps, 1 feature, 2,000 classes: a b{'c' * 27} (3), 0 (3), 1 (3), "
        "2 (3), 3 (3), 4 (3), 5 (3), 6 (3) and 1,992 more; 2,000 to test"
    )


def test_notes_follow() -> None:
    found = dataclasses.replace(data(("a", "b")), notes=("one", "two"))
    assert describe(found).splitlines()[1:] == ["one", "two"]


def test_mnist(mnist: SequenceData) -> None:
    assert describe(mnist) == (
        "60,000 sequences of 28 steps, 28 features, 10 classes: 0 (5,923), 1 (6,742), 2 (5,958), "
        "3 (6,131), 4 (5,842), 5 (5,421), 6 (5,918), 7 (6,265) and 2 more; 10,000 to test"
    )


def test_notes_travel_with_normalized_data() -> None:
    found = dataclasses.replace(data(("a", "b")), notes=("one",))
    assert found.normalized("standard").notes == ("one",)
