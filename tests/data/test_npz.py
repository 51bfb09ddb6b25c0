"""Your own file: what fits is loaded exactly, what does not is named in one line."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import rnn_tf.data.npz
from rnn_tf.config import Source
from rnn_tf.data import SequenceData
from rnn_tf.data import load as load_source
from rnn_tf.errors import InputError

# A test writes its file anew for each example, so that one folder serves them all.
ONE_FOLDER = [HealthCheck.function_scoped_fixture]


def load(path: str, **settings: Any) -> SequenceData:
    return rnn_tf.data.npz.load(Source(path, **settings))


def arrays(**change: Any) -> dict[str, Any]:
    """The arrays of a good file: 20 examples of (4, 3), three classes; None takes one out."""
    good = {
        "x_train": np.arange(240, dtype=np.float32).reshape(20, 4, 3),
        "y_train": np.arange(20) % 3,
        "x_test": np.ones((5, 4, 3), np.float32),
        "y_test": np.arange(5) % 3,
    }
    return {key: value for key, value in (good | change).items() if value is not None}


def write(folder: Path, **change: Any) -> str:
    path = folder / "mine.npz"
    np.savez(path, **arrays(**change))
    return str(path)


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_shapes_dtypes_and_spec(tmp_path: Path) -> None:
    data = load(write(tmp_path))
    assert data.train.x.shape == (18, 4, 3)
    assert data.valid.x.shape == (2, 4, 3)
    assert data.test.x.shape == (5, 4, 3)
    assert data.train.x.dtype == np.float32
    assert data.train.y.dtype == data.valid.y.dtype == data.test.y.dtype == np.int32
    assert data.spec.labels == ("0", "1", "2")
    assert (data.spec.normalize, data.spec.channels) == (None, 0)


def test_load_by_name(tmp_path: Path) -> None:
    assert load_source(write(tmp_path)).spec == load(write(tmp_path)).spec


def test_valid_is_held_out_of_train_by_class(tmp_path: Path) -> None:
    """A file sorted by class, whose last tenth would be one class."""
    y = np.repeat(np.arange(3), 20)
    x = np.arange(60, dtype=np.float32).reshape(60, 1, 1)
    path = write(tmp_path, x_train=x, y_train=y, x_test=x[:3], y_test=y[::20])
    data = load(path)
    assert np.bincount(data.valid.y).tolist() == [2, 2, 2]
    assert np.bincount(data.train.y).tolist() == [18, 18, 18]
    for split in (data.train, data.valid):
        np.testing.assert_array_equal(y[split.x.ravel().astype(int)], split.y)
    both = np.concatenate([data.train.x, data.valid.x]).ravel()
    assert sorted(both.tolist()) == list(range(60))


@pytest.mark.parametrize(("examples", "valid"), [(3, 1), (9, 1), (30, 3), (60_000, 5_000)])
def test_size_of_the_validation_split(tmp_path: Path, examples: int, valid: int) -> None:
    x = np.zeros((examples, 1, 1), np.uint8)
    path = write(tmp_path, x_train=x, y_train=np.arange(examples) % 2, x_test=x, y_test=x[:, 0, 0])
    assert len(load(path).valid.y) == valid


def test_own_validation_split(tmp_path: Path) -> None:
    x = np.full((2, 4, 3), 7, np.float32)
    data = load(write(tmp_path, x_valid=x, y_valid=np.array([0, 2], np.uint8)))
    np.testing.assert_array_equal(data.valid.x, x)
    assert data.valid.y.tolist() == [0, 2]
    assert len(data.train.y) == 20


def test_labels_and_scale(tmp_path: Path) -> None:
    """More labels than classes in use: the last has no example yet, which is fine."""
    data = load(write(tmp_path, labels=np.array(["a", "b", "ü", "never"]), scale=np.array(1 / 16)))
    assert data.spec.labels == ("a", "b", "ü", "never")
    assert data.spec.classes == 4
    assert data.spec.normalization.scale[0] == 1 / 16


def test_uint8_stays_uint8(tmp_path: Path) -> None:
    x = np.arange(240, dtype=np.uint8).reshape(20, 4, 3)
    data = load(write(tmp_path, x_train=x, x_test=x[:5]))
    assert data.train.x.dtype == data.valid.x.dtype == data.test.x.dtype == np.uint8


def test_all_splits_get_one_dtype(tmp_path: Path) -> None:
    data = load(write(tmp_path, x_train=arrays()["x_train"].astype(np.uint8)))
    assert data.train.x.dtype == data.test.x.dtype == np.float32


def test_classes_only_in_y_valid_or_y_test_do_not_exist(tmp_path: Path) -> None:
    path = write(tmp_path, y_test=np.array([0, 1, 2, 3, 0]))
    message = r"y_test has a class .*; expected 0, 1, 2, got 3\. y_train has no example of it; to"
    with pytest.raises(InputError, match=message):
        load(path)
    # What the message says.
    assert load(write(tmp_path, y_test=[0, 1, 2, 3, 0], labels=list("abcd"))).spec.classes == 4


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (np.arange(1, 10), tuple("123456789")),
        (np.array([-1, 1]), ("-1", "1")),
        (np.array([10, 2]), ("2", "10")),
        (np.array([2, 2**63], np.uint64), ("2", "9223372036854775808")),
        (np.array(["walk", "run", "läuft"]), ("läuft", "run", "walk")),
    ],
)
def test_classes_are_the_different_values(
    tmp_path: Path, values: np.ndarray, labels: tuple[str, ...]
) -> None:
    """As in scikit-learn: sorted, and named as they are written."""
    y = np.tile(values, 3)
    x = np.arange(len(y), dtype=np.float32).reshape(-1, 1, 1)
    data = load(write(tmp_path, x_train=x, y_train=y, x_test=x[::-1], y_test=y[::-1]))
    assert data.spec.labels == labels
    assert [data.spec.labels[i] for i in data.test.y] == [str(value) for value in y[::-1]]
    assert data.test.y.dtype == np.int32
    for split in (data.train, data.valid):
        expected = [str(y[int(i)]) for i in split.x.ravel()]
        assert [data.spec.labels[i] for i in split.y] == expected


def test_labels_give_the_order_of_text(tmp_path: Path) -> None:
    y = np.array(["low", "mid", "high"])[np.arange(20) % 3]
    labels = np.array(["low", "mid", "high", "unseen"])
    data = load(write(tmp_path, y_train=y, y_test=y[:5], labels=labels))
    assert data.spec.labels == ("low", "mid", "high", "unseen")
    assert data.test.y.tolist() == [0, 1, 2, 0, 1]


EXACT = ["bool", "int8", "uint8", "int16", "uint16", "int32", "int64", "float16", "float32", ">f4"]


@settings(suppress_health_check=ONE_FOLDER)
@given(st.data(), st.sampled_from(EXACT), st.sampled_from(["i1", "u1", "<i4", ">i8", "u8"]))
def test_round_trip(tmp_path: Path, data: st.DataObject, dtype: str, label_dtype: str) -> None:
    """What float32 can hold arrives bit for bit, in whatever dtype it was written."""
    bound = 2**24 if np.dtype(dtype).itemsize > 2 else None
    kind = np.dtype(dtype).kind
    elements: Any = (
        st.integers(-bound, bound)
        if bound and kind == "i"
        else hnp.from_dtype(np.dtype(dtype), allow_nan=False, allow_infinity=False)
    )
    steps, features = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
    x = data.draw(hnp.arrays(dtype, (6, steps, features), elements=elements))
    y = np.array([0, 1, 2, 1, 1, 0], label_dtype)
    loaded = load(write(tmp_path, x_train=x, y_train=y, x_test=x[::-1], y_test=y[::-1]))
    assert loaded.test.x.dtype == (np.uint8 if dtype == "uint8" else np.float32)
    assert loaded.test.x.dtype.isnative
    np.testing.assert_array_equal(loaded.test.x, x[::-1])
    assert loaded.test.y.tolist() == y[::-1].tolist()


def test_exact_float64_is_silent(tmp_path: Path) -> None:
    x = np.full((20, 4, 3), 0.25)
    assert load(write(tmp_path, x_train=x)).train.x.dtype == np.float32


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.float64(0.1), r"mine\.npz: float64 .* rounded to float32, by up to 1\.5e-09 \(in x_t"),
        (np.int32(2**24 + 1), r"int32 values are rounded to float32, by up to 1 \(in x_train\)"),
        (np.int64(2**53 + 1), r"int64 values are rounded to float32, by up to 1 \(in x_train\)"),
        (np.uint64(2**64 - 1), r"uint64 values are rounded to float32, by up to 1 \(in x_train\)"),
    ],
)
def test_rounding_warns(tmp_path: Path, value: np.generic, message: str) -> None:
    path = write(tmp_path, x_train=np.full((20, 4, 3), value))
    with pytest.warns(UserWarning, match=message):
        data = load(path)
    assert data.train.x[0, 0, 0] == np.float32(value)


def test_loading_imports_no_tensorflow(tmp_path: Path) -> None:
    code = (
        "import sys; from rnn_tf.data import load; load(sys.argv[1]);"
        "print('tensorflow' in sys.modules)"
    )
    command = [sys.executable, "-c", code, write(tmp_path)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False\n"


def test_the_example_in_the_docstring(tmp_path: Path) -> None:
    """As it is printed: a reader will paste it."""
    text = rnn_tf.data.npz.__doc__ or ""
    code = "\n".join(re.findall(r"^    (.*)$", text, re.MULTILINE))
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    data = load(str(tmp_path / "mine.npz"))
    assert data.spec.labels == ("falling", "rising")
    assert set(data.test.y) == {0, 1}
    assert [split.x.shape for split in (data.train, data.valid, data.test)] == [
        (72, 20, 3),
        (8, 20, 3),
        (20, 20, 3),
    ]


X, Y = arrays()["x_train"], arrays()["y_train"]
WITH_NAN = np.where(X == 7, np.nan, X)
HUGE = X.astype(np.float64) * 1e300

LENGTHS_TRAIN = np.arange(20) % 4 + 1
WITH_LENGTHS: dict[str, Any] = {
    "lengths_train": LENGTHS_TRAIN, "lengths_test": np.array([4, 3, 2, 1, 4], np.uint8),
}  # fmt: skip

BAD = {
    "missing key": ({"y_train": None}, r"missing y_train; expected x_train, .*, got x_train, x"),
    "unknown key": ({"x_tset": X}, r"unknown x_tset; expected x_train, y_train, .*, labels, scale"),
    "half a test": ({"y_test": None}, r"half a test split; expected x_test and y_test, or neither"),
    "no test split": ({"x_test": None, "y_test": None}, r"has no test split. .*--test-share 0.2"),
    "half a split": ({"x_valid": X}, r"half a validation split; expected x_valid and y_valid, or"),
    "objects": ({"x_train": X.astype(object)}, r"x_train holds Python objects; .*pad them at"),
    "object labels": ({"labels": np.array(["a", None])}, r"labels holds Python .*labels\.astype"),
    "strings": ({"x_train": X.astype(str)}, r"bad dtype of x_train; expected whole numbers, bool"),
    "complex": ({"x_train": X.astype(complex)}, r"bad dtype of x_train; .*got complex128"),
    "times": ({"x_test": np.zeros((5, 4, 3), "M8[s]")}, r"bad dtype of x_test; .*got datetime64"),
    "NaN": ({"x_train": WITH_NAN}, r"NaN or infinity in x_train; .*got 1 of 20 examples \(0\)"),
    "infinity": ({"x_test": np.full((5, 4, 3), np.inf)}, r"x_test; .*5 of 5 examples \(0, 1, 2, 3"),
    "overflow": ({"x_train": HUGE}, r"too large for float32; .*got up to 2\.4e\+302 in 20 of"),
    "rank 2": ({"x_train": X[:, :, 0]}, r"bad shape of x_train; .*got \(20, 4\)\. One number per"),
    "rank 4": ({"x_train": X[..., None]}, r"bad shape of x_train; expected \(n, timesteps, feat"),
    "length 0": (
        {**WITH_LENGTHS, "lengths_test": np.array([1, 2, 0, 4, 4])},
        r"bad length in lengths_test; expected 1 to 4, .* x_test has, got 0 for example 2$",
    ),
    "length beyond": (
        {**WITH_LENGTHS, "lengths_train": LENGTHS_TRAIN + 1},
        r"bad length in lengths_train; expected 1 to 4, .* x_train has, got 5 for example 3$",
    ),
    "float lengths": (
        {**WITH_LENGTHS, "lengths_train": LENGTHS_TRAIN * 1.0},
        r"bad dtype of lengths_train; .* got float64\. Give lengths_train\.astype\(np\.int32\)\.$",
    ),
    "text lengths": (
        {**WITH_LENGTHS, "lengths_train": LENGTHS_TRAIN.astype(str)},
        r"bad dtype of lengths_train; expected whole numbers, the time steps of .*, got <U21$",
    ),
    "few lengths": (
        {**WITH_LENGTHS, "lengths_test": np.array([1, 2])},
        r"lengths_test does not have one length for each .*; expected shape \(5,\), got \(2,\)$",
    ),
    "lengths of one split": (
        {"lengths_train": LENGTHS_TRAIN},
        r"lengths of some splits only; expected of all splits, or of none, got no lengths_test$",
    ),
    "lengths of no split": (
        {**WITH_LENGTHS, "lengths_valid": np.array([1])},
        r"lengths_valid without x_valid; got x_train, ",
    ),
    "float groups": (
        {"groups_train": np.arange(20.0)},
        r"bad groups_train; expected text or whole numbers of shape \(20,\), got float64 of ",
    ),
    "few groups": (
        {"groups_test": np.arange(4)},
        r"bad groups_test; expected text or whole numbers of shape \(5,\), got int64 of shape \(4",
    ),
    "NaN within": (
        {**WITH_LENGTHS, "x_train": WITH_NAN, "lengths_train": np.full(20, 4)},
        r"NaN or infinity in x_train; .*got 1 of 20 examples \(0\)",
    ),
    "no examples": ({"x_train": X[:0], "y_train": Y[:0]}, r"bad shape of x_train; .*\(0, 4, 3\)"),
    "no test": ({"x_test": X[:0], "y_test": Y[:0]}, r"bad shape of x_test; .*got \(0, 4, 3\)"),
    "no timesteps": ({"x_train": X[:, :0]}, r"bad shape of x_train; .*got \(20, 0, 3\)"),
    "no features": ({"x_train": X[:, :, :0]}, r"bad shape of x_train; .*got \(20, 4, 0\)"),
    "other timesteps": ({"x_test": X[:5, 1:]}, r"x_test and x_train have different seq"),
    "other features": ({"x_valid": X[:, :, 1:], "y_valid": Y}, r"x_valid and x_train have"),
    "lengths": ({"y_train": Y[1:]}, r"y_train does not have one class .*\(19,"),
    "one-hot": ({"y_test": np.eye(3)[Y[:5]]}, r"y_test does not have .*\(5, 3\)\. It is one-hot"),
    "float y": ({"y_train": Y * 1.0}, r"bad dtype of y_train; .*got float64.*y_train\.astype"),
    "bool y": ({"y_train": Y > 1}, r"bad dtype of y_train; expected whole numbers or .*got bool"),
    "text in one": ({"y_test": np.array(list("abcab"))}, r"name classes in different ways; .*<U1"),
    "negative": ({"y_train": Y - 1, "labels": list("abc")}, r"y_train has a class .* got -1"),
    "from one": ({"y_train": Y + 1, "labels": list("abc")}, r"0, 1, 2, got 3\. .* subtract 1 in e"),
    "beyond labels": ({"labels": np.array(["a", "b"])}, r"y_train has a class .*0, 1, got 2\. y h"),
    "y_test beyond": ({"y_test": Y[:5] * 2}, r"y_test has a class .*; expected 0, 1, 2, got 4"),
    "one class": ({"y_train": Y * 0}, r"y_train gives a bad number of classes; .*got 1: 0\. If o"),
    "unknown text": ({"y_train": Y.astype(str), "y_test": Y[:5].astype(str), "labels": list("01")},
                     r"y_train has a class that does not exist; expected 0, 1, got 2\. Add it"),
    "huge y": ({"y_test": Y[:5].astype("u8") + 2**63}, r"y_test has a class .* got 9223372036"),
    "one label": ({"y_train": Y * 0, "labels": np.array(["a"])}, r"too few labels; .*2, got 1"),
    "numbers as labels": ({"labels": np.arange(3)}, r"bad labels; expected one string per class"),
    "bytes as labels": ({"labels": np.array([b"a", b"b", b"c"])}, r"bad labels; .*got \|S1 of"),
    "label matrix": ({"labels": np.array([["a", "b", "c"]])}, r"bad labels; .*of shape \(1, 3\)"),
    "same labels": ({"labels": np.array(["a", "b", "a"])}, r"two classes have the same .*'a'"),
    "scale 0": ({"scale": np.array(0.0)}, r"bad scale; expected a positive .*, got 0\.0"),
    "scale < 0": ({"scale": np.array(-1)}, r"bad scale; expected a positive finite number, got -1"),
    "scale NaN": ({"scale": np.array(np.nan)}, r"bad scale; expected a positive .*, got nan"),
    "scale infinite": ({"scale": np.array(np.inf)}, r"bad scale; .* finite number, got inf"),
    "scale vector": ({"scale": np.ones(3)}, r"bad scale; expected one positive number, shape \(\)"),
    "scale string": ({"scale": np.array("1/255")}, r"bad scale; expected one positive number, sha"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD.keys())
def test_bad_arrays(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load(write(tmp_path, **change))
    assert "mine.npz" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_identifiers_are_not_classes(tmp_path: Path) -> None:
    x = np.zeros((70_000, 1, 1), np.uint8)
    path = write(tmp_path, x_train=x, y_train=np.arange(70_000), x_test=x, y_test=x[:, 0, 0])
    message = r"bad number of classes; expected 2 to 65,536 different values, got 70,000: 0, 1, "
    with pytest.raises(InputError, match=message):
        load(path)


def ragged(*shape: int) -> np.ndarray:
    """Sequences of 5 to 24 steps, as people collect them: `np.array(list, dtype=object)`."""
    x = np.empty(20, object)
    x[:] = [np.random.default_rng(i).normal(size=(5 + i, *shape)) for i in range(20)]
    return x


PAD = (
    "np.stack([np.pad(np.asarray(s, np.float32), [(0, longest - len(s))] + [(0, 0)] * "
    "(np.ndim(s) - 1)) for s in x_train])"
)
LENGTHS = "np.array(list(map(len, x_train)))"
BYTES = np.char.encode(np.array(["a", "ü", "c"])[Y], "utf-8")
RAGGED = {"x_train": ragged(3), "x_test": ragged(3)[:5]}

# What is wrong, and what the message says to do about y or x of train: code, to be followed.
ADVICE = {
    "ragged": (RAGGED, PAD),
    "object numbers": ({"x_train": X.astype(object)}, PAD),
    "one per step": ({"x_train": X[:, :, 0], "x_test": X[:5, :, 0]}, "x_train[..., np.newaxis]"),
    "one-hot": ({"y_train": np.eye(3)[Y], "y_test": np.eye(3)[Y[:5]]}, "y_train.argmax(axis=1)"),
    "column": ({"y_train": Y[:, None], "y_test": Y[:5, None]}, "y_train[:, 0]"),
    "whole floats": ({"y_train": Y * 1.0, "y_test": Y[:5] * 1.0}, "y_train.astype(np.int32)"),
    "bool": ({"y_train": Y > 1, "y_test": Y[:5] > 1}, "y_train.astype(np.int32)"),
    "bytes": ({"y_train": BYTES, "y_test": BYTES[:5]}, "np.char.decode(y_train, 'utf-8')"),
    "objects": ({"y_train": Y.astype(object), "y_test": Y[:5].astype(object)},
                "y_train.astype(str)"),
    "NaN": ({"x_train": WITH_NAN}, "np.nan_to_num(x_train, posinf=0, neginf=0)"),
    "huge": ({"x_train": HUGE, "x_test": HUGE[:5]}, "x_train / 2e+302"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.* rounded to float32")
@pytest.mark.parametrize(("change", "code"), ADVICE.values(), ids=ADVICE.keys())
def test_advice_works_when_followed(tmp_path: Path, change: dict[str, Any], code: str) -> None:
    bad = arrays(**change)
    with pytest.raises(InputError) as caught:
        load(write(tmp_path, **bad))
    said = str(caught.value).replace("x of every split by", "x_train /")
    assert code in said
    known = {"np": np, **bad}
    known["longest"] = max(map(len, [*bad["x_train"], *bad["x_test"]]))
    codes = {"y" if "y_train" in code else "x": code}
    if "lengths" in said:
        assert f"lengths_train = {LENGTHS}" in said
        codes["lengths"] = LENGTHS
    good = dict(bad)
    for key, what in codes.items():
        for split in ("train", "test"):
            good[f"{key}_{split}"] = eval(what.replace("train", split), known)  # noqa: S307
    np.savez(tmp_path / "good.npz", **good)
    load(str(tmp_path / "good.npz"))


def test_ragged_sequences_are_read_whole_when_the_advice_is_followed(tmp_path: Path) -> None:
    """The message is code but for the other splits; nothing else is needed."""
    with pytest.raises(InputError) as caught:
        load(write(tmp_path, **RAGGED))
    said = str(caught.value)
    assert said.startswith(
        f"{tmp_path}/mine.npz: x_train holds Python objects; expected one array of numbers or of "
        "text. For sequences of different lengths, pad them at the end and say how long each is: "
    )
    code = said.partition("each is: ")[2].partition("; the other splits")[0]
    known: dict[str, Any] = {"np": np, **arrays(**RAGGED)}
    *setup, of_a_split = code.split("; ", 1)
    exec(setup[0], known)  # noqa: S102
    for split in ("train", "test"):
        exec(of_a_split.replace("train", split), known)  # noqa: S102
    keys = [f"{what}_{split}" for what in ("x", "y", "lengths") for split in ("train", "test")]
    np.savez(tmp_path / "good.npz", **{key: known[key] for key in keys})
    data = load(str(tmp_path / "good.npz"))
    assert (data.spec.timesteps, data.spec.longest) == (None, 24)
    for x, length, original in zip(data.test.x, lengths_of(data), ragged(3)[:5], strict=True):
        np.testing.assert_array_equal(x[:length], original.astype(np.float32))
        assert not x[length:].any()


def lengths_of(data: SequenceData) -> np.ndarray:
    assert data.test.lengths is not None
    return data.test.lengths


# --- lengths, groups, gaps, windows ---
def test_lengths(tmp_path: Path) -> None:
    data = load(write(tmp_path, **WITH_LENGTHS))
    assert (data.spec.timesteps, data.spec.longest, data.spec.features) == (None, 4, 3)
    assert lengths_of(data).tolist() == [4, 3, 2, 1, 4]
    assert lengths_of(data).dtype == np.int32
    assert data.test.x.sum(axis=(1, 2)).tolist() == [12, 9, 6, 3, 12]
    assert data.train.lengths is not None
    first = (data.train.x[:, 0, 0] / 12).astype(int)
    assert data.train.lengths.tolist() == LENGTHS_TRAIN[first].tolist()


@pytest.mark.parametrize("padding", [np.nan, np.inf, 1e30])
def test_what_the_padding_holds_never_matters(tmp_path: Path, padding: float) -> None:
    x = arrays()["x_train"].copy()
    x[np.arange(4) >= LENGTHS_TRAIN[:, np.newaxis]] = padding
    data = load(write(tmp_path, x_train=x, **WITH_LENGTHS))
    same = load(write(tmp_path, **WITH_LENGTHS))
    np.testing.assert_array_equal(data.train.x, same.train.x)
    np.testing.assert_array_equal(data.valid.x, same.valid.x)


def test_lengths_that_are_all_alike_are_one_length(tmp_path: Path) -> None:
    change = {"lengths_train": np.full(20, 3), "lengths_test": np.full(5, 3)}
    data = load(write(tmp_path, **change))
    assert (data.spec.timesteps, data.test.lengths) == (3, None)
    assert data.test.x.shape == (5, 3, 3)


def test_the_model_reads_as_much_as_the_arrays_hold(tmp_path: Path) -> None:
    """Also where no sequence is so long, and where the arrays of the splits are not alike."""
    change = {"lengths_train": LENGTHS_TRAIN, "lengths_test": np.array([2, 2, 1, 1, 2])}
    data = load(write(tmp_path, x_test=np.ones((5, 6, 3), np.float32), **change))
    assert data.spec.longest == 6
    assert data.train.x.shape[1] == data.test.x.shape[1] == 6


def test_uint8_stays_uint8_with_lengths(tmp_path: Path) -> None:
    x = np.arange(240, dtype=np.uint8).reshape(20, 4, 3)
    assert load(write(tmp_path, x_train=x, x_test=x[:5], **WITH_LENGTHS)).test.x.dtype == np.uint8


def test_groups(tmp_path: Path) -> None:
    who = np.array(["anna", "ben", "cleo", "dan"])[np.arange(20) % 4]
    data = load(write(tmp_path, groups_train=who))
    assert data.train.groups is not None
    assert data.test.groups is None
    assert data.train.groups.tolist() == who[(data.train.x[:, 0, 0] / 12).astype(int)].tolist()


def test_gaps_can_be_filled(tmp_path: Path) -> None:
    x = arrays()["x_train"].copy()
    x[3, 1] = np.nan
    path = write(tmp_path, x_train=x)
    with pytest.raises(InputError, match=r"NaN or infinity in x_train; .* 1 of 20 examples \(3\)"):
        load(path)
    data, whole = load(path, missing="interpolate"), load(write(tmp_path))
    np.testing.assert_array_equal(data.train.x, whole.train.x)  # which are on a line
    x[3] = np.nan
    message = (
        r"mine\.npz, x_train\[3, 0, 0\]: all values of this feature are missing in the sequence, s"
    )
    with pytest.raises(InputError, match=message):
        load(write(tmp_path, x_train=x), missing="interpolate")
    zero = load(write(tmp_path, x_train=x), missing="zero")
    assert sum(not each.any() for each in (*zero.train.x, *zero.valid.x)) == 1


def test_windows(tmp_path: Path) -> None:
    data = load(write(tmp_path), window=3, stride=1)
    assert data.spec.timesteps == 3
    assert len(data.test.y) == 10
    assert len(data.train.y) + len(data.valid.y) == 40


def test_ragged_sequences_of_one_number_a_step(tmp_path: Path) -> None:
    """Two messages, one after the other, lead to a file that loads."""
    x = ragged()
    known: dict[str, Any] = {"np": np, "longest": 24, "x_train": x}
    with pytest.raises(InputError, match="longest"):
        load(write(tmp_path, x_train=x))
    padded = eval(PAD, known)  # noqa: S307
    with pytest.raises(InputError, match=re.escape("is x_train[..., np.newaxis]")):
        load(write(tmp_path, x_train=padded, x_test=padded[:5]))


def test_examples_with_nan_are_named_and_can_be_left_out(tmp_path: Path) -> None:
    x = arrays()["x_train"].copy()
    x[[2, 3, 5, 7, 11, 13], 1, 1] = np.nan
    with pytest.raises(InputError) as caught:
        load(write(tmp_path, x_train=x))
    said = str(caught.value)
    assert "NaN or infinity in x_train" in said
    assert "got 6 of 20 examples (2, 3, 5, 7, 11, …)" in said
    assert "keep = np.isfinite(x_train).all(axis=(1, 2)), then give x_train[keep]" in said
    keep = np.isfinite(x).all(axis=(1, 2))
    assert len(load(write(tmp_path, x_train=x[keep], y_train=Y[keep])).train.y) == 13


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (
            np.linspace(0, 1, 20),
            r"To make classes of measurements, give np\.digitize\(y_train",
        ),
        (np.where(Y == 1, np.nan, 1.0), r"Leave out the examples without a class: keep = np\.isfi"),
        (np.ones((20, 3)), r"y_train does not have one class .*got \(20, 3\)$"),
    ],
)
def test_other_targets(tmp_path: Path, y: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(write(tmp_path, y_train=y))


def test_one_example_is_too_few(tmp_path: Path) -> None:
    path = write(tmp_path, x_train=X[:1], y_train=Y[2:3])
    with pytest.raises(InputError, match="y_train gives a bad number of classes"):
        load(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"no\.npz: cannot be read; expected an \.npz file, got no"
    ):
        load(str(tmp_path / "no.npz"))
    with pytest.raises(InputError, match=r"cannot be read; expected an \.npz file, got a folder"):
        load(str(tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"not a whole \.npz file; expected a zip archive, got one that starts with b''"),
        (b"x,y\n1,2\n", r"not a whole \.npz file; .*got one that starts with b'x,y"),
        (npy(np.ones(3)), r"not a whole \.npz file; .*got one that starts with b'\\x93NUMPY'"),
        (b"PK\3\4 and then nothing", r"not a whole \.npz file; expected a zip archive, got one"),
        (b"PK\5\6" + bytes(18), r"missing x_train, .*, got none"),
        (b"PK\5\6" + b"\xff" * 16 + b"\0\0", r"not a whole \.npz file; got .*Write it again with"),
    ],
    ids=["empty", "text", "npy", "zip magic only", "empty zip", "zip end only"],
)
def test_other_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "mine.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        load(str(path))


def rezip(folder: Path, members: list[tuple[str, bytes]], compression: int = 0) -> str:
    path = folder / "mine.npz"
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return str(path)


GOOD = [(f"{key}.npy", npy(value)) for key, value in arrays().items()]


def test_a_file_that_another_tool_zipped(tmp_path: Path) -> None:
    assert len(load(rezip(tmp_path, GOOD, zipfile.ZIP_LZMA)).train.y) == 18


def test_truncated_member(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"mine\.npz: cannot read x_train; "):
        load(rezip(tmp_path, [(GOOD[0][0], GOOD[0][1][:-5]), *GOOD[1:]]))


def test_altered_member(tmp_path: Path) -> None:
    path = Path(rezip(tmp_path, GOOD))
    content = bytearray(path.read_bytes())
    content[content.index(GOOD[0][1]) + 200] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"cannot read x_train; got Bad CRC-32 for file"):
        load(str(path))


def test_member_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"y_test is not an array; got another kind of file"):
        load(rezip(tmp_path, [*GOOD[:3], ("y_test", b"0 1 2")]))


def test_the_same_name_twice(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the same name twice; got x_train, "):
        load(rezip(tmp_path, [*GOOD, ("x_train", GOOD[0][1])]))


def test_positional_savez(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, X, Y)
    with pytest.raises(InputError, match=r"missing x_train, .*got arr_0, arr_1"):
        load(str(path))


def test_member_paths_are_only_names(tmp_path: Path) -> None:
    """A member that names a file elsewhere is an unknown key, and that file is not read."""
    (tmp_path / "secret.npy").write_bytes(npy(X))
    with pytest.raises(InputError, match=r"unknown \.\./secret; expected x_train"):
        load(rezip(tmp_path / "..", [*GOOD, ("../secret.npy", npy(Y))]))


class Poison:
    """Its pickle creates a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_an_array_before_the_archive(tmp_path: Path) -> None:
    """Zip tools read an archive from its end, NumPy from its start: one file, two meanings."""
    path = Path(rezip(tmp_path, GOOD))
    path.write_bytes(npy(X) + path.read_bytes())
    with pytest.raises(InputError, match=r"not a whole \.npz file; .*starts with b'\\x93NUMPY'"):
        load(str(path))


