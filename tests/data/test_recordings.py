"""What is the same for every source: gaps, windows, splits, padding; and that sources agree."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnn_tf.config import Source
from rnn_tf.data import SequenceData, describe, load
from rnn_tf.data.recordings import Recordings, sequence_data
from rnn_tf.data.ts import TsFile
from rnn_tf.errors import InputError

TS = Path(__file__).parent / "files" / "ts"
SPLITS = ("train", "valid", "test")


def recordings(lengths: list[int], features: int = 2) -> Recordings:
    """Sequences whose first feature says where a step comes from: 1000 * sequence + step."""
    values = np.concatenate(
        [1000 * i + np.arange(length, dtype=np.float32) for i, length in enumerate(lengths)]
    )
    both = np.stack([values] * features, axis=1)
    return Recordings(both, np.array(lengths), np.arange(len(lengths), dtype=np.int32) % 2)


def sequences(found: Recordings) -> list[list[float]]:
    return [each[:, 0].tolist() for each in np.split(found.values, np.cumsum(found.lengths)[:-1])]


# --- windows ---
def test_windows_and_strides() -> None:
    found = recordings([7, 2, 4]).named("test").windows(4, 2)
    assert sequences(found) == [
        [0, 1, 2, 3], [2, 3, 4, 5], [1000, 1001], [2000, 2001, 2002, 2003],
    ]  # fmt: skip
    assert found.y.tolist() == [0, 0, 1, 0]
    assert found.groups is not None
    assert found.groups.tolist() == ["test 0", "test 0", "test 1", "test 2"]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=8), st.integers(1, 12), st.integers(1, 12))
def test_windows_are_the_slices_of_each_sequence(
    lengths: list[int], size: int, stride: int
) -> None:
    whole = recordings(lengths).named("train")
    expected = [
        (sequence[start : start + size], i)
        for i, sequence in enumerate(sequences(whole))
        for start in range(0, max(len(sequence) - size, 0) + 1, stride)
    ]
    found = whole.windows(size, stride)
    assert sequences(found) == [values for values, _ in expected]
    assert found.lengths.tolist() == [len(values) for values, _ in expected]
    assert found.groups is not None
    assert found.groups.tolist() == [f"train {i}" for _, i in expected]


def test_groups_that_are_given_stay_those_of_the_windows() -> None:
    whole = dataclasses.replace(recordings([4, 4, 2]), groups=np.array(["anna", "ben", "anna"]))
    found = whole.windows(2, 2)
    assert found.groups is not None
    assert found.groups.tolist() == ["anna", "anna", "ben", "ben", "anna"]


def test_no_recording_is_in_two_splits() -> None:
    """Though windows of one overlap, and would give the answer away."""
    lengths = np.random.default_rng(0).integers(5, 60, 40).tolist()
    source = Source("some.npz", window=8, stride=2, test_share=0.2)
    with pytest.warns(UserWarning, match="8 of its 40 training examples are the test"):
        data = sequence_data({"train": recordings(lengths)}, ("a", "b"), source)
    seen = [set((getattr(data, name).x[:, 0, 0] // 1000).tolist()) for name in SPLITS]
    assert sorted(len(each) for each in seen) == [3, 8, 29]
    assert len(set.union(*seen)) == 40
    for name in SPLITS:
        split = getattr(data, name)
        recording = (split.x[:, 0, 0] // 1000).astype(int).tolist()
        assert split.groups.tolist() == [f"train {i}" for i in recording]
    assert data.spec.longest == 8


def test_official_splits_are_cut_each() -> None:
    splits = {"train": recordings([6] * 20), "test": recordings([9] * 4)}
    data = sequence_data(splits, ("a", "b"), Source("some.npz", window=3))
    assert (data.spec.timesteps, len(data.test.y)) == (3, 12)
    assert len(data.train.y) + len(data.valid.y) == 40
    assert data.test.x[:3, :, 0].tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


# --- gaps ---
def where(row: int, feature: int) -> str:
    return f"row {row}, feature {feature}"


def test_a_line_is_drawn_within_each_sequence_and_feature() -> None:
    nan = np.nan
    whole = dataclasses.replace(
        recordings([4, 3]),
        values=np.array([[nan, 1], [1, nan], [nan, nan], [5, 4], [8, nan], [nan, 7], [nan, nan]]),
    )
    assert whole.without_gaps("interpolate", where).values.tolist() == [
        [1, 1], [1, 2], [3, 3], [5, 4], [8, 7], [8, 7], [8, 7],
    ]  # fmt: skip
    assert whole.without_gaps("zero", where).values.tolist() == [
        [0, 1], [1, 0], [0, 0], [5, 4], [8, 0], [0, 7], [0, 0],
    ]  # fmt: skip
    with pytest.raises(InputError, match=r"^row 0, feature 0: a value is missing"):
        whole.without_gaps("refuse", where)
    assert np.isnan(whole.values[0, 0])


def test_nothing_to_draw_a_line_between() -> None:
    whole = dataclasses.replace(
        recordings([1, 2]), values=np.array([[1, 2], [3, np.nan], [5, np.nan]])
    )
    with pytest.raises(InputError) as caught:
        whole.without_gaps("interpolate", where)
    assert str(caught.value) == (
        "row 1, feature 1: all values of this feature are missing in the sequence, so that there "
        "is no line to draw. Add --missing zero, or leave the sequence out."
    )


# --- the same data from anywhere ---
def as_table(files: dict[str, TsFile], path: Path) -> str:
    """One table of both files, its rows in no order."""
    rows = [
        (f"{split}-{i:03}", step, label, split, *values)
        for split, file in files.items()
        for i, (sequence, label) in enumerate(zip(file.sequences, file.labels, strict=True))
        for step, values in enumerate(sequence.tolist())
    ]
    np.random.default_rng(0).shuffle(rows)
    names = ["recording", "step", "label", "split", *(f"c{i}" for i in range(12))]
    path.write_text("".join(",".join(map(str, row)) + "\n" for row in (names, *rows)))
    return str(path)


def as_folder(files: dict[str, TsFile], path: Path) -> str:
    for split, file in files.items():
        for i, (sequence, label) in enumerate(zip(file.sequences, file.labels, strict=True)):
            folder = path / split / label
            folder.mkdir(parents=True, exist_ok=True)
            rows = "".join(",".join(map(str, row)) + "\n" for row in sequence.tolist())
            (folder / f"{i:03}.csv").write_text(rows)
    return str(path)


def as_npz(files: dict[str, TsFile], path: Path) -> str:
    arrays: dict[str, np.ndarray] = {}
    for split, file in files.items():
        lengths = np.array([len(each) for each in file.sequences])
        x = np.full((len(lengths), 29, 12), np.nan, np.float32)  # what padding holds never matters
        for i, sequence in enumerate(file.sequences):
            x[i, : len(sequence)] = sequence
        arrays |= {
            f"x_{split}": x,
            f"lengths_{split}": lengths,
            f"y_{split}": np.array(file.labels),
        }
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return str(path)


@pytest.fixture(scope="module")
def vowels() -> dict[str, TsFile]:
    return {
        split: TsFile.read(TS / f"JapaneseVowels_{split.upper()}.ts") for split in ("train", "test")
    }


def assert_same(one: SequenceData, other: SequenceData) -> None:
    """To the bit, but for the names of features, which only some sources have."""
    assert dataclasses.replace(one.spec, feature_names=()) == dataclasses.replace(
        other.spec, feature_names=()
    )
    for name in SPLITS:
        a, b = getattr(one, name), getattr(other, name)
        for mine, theirs in zip(a, b, strict=True):
            assert (mine is None) == (theirs is None)
            if mine is not None:
                assert mine.dtype == theirs.dtype
                np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("form", [as_table, as_folder, as_npz], ids=["table", "folder", "npz"])
def test_the_same_data_in_another_form_are_the_same_to_the_bit(
    vowels: dict[str, TsFile], tmp_path: Path, form: object
) -> None:
    names = {as_table: "v.csv", as_folder: "v", as_npz: "v.npz"}
    other = form(vowels, tmp_path / names[form])  # type: ignore[operator, index]
    ts = load(str(TS / "JapaneseVowels_TRAIN.ts"))
    assert_same(ts, load(other))
    assert describe(ts).splitlines()[0] == (
        "270 sequences of 7 to 29 steps, 12 features, 9 classes: 1 (30), 2 (30), 3 (30), 4 (30), "
        "5 (30), 6 (30), 7 (30), 8 (30) and 1 more; 370 to test"
    )
    assert describe(load(other)).splitlines()[0] == describe(ts).splitlines()[0]
    windows = [load(Source(path, window=10, stride=5)) for path in (str(TS), other)]
    same = [
        dataclasses.replace(
            each,
            **{name: getattr(each, name)._replace(groups=None) for name in SPLITS},
        )
        for each in windows
    ]
    assert_same(*same)  # groups are called as the source calls its recordings
