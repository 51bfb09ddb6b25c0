"""The profile of a data set: kept whole, refused when it is not, and its warnings."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rnn_tf.data import SequenceData, SequenceSpec, Split
from rnn_tf.data.profile import DataProfile, measure
from rnn_tf.errors import InputError

RANDOM = np.random.default_rng(0)
SPEC = SequenceSpec(timesteps=50, features=3, labels=("a", "b"))


def sensors(examples: int) -> np.ndarray:
    """Acceleration around 0 g, temperature around 20 degrees, pressure around 101,325 Pa."""
    x = RANDOM.normal([0, 20, 101_325], [0.5, 2, 300], (examples, 50, 3))
    return x.astype(np.float32)


@pytest.fixture(scope="module")
def profile() -> DataProfile:
    train, valid = (Split(sensors(n), np.zeros(n, np.int32)) for n in (200, 50))
    return measure(SequenceData(SPEC, train, valid, valid))


def warning(profile: DataProfile, x: np.ndarray) -> str | None:
    return profile.values.warning(x.min(axis=(0, 1)), x.max(axis=(0, 1)))


def test_it_comes_back_as_it_was_kept(mnist: SequenceData, tmp_path: Path) -> None:
    kept = measure(mnist)
    kept.save(tmp_path / "p.npz")
    # Bounded, whatever the data set: it is part of every bundle.
    assert (tmp_path / "p.npz").stat().st_size < 50_000
    opened = DataProfile.open(tmp_path / "p.npz", mnist.spec)
    assert opened is not None
    assert opened.style == kept.style
    x = mnist.test.x[:100]
    np.testing.assert_array_equal(opened.novelty.unusual(x), kept.novelty.unusual(x))
    assert warning(opened, x / 255) == warning(kept, x / 255) is not None


def test_there_may_be_none(tmp_path: Path, spec: SequenceSpec) -> None:
    assert DataProfile.open(tmp_path / "p.npz", spec) is None


def test_sequences_of_more_than_one_unit_have_no_style(profile: DataProfile) -> None:
    assert profile.style is None


@pytest.mark.parametrize(
    ("change", "feature"),
    [
        (lambda x: x * [1, 1, 0.01], 2),
        (lambda x: x * [9.81, 1, 1], 0),
        (lambda x: x * [1, 1.8, 1] + [0, 32, 0], 1),
        (lambda x: (x - [0, 20, 101_325]) / [0.5, 2, 300], 2),
        (lambda x: x[..., [1, 0, 2]], 0),
        (lambda x: np.where([True, False, True], x, 20), 1),
    ],
    ids=["hPa", "m/s2", "fahrenheit", "standardised", "other order", "stuck"],
)
def test_another_unit_is_warned_of(
    change: Callable[[np.ndarray], np.ndarray], feature: int, profile: DataProfile
) -> None:
    found = warning(profile, change(sensors(20)))
    assert found is not None
    assert re.fullmatch(
        rf"values of feature {feature} from \S+ to \S+, in the training data from \S+ to \S+: "
        "give them in the same unit",
        found,
    )


def test_usual_values_are_not_warned_of(profile: DataProfile, mnist: SequenceData) -> None:
    for _ in range(20):
        assert warning(profile, sensors(1)) is None
    of_mnist = measure(mnist)
    for x in mnist.test.x[:200]:
        assert warning(of_mnist, x[None]) is None


def test_pictures_have_one_range_for_all_columns(mnist: SequenceData) -> None:
    """A shifted digit has ink in columns where training digits have none: no other unit."""
    assert warning(measure(mnist), np.roll(mnist.test.x[:1], 8, axis=2)) is None


def test_a_newer_one_is_refused(profile: DataProfile, tmp_path: Path) -> None:
    profile.save(tmp_path / "p.npz")
    with np.load(tmp_path / "p.npz") as arrays:
        np.savez(tmp_path / "p.npz", **{**arrays, "format": np.array(2)})
    with pytest.raises(InputError, match=r"newer version: .*p\.npz; expected format 1 or older, g"):
        DataProfile.open(tmp_path / "p.npz", SPEC)


@pytest.mark.parametrize("left_out", ["format", "values.low", "novelty.centre", "novelty.noise"])
def test_a_part_that_is_missing_is_named(
    left_out: str, profile: DataProfile, tmp_path: Path
) -> None:
    profile.save(tmp_path / "p.npz")
    with np.load(tmp_path / "p.npz") as arrays:
        rest = {name: array for name, array in arrays.items() if name != left_out}
    np.savez(tmp_path / "p.npz", **rest)
    with pytest.raises(InputError, match=rf"cannot read .*p\.npz; got .*{left_out}"):
        DataProfile.open(tmp_path / "p.npz", SPEC)


def test_that_of_other_data_is_refused(profile: DataProfile, tmp_path: Path) -> None:
    profile.save(tmp_path / "p.npz")
    other = SequenceSpec(timesteps=50, features=4, labels=("a", "b"))
    with pytest.raises(InputError, match=r"cannot read .*p\.npz"):
        DataProfile.open(tmp_path / "p.npz", other)