def test_no_pickle_is_loaded(tmp_path: Path) -> None:
    poisoned = tmp_path / "poisoned"
    x = np.empty((20, 4, 3), object)
    x[...] = Poison(poisoned)
    with pytest.raises(InputError, match="x_train holds Python objects"):
        load(write(tmp_path, x_train=x))
    assert not poisoned.exists()


@settings(suppress_health_check=ONE_FOLDER)
@given(st.binary(max_size=300), st.sampled_from([b"", b"PK\3\4", b"PK\5\6", b"\x93NUMPY\1\0"]))
def test_random_bytes(tmp_path: Path, content: bytes, start: bytes) -> None:
    path = tmp_path / "mine.npz"
    path.write_bytes(start + content)
    with pytest.raises(InputError):
        load(str(path))


@pytest.fixture(scope="module")
def good_file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return Path(write(tmp_path_factory.mktemp("good"))).read_bytes()


@settings(suppress_health_check=ONE_FOLDER)
@given(st.data())
def test_truncated_file(tmp_path: Path, good_file: bytes, data: st.DataObject) -> None:
    path = tmp_path / "mine.npz"
    path.write_bytes(good_file[: data.draw(st.integers(0, len(good_file) - 1))])
    with pytest.raises(InputError):
        load(str(path))


