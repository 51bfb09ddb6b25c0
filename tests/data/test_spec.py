"""The specification survives a round trip, and says what is wrong with a bad one."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnn_tf.data.normalize import Normalize
from rnn_tf.data.spec import SequenceData, SequenceSpec, Split, most_frequent
from rnn_tf.errors import InputError

SPEC = SequenceSpec(
    timesteps=4, features=6, labels=("no", "yes"), normalize=Normalize((0.5,)), channels=3
)


def normalize(**change: object) -> dict[str, object]:
    return {"normalize": {"scale": [0.5], "shift": [0.0], "origin": "source"} | change}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


def test_json_round_trip() -> None:
    assert SequenceSpec.from_json(SPEC.to_json()) == SPEC


def test_a_scale_and_a_shift_for_each_feature_survive() -> None:
    numbers = Normalize(
        (0.1, 2.0, 3.0, 4.0, 5.0, 1e6), (-1.5, 0.0, 0.0, 0.0, 0.0, 1 / 3), "standard"
    )
    spec = replace(SPEC, normalize=numbers)
    assert SequenceSpec.from_json(spec.to_json()) == spec
    assert json.loads(spec.to_json())["normalize"]["scale"] == list(numbers.scale)


def test_a_specification_of_version_1_still_opens() -> None:
    old = {
        "timesteps": 4, "features": 6, "classes": 2, "labels": ["no", "yes"], "scale": 0.5,
        "channels": 3,
    }  # fmt: skip
    assert SequenceSpec.from_json(json.dumps(old)) == SPEC
    with pytest.raises(InputError, match=r"do not match the classes; expected 3 labels, got 2"):
        SequenceSpec.from_json(json.dumps(old | {"classes": 3}))


def test_a_specification_of_version_2_answers_at_the_end() -> None:
    old = json.loads(SPEC.to_json()) | {"version": 2}
    del old["answer"]
    assert SequenceSpec.from_json(json.dumps(old)) == SPEC


def test_answers_at_every_step_survive() -> None:
    spec = replace(SPEC, answer="every_step")
    assert spec.every_step
    assert SequenceSpec.from_json(spec.to_json()) == spec


def test_lengths_that_vary_survive() -> None:
    spec = SequenceSpec(None, 2, ("no", "yes"), longest=9, feature_names=("speed", "turn"))
    assert spec.varies
    assert SequenceSpec.from_json(spec.to_json()) == spec
    values = json.loads(spec.to_json())
    assert (values["timesteps"], values["longest"]) == (None, 9)


def test_where_all_are_as_long_the_longest_is_too() -> None:
    assert SPEC.longest == 4
    assert not SPEC.varies


# --- lengths of a split ---
VARYING = SequenceSpec(None, 2, ("no", "yes"), longest=4)


def ragged(padding: float = 0.0, lengths: object = (1, 4, 2)) -> Split:
    x = np.arange(24, dtype=np.float32).reshape(3, 4, 2) + 1
    split = Split(x, np.array([0, 1, 0], np.int32), np.array(lengths))
    if split.lengths is not None and split.lengths.shape == (3,):
        x[~np.asarray(split.valid)] = padding
    return split


@pytest.mark.parametrize("padding", [0.0, 7.0, float("nan"), float("inf")])
def test_what_the_padding_holds_never_matters(padding: float) -> None:
    given = ragged(padding)
    before = given.x.copy()
    data = SequenceData(VARYING, given, given, given)
    np.testing.assert_array_equal(data.train.x, ragged().x)
    assert data.train.lengths is not None
    assert data.train.lengths.dtype == np.int32
    np.testing.assert_array_equal(given.x, before)  # the caller's own is left alone


def test_rows_are_taken_with_their_lengths_and_groups() -> None:
    split = ragged()._replace(groups=np.array(["a", "b", "c"])).take([2, 0])
    assert split.lengths is not None
    assert split.groups is not None
    assert split.lengths.tolist() == [2, 1]
    assert split.groups.tolist() == ["c", "a"]
    assert np.asarray(split.valid).tolist() == [[True, True, False, False], [True] + 3 * [False]]


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ((0, 4, 2), r"bad lengths of train; expected 1 to 4, got 0 for example 0"),
        ((1, 4, 5), r"bad lengths of train; expected 1 to 4, got 5 for example 2"),
        ((1, 4), r"expected one whole number for each of 3 sequences, got int64 of shape \(2,\)"),
        ((1.0, 4.0, 2.0), r"expected one whole number .*, got float64 of shape \(3,\)"),
    ],
)
def test_lengths_that_do_not_fit_are_refused(lengths: object, message: str) -> None:
    split = ragged(lengths=lengths)
    with pytest.raises(InputError, match=message):
        SequenceData(VARYING, split, ragged(), ragged())


def test_lengths_are_given_exactly_where_they_vary() -> None:
    without = ragged()._replace(lengths=None)
    with pytest.raises(InputError, match=r"bad lengths of test; expected the length of each"):
        SequenceData(VARYING, ragged(), ragged(), without)
    fixed = replace(VARYING, timesteps=4)
    with pytest.raises(InputError, match=r"bad lengths of valid; expected none: all are as long"):
        SequenceData(fixed, without, ragged(), without)


# --- labels by step ---
STEPS = replace(VARYING, answer="every_step")


def by_step(y: object = ((1, 0, 0, 0), (0, 1, 1, 0), (-1, 1, 0, 0))) -> Split:
    return ragged()._replace(y=np.array(y))


def test_labels_by_step_end_where_a_sequence_does() -> None:
    data = SequenceData(STEPS, by_step(), by_step(), by_step())
    assert data.train.labelled_by_step
    assert data.train.y.tolist() == [[1, -1, -1, -1], [0, 1, 1, 0], [-1, 1, -1, -1]]
    assert data.train.y.dtype == np.int32
    assert data.train.step_labels is data.train.y
    assert data.train.sequence_labels.tolist() == [1, 0, 1]
    assert data.train.take([2]).y.tolist() == [[-1, 1, -1, -1]]


def test_a_label_of_a_sequence_is_that_of_its_steps() -> None:
    data = SequenceData(STEPS, ragged(), ragged(), ragged())
    assert not data.train.labelled_by_step
    assert data.train.step_labels.tolist() == [[0, -1, -1, -1], [1] * 4, [0, 0, -1, -1]]
    assert data.train.sequence_labels.tolist() == [0, 1, 0]


def test_the_most_frequent_label_of_each_sequence() -> None:
    sequence = np.array([0, 0, 0, 1, 1, 1, 2, 3, 3, 3])
    labels = np.array([2, 0, 2, 1, 0, -1, -1, 0, 2, 2])
    assert most_frequent(sequence, labels, 5).tolist() == [2, 0, -1, 2, -1]


def test_all_splits_are_labelled_alike() -> None:
    with pytest.raises(InputError, match="labels by step in train or test, and by sequence in the"):
        SequenceData(STEPS, by_step(), by_step(), ragged())


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.zeros((3, 5), int), r"labels of train do not .*; expected shape \(3, 4\), or \(3,\) f"),
        (np.zeros((2, 4), int), r"labels of train do not .*; expected shape \(3, 4\), or \(3,\) f"),
        (((0,) * 4, (0, 2, 0, 0), (0,) * 4), r"bad label in train; expected 0 to 1, or -1 .*got 2 "
                                             r"in step 1 of example 1"),
        (((-2,) * 4, (0,) * 4, (0,) * 4), r"bad label in train; .* got -2 in step 0 of example 0"),
        (((-1, 0, 0, 0), (0,) * 4, (0,) * 4), r"a sequence of train without a label; .*example 0"),
        (np.zeros((3, 4)), r"bad dtype of the labels of train; expected whole numbers, got float"),
    ],
)  # fmt: skip
def test_labels_by_step_that_do_not_fit_are_refused(y: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        SequenceData(STEPS, by_step(y), by_step(), by_step())


def test_labels_by_step_need_an_answer_at_every_step() -> None:
    message = r"train has a label for each step.*; expected .*\(3,\), got .*--answer every_step"
    with pytest.raises(InputError, match=message):
        SequenceData(VARYING, by_step(), by_step(), by_step())
    data = SequenceData(STEPS, by_step(), by_step(), by_step())
    with pytest.raises(InputError, match=message):
        data.answering("end")
    ends = SequenceData(VARYING, ragged(), ragged(), ragged())
    assert ends.answering("end") is ends
    assert ends.answering("every_step").spec == STEPS


@given(st.text())
def test_any_text_is_a_spec_or_an_input_error(text: str) -> None:
    with pytest.raises(InputError):
        SequenceSpec.from_json(text)


@given(st.sampled_from(sorted(json.loads(SPEC.to_json()))), json_values)
def test_any_json_value_is_a_spec_or_an_input_error(key: str, value: object) -> None:
    values = json.loads(SPEC.to_json()) | {key: value}
    with contextlib.suppress(InputError):
        SequenceSpec.from_json(json.dumps(values))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"timesteps": 0, "longest": 0}, r"bad timesteps; expected a whole number >= 1, got 0"),
        ({"timesteps": None, "longest": 0}, r"bad longest; expected a whole number >= 1, got 0"),
        ({"longest": 5}, r"bad longest; expected 4, the length of every sequence, got 5"),
        ({"timesteps": None}, r"the rows of a picture are always as many"),
        ({"feature_names": ["a"]}, r"the names of the features .*; expected 6 names, or none, g"),
        ({"feature_names": 1}, r"bad feature_names in the specification; expected a list, got 1"),
        ({"features": 2.0}, r"bad features; expected a whole number >= 1, got 2\.0"),
        ({"labels": ["a"]}, r"too few labels; expected at least 2, got 1"),
        ({"labels": 7}, r"bad labels in the specification; expected a list, got 7"),
        ({"normalize": 1}, r"bad normalization; expected scale and shift, got 1"),
        ({"normalize": {"scale": [1.0]}}, r"bad normalization; expected scale and shift, got {"),
        (normalize(scale=[0]), r"bad scale; expected positive finite numbers, got 0"),
        (
            normalize(scale=[1.0, -1.0]),
            r"bad scale; expected positive finite .*, got \(1.0, -1.0\)",
        ),
        (normalize(scale=[float("nan")]), r"bad scale; expected positive finite numbers, got nan"),
        (normalize(scale=[10**400]), r"bad scale; expected positive finite numbers, got 1000"),
        (normalize(scale=["1"]), r"bad scale; expected positive finite numbers, got '1'"),
        (normalize(scale=[]), r"bad scale; expected positive finite numbers, got \(\)"),
        (normalize(scale=1.0), r"bad scale; expected a list, got 1.0"),
        (normalize(scale=[1e-60]), r"bad scale; expected positive finite numbers, got 1e-60"),
        (normalize(shift=[float("inf")]), r"bad shift; expected finite numbers, got inf"),
        (
            normalize(scale=[1.0] * 5),
            r"the scale does not match .*; expected 1 or 6 numbers, got 5",
        ),
        (
            normalize(shift=[1.0] * 7),
            r"the shift does not match .*; expected 1 or 6 numbers, got 7",
        ),
        (normalize(origin="guess"), r"bad origin; expected one of source, none, .*, got guess"),
        (normalize(gain=[1.0]), r"unknown keys in the normalization; got gain"),
        ({"version": 4}, r"written by a newer version .*; expected version 3 or older, got 4"),
        ({"version": "2"}, r"written by a newer version .*; expected version 3 or older, got '2'"),
        ({"channels": 4}, r"bad channels; expected 0, 1, 3 or 4, a divisor of features, got 4"),
        ({"answer": "now"}, r"bad answer; expected one of end, every_step, got 'now'"),
        ({"colour": 1}, r"the specification has other keys; expected .*, got .*'colour'"),
    ],
)
def test_bad_spec(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SequenceSpec.from_json(json.dumps(json.loads(SPEC.to_json()) | change))


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "1" * 5_000])
def test_text_that_is_not_json(text: str) -> None:
    with pytest.raises(InputError, match="the specification is not JSON"):
        SequenceSpec.from_json(text)
