"""What is probably a mistake is said once, in one line; what is none is not."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rnn_tf.data import SequenceData, SequenceSpec, Split, load
from rnn_tf.data.likely_mistakes import likely_mistakes

LABELS = ("cold", "mild", "warm")


def split(seed: int, y: list[int], **change: Any) -> Split:
    x = np.random.default_rng(seed).normal(size=(len(y), 4, 3)).astype(np.float32)
    return Split(x, np.array(y, np.int32))._replace(**change)


def data(**change: Any) -> SequenceData:
    """A set without mistakes: 30, 6 and 9 examples of three classes."""
    good = SequenceData(
        SequenceSpec(4, 3, LABELS),
        split(0, [0, 1, 2] * 10),
        split(1, [0, 1, 2] * 2),
        split(2, [0, 1, 2] * 3),
    )
    return dataclasses.replace(good, **change)


def test_nothing_to_say() -> None:
    assert likely_mistakes(data()) == []


def test_classes_without_a_training_example() -> None:
    found = likely_mistakes(data(train=split(0, [0, 2] * 10), test=split(2, [0, 2])))
    assert found == ["no training example of 'mild'"]


def test_a_class_in_test_only() -> None:
    found = likely_mistakes(data(train=split(0, [0, 2] * 10)))
    assert found == ["no training example of 'mild', but 3 in test, which will all be wrong"]


def test_many_classes_without_examples() -> None:
    labels = tuple(map(str, range(12)))
    (line,) = likely_mistakes(data(spec=SequenceSpec(4, 3, labels)))
    assert line == "no training example of '3', '4', '5', '6', '7' and 4 more"


@pytest.mark.parametrize("label", ["", "nan", "None", "<NA>"])
def test_a_class_of_missing_labels(label: str) -> None:
    found = likely_mistakes(data(spec=SequenceSpec(4, 3, ("cold", label, "warm"))))
    assert found == [f"a class is called {label!r}: are these examples without a label?"]


@pytest.mark.parametrize(("others", "lines"), [(10, 0), (9, 1)])
def test_one_class_above_nine_tenths(others: int, lines: int) -> None:
    y = [0] * 90 + [1, 2] * (others // 2) + [1] * (others % 2)
    found = likely_mistakes(data(train=split(0, y)))
    assert len(found) == lines
    if lines:
        assert found[0].startswith("90.9% of the training examples are of class 'cold': a model")


def test_constant_features() -> None:
    good = data()
    x = good.train.x.copy()
    x[..., 1] = 7
    assert likely_mistakes(data(train=good.train._replace(x=x))) == [
        "the same value in all training examples: feature 1"
    ]
    x[0, 0, 1] = 8  # once something else
    assert likely_mistakes(data(train=good.train._replace(x=x))) == []


def test_empty_margins_of_pictures_are_no_mistake() -> None:
    spec = SequenceSpec(4, 3, LABELS, channels=1)
    good = data()
    x = good.train.x.copy()
    x[..., 0] = 0
    assert likely_mistakes(data(spec=spec, train=good.train._replace(x=x))) == []


@pytest.mark.parametrize("source", ["train", "valid"])
def test_test_examples_that_were_trained_on(source: str) -> None:
    good = data()
    x = good.test.x.copy()
    x[2:5] = getattr(good, source).x[:3]
    (line,) = likely_mistakes(data(test=good.test._replace(x=x)))
    assert line.startswith("3 of 9 test examples are in train or validation too: the test accu")


def write(path: Path) -> str:
    """A file in which all test examples are in train, as train and as validation examples."""
    x = np.random.default_rng(0).normal(size=(300, 5, 1)).astype(np.float32)
    y = np.arange(300) % 3
    np.savez(path / "leaked.npz", x_train=x, y_train=y, x_test=x[:100], y_test=y[:100])
    return str(path / "leaked.npz")


def test_they_are_said_of_data_to_train_on(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"leaked\.npz: 100 of 100 test examples are in train or"):
        load(write(tmp_path), to_train=True)


def test_they_are_not_said_of_other_data(tmp_path: Path) -> None:
    """Whoever evaluates on a file of their own has only one set of examples in it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(write(tmp_path))