@settings(max_examples=300, suppress_health_check=ONE_FOLDER)
@given(st.data())
def test_corrupt_file(tmp_path: Path, good_file: bytes, data: st.DataObject) -> None:
    """A changed byte is found, or is one that means nothing (a date): never another exception."""
    content = bytearray(good_file)
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path = tmp_path / "mine.npz"
    path.write_bytes(content)
    try:
        loaded = load(str(path))
    except InputError:
        return
    np.testing.assert_array_equal(loaded.test.x, arrays()["x_test"])
    x = np.concatenate([loaded.train.x, loaded.valid.x])
    np.testing.assert_array_equal(x[x[:, 0, 0].argsort()], arrays()["x_train"])


@settings(max_examples=300, suppress_health_check=ONE_FOLDER)
@given(st.data())
def test_corrupt_array_header(tmp_path: Path, data: st.DataObject) -> None:
    """The same where the checksum does not help, as it was made after the change."""
    content = bytearray(GOOD[0][1])
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, 127))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(InputError):
        load(rezip(tmp_path, [(GOOD[0][0], bytes(content)), *GOOD[1:]]))


# --- a class at each step ---
def by_step(**change: Any) -> dict[str, Any]:
    steps = {"y_train": np.arange(80).reshape(20, 4) % 3, "y_test": np.zeros((5, 4), int)}
    return steps | change


