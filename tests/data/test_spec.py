"""The specification survives a round trip, and says what is wrong with a bad one."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnn_tf.data.normalize import Normalize
from rnn_tf.data.spec import SequenceSpec
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
        ({"timesteps": 0}, r"bad timesteps; expected a whole number >= 1, got 0"),
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
        ({"version": 3}, r"written by a newer version .*; expected version 2 or older, got 3"),
        ({"version": "2"}, r"written by a newer version .*; expected version 2 or older, got '2'"),
        ({"channels": 4}, r"bad channels; expected 0, 1, 3 or 4, a divisor of features, got 4"),
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
