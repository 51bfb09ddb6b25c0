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


def test_classes_that_no_training_step_has() -> None:
    """Those of a model that answers at every step, whether labels are of sequences or of steps."""
    spec = SequenceSpec(4, 3, LABELS, answer="every_step")
    by_sequence = data(spec=spec, train=split(0, [0, 2] * 10), test=split(2, [0, 2]))
    assert likely_mistakes(by_sequence) == ["no training example of 'mild'"]
    steps = {
        name: getattr(by_sequence, name)._replace(y=getattr(by_sequence, name).step_labels)
        for name in ("train", "valid", "test")
    }
    assert likely_mistakes(data(spec=spec, **steps)) == ["no training step of 'mild'"]
    steps["train"].y[:, 1:] = -1
    steps["train"].y[::2, 0] = 1
    steps["train"].y[1::2, 0] = 0
    (found,) = likely_mistakes(data(spec=spec, **steps))
    assert found == "no training step of 'warm', but 4 in test, which will all be wrong"


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


def with_lengths(split: Split, lengths: list[int]) -> Split:
    return split._replace(lengths=np.resize(np.array(lengths), len(split.y)))


def of_many_lengths(**change: Any) -> SequenceData:
    good = data()
    names = ("train", "valid", "test")
    splits = {name: with_lengths(getattr(good, name), [4, 2, 3]) for name in names}
    return SequenceData(**{"spec": SequenceSpec(None, 3, LABELS, longest=4), **splits, **change})


def test_padding_is_no_constant_feature_and_no_other_sequence() -> None:
    """Only steps of sequences count: padding is 0, whatever a feature is."""
    assert likely_mistakes(of_many_lengths()) == []
    good = of_many_lengths()
    x = good.train.x.copy()
    x[..., 1] = 7
    found = of_many_lengths(train=good.train._replace(x=x))
    assert likely_mistakes(found) == ["the same value in all training examples: feature 1"]


def test_a_sequence_in_train_and_test_whatever_follows_it() -> None:
    good = of_many_lengths()
    x, lengths = good.test.x.copy(), np.array(good.test.lengths)
    x[:3], lengths[:3] = good.train.x[:3], np.array(good.train.lengths)[:3]
    lengths[2] -= 1  # the beginning of one only
    found = of_many_lengths(test=good.test._replace(x=x, lengths=lengths))
    (line,) = likely_mistakes(found)
    assert line.startswith("2 of 9 test examples are in train or validation too")


def test_names_of_features_are_said() -> None:
    good = data()
    x = good.train.x.copy()
    x[..., 1] = 7
    spec = SequenceSpec(4, 3, LABELS, feature_names=("a", "b", "c"))
    found = likely_mistakes(data(spec=spec, train=good.train._replace(x=x)))
    assert found == ["the same value in all training examples: feature b"]


def waves(examples: int, steps: int, features: int) -> np.ndarray:
    """Smooth in time, each feature of its own size: float32 `(examples, steps, features)`."""
    rng = np.random.default_rng(0)
    phase = rng.uniform(0, 6, (examples, 1, features))
    size = rng.uniform(0.5, 2, features)
    time = np.linspace(0, 8, steps)[:, np.newaxis]
    noise = 0.05 * rng.normal(size=(examples, steps, features))
    x: np.ndarray = (np.sin(time + phase) + noise) * size
    return x.astype(np.float32)


def of_shape(x: np.ndarray) -> SequenceData:
    y = np.arange(len(x) // 3, dtype=np.int32) % 3
    parts = [Split(x[at::3], y) for at in range(3)]
    return SequenceData(SequenceSpec(x.shape[1], x.shape[2], LABELS), *parts)


def test_swapped_axes() -> None:
    x = waves(90, 60, 6)
    assert likely_mistakes(of_shape(x)) == []
    (line,) = likely_mistakes(of_shape(x.transpose(0, 2, 1)))
    assert line == (
        "sequences of 6 time steps and 60 features, and a value is nearer to the next feature's "
        "than to the next step's: are the axes swapped? Expected (n, timesteps, features): "
        "x.transpose(0, 2, 1)"
    )


def test_one_time_step() -> None:
    (line,) = likely_mistakes(of_shape(waves(90, 24, 1).transpose(0, 2, 1)))
    assert line.startswith("sequences of 1 time step and 24 features: are the axes swapped? E")


@pytest.mark.parametrize("steps", [5, 20])
def test_many_features_are_no_mistake(steps: int) -> None:
    """Noise, features that have nothing to do with each other, and spectra of a slow sound."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(90, steps, 40)).astype(np.float32)
    spectra = np.cumsum(rng.normal(size=(90, 1, 40)), axis=2) + 0.3 * noise.cumsum(axis=1)
    for x in (noise, waves(90, steps, 40), spectra.astype(np.float32)):
        assert likely_mistakes(of_shape(x)) == []


def test_a_split_cut_off_the_end_of_a_sorted_file() -> None:
    sorted_file = data(train=split(0, [0] * 20 + [1] * 20), test=split(2, [1] * 4 + [2] * 9))
    found = likely_mistakes(sorted_file)
    assert found == [
        "no training example of 'warm', but 9 in test, which will all be wrong",
        "the labels are in sorted order, and test has only 'mild', 'warm': was it cut off the end "
        "of a sorted file? Shuffle the examples first",
    ]


def test_sorted_labels_in_every_split_are_no_mistake() -> None:
    names = ("train", "valid", "test")
    splits = {name: split(i, sorted([0, 1, 2] * 9)) for i, name in enumerate(names)}
    assert likely_mistakes(data(**splits)) == []


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