@pytest.mark.parametrize("as_text", [False, True])
def test_a_class_for_each_step(as_text: bool, tmp_path: Path) -> None:
    given = by_step()
    given["y_train"][0] = [-1, 2, -1, 0]
    if as_text:
        names = np.array(["a", "b", "c", ""])  # the last: of -1
        given = {key: names[y] for key, y in given.items()}
    data = load(write(tmp_path, **given), answer="every_step")
    assert data.spec.labels == (("a", "b", "c") if as_text else ("0", "1", "2"))
    assert data.train.y[0].tolist() == [-1, 2, -1, 0]
    assert data.test.y.tolist() == [[0] * 4] * 5


def test_classes_of_steps_end_with_a_sequence(tmp_path: Path) -> None:
    """Whatever the padding holds."""
    given = by_step(lengths_train=np.full(20, 2), lengths_test=np.full(5, 4))
    given["y_train"][:, 2:] = 77
    data = load(write(tmp_path, **given), answer="every_step")
    assert data.spec.labels == ("0", "1", "2")
    assert set(data.train.y[:, 2:].ravel().tolist()) == {-1}
    named = load(write(tmp_path, labels=np.array(["a", "b", "c"]), **given), answer="every_step")
    assert named.spec.labels == ("a", "b", "c")
    np.testing.assert_array_equal(named.train.y, data.train.y)


