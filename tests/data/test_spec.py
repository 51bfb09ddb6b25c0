"""The specification survives a round trip, and says what is wrong with a bad one."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnn_tf.data.spec import SequenceSpec
from rnn_tf.errors import InputError

SPEC = SequenceSpec(timesteps=4, features=6, classes=2, labels=("no", "yes"), scale=0.5, channels=3)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


def test_json_round_trip() -> None:
    assert SequenceSpec.from_json(SPEC.to_json()) == SPEC


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
        ({"classes": True}, r"bad classes; expected a whole number >= 2, got True"),
        ({"labels": ["a"]}, r"the labels do not match the classes; expected 2 labels, got 1"),
        ({"labels": 7}, r"bad labels in the specification; expected a list, got 7"),
        ({"scale": 0}, r"bad scale; expected a positive finite number, got 0"),
        ({"scale": float("nan")}, r"bad scale; expected a positive finite number, got nan"),
        ({"scale": 10**400}, r"bad scale; expected a positive finite number, got 1000"),
        ({"scale": "1"}, r"bad scale; expected a positive finite number, got '1'"),
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
