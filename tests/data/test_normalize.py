"""Raw values become what the model sees by one rule, learned on the training split only."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rnn_tf.data.normalize import BLOCK_VALUES, Normalize, choose, minmax, standard
from rnn_tf.data.spec import SequenceData, SequenceSpec, Split


def recordings(examples: int = 300, seed: int = 0) -> np.ndarray:
    """2 g, 20 degrees, 101,325 Pa: float32 `(examples, 10, 3)`."""
    noise = np.random.default_rng(seed).normal(size=(examples, 10, 3))
    return (noise * [1, 5, 500] + [2, 20, 101_325]).astype(np.float32)


def test_standard_gives_each_feature_mean_0_and_deviation_1() -> None:
    x = standard(recordings())(recordings())
    assert x.dtype == np.float32
    # Half a unit in the last place of 101,325 is 8e-6 of its deviation here.
    np.testing.assert_allclose(x.mean((0, 1), dtype=np.float64), 0, atol=2e-5)
    np.testing.assert_allclose(x.std((0, 1), dtype=np.float64), 1, rtol=1e-5)


def test_minmax_goes_from_0_to_1() -> None:
    x = minmax(recordings())(recordings())
    np.testing.assert_allclose(x.min((0, 1)), 0, atol=2e-5)
    np.testing.assert_allclose(x.max((0, 1)), 1, atol=2e-5)


@pytest.mark.parametrize("value", [0.0, 7.0, -101_325.0, 1e-20])
@pytest.mark.parametrize("learn", [standard, minmax])
def test_a_constant_feature_becomes_0(learn, value: float) -> None:  # type: ignore[no-untyped-def]
    x = recordings()
    x[:, :, 1] = value
    seen = learn(x)(x)
    assert np.isfinite(seen).all()
    np.testing.assert_allclose(seen[:, :, 1], 0, atol=1e-6)
    # Should it change after all, the model does not see a huge number.
    x[:, :, 1] = value * 1.1
    assert np.abs(learn(recordings())(x)).max() < 1e6


@example([0.0, 1.401298464324817e-45])
@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=2, max_size=30))
def test_any_values_give_a_valid_normalization(values: list[float]) -> None:
    x = np.array(values, np.float32).reshape(1, -1, 1)
    for learned in (standard(x), minmax(x)):
        assert np.isfinite(learned(x)).all()
        assert np.abs(learned(x)).max() <= len(values)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_statistics_do_not_depend_on_blocks_or_types(
    dtype: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    x: np.ndarray = np.random.default_rng(0).integers(0, 255, (97, 13, 4)).astype(dtype)
    whole = standard(x)
    monkeypatch.setattr("rnn_tf.data.normalize.BLOCK_VALUES", 60)
    np.testing.assert_allclose(standard(x).scale, whole.scale, rtol=1e-12)
    np.testing.assert_allclose(standard(x).shift, whole.shift, rtol=1e-12)
    np.testing.assert_allclose(whole.scale, 1 / x.std((0, 1), dtype=np.float64), rtol=1e-12)
    assert BLOCK_VALUES > 60


def test_auto_is_what_the_source_says_and_standard_where_it_says_nothing() -> None:
    x, said = recordings(), Normalize((1 / 255,))
    assert choose("auto", said, x) == said
    assert choose("auto", None, x) == standard(x)
    assert choose("standard", said, x) == standard(x)
    assert choose("minmax", said, x) == minmax(x)
    assert choose("none", said, x)(x).tolist() == x.tolist()


def test_only_the_training_split_is_looked_at() -> None:
    y = np.zeros(300, np.int32)
    splits = [Split(recordings(seed=seed), y) for seed in range(3)]
    spec = SequenceSpec(10, 3, ("a", "b"))
    data = SequenceData(spec, *splits)
    wild = dataclasses.replace(data, valid=Split(splits[1].x * 100, y), test=Split(-splits[2].x, y))
    assert wild.normalized("auto").spec == data.normalized("auto").spec
    assert data.normalized("auto").spec.normalize == standard(splits[0].x)


@pytest.mark.parametrize("learn", [standard, minmax])
def test_padding_is_not_looked_at(learn) -> None:  # type: ignore[no-untyped-def]
    x = recordings()
    lengths = np.random.default_rng(1).integers(1, x.shape[1] + 1, len(x))
    valid = np.arange(x.shape[1]) < lengths[:, np.newaxis]
    steps = x[valid][np.newaxis]  # one long sequence without any
    x[~valid] = 1e9
    assert learn(x, lengths) == learn(steps)


def test_one_scale_rounds_as_it_always_did() -> None:
    x = np.arange(256, dtype=np.uint8).reshape(1, 8, 32)
    expected = x.astype(np.float32) * np.float32(1 / 255)
    np.testing.assert_array_equal(Normalize((1 / 255,))(x), expected)