def test_one_class_an_example_for_an_answer_at_every_step(tmp_path: Path) -> None:
    data = load(write(tmp_path), answer="every_step")
    assert data.spec.every_step
    assert data.train.y.shape == (18,)


@pytest.mark.parametrize(
    ("change", "answer", "message"),
    [
        (
            by_step(),
            "end",
            r"expected shape \(20,\), got \(20, 4\). For .*--answer every_step",
        ),
        (
            by_step(y_train=np.zeros((20, 5), int)),
            "every_step",
            r"y_train does not have .*; expected shape \(20,\), or \(20, 4\), of each.*\(20, 5\)",
        ),
        (
            by_step(y_test=np.zeros(5, int)),
            "every_step",
            r"y_test and y_train label different things; .*got shapes \(5,\) and \(20, 4\)",
        ),
        (
            by_step(labels=np.array(["a", "b"])),
            "every_step",
            r"y_train has a class that does not exist; expected 0, 1, got 2",
        ),
        (by_step(y_test=np.full((5, 4), -1)), "every_step", r"a sequence of test without a label"),
        (by_step(y_train=np.full((20, 4), 3)), "every_step", r"bad number of classes; .*got 1: 3"),
        (by_step(y_train=np.zeros((20, 4))), "every_step", r"bad dtype of y_train"),
    ],
)
def test_bad_classes_of_steps(change: Any, answer: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        load(write(tmp_path, **change), answer=answer)


def test_gaps_are_filled_whatever_names_the_classes(tmp_path: Path) -> None:
    x, y = arrays()["x_train"].copy(), np.array(["odd", "even"] * 10)
    x[0, 1] = np.nan
    path = write(tmp_path, x_train=x, y_train=y, y_test=y[:5])
    assert np.isfinite(load(path, missing="interpolate").train.x).all()
